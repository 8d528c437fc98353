//! Which Snowflake type holds which column, how it is staged, and whether an existing column will do.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Date32Type, Decimal128Type, Field, SchemaRef, TimeUnit,
    TimestampMicrosecondType,
};

use super::wire::Rows;
use crate::connectors::warehouse::encode::Encoding;
use crate::connectors::warehouse::{self, batch_of, schema_of};
use crate::error::{Error, Result, SqlState};

/// Days since 1970 of the first and the last day that Snowflake knows: years 1 to 9999.
const DAYS: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;
const DAY_MICROS: i64 = 86_400_000_000;

/// A column of the target.
#[derive(Clone, Debug)]
pub struct Column {
    /// Its name, upper case.
    pub name: String,
    /// Its type in DDL.
    pub sql_type: String,
    /// How it is staged.
    pub encoding: Encoding,
    /// Whether it can be NULL.
    pub nullable: bool,
    /// Whether it is staged as JSON text and parsed on the way into the target.
    pub variant: bool,
}

impl Column {
    /// Its type where batches are loaded to: Parquet has no VARIANT.
    pub fn staged_type(&self) -> &str {
        if self.variant { "VARCHAR" } else { &self.sql_type }
    }
}

/// The columns of a target, in the relation's order.
pub fn columns(schema: &SchemaRef) -> Result<Vec<Column>> {
    schema.fields().iter().map(|f| column(f)).collect()
}

fn column(field: &Field) -> Result<Column> {
    let keep = |t: DataType| Encoding::Cast(t);
    let json = field.metadata().get("tidemill.type").is_some_and(|t| t == "jsonb" || t == "json");
    let (sql_type, encoding) = match field.data_type() {
        DataType::Boolean => ("BOOLEAN".to_string(), keep(DataType::Boolean)),
        DataType::Int8 => ("NUMBER(3,0)".to_string(), keep(DataType::Int32)),
        DataType::Int16 => ("NUMBER(5,0)".to_string(), keep(DataType::Int32)),
        DataType::Int32 => ("NUMBER(10,0)".to_string(), keep(DataType::Int32)),
        DataType::Int64 => ("NUMBER(19,0)".to_string(), keep(DataType::Int64)),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            ("NUMBER(10,0)".to_string(), keep(DataType::Int64))
        }
        DataType::UInt64 => ("NUMBER(20,0)".to_string(), keep(DataType::Decimal128(20, 0))),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => number(*p, *s),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            ("FLOAT".to_string(), keep(DataType::Float64))
        }
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => {
            (if json { "VARIANT" } else { "VARCHAR" }.to_string(), keep(DataType::Utf8))
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            ("BINARY".to_string(), keep(DataType::Binary))
        }
        DataType::Date32 | DataType::Date64 => ("DATE".to_string(), keep(DataType::Date32)),
        DataType::Time32(_) | DataType::Time64(_) => {
            ("TIME(6)".to_string(), keep(DataType::Time64(TimeUnit::Microsecond)))
        }
        DataType::Timestamp(_, None) => {
            ("TIMESTAMP_NTZ(6)".to_string(), keep(DataType::Timestamp(TimeUnit::Microsecond, None)))
        }
        DataType::Timestamp(_, Some(_)) => {
            let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
            ("TIMESTAMP_LTZ(6)".to_string(), keep(utc))
        }
        DataType::Interval(_) => ("VARCHAR".to_string(), Encoding::IntervalText),
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Struct(_) => {
            ("VARIANT".to_string(), Encoding::Json)
        }
        other => {
            return Err(Error::unsupported(format!(
                "column \"{}\" of type {other} in Snowflake",
                field.name()
            )));
        }
    };
    let variant = sql_type == "VARIANT";
    Ok(Column {
        name: field.name().to_uppercase(),
        sql_type,
        encoding,
        nullable: field.is_nullable(),
        variant,
    })
}

/// NUMBER has at most 38 digits, none of them negative places; what is declared wider must still fit, value by value.
fn number(precision: u8, scale: i8) -> (String, Encoding) {
    let scale_kept = scale.clamp(0, 37);
    let widened = i16::from(precision) + i16::from(scale_kept) - i16::from(scale);
    let precision = widened.clamp(1, i16::from(DECIMAL128_MAX_PRECISION)) as u8;
    let precision = precision.max(scale_kept as u8);
    (format!("NUMBER({precision},{scale_kept})"), Encoding::Cast(DataType::Decimal128(precision, scale_kept)))
}

/// Rows as they are staged.
///
/// # Errors
/// 22003 or 22008 for a value that the column's type cannot hold, with the column's name.
pub fn encode(columns: &[Column], rows: &RecordBatch) -> Result<RecordBatch> {
    let mut encoded: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    for (column, values) in columns.iter().zip(rows.columns()) {
        let values =
            column.encoding.apply(values).and_then(|v| check(column, &v).map(|()| v)).map_err(|e| {
                let sqlstate = match e.sqlstate {
                    SqlState::INVALID_TEXT_REPRESENTATION | SqlState::DATA_EXCEPTION => {
                        SqlState::NUMERIC_VALUE_OUT_OF_RANGE
                    }
                    other => other,
                };
                let message =
                    format!("column {} of type {} cannot hold a value", column.name, column.sql_type);
                Error::new(sqlstate, message).with_detail(e.message)
            })?;
        encoded.push(values);
    }
    let fields = columns.iter().map(|c| Field::new(&c.name, c.encoding.data_type(), true)).collect();
    batch_of(schema_of(fields), encoded, rows.num_rows())
}

