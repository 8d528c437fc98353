//! From what SQL calls a type to [`SqlType`].

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, CharacterLength, DataType as Ast, ExactNumberInfo, TimezoneInfo,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;

use super::SqlType;
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, fold_str};

/// Reads a type's name: `numeric(12,2)`, `timestamp with time zone`, `int4[]`, `_text`.
pub(super) fn parse_type_name(text: &str) -> Result<SqlType> {
    if text == "\"char\"" {
        return Ok(SqlType::InternalChar);
    }
    let undefined = || Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{text}\" does not exist"));
    let dialect = PostgreSqlDialect {};
    let mut parser = Parser::new(&dialect).try_with_sql(text).map_err(|_| undefined())?;
    let parsed = parser.parse_data_type().map_err(|_| undefined())?;
    match parser.peek_token_ref().token {
        datafusion::sql::sqlparser::tokenizer::Token::EOF => sql_type_of(&parsed),
        _ => Err(undefined()),
    }
}

/// The type that a parsed type means.
///
/// # Errors
/// 42704 when there is no such type, 22023 for a modifier out of range, 0A000 for a type that is not built.
pub fn sql_type_of(parsed: &Ast) -> Result<SqlType> {
    Ok(match parsed {
        Ast::Boolean | Ast::Bool => SqlType::Bool,
        Ast::SmallInt(None) | Ast::Int2(None) => SqlType::Int2,
        Ast::Int(None) | Ast::Integer(None) | Ast::Int4(None) => SqlType::Int4,
        Ast::BigInt(None) | Ast::Int8(None) => SqlType::Int8,
        Ast::Real | Ast::Float4 => SqlType::Float4,
        Ast::Double(ExactNumberInfo::None) | Ast::DoublePrecision | Ast::Float8 => SqlType::Float8,
        Ast::Float(ExactNumberInfo::None) => SqlType::Float8,
        Ast::Float(ExactNumberInfo::Precision(p)) => match p {
            1..=24 => SqlType::Float4,
            25..=53 => SqlType::Float8,
            _ => return Err(modifier("precision for type float must be at least 1 and at most 53 bits")),
        },
        Ast::Numeric(info) | Ast::Decimal(info) | Ast::Dec(info) => numeric(info)?,
        // STRING is what most other databases call it.
        Ast::Text | Ast::String(None) => SqlType::Text,
        Ast::Varchar(n) | Ast::CharacterVarying(n) | Ast::CharVarying(n) => {
            SqlType::Varchar(length(n.as_ref(), "varchar")?)
        }
        Ast::Char(n) | Ast::Character(n) => SqlType::Char(length(n.as_ref(), "char")?.unwrap_or(1)),
        Ast::Bytea => SqlType::Bytea,
        Ast::Date => SqlType::Date,
        Ast::Time(p, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            micros_only(*p, "time")?;
            SqlType::Time
        }
        Ast::Time(..) => return Err(Error::unsupported("type time with time zone")),
        Ast::Timestamp(p, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            micros_only(*p, "timestamp")?;
            SqlType::Timestamp
        }
        Ast::Timestamp(p, _) => {
            micros_only(*p, "timestamptz")?;
            SqlType::Timestamptz
        }
        Ast::Interval { fields: None, precision: None } => SqlType::Interval,
        Ast::Interval { .. } => return Err(Error::unsupported("type interval with fields or precision")),
        Ast::Uuid => SqlType::Uuid,
        Ast::JSON => SqlType::Json,
        Ast::JSONB => SqlType::Jsonb,
        Ast::Regclass => SqlType::Regclass,
        Ast::Array(
            ArrayElemTypeDef::SquareBracket(inner, _)
            | ArrayElemTypeDef::AngleBracket(inner)
            | ArrayElemTypeDef::Parenthesis(inner),
        ) => SqlType::Array(Box::new(sql_type_of(inner)?)),
        Ast::Custom(name, modifiers) => return custom(&Name::from_object_name(name)?, modifiers),
        Ast::Bit(_) | Ast::BitVarying(_) | Ast::VarBit(_) => return Err(Error::unsupported("type bit")),
        Ast::GeometricType(kind) => return Err(Error::unsupported(format!("type {kind}"))),
        Ast::TsVector => return Err(Error::unsupported("type tsvector")),
        Ast::TsQuery => return Err(Error::unsupported("type tsquery")),
        other => return Err(undefined(&fold_str(&other.to_string()))),
    })
}

