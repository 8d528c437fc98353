//! Avro schemas: from their JSON to a tree of types in which every name is resolved and every logical type is known.
//!
//! Records stand in a table and are named by their place in it, so that a record may hold itself.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::error::{Error, Result, SqlState};

/// A schema, whole.
#[derive(Clone, Debug)]
pub struct Schema {
    /// What a datum is.
    pub root: Type,
    /// Every record that is named anywhere in it.
    pub records: Vec<Record>,
}

/// A type, and what its values mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Type {
    /// How it is written.
    pub kind: Kind,
    /// What it is.
    pub meaning: Meaning,
}

/// How a value is written.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// Nothing at all.
    Null,
    /// One byte.
    Boolean,
    /// A variable-length integer of 32 bits.
    Int,
    /// A variable-length integer of 64 bits.
    Long,
    /// Four bytes.
    Float,
    /// Eight bytes.
    Double,
    /// A length and bytes.
    Bytes,
    /// A length and UTF-8.
    String,
    /// So many bytes.
    Fixed(usize),
    /// The position of a symbol.
    Enum(Vec<String>),
    /// Blocks of items.
    Array(Box<Type>),
    /// Blocks of names and values.
    Map(Box<Type>),
    /// The position of a branch, and its value.
    Union(Vec<Type>),
    /// The fields of the record at this place of [`Schema::records`].
    Record(usize),
}

/// What a value means beyond how it is written: Avro's logical types, and the semantic types that Kafka Connect and
/// Debezium note in `connect.name`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Meaning {
    /// What it is written as.
    #[default]
    Plain,
    /// Days since 1970.
    Date,
    /// Time of day in so many units a µs, or µs a unit.
    Time(Ticks),
    /// A moment in UTC.
    Instant(Ticks),
    /// A date and time of no zone.
    Local(Ticks),
    /// A moment as ISO text.
    ZonedText,
    /// An unscaled integer, big-endian, of this precision and scale.
    Decimal(u8, i32),
    /// A record of a scale and an unscaled integer.
    VariableScale,
    /// Text or 16 bytes.
    Uuid,
    /// Months, days and milliseconds, 4 bytes each.
    Duration,
    /// An interval in units.
    Interval(Ticks),
    /// An interval as ISO text.
    IntervalText,
    /// Text that holds a JSON document.
    Document,
}

/// What a number of time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ticks {
    /// ms
    Millis,
    /// µs
    Micros,
    /// ns
    Nanos,
}

impl Ticks {
    /// As µs; `None` beyond 64 bits.
    pub fn to_micros(self, n: i64) -> Option<i64> {
        match self {
            Ticks::Millis => n.checked_mul(1000),
            Ticks::Micros => Some(n),
            Ticks::Nanos => Some(n.div_euclid(1000)),
        }
    }
}

/// A record type.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Its name, with its namespace.
    pub name: String,
    /// Its fields, in the order they are written.
    pub fields: Vec<Field>,
}

/// A field of a record.
#[derive(Clone, Debug)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Names that it had.
    pub aliases: Vec<String>,
    /// Its type.
    pub of: Type,
    /// Its value where a writer does not have it, as JSON.
    pub default: Option<Value>,
}

impl Type {
    /// Whether it may be null.
    pub fn is_nullable(&self) -> bool {
        match &self.kind {
            Kind::Null => true,
            Kind::Union(branches) => branches.iter().any(|b| b.kind == Kind::Null),
            _ => false,
        }
    }

    /// The type that it is when it is not null, if that is one.
    pub fn not_null(&self) -> Option<&Type> {
        let Kind::Union(branches) = &self.kind else { return Some(self) };
        let mut others = branches.iter().filter(|b| b.kind != Kind::Null);
        let only = others.next()?;
        others.next().is_none().then_some(only)
    }
}

impl Schema {
    /// Understands a schema's JSON, with those that it refers to, each after what it refers to itself.
    ///
    /// # Errors
    /// 22023: why it is no schema.
    pub fn parse(text: &str, references: &[&str]) -> Result<Schema> {
        let mut parser = Parser::default();
        for reference in references {
            parser.read(&json(reference)?, "", 0)?;
        }
        let root = parser.read(&json(text)?, "", 0)?;
        Ok(Schema { root, records: parser.records })
    }

