//! The columns that an Avro record makes, where a source does not declare any.

use arrow::datatypes::Field;

use super::schema::{Kind, Meaning, Record, Type};
use crate::types::{NUMERIC_PRECISION, SqlType};

/// A column for each field of a record.
pub fn columns_of(record: &Record) -> Vec<Field> {
    record
        .fields
        .iter()
        .map(|field| {
            let of = field.of.not_null().map_or(SqlType::Jsonb, sql_type);
            of.field(&field.name, field.of.is_nullable())
        })
        .collect()
}

/// The type of the column that a value of any kind makes; one that is null at times, as what it is else.
pub fn sql_type(of: &Type) -> SqlType {
    match (&of.kind, of.meaning) {
        (_, Meaning::Date) => SqlType::Date,
        (_, Meaning::Time(_)) => SqlType::Time,
        (_, Meaning::Instant(_) | Meaning::ZonedText) => SqlType::Timestamptz,
        (_, Meaning::Local(_)) => SqlType::Timestamp,
        (_, Meaning::Decimal(precision, scale)) => match i8::try_from(scale) {
            Ok(scale) if scale >= 0 => SqlType::Numeric(Some((precision.min(NUMERIC_PRECISION), scale))),
            _ => SqlType::Numeric(None),
        },
        (_, Meaning::VariableScale) => SqlType::Numeric(None),
        (_, Meaning::Uuid) => SqlType::Uuid,
        (_, Meaning::Duration | Meaning::Interval(_) | Meaning::IntervalText) => SqlType::Interval,
        (_, Meaning::Document) => SqlType::Jsonb,
        (Kind::Boolean, _) => SqlType::Bool,
        (Kind::Int, _) => SqlType::Int4,
        (Kind::Long, _) => SqlType::Int8,
        (Kind::Float, _) => SqlType::Float4,
        (Kind::Double, _) => SqlType::Float8,
        (Kind::Bytes | Kind::Fixed(_), _) => SqlType::Bytea,
        (Kind::String | Kind::Enum(_), _) => SqlType::Text,
        (Kind::Array(item), _) => match item.not_null() {
            Some(item) if !matches!(item.kind, Kind::Array(_) | Kind::Map(_) | Kind::Record(_)) => {
                SqlType::Array(Box::new(sql_type(item)))
            }
            _ => SqlType::Jsonb,
        },
        (Kind::Null | Kind::Map(_) | Kind::Record(_) | Kind::Union(_), _) => SqlType::Jsonb,
    }
}

#[cfg(test)]
mod tests {
    use super::super::schema::Schema;
    use super::*;

    #[test]
    fn fields_make_columns() {
        let schema = Schema::parse(
            r#"{"type":"record","name":"R","fields":[
            {"name":"id","type":"long"},
            {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}]},
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"tags","type":{"type":"array","items":["null","string"]}},
            {"name":"more","type":{"type":"map","values":"int"}},
            {"name":"either","type":["int","string"]}]}"#,
            &[],
        )
        .unwrap();
        let fields = columns_of(schema.root_record().unwrap());
        let shown: Vec<String> = fields
            .iter()
            .map(|f| {
                format!("{} {}{}", f.name(), SqlType::of(f), if f.is_nullable() { "" } else { " not null" })
            })
            .collect();
        assert_eq!(
            shown,
            [
                "id bigint not null",
                "price numeric(12,2)",
                "at timestamp with time zone not null",
                "tags text[] not null",
                "more jsonb not null",
                "either jsonb not null"
            ]
        );
    }
}