fn custom(name: &Name, modifiers: &[String]) -> Result<SqlType> {
    if !matches!(name.schema.as_deref(), None | Some("pg_catalog")) {
        return Err(undefined(&name.to_string()));
    }
    if let Some(element) = name.name.strip_prefix('_') {
        return Ok(SqlType::Array(Box::new(super::parse::parse_type_name(element)?)));
    }
    let simple = match name.name.as_str() {
        "bpchar" => match modifiers.first() {
            Some(n) => SqlType::Char(n.parse().map_err(|_| modifier("invalid length for type char"))?),
            None => SqlType::Text,
        },
        "name" => SqlType::Name,
        "oid" => SqlType::Oid,
        "regtype" => SqlType::Regtype,
        "regproc" => SqlType::Regproc,
        "regclass" => SqlType::Regclass,
        "string" => SqlType::Text,
        "bool" => SqlType::Bool,
        "int2" => SqlType::Int2,
        "int4" => SqlType::Int4,
        "int8" => SqlType::Int8,
        "float4" => SqlType::Float4,
        "float8" => SqlType::Float8,
        "numeric" => SqlType::Numeric(None),
        "text" => SqlType::Text,
        "varchar" => SqlType::Varchar(None),
        "bytea" => SqlType::Bytea,
        "date" => SqlType::Date,
        "time" => SqlType::Time,
        "timestamp" => SqlType::Timestamp,
        "timestamptz" => SqlType::Timestamptz,
        "interval" => SqlType::Interval,
        "uuid" => SqlType::Uuid,
        "json" => SqlType::Json,
        "jsonb" => SqlType::Jsonb,
        "record" => SqlType::Record,
        "unknown" => SqlType::Unknown,
        "char" => SqlType::InternalChar,
        "money" | "xml" | "inet" | "cidr" | "macaddr" | "hstore" | "citext" | "point" | "tsvector"
        | "int4range" | "int8range" | "numrange" | "tsrange" | "tstzrange" | "daterange" | "timetz" => {
            return Err(Error::unsupported(format!("type {}", name.name)));
        }
        _ => return Err(undefined(&name.name)),
    };
    Ok(simple)
}

fn undefined(name: &str) -> Error {
    Error::new(SqlState::UNDEFINED_OBJECT, format!("type \"{name}\" does not exist"))
}

fn modifier(message: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// Values hold microseconds; a coarser precision would have to be rounded to.
fn micros_only(precision: Option<u64>, of: &str) -> Result<()> {
    match precision {
        None | Some(6) => Ok(()),
        Some(p) => Err(Error::unsupported(format!("type {of}({p})"))),
    }
}

fn numeric(info: &ExactNumberInfo) -> Result<SqlType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => return Ok(SqlType::Numeric(None)),
        ExactNumberInfo::Precision(p) => (p, 0),
        ExactNumberInfo::PrecisionAndScale(p, s) => (p, s),
    };
    if !(1..=1000).contains(&precision) {
        return Err(modifier(&format!("NUMERIC precision {precision} must be between 1 and 1000")));
    }
    if precision > 38 {
        return Err(Error::unsupported(format!("numeric precision {precision}, above 38,")));
    }
    let precision = precision as u8;
    if scale < 0 || scale > i64::from(precision) {
        return Err(Error::unsupported(format!("numeric scale {scale} outside of 0 to {precision}")));
    }
    Ok(SqlType::Numeric(Some((precision, scale as i8))))
}

fn length(length: Option<&CharacterLength>, of: &str) -> Result<Option<u32>> {
    match length {
        None => Ok(None),
        Some(CharacterLength::IntegerLength { length, .. }) if (1..=10_485_760).contains(length) => {
            Ok(Some(*length as u32))
        }
        Some(CharacterLength::IntegerLength { length: 0, .. }) => {
            Err(modifier(&format!("length for type {of} must be at least 1")))
        }
        Some(_) => Err(modifier(&format!("length for type {of} cannot exceed 10485760"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for name in [
            "boolean",
            "smallint",
            "integer",
            "bigint",
            "real",
            "double precision",
            "numeric",
            "numeric(12,2)",
            "text",
            "character varying",
            "character varying(10)",
            "character(3)",
            "name",
            "\"char\"",
            "bytea",
            "date",
            "time without time zone",
            "timestamp without time zone",
            "timestamp with time zone",
            "interval",
            "uuid",
            "json",
            "jsonb",
            "oid",
            "regclass",
            "integer[]",
            "numeric(12,2)[]",
        ] {
            let parsed: SqlType = name.parse().unwrap();
            assert_eq!(parsed.to_string(), name);
            let field = parsed.field("c", true);
            assert_eq!(SqlType::of(&field), parsed, "{name} through its field");
            let by_oid = SqlType::from_oid(parsed.oid()).unwrap();
            assert_eq!(by_oid.oid(), parsed.oid());
        }
        assert_eq!("_int4".parse::<SqlType>().unwrap().to_string(), "integer[]");
        assert_eq!("timestamptz".parse::<SqlType>().unwrap(), SqlType::Timestamptz);
        assert_eq!("decimal(5)".parse::<SqlType>().unwrap().to_string(), "numeric(5,0)");
    }

    #[test]
    fn unknown_and_unbuilt_types_are_refused() {
        let state = |name: &str| name.parse::<SqlType>().unwrap_err().sqlstate.0;
        assert_eq!(state("foo"), "42704");
        assert_eq!(state("tinyint"), "42704");
        assert_eq!(state("money"), "0A000");
        assert_eq!(state("timestamp(3)"), "0A000");
        assert_eq!(state("numeric(50,2)"), "0A000");
        assert_eq!(state("numeric(0)"), "22023");
        assert_eq!(state("varchar(0)"), "22023");
        assert_eq!(state("int; drop"), "42704");
    }
}