    /// The record that a datum is, if it is one.
    pub fn root_record(&self) -> Option<&Record> {
        match self.root.not_null()?.kind {
            Kind::Record(i) => self.records.get(i),
            _ => None,
        }
    }
}

fn json(text: &str) -> Result<Value> {
    // A primitive's name may stand without quotes in an option.
    let bare = text.trim();
    if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_lowercase()) {
        return Ok(Value::String(bare.to_string()));
    }
    serde_json::from_str(text).map_err(|e| wrong(format!("it is no JSON: {e}")))
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("not an Avro schema: {why}"))
}

#[derive(Default)]
struct Parser {
    records: Vec<Record>,
    named: HashMap<String, Type>,
}

impl Parser {
    fn read(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<Type> {
        const DEPTH_MAX: usize = 100;
        if depth > DEPTH_MAX {
            return Err(wrong("it is nested too deeply"));
        }
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => {
                let branches = branches.iter().map(|b| self.read(b, namespace, depth + 1));
                let branches = branches.collect::<Result<Vec<_>>>()?;
                if branches.is_empty() || branches.iter().any(|b| matches!(b.kind, Kind::Union(_))) {
                    return Err(wrong("a union has no branch, or one that is a union"));
                }
                Ok(plain(Kind::Union(branches)))
            }
            Value::Object(object) => self.object(object, namespace, depth),
            _ => Err(wrong(format!("{value} is no type"))),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Type> {
        if let Some(kind) = primitive(name) {
            return Ok(plain(kind));
        }
        let found = self.named.get(&full_name(name, namespace)).or_else(|| self.named.get(name));
        found.cloned().ok_or_else(|| wrong(format!("type \"{name}\" is not defined")))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str, depth: usize) -> Result<Type> {
        let kind = match object.get("type") {
            Some(Value::String(kind)) => kind.as_str(),
            // {"type": {"type": "string"}}
            Some(inner @ (Value::Object(_) | Value::Array(_))) => {
                return self.read(inner, namespace, depth + 1);
            }
            _ => return Err(wrong("a type has no member \"type\"")),
        };
        let text = |member: &str| object.get(member).and_then(Value::as_str);
        let inner =
            |member: &str| object.get(member).ok_or_else(|| wrong(format!("\"{member}\" is missing")));
        match kind {
            "array" => Ok(plain(Kind::Array(Box::new(self.read(inner("items")?, namespace, depth + 1)?)))),
            "map" => Ok(plain(Kind::Map(Box::new(self.read(inner("values")?, namespace, depth + 1)?)))),
            "record" | "error" | "enum" | "fixed" => {
                let name = text("name").ok_or_else(|| wrong("a named type has no name"))?;
                let name = full_name(name, text("namespace").unwrap_or(namespace));
                let own_namespace = name.rsplit_once('.').map_or("", |(n, _)| n).to_string();
                match kind {
                    "enum" => {
                        let symbols = inner("symbols")?.as_array().into_iter().flatten();
                        let symbols = symbols.filter_map(Value::as_str).map(str::to_string).collect();
                        self.define(name, plain(Kind::Enum(symbols)))
                    }
                    "fixed" => {
                        let size = inner("size")?.as_u64().and_then(|s| usize::try_from(s).ok());
                        let size = size.ok_or_else(|| wrong("the size of a fixed type is no number"))?;
                        let kind = Kind::Fixed(size);
                        let meaning = meaning(object, &kind);
                        self.define(name, Type { kind, meaning })
                    }
                    _ => self.record(object, name, &own_namespace, depth),
                }
            }
            name => {
                let mut of = self.by_name(name, namespace)?;
                of.meaning = match meaning(object, &of.kind) {
                    Meaning::Plain => of.meaning,
                    meaning => meaning,
                };
                Ok(of)
            }
        }
    }

    fn define(&mut self, name: String, of: Type) -> Result<Type> {
        self.named.insert(name, of.clone());
        Ok(of)
    }

    fn record(
        &mut self,
        object: &Map<String, Value>,
        name: String,
        namespace: &str,
        depth: usize,
    ) -> Result<Type> {
        let at = self.records.len();
        self.records.push(Record { name: name.clone(), fields: Vec::new() });
        let kind = Kind::Record(at);
        let of = Type { meaning: meaning(object, &kind), kind };
        // Before its fields: they may hold it.
        self.named.insert(name, of.clone());
        let mut fields = Vec::new();
        for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
            let name = field.get("name").and_then(Value::as_str);
            let name = name.ok_or_else(|| wrong("a field has no name"))?.to_string();
            let inner = field.get("type").ok_or_else(|| wrong(format!("field \"{name}\" has no type")))?;
            let aliases = field.get("aliases").and_then(Value::as_array).into_iter().flatten();
            let aliases = aliases.filter_map(Value::as_str).map(str::to_string).collect();
            let mut of = self.read(inner, namespace, depth + 1)?;
            // Some writers put the logical type beside the field's name instead of into its type.
            if let (Value::String(_), Meaning::Plain, Some(object)) = (inner, of.meaning, field.as_object()) {
                of.meaning = meaning(object, &of.kind);
            }
            fields.push(Field { name, aliases, of, default: field.get("default").cloned() });
        }
        self.records[at].fields = fields;
        Ok(of)
    }
}

fn plain(kind: Kind) -> Type {
    Type { kind, meaning: Meaning::Plain }
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_string() } else { format!("{namespace}.{name}") }
}

