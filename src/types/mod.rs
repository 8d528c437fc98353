//! PostgreSQL's types and the Arrow fields that carry them.
//!
//! A column is an Arrow [`Field`]. Where the Arrow type alone does not tell the PostgreSQL type (`uuid`,
//! `jsonb`, `varchar(10)`, `numeric` without precision), the field's metadata [`TYPE_KEY`] holds its SQL name.
//! [`SqlType`] is the type as SQL names it; it goes both ways.

mod builder;
mod datetime;
mod document;
mod input;
mod interval;
pub mod json;
mod numeric;
mod output;
mod parse;
mod zone;

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, IntervalUnit, TimeUnit};
use serde::{Deserialize, Serialize};

pub use builder::TextBuilder;
pub use datetime::{Moment, format_date, format_time, format_timestamp, format_timestamptz};
pub use document::Document;
pub use input::{parse_array_text, parse_bytea, parse_text};
pub use interval::{format_interval, parse_interval};
pub use numeric::{format_decimal, parse_decimal, shortest};
pub use output::{TextFormat, escape_copy_text, write_text, write_text_with};
pub use parse::sql_type_of;
pub use zone::Zone;

use crate::error::{Error, Result, SqlState};

/// Metadata key of a field whose Arrow type does not tell its PostgreSQL type.
pub const TYPE_KEY: &str = "tidemill.type";

/// Precision of a `numeric` without one.
pub const NUMERIC_PRECISION: u8 = 38;
/// Scale of a `numeric` without one.
pub const NUMERIC_SCALE: i8 = 10;

