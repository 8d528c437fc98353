//! Which Redshift type holds which column, how it is staged, and how it gets from what is staged into the target.
//!
//! Redshift reads Parquet columns by position into columns of the same kind. What it has no kind for in Parquet is
//! staged as text and converted by the statement that takes it into the target.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Field, SchemaRef, TimeUnit};

use crate::connectors::warehouse::encode::Encoding;
use crate::connectors::warehouse::{batch_of, schema_of};
use crate::error::{Error, Result, SqlState};

/// The longest VARCHAR, in bytes.
const TEXT_BYTES_MAX: usize = 65_535;

/// How what was staged becomes a value of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    /// As it is.
    As,
    /// From JSON text.
    Json,
    /// From hexadecimal digits.
    Hex,
    /// From the text of a time.
    Time,
    /// From the wall clock's time in UTC.
    Utc,
}

/// A column of the target.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, lower case.
    pub name: String,
    /// Its type in DDL.
    pub sql_type: String,
    /// Its type where batches are loaded to.
    pub staged_type: String,
    /// How it is staged.
    pub encoding: Encoding,
    /// From what is staged to the target.
    pub convert: Convert,
    /// Whether it can be NULL.
    pub nullable: bool,
}

impl Column {
    /// The staged value as one of the target, in SQL; `name` is the column as it stands there.
    pub fn converted(&self, name: &str) -> String {
        match self.convert {
            Convert::As => name.to_string(),
            Convert::Json => format!("JSON_PARSE({name})"),
            Convert::Hex => format!("FROM_HEX({name})"),
            Convert::Time => format!("CAST({name} AS TIME)"),
            Convert::Utc => format!("{name} AT TIME ZONE 'UTC'"),
        }
    }
}

/// The columns of a target, in the relation's order.
///
/// # Errors
/// 0A000 for a type that Redshift has nothing for.
pub fn columns(schema: &SchemaRef) -> Result<Vec<Column>> {
    schema.fields().iter().map(|f| column(f)).collect()
}

fn column(field: &Field) -> Result<Column> {
    let text = format!("VARCHAR({TEXT_BYTES_MAX})");
    let same =
        |t: &str, data_type: DataType| (t.to_string(), t.to_string(), Encoding::Cast(data_type), Convert::As);
    let json = field.metadata().get("tidemill.type").is_some_and(|t| t == "jsonb" || t == "json");
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    let (sql_type, staged_type, encoding, convert) = match field.data_type() {
        DataType::Boolean => same("BOOLEAN", DataType::Boolean),
        DataType::Int8 | DataType::Int16 => same("SMALLINT", DataType::Int16),
        DataType::Int32 | DataType::UInt16 => same("INTEGER", DataType::Int32),
        DataType::Int64 | DataType::UInt32 => same("BIGINT", DataType::Int64),
        DataType::UInt64 => same("NUMERIC(20,0)", DataType::Decimal128(20, 0)),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => {
            let scale = (*s).clamp(0, 37);
            let precision = (i16::from(*p) + i16::from(scale) - i16::from(*s))
                .clamp(1, i16::from(DECIMAL128_MAX_PRECISION)) as u8;
            let precision = precision.max(scale as u8);
            same(&format!("NUMERIC({precision},{scale})"), DataType::Decimal128(precision, scale))
        }
        DataType::Float16 | DataType::Float32 => same("REAL", DataType::Float32),
        DataType::Float64 => same("DOUBLE PRECISION", DataType::Float64),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null if json => {
            ("SUPER".to_string(), text, Encoding::Cast(DataType::Utf8), Convert::Json)
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            same(&text, DataType::Utf8)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ("VARBYTE".to_string(), text, Encoding::Cast(DataType::Binary), Convert::Hex)
        }
        DataType::Date32 | DataType::Date64 => same("DATE", DataType::Date32),
        DataType::Time32(_) | DataType::Time64(_) => {
            ("TIME".to_string(), text, Encoding::Cast(DataType::Utf8), Convert::Time)
        }
        DataType::Timestamp(_, None) => same("TIMESTAMP", micros),
        DataType::Timestamp(_, Some(_)) => {
            ("TIMESTAMPTZ".to_string(), "TIMESTAMP".to_string(), Encoding::Cast(micros), Convert::Utc)
        }
        DataType::Interval(_) => (text.clone(), text, Encoding::IntervalText, Convert::As),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) => {
            ("SUPER".to_string(), text, Encoding::Json, Convert::Json)
        }
        other => {
            return Err(Error::unsupported(format!(
                "column \"{}\" of type {other} in Redshift",
                field.name()
            )));
        }
    };
    let name = field.name().to_lowercase();
    Ok(Column { name, sql_type, staged_type, encoding, convert, nullable: field.is_nullable() })
}

/// Rows as they are staged.
///
/// # Errors
/// 22001, 22003 or 22008 for a value that the column's type cannot hold, with the column's name.
pub fn encode(columns: &[Column], rows: &RecordBatch) -> Result<RecordBatch> {
    let mut encoded: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    let mut fields = Vec::with_capacity(columns.len());
    for (column, values) in columns.iter().zip(rows.columns()) {
        let values = staged(column, values).map_err(|e| {
            let sqlstate = match e.sqlstate {
                SqlState::INVALID_TEXT_REPRESENTATION | SqlState::DATA_EXCEPTION => {
                    SqlState::NUMERIC_VALUE_OUT_OF_RANGE
                }
                other => other,
            };
            let message = format!("column {} of type {} cannot hold a value", column.name, column.sql_type);
            Error::new(sqlstate, message).with_detail(e.message)
        })?;
        fields.push(Field::new(&column.name, values.data_type().clone(), true));
        encoded.push(values);
    }
    batch_of(schema_of(fields), encoded, rows.num_rows())
}