/// What a cast of the same type does not look at.
fn check(column: &Column, values: &ArrayRef) -> Result<()> {
    match values.data_type() {
        DataType::Decimal128(precision, _) => {
            values.as_primitive::<Decimal128Type>().validate_decimal_precision(*precision)?;
        }
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            in_years(column, days.iter().flatten().all(|day| DAYS.contains(&day)))?;
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let instants = values.as_primitive::<TimestampMicrosecondType>();
            let days = instants.iter().flatten().map(|micros| micros.div_euclid(DAY_MICROS));
            let known = i64::from(*DAYS.start())..=i64::from(*DAYS.end());
            in_years(column, days.into_iter().all(|day| known.contains(&day)))?;
        }
        _ => {}
    }
    Ok(())
}

fn in_years(column: &Column, all: bool) -> Result<()> {
    if all {
        return Ok(());
    }
    Err(Error::new(SqlState("22008"), format!("{} has a value outside of the years 1 to 9999", column.name)))
}

/// Why an existing column cannot take this one; `None`: it can.
pub fn misfit(column: &Column, existing: &str) -> Option<String> {
    let (wanted, wanted_size) = family(&column.sql_type);
    let (got, got_size) = family(existing);
    let fits = match (wanted, got) {
        ("NUMBER", "NUMBER") => {
            let ((wp, ws), (gp, gs)) = (digits(wanted_size), digits(got_size));
            gs >= ws && gp - gs >= wp - ws
        }
        ("NUMBER", "FLOAT") => false,
        ("TIMESTAMP_LTZ", "TIMESTAMP_TZ") => true,
        ("VARIANT", "ARRAY" | "OBJECT") => true,
        (wanted, got) => wanted == got,
    };
    (!fits).then(|| format!("{} is {existing}, but {} is needed", column.name, column.sql_type))
}