/// A PostgreSQL type.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SqlType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `real`
    Float4,
    /// `double precision`
    Float8,
    /// `numeric`, `numeric(precision,scale)`
    Numeric(Option<(u8, i8)>),
    /// `text`
    Text,
    /// `character varying`, `character varying(n)`
    Varchar(Option<u32>),
    /// `character(n)`
    Char(u32),
    /// `name`: a catalog identifier
    Name,
    /// `"char"`: one byte, used by the system catalogs
    InternalChar,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time without time zone`
    Time,
    /// `timestamp without time zone`
    Timestamp,
    /// `timestamp with time zone`
    Timestamptz,
    /// `interval`
    Interval,
    /// `uuid`
    Uuid,
    /// `json`
    Json,
    /// `jsonb`
    Jsonb,
    /// `oid`
    Oid,
    /// `regclass`
    Regclass,
    /// `regtype`
    Regtype,
    /// `regproc`
    Regproc,
    /// An array of an element type
    Array(Box<SqlType>),
    /// A row of values without a name
    Record,
    /// A value whose type is not known: NULL
    Unknown,
}

impl SqlType {
    /// The type's object id, as in `pg_type.oid`.
    pub fn oid(&self) -> u32 {
        match self {
            SqlType::Bool => 16,
            SqlType::Bytea => 17,
            SqlType::InternalChar => 18,
            SqlType::Name => 19,
            SqlType::Int8 => 20,
            SqlType::Int2 => 21,
            SqlType::Int4 => 23,
            SqlType::Regproc => 24,
            SqlType::Text => 25,
            SqlType::Oid => 26,
            SqlType::Json => 114,
            SqlType::Float4 => 700,
            SqlType::Float8 => 701,
            SqlType::Unknown => 705,
            SqlType::Char(_) => 1042,
            SqlType::Varchar(_) => 1043,
            SqlType::Date => 1082,
            SqlType::Time => 1083,
            SqlType::Timestamp => 1114,
            SqlType::Timestamptz => 1184,
            SqlType::Interval => 1186,
            SqlType::Numeric(_) => 1700,
            SqlType::Regclass => 2205,
            SqlType::Regtype => 2206,
            SqlType::Record => 2249,
            SqlType::Uuid => 2950,
            SqlType::Jsonb => 3802,
            SqlType::Array(element) => element.array_oid(),
        }
    }

    /// The object id of arrays of this type. Arrays of arrays are arrays of the innermost type, as in PostgreSQL.
    pub fn array_oid(&self) -> u32 {
        match self {
            SqlType::Bool => 1000,
            SqlType::Bytea => 1001,
            SqlType::InternalChar => 1002,
            SqlType::Name => 1003,
            SqlType::Int2 => 1005,
            SqlType::Int4 => 1007,
            SqlType::Regproc => 1008,
            SqlType::Text | SqlType::Unknown => 1009,
            SqlType::Char(_) => 1014,
            SqlType::Varchar(_) => 1015,
            SqlType::Int8 => 1016,
            SqlType::Float4 => 1021,
            SqlType::Float8 => 1022,
            SqlType::Oid => 1028,
            SqlType::Timestamp => 1115,
            SqlType::Date => 1182,
            SqlType::Time => 1183,
            SqlType::Timestamptz => 1185,
            SqlType::Interval => 1187,
            SqlType::Numeric(_) => 1231,
            SqlType::Json => 199,
            SqlType::Regclass => 2210,
            SqlType::Regtype => 2211,
            SqlType::Record => 2287,
            SqlType::Uuid => 2951,
            SqlType::Jsonb => 3807,
            SqlType::Array(inner) => inner.array_oid(),
        }
    }

    /// The type with this object id, without its modifiers.
    pub fn from_oid(oid: u32) -> Option<SqlType> {
        const ALL: [SqlType; 27] = [
            SqlType::Bool,
            SqlType::Bytea,
            SqlType::InternalChar,
            SqlType::Name,
            SqlType::Int8,
            SqlType::Int2,
            SqlType::Int4,
            SqlType::Regproc,
            SqlType::Text,
            SqlType::Oid,
            SqlType::Json,
            SqlType::Float4,
            SqlType::Float8,
            SqlType::Unknown,
            SqlType::Char(1),
            SqlType::Varchar(None),
            SqlType::Date,
            SqlType::Time,
            SqlType::Timestamp,
            SqlType::Timestamptz,
            SqlType::Interval,
            SqlType::Numeric(None),
            SqlType::Regclass,
            SqlType::Regtype,
            SqlType::Record,
            SqlType::Uuid,
            SqlType::Jsonb,
        ];
        ALL.iter().find_map(|t| match oid {
            o if o == t.oid() => Some(t.clone()),
            o if o == t.array_oid() => Some(SqlType::Array(Box::new(t.clone()))),
            _ => None,
        })
    }

    /// The type's size in bytes as the wire protocol tells it; negative: of variable size.
    pub fn size(&self) -> i16 {
        match self {
            SqlType::Bool | SqlType::InternalChar => 1,
            SqlType::Int2 => 2,
            SqlType::Int4
            | SqlType::Float4
            | SqlType::Date
            | SqlType::Oid
            | SqlType::Regclass
            | SqlType::Regtype
            | SqlType::Regproc => 4,
            SqlType::Int8 | SqlType::Float8 | SqlType::Time | SqlType::Timestamp | SqlType::Timestamptz => 8,
            SqlType::Interval | SqlType::Uuid => 16,
            SqlType::Name => 64,
            SqlType::Unknown => -2,
            _ => -1,
        }
    }

    /// The type modifier as the wire protocol and `pg_attribute` tell it; -1: none.
    pub fn modifier(&self) -> i32 {
        match self {
            SqlType::Numeric(Some((p, s))) => ((i32::from(*p) << 16) | (i32::from(*s) & 0x7ff)) + 4,
            SqlType::Varchar(Some(n)) | SqlType::Char(n) => i32::try_from(*n).map_or(-1, |n| n + 4),
            SqlType::Array(inner) => inner.modifier(),
            _ => -1,
        }
    }

    /// `pg_type.typname`: `int4`, `_text`.
    pub fn internal_name(&self) -> String {
        let name = match self {
            SqlType::Bool => "bool",
            SqlType::Int2 => "int2",
            SqlType::Int4 => "int4",
            SqlType::Int8 => "int8",
            SqlType::Float4 => "float4",
            SqlType::Float8 => "float8",
            SqlType::Numeric(_) => "numeric",
            SqlType::Text => "text",
            SqlType::Varchar(_) => "varchar",
            SqlType::Char(_) => "bpchar",
            SqlType::Name => "name",
            SqlType::InternalChar => "char",
            SqlType::Bytea => "bytea",
            SqlType::Date => "date",
            SqlType::Time => "time",
            SqlType::Timestamp => "timestamp",
            SqlType::Timestamptz => "timestamptz",
            SqlType::Interval => "interval",
            SqlType::Uuid => "uuid",
            SqlType::Json => "json",
            SqlType::Jsonb => "jsonb",
            SqlType::Oid => "oid",
            SqlType::Regclass => "regclass",
            SqlType::Regtype => "regtype",
            SqlType::Regproc => "regproc",
            SqlType::Record => "record",
            SqlType::Unknown => "unknown",
            SqlType::Array(inner) => {
                let inner = inner.internal_name();
                return if inner.starts_with('_') { inner } else { format!("_{inner}") };
            }
        };
        name.to_string()
    }

    /// The Arrow type that carries it.
    pub fn arrow(&self) -> DataType {
        match self {
            SqlType::Bool => DataType::Boolean,
            SqlType::Int2 => DataType::Int16,
            SqlType::Int4 => DataType::Int32,
            SqlType::Int8 => DataType::Int64,
            SqlType::Float4 => DataType::Float32,
            SqlType::Float8 => DataType::Float64,
            SqlType::Numeric(None) => DataType::Decimal128(NUMERIC_PRECISION, NUMERIC_SCALE),
            SqlType::Numeric(Some((p, s))) => DataType::Decimal128(*p, *s),
            SqlType::Text
            | SqlType::Varchar(_)
            | SqlType::Char(_)
            | SqlType::Name
            | SqlType::InternalChar
            | SqlType::Uuid
            | SqlType::Json
            | SqlType::Jsonb
            | SqlType::Regtype
            | SqlType::Regproc
            | SqlType::Record => DataType::Utf8View,
            SqlType::Bytea => DataType::Binary,
            SqlType::Date => DataType::Date32,
            SqlType::Time => DataType::Time64(TimeUnit::Microsecond),
            SqlType::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, None),
            SqlType::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("+00:00".into())),
            SqlType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
            SqlType::Oid | SqlType::Regclass => DataType::UInt32,
            SqlType::Array(element) => DataType::List(Arc::new(element.field("item", true))),
            SqlType::Unknown => DataType::Null,
        }
    }

    /// A column of this type.
    pub fn field(&self, name: impl Into<String>, nullable: bool) -> Field {
        let field = Field::new(name, self.arrow(), nullable);
        if SqlType::of_arrow(field.data_type()).as_ref() == Some(self) {
            return field;
        }
        field.with_metadata([(TYPE_KEY.to_string(), self.to_string())].into())
    }

    /// [`SqlType::field`], shared.
    pub fn field_ref(&self, name: impl Into<String>, nullable: bool) -> FieldRef {
        Arc::new(self.field(name, nullable))
    }

    /// The type of a column. Arrow types that PostgreSQL does not have are shown as the nearest one.
    pub fn of(field: &Field) -> SqlType {
        if let Some(name) = field.metadata().get(TYPE_KEY)
            && let Ok(named) = name.parse::<SqlType>()
            // A computed column can inherit metadata that its type no longer agrees with.
            && (same_arrow(&named.arrow(), field.data_type()))
        {
            return named;
        }
        match field.data_type() {
            DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
                SqlType::Array(Box::new(SqlType::of(inner)))
            }
            DataType::Dictionary(_, value) => SqlType::of_arrow(value).unwrap_or(SqlType::Text),
            other => SqlType::of_arrow(other).unwrap_or(SqlType::Text),
        }
    }

    fn of_arrow(data_type: &DataType) -> Option<SqlType> {
        Some(match data_type {
            DataType::Boolean => SqlType::Bool,
            DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::Int2,
            DataType::UInt16 | DataType::Int32 => SqlType::Int4,
            // Nothing but object ids is kept in these.
            DataType::UInt32 => SqlType::Oid,
            DataType::Int64 | DataType::UInt64 => SqlType::Int8,
            DataType::Float16 | DataType::Float32 => SqlType::Float4,
            DataType::Float64 => SqlType::Float8,
            DataType::Decimal32(p, s)
            | DataType::Decimal64(p, s)
            | DataType::Decimal128(p, s)
            | DataType::Decimal256(p, s) => SqlType::Numeric(Some((*p, *s))),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_) => SqlType::Bytea,
            DataType::Date32 | DataType::Date64 => SqlType::Date,
            DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
            DataType::Timestamp(_, None) => SqlType::Timestamp,
            DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz,
            DataType::Interval(_) | DataType::Duration(_) => SqlType::Interval,
            DataType::List(inner) | DataType::LargeList(inner) | DataType::FixedSizeList(inner, _) => {
                SqlType::Array(Box::new(SqlType::of(inner)))
            }
            DataType::Struct(_) => SqlType::Record,
            DataType::Null => SqlType::Unknown,
            _ => return None,
        })
    }

    /// Whether its values are numbers.
    pub fn is_numeric(&self) -> bool {
        matches!(
            self,
            SqlType::Int2
                | SqlType::Int4
                | SqlType::Int8
                | SqlType::Float4
                | SqlType::Float8
                | SqlType::Numeric(_)
                | SqlType::Oid
        )
    }

    /// Whether its values are character strings.
    pub fn is_string(&self) -> bool {
        matches!(
            self,
            SqlType::Text
                | SqlType::Varchar(_)
                | SqlType::Char(_)
                | SqlType::Name
                | SqlType::InternalChar
                | SqlType::Unknown
        )
    }

    /// Its name without modifiers: `numeric` of a `numeric(8,2)`.
    pub fn base_name(&self) -> String {
        match self {
            SqlType::Numeric(_) => "numeric".to_string(),
            SqlType::Varchar(_) => "character varying".to_string(),
            SqlType::Char(_) => "character".to_string(),
            other => other.to_string(),
        }
    }

    /// Whether values of both can be the same: numbers, strings, points in time, spans and truths are different kinds;
    /// nothing is said about the other types.
    pub fn comparable_with(&self, other: &SqlType) -> bool {
        let kind = |t: &SqlType| match t {
            SqlType::Oid | SqlType::InternalChar | SqlType::Name | SqlType::Unknown => None,
            t if t.is_numeric() => Some(1),
            t if t.is_string() => Some(2),
            SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz => Some(3),
            SqlType::Bool => Some(4),
            SqlType::Interval => Some(5),
            _ => None,
        };
        match (kind(self), kind(other)) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }

    /// Whether PostgreSQL has an explicit cast to `to`.
    pub fn castable_to(&self, to: &SqlType) -> bool {
        let text = |t: &SqlType| t.is_string() || matches!(t, SqlType::Record);
        let whole = |t: &SqlType| matches!(t, SqlType::Int2 | SqlType::Int4 | SqlType::Int8);
        let object =
            |t: &SqlType| matches!(t, SqlType::Oid | SqlType::Regclass | SqlType::Regtype | SqlType::Regproc);
        let moment = |t: &SqlType| matches!(t, SqlType::Timestamp | SqlType::Timestamptz);
        if text(self) || text(to) || std::mem::discriminant(self) == std::mem::discriminant(to) {
            return match (self, to) {
                (SqlType::Array(a), SqlType::Array(b)) => a.castable_to(b),
                _ => true,
            };
        }
        match (self, to) {
            (SqlType::Bool, SqlType::Int4) | (SqlType::Int4, SqlType::Bool) => true,
            (a, b) if object(a) || object(b) => (object(a) || whole(a)) && (object(b) || whole(b)),
            (a, b) if a.is_numeric() && b.is_numeric() => true,
            (SqlType::Date, b) => moment(b),
            (a, SqlType::Date) => moment(a),
            (a, b) if moment(a) => moment(b) || *b == SqlType::Time,
            (SqlType::Time, SqlType::Interval) | (SqlType::Interval, SqlType::Time) => true,
            (SqlType::Json, SqlType::Jsonb) | (SqlType::Jsonb, SqlType::Json) => true,
            (SqlType::Jsonb, b) => *b == SqlType::Bool || b.is_numeric(),
            _ => false,
        }
    }

    /// Whether a value may be stored in a column of type `to` without an explicit cast (PostgreSQL's assignment casts).
    pub fn assignable_to(&self, to: &SqlType) -> bool {
        if self == to || matches!(self, SqlType::Unknown) || to.is_string() {
            return true;
        }
        match (self, to) {
            (a, b) if a.is_numeric() && b.is_numeric() => true,
            (SqlType::Numeric(_), SqlType::Numeric(_)) => true,
            (SqlType::Date, SqlType::Timestamp | SqlType::Timestamptz)
            | (SqlType::Timestamp, SqlType::Date | SqlType::Time | SqlType::Timestamptz)
            | (SqlType::Timestamptz, SqlType::Date | SqlType::Time | SqlType::Timestamp)
            | (SqlType::Time, SqlType::Interval)
            | (SqlType::Interval, SqlType::Time)
            | (SqlType::Json, SqlType::Jsonb)
            | (SqlType::Jsonb, SqlType::Json) => true,
            (SqlType::Array(a), SqlType::Array(b)) => a.assignable_to(b),
            _ => false,
        }
    }
}

/// Equal but for how strings and lists are laid out.
fn same_arrow(a: &DataType, b: &DataType) -> bool {
    match (a, b) {
        (DataType::List(a), DataType::List(b)) => same_arrow(a.data_type(), b.data_type()),
        (a, b) if is_string(a) && is_string(b) => true,
        (a, b) => a == b,
    }
}

/// Whether an Arrow type holds character strings.
pub fn is_string(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

impl fmt::Display for SqlType {
    /// As `format_type` prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            SqlType::Bool => "boolean",
            SqlType::Int2 => "smallint",
            SqlType::Int4 => "integer",
            SqlType::Int8 => "bigint",
            SqlType::Float4 => "real",
            SqlType::Float8 => "double precision",
            SqlType::Numeric(None) => "numeric",
            SqlType::Numeric(Some((p, s))) => return write!(f, "numeric({p},{s})"),
            SqlType::Text => "text",
            SqlType::Varchar(None) => "character varying",
            SqlType::Varchar(Some(n)) => return write!(f, "character varying({n})"),
            SqlType::Char(n) => return write!(f, "character({n})"),
            SqlType::Name => "name",
            SqlType::InternalChar => "\"char\"",
            SqlType::Bytea => "bytea",
            SqlType::Date => "date",
            SqlType::Time => "time without time zone",
            SqlType::Timestamp => "timestamp without time zone",
            SqlType::Timestamptz => "timestamp with time zone",
            SqlType::Interval => "interval",
            SqlType::Uuid => "uuid",
            SqlType::Json => "json",
            SqlType::Jsonb => "jsonb",
            SqlType::Oid => "oid",
            SqlType::Regclass => "regclass",
            SqlType::Regtype => "regtype",
            SqlType::Regproc => "regproc",
            SqlType::Record => "record",
            SqlType::Unknown => "unknown",
            SqlType::Array(inner) => return write!(f, "{inner}[]"),
        };
        f.write_str(name)
    }
}

impl std::str::FromStr for SqlType {
    type Err = Error;

    /// Reads what [`SqlType`]'s `Display` writes, and everything else that SQL calls a type.
    fn from_str(text: &str) -> Result<Self> {
        parse::parse_type_name(text)
    }
}

/// The error of a value that its type does not understand.
pub(crate) fn invalid_text(what: &str, text: &str) -> Error {
    let state = match what {
        "date"
        | "time"
        | "timestamp"
        | "timestamp with time zone"
        | "time without time zone"
        | "interval"
        | "timestamp without time zone" => SqlState::INVALID_DATETIME_FORMAT,
        _ => SqlState::INVALID_TEXT_REPRESENTATION,
    };
    Error::new(state, format!("invalid input syntax for type {what}: \"{text}\""))
}

/// The error of a number that its type cannot hold.
pub(crate) fn out_of_range(what: &str, text: &str) -> Error {
    Error::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("value \"{text}\" is out of range for type {what}"),
    )
}