fn staged(column: &Column, values: &ArrayRef) -> Result<ArrayRef> {
    let values = column.encoding.apply(values)?;
    let values: ArrayRef = match column.convert {
        Convert::Hex => {
            let bytes = values.as_binary::<i32>();
            std::sync::Arc::new(bytes.iter().map(|v| v.map(hex::encode)).collect::<StringArray>())
        }
        _ => values,
    };
    match values.data_type() {
        DataType::Utf8 => {
            let longest = values.as_string::<i32>().iter().flatten().map(str::len).max().unwrap_or(0);
            if longest > TEXT_BYTES_MAX {
                let message = format!("{longest} bytes are more than {TEXT_BYTES_MAX}");
                return Err(Error::new(SqlState("22001"), message));
            }
        }
        DataType::Decimal128(precision, _) => {
            values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
        }
        _ => {}
    }
    Ok(values)
}

/// Why an existing column cannot take this one; `None`: it can. `existing` is as `information_schema` says it, with
/// its size: `character varying(256)`, `numeric(12,2)`.
pub fn misfit(column: &Column, existing: &str) -> Option<String> {
    let ((wanted, wanted_size), (got, got_size)) = (family(&column.sql_type), family(existing));
    let numbers =
        |size: &str| -> Vec<i64> { size.split(',').filter_map(|n| n.trim().parse().ok()).collect() };
    let whole = ["smallint", "integer", "bigint"];
    let rank = |name: &str| whole.iter().position(|w| *w == name);
    let fits = match (wanted.as_str(), got.as_str()) {
        ("numeric", "numeric") => match (&numbers(wanted_size)[..], &numbers(got_size)[..]) {
            ([wp, ws], [gp, gs]) => gs >= ws && gp - gs >= wp - ws,
            (_, []) => true,
            _ => false,
        },
        // A shorter VARCHAR is the user's choice: a value that is too long fails, nothing is cut.
        ("varchar", "varchar") | ("real", "double precision") => true,
        (wanted, got) => match (rank(wanted), rank(got)) {
            (Some(wanted), Some(got)) => got >= wanted,
            _ => wanted == got,
        },
    };
    (!fits).then(|| format!("{} is {existing}, but {} is needed", column.name, column.sql_type))
}

/// A type's name without its aliases, and its size.
fn family(sql_type: &str) -> (String, &str) {
    let (name, size) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    let name = name.trim().to_lowercase();
    let family = match name.as_str() {
        "character varying" | "text" | "varchar" => "varchar",
        "timestamp without time zone" => "timestamp",
        "timestamp with time zone" => "timestamptz",
        "time without time zone" => "time",
        "decimal" => "numeric",
        "binary varying" => "varbyte",
        other => other,
    };
    (family.to_string(), size.trim_end_matches(')'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, StringArray, Time64MicrosecondArray};

    use super::*;

    fn one(data_type: DataType) -> Column {
        column(&Field::new("C", data_type, true)).unwrap()
    }

    #[test]
    fn every_type_has_its_column_and_its_way_there() {
        for (data_type, sql_type, converted) in [
            (DataType::Int16, "SMALLINT", "x"),
            (DataType::Decimal128(38, 10), "NUMERIC(38,10)", "x"),
            (DataType::Utf8View, "VARCHAR(65535)", "x"),
            (DataType::Binary, "VARBYTE", "FROM_HEX(x)"),
            (DataType::Time64(TimeUnit::Microsecond), "TIME", "CAST(x AS TIME)"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "TIMESTAMP", "x"),
            (
                DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
                "TIMESTAMPTZ",
                "x AT TIME ZONE 'UTC'",
            ),
            (DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), "SUPER", "JSON_PARSE(x)"),
        ] {
            let column = one(data_type);
            assert_eq!((column.sql_type.as_str(), column.converted("x").as_str()), (sql_type, converted));
        }
        let duration = Field::new("c", DataType::Duration(TimeUnit::Second), true);
        assert_eq!(column(&duration).unwrap_err().sqlstate, SqlState::FEATURE_NOT_SUPPORTED);
    }

    #[test]
    fn values_are_staged_as_text_where_parquet_has_nothing_and_not_cut() {
        let bytes: ArrayRef = Arc::new(BinaryArray::from_opt_vec(vec![Some(&[0, 255][..]), None]));
        let staged_bytes = staged(&one(DataType::Binary), &bytes).unwrap();
        assert_eq!(staged_bytes.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("00ff"), None]);
        let times: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![45_296_789_012]));
        let staged_times = staged(&one(DataType::Time64(TimeUnit::Microsecond)), &times).unwrap();
        assert_eq!(staged_times.as_string::<i32>().value(0), "12:34:56.789012");
        let long: ArrayRef = Arc::new(StringArray::from(vec!["ä".repeat(40_000)]));
        assert_eq!(staged(&one(DataType::Utf8), &long).unwrap_err().sqlstate, SqlState("22001"));
    }

    #[test]
    fn existing_columns() {
        let fits = |data_type, existing| misfit(&one(data_type), existing).is_none();
        assert!(fits(DataType::Int32, "bigint"));
        assert!(!fits(DataType::Int64, "integer"));
        assert!(fits(DataType::Decimal128(12, 2), "numeric(38,2)"));
        assert!(!fits(DataType::Decimal128(12, 2), "numeric(12,1)"));
        assert!(fits(DataType::Utf8, "character varying(256)"));
        assert!(!fits(DataType::Utf8, "bigint"));
        assert!(fits(DataType::Timestamp(TimeUnit::Microsecond, None), "timestamp without time zone"));
    }
}