/// What the members of a type say that it means. What does not suit how it is written is not heeded, as Avro demands.
fn meaning(object: &Map<String, Value>, kind: &Kind) -> Meaning {
    let text = |member: &str| object.get(member).and_then(Value::as_str);
    let number = |member: &str| object.get(member).and_then(Value::as_i64);
    let integer = matches!(kind, Kind::Int | Kind::Long);
    let bytes = matches!(kind, Kind::Bytes | Kind::Fixed(_));
    let found = match text("logicalType").unwrap_or_default() {
        "date" if integer => Meaning::Date,
        "time-millis" if integer => Meaning::Time(Ticks::Millis),
        "time-micros" if integer => Meaning::Time(Ticks::Micros),
        "timestamp-millis" if integer => Meaning::Instant(Ticks::Millis),
        "timestamp-micros" if integer => Meaning::Instant(Ticks::Micros),
        "timestamp-nanos" if integer => Meaning::Instant(Ticks::Nanos),
        "local-timestamp-millis" if integer => Meaning::Local(Ticks::Millis),
        "local-timestamp-micros" if integer => Meaning::Local(Ticks::Micros),
        "local-timestamp-nanos" if integer => Meaning::Local(Ticks::Nanos),
        "decimal" if bytes => {
            // What Kafka Connect's unbounded decimals say of their precision is the most that it knows.
            let precision = number("precision").unwrap_or(38).clamp(1, 38);
            let scale = number("scale").and_then(|s| i32::try_from(s).ok()).unwrap_or(0);
            Meaning::Decimal(precision as u8, scale)
        }
        "uuid" if matches!(kind, Kind::String | Kind::Fixed(16)) => Meaning::Uuid,
        "duration" if *kind == Kind::Fixed(12) => Meaning::Duration,
        _ => Meaning::Plain,
    };
    let connect = match (text("connect.name").unwrap_or_default(), kind) {
        ("io.debezium.time.Date" | "org.apache.kafka.connect.data.Date", Kind::Int | Kind::Long) => {
            Meaning::Date
        }
        ("io.debezium.time.Time" | "org.apache.kafka.connect.data.Time", Kind::Int | Kind::Long) => {
            Meaning::Time(Ticks::Millis)
        }
        ("io.debezium.time.MicroTime", Kind::Long) => Meaning::Time(Ticks::Micros),
        ("io.debezium.time.NanoTime", Kind::Long) => Meaning::Time(Ticks::Nanos),
        ("io.debezium.time.Timestamp" | "org.apache.kafka.connect.data.Timestamp", Kind::Long) => {
            Meaning::Local(Ticks::Millis)
        }
        ("io.debezium.time.MicroTimestamp", Kind::Long) => Meaning::Local(Ticks::Micros),
        ("io.debezium.time.NanoTimestamp", Kind::Long) => Meaning::Local(Ticks::Nanos),
        ("io.debezium.time.ZonedTimestamp", Kind::String) => Meaning::ZonedText,
        ("io.debezium.time.MicroDuration", Kind::Long) => Meaning::Interval(Ticks::Micros),
        ("io.debezium.time.NanoDuration", Kind::Long) => Meaning::Interval(Ticks::Nanos),
        ("io.debezium.time.Interval", Kind::String) => Meaning::IntervalText,
        ("io.debezium.data.Uuid", Kind::String) => Meaning::Uuid,
        ("io.debezium.data.Json", Kind::String) => Meaning::Document,
        ("io.debezium.data.VariableScaleDecimal", Kind::Record(_)) => Meaning::VariableScale,
        _ => Meaning::Plain,
    };
    if connect == Meaning::Plain { found } else { connect }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_resolved_and_records_may_hold_themselves() {
        let text = r#"{"type":"record","name":"Node","namespace":"a.b","fields":[
            {"name":"id","type":{"type":"fixed","name":"Id","size":16,"logicalType":"uuid"}},
            {"name":"parent","type":["null","Id"],"default":null},
            {"name":"next","type":["null","Node"],"aliases":["following"]}]}"#;
        let schema = Schema::parse(text, &[]).unwrap();
        let node = schema.root_record().unwrap();
        assert_eq!(node.name, "a.b.Node");
        assert_eq!(node.fields[1].of.not_null(), Some(&node.fields[0].of));
        assert_eq!(node.fields[1].default, Some(Value::Null));
        assert_eq!(node.fields[2].of.not_null().unwrap().kind, Kind::Record(0));
        assert_eq!(node.fields[2].aliases, ["following"]);
    }

    #[test]
    fn references_come_first() {
        let money = r#"{"type":"record","name":"m.Money","fields":[{"name":"amount","type":"long"}]}"#;
        let order = r#"{"type":"record","name":"Order","fields":[{"name":"price","type":"m.Money"}]}"#;
        assert!(Schema::parse(order, &[]).unwrap_err().message.contains("\"m.Money\" is not defined"));
        let schema = Schema::parse(order, &[money]).unwrap();
        assert_eq!(schema.root_record().unwrap().fields[0].of.kind, Kind::Record(0));
    }

    #[test]
    fn a_logical_type_that_does_not_suit_is_left_out() {
        let meaning = |text: &str| Schema::parse(text, &[]).unwrap().root.meaning;
        assert_eq!(meaning(r#"{"type":"int","logicalType":"date"}"#), Meaning::Date);
        assert_eq!(meaning(r#"{"type":"string","logicalType":"date"}"#), Meaning::Plain);
        assert_eq!(
            meaning(r#"{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}"#),
            Meaning::Decimal(12, 2)
        );
        assert_eq!(
            meaning(r#"{"type":"long","connect.name":"io.debezium.time.MicroTimestamp"}"#),
            Meaning::Local(Ticks::Micros)
        );
    }

    #[test]
    fn what_is_no_schema_says_why() {
        for (text, why) in [
            ("{", "no JSON"),
            ("{}", "no member \"type\""),
            ("\"Order\"", "\"Order\" is not defined"),
            (r#"{"type":"record","name":"R","fields":[{"name":"x"}]}"#, "\"x\" has no type"),
            ("[[\"null\"]]", "one that is a union"),
            ("7", "7 is no type"),
        ] {
            let error = Schema::parse(text, &[]).unwrap_err();
            assert!(error.message.contains(why), "{text}: {}", error.message);
        }
        let deep = format!("{}\"int\"{}", r#"{"type":"array","items":"#.repeat(200), "}".repeat(200));
        assert!(Schema::parse(&deep, &[]).is_err());
    }
}