/// Whether a table that is there can take these columns, and `own` ones of the sink. `described`: what DESCRIBE says of it.
///
/// # Errors
/// 42804 with every column that is missing, has another type, or would have to be filled by somebody else.
pub fn check_target(target: &str, columns: &[Column], own: &[&str], described: &Rows) -> Result<()> {
    let place = |name: &str| (0..described.len()).find(|&i| described.get(i, "name") == Some(name));
    let mut problems = Vec::new();
    for column in columns {
        match place(&column.name) {
            None => problems.push(format!("{} is missing", column.name)),
            Some(i) => problems.extend(misfit(column, described.get(i, "type").unwrap_or_default())),
        }
    }
    problems.extend(
        own.iter()
            .filter(|name| place(name).is_none())
            .map(|name| format!("{name} is missing, which tells equal rows of a sink without KEY apart")),
    );
    for i in 0..described.len() {
        let name = described.get(i, "name").unwrap_or_default();
        let known = own.contains(&name) || columns.iter().any(|c| c.name == name);
        if !known && described.get(i, "null?") == Some("N") && described.get(i, "default").is_none() {
            problems.push(format!("{name} is NOT NULL without a default, and the sink has no values for it"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(warehouse::misfit(target, &problems))
}

fn digits(size: &str) -> (i64, i64) {
    let mut parts = size.split(',').map(|p| p.trim().parse::<i64>().ok());
    (parts.next().flatten().unwrap_or(38), parts.next().flatten().unwrap_or(0))
}

/// A type's name without its aliases, and its size.
fn family(sql_type: &str) -> (&'static str, &str) {
    let (name, size) = sql_type.split_once('(').unwrap_or((sql_type, ""));
    let family = match name.trim().to_uppercase().as_str() {
        "NUMBER" | "DECIMAL" | "NUMERIC" | "INT" | "INTEGER" | "BIGINT" | "SMALLINT" | "TINYINT"
        | "BYTEINT" => "NUMBER",
        "FLOAT" | "FLOAT4" | "FLOAT8" | "DOUBLE" | "DOUBLE PRECISION" | "REAL" => "FLOAT",
        "VARCHAR" | "TEXT" | "STRING" | "CHAR" | "CHARACTER" => "VARCHAR",
        "BINARY" | "VARBINARY" => "BINARY",
        "BOOLEAN" => "BOOLEAN",
        "DATE" => "DATE",
        "TIME" => "TIME",
        "TIMESTAMP_NTZ" | "DATETIME" => "TIMESTAMP_NTZ",
        "TIMESTAMP_LTZ" => "TIMESTAMP_LTZ",
        "TIMESTAMP_TZ" => "TIMESTAMP_TZ",
        "VARIANT" => "VARIANT",
        "ARRAY" => "ARRAY",
        "OBJECT" => "OBJECT",
        _ => "unknown",
    };
    (family, size.trim_end_matches(')'))
}

/// A schema of these fields, for tests of statements.
#[cfg(test)]
pub(super) fn test_schema() -> SchemaRef {
    use std::collections::HashMap;
    use std::sync::Arc;

    let tagged = |name: &str, tag: &str| {
        Field::new(name, DataType::Utf8View, true)
            .with_metadata(HashMap::from([("tidemill.type".to_string(), tag.to_string())]))
    };
    schema_of(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("amount", DataType::Decimal128(12, 2), true),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())), true),
        tagged("doc", "jsonb"),
        tagged("ref", "uuid"),
        Field::new("tags", DataType::List(Arc::new(Field::new("item", DataType::Utf8View, true))), true),
    ])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::{Date32Array, Decimal128Array, Decimal256Array};
    use arrow::datatypes::i256;

    #[test]
    fn every_type_has_its_column() {
        let types: Vec<(String, bool)> =
            columns(&test_schema()).unwrap().into_iter().map(|c| (c.sql_type, c.variant)).collect();
        let expected = [
            ("NUMBER(19,0)", false),
            ("NUMBER(12,2)", false),
            ("TIMESTAMP_LTZ(6)", false),
            ("VARIANT", true),
            ("VARCHAR", false),
            ("VARIANT", true),
        ];
        assert_eq!(types.iter().map(|(t, v)| (t.as_str(), *v)).collect::<Vec<_>>(), expected);
        for (data_type, sql_type) in [
            (DataType::Int16, "NUMBER(5,0)"),
            (DataType::Int32, "NUMBER(10,0)"),
            (DataType::Decimal128(38, 10), "NUMBER(38,10)"),
            (DataType::Decimal256(60, 4), "NUMBER(38,4)"),
            (DataType::Decimal128(5, -2), "NUMBER(7,0)"),
            (DataType::Float32, "FLOAT"),
            (DataType::Binary, "BINARY"),
            (DataType::Date32, "DATE"),
            (DataType::Time64(TimeUnit::Microsecond), "TIME(6)"),
            (DataType::Timestamp(TimeUnit::Microsecond, None), "TIMESTAMP_NTZ(6)"),
            (DataType::Boolean, "BOOLEAN"),
        ] {
            assert_eq!(column(&Field::new("c", data_type, true)).unwrap().sql_type, sql_type);
        }
        let duration = Field::new("c", DataType::Duration(TimeUnit::Second), true);
        assert_eq!(column(&duration).unwrap_err().sqlstate, SqlState::FEATURE_NOT_SUPPORTED);
    }

    fn encoded(values: ArrayRef) -> Result<RecordBatch> {
        let schema = schema_of(vec![Field::new("c", values.data_type().clone(), true)]);
        encode(&columns(&schema)?, &batch_of(schema, vec![values.clone()], values.len())?)
    }

    #[test]
    fn values_that_do_not_fit_are_refused_before_anything_is_sent() {
        let wide =
            |v: i256| Arc::new(Decimal256Array::from(vec![v]).with_precision_and_scale(60, 0).unwrap());
        assert!(encoded(wide(i256::from_i128(10_i128.pow(37)))).is_ok());
        let e = encoded(wide(i256::from_i128(i128::MAX).wrapping_mul(i256::from_i128(100)))).unwrap_err();
        assert_eq!(e.sqlstate, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);

        let loose = Decimal128Array::from(vec![123_456]).with_precision_and_scale(38, 2).unwrap();
        let narrow = loose.into_data().into_builder().data_type(DataType::Decimal128(4, 2)).build().unwrap();
        let e = encoded(Arc::new(Decimal128Array::from(narrow))).unwrap_err();
        assert_eq!(e.sqlstate, SqlState::NUMERIC_VALUE_OUT_OF_RANGE);

        assert!(encoded(Arc::new(Date32Array::from(vec![*DAYS.start(), *DAYS.end()]))).is_ok());
        let e = encoded(Arc::new(Date32Array::from(vec![DAYS.end() + 1]))).unwrap_err();
        assert_eq!(e.sqlstate, SqlState("22008"));
    }

    #[test]
    fn existing_columns() {
        let all = columns(&test_schema()).unwrap();
        assert_eq!(misfit(&all[0], "NUMBER(38,0)"), None);
        assert_eq!(misfit(&all[1], "NUMBER(38,2)"), None);
        assert_eq!(misfit(&all[2], "TIMESTAMP_TZ(9)"), None);
        assert_eq!(misfit(&all[4], "VARCHAR(16777216)"), None);
        for (column, existing) in [
            (0, "NUMBER(18,0)"),
            (0, "VARCHAR(5)"),
            (1, "NUMBER(12,1)"),
            (1, "FLOAT"),
            (2, "TIMESTAMP_NTZ(9)"),
            (3, "VARCHAR(10)"),
        ] {
            assert!(misfit(&all[column], existing).unwrap().contains(existing));
        }
    }
}
