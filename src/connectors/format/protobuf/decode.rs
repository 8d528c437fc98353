//! Protobuf's wire format: a message's plain fields into slots of a row. Lists, maps and messages inside it are decoded
//! by reflection, and written as JSON.

use arrow::datatypes::IntervalMonthDayNano;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value};

use crate::connectors::format::BadFormat;
use crate::connectors::format::cell::{FieldNames, Row, Slot, Typed};
use crate::connectors::format::{quote, typed};
use crate::error::SqlState;

/// How deep groups that are passed over may nest.
const GROUPS_MAX: usize = 100;

pub(super) fn broken(why: impl std::fmt::Display) -> BadFormat {
    BadFormat { sqlstate: SqlState::DATA_EXCEPTION, reason: format!("invalid Protobuf: {why}") }
}

type Read<T> = std::result::Result<T, BadFormat>;

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a>(pub &'a [u8]);

/// What stands behind a field's number.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Group,
}

impl<'a> Input<'a> {
    /// A variable-length integer.
    #[inline]
    pub fn varint(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for (i, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(broken("an integer is too long, or the record ends too early"))
    }

    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        match self.0.split_at_checked(length) {
            Some((taken, rest)) => {
                self.0 = rest;
                Ok(taken)
            }
            None => Err(broken("the record ends too early")),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| broken("the record ends too early"))
    }

    /// The next field's number and what it holds.
    fn field(&mut self) -> Read<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3)
            .ok()
            .filter(|n| *n > 0)
            .ok_or_else(|| broken("a field's number is none"))?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| broken("a length is too large"))?;
                Wire::Bytes(self.take(length)?)
            }
            3 => {
                self.skip_group(0)?;
                Wire::Group
            }
            5 => Wire::Fixed32(u32::from_le_bytes(self.array()?)),
            _ => return Err(broken("an unknown wire type")),
        };
        Ok((number, wire))
    }

    fn skip_group(&mut self, depth: usize) -> Read<()> {
        if depth > GROUPS_MAX {
            return Err(broken("groups are nested too deeply"));
        }
        loop {
            let tag = self.varint()?;
            match tag & 7 {
                0 => self.varint().map(|_| ())?,
                1 => self.take(8).map(|_| ())?,
                2 => {
                    let length =
                        usize::try_from(self.varint()?).map_err(|_| broken("a length is too large"))?;
                    self.take(length)?;
                }
                3 => self.skip_group(depth + 1)?,
                4 => return Ok(()),
                5 => self.take(4).map(|_| ())?,
                _ => return Err(broken("an unknown wire type")),
            }
        }
    }
}

/// How a field becomes the value of a column.
#[derive(Debug)]
enum How {
    Plain(Kind),
    Timestamp,
    Duration,
    /// One of the messages that wrap a plain value, so that it may be absent.
    Wrapped(Kind),
    /// As JSON.
    Nested,
}

#[derive(Debug)]
struct Field {
    number: u32,
    column: usize,
    how: How,
    descriptor: FieldDescriptor,
}

/// How a message becomes a row.
#[derive(Debug)]
pub struct Plan {
    message: MessageDescriptor,
    /// By number.
    fields: Vec<Field>,
    /// The one column takes the whole message.
    whole: bool,
}

/// What a message of the standard library stands for, if it is one that has a SQL type.
pub(super) enum WellKnown {
    Timestamp,
    Duration,
    Wrapped(Kind),
}

pub(super) fn well_known(message: &MessageDescriptor) -> Option<WellKnown> {
    Some(match message.full_name() {
        "google.protobuf.Timestamp" => WellKnown::Timestamp,
        "google.protobuf.Duration" => WellKnown::Duration,
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            match message.get_field(1)?.kind() {
                // Value, ListValue, NullValue.
                Kind::Message(_) | Kind::Enum(_) => return None,
                kind => WellKnown::Wrapped(kind),
            }
        }
        _ => return None,
    })
}

impl Plan {
    /// For columns of these names.
    pub fn new(message: &MessageDescriptor, names: &mut FieldNames, whole_document: bool) -> Plan {
        let mut fields: Vec<Field> = Vec::new();
        if !whole_document {
            for exactly in [true, false] {
                for descriptor in message.fields() {
                    let expected = fields.last().map_or(0, |f| f.column + 1);
                    let found = names.find(descriptor.name(), expected);
                    let found = found
                        .or_else(|| names.find(descriptor.json_name(), expected).map(|(c, _)| (c, false)));
                    if let Some((column, exact)) = found
                        && exact == exactly
                        && !fields.iter().any(|f| f.column == column)
                    {
                        let how = how(&descriptor);
                        fields.push(Field { number: descriptor.number(), column, how, descriptor });
                    }
                }
            }
        }
        fields.sort_by_key(|f| f.number);
        Plan { message: message.clone(), fields, whole: whole_document }
    }

    /// Reads a message into a row.
    pub fn read(&self, bytes: &[u8], row: &mut Row) -> Read<()> {
        if self.whole {
            let message = DynamicMessage::decode(self.message.clone(), bytes).map_err(broken)?;
            let slot = written(row, |out| write_message(&message, out));
            row.set(0, slot);
            return Ok(());
        }
        for field in &self.fields {
            let slot = absent(field, row);
            row.set(field.column, slot);
        }
        let mut nested = false;
        let mut expected = 0;
        let mut input = Input(bytes);
        while !input.0.is_empty() {
            let (number, wire) = input.field()?;
            let at = match self.fields.get(expected) {
                Some(field) if field.number == number => expected,
                _ => match self.fields.binary_search_by_key(&number, |f| f.number) {
                    Ok(at) => at,
                    Err(_) => continue,
                },
            };
            expected = at + 1;
            let field = &self.fields[at];
            let slot = match (&field.how, wire) {
                (How::Plain(kind), wire) => plain(kind, wire, row)?,
                (How::Timestamp, Wire::Bytes(bytes)) => {
                    let (seconds, nanos) = seconds_and_nanos(bytes)?;
                    let micros =
                        seconds.checked_mul(1_000_000).and_then(|s| s.checked_add(i64::from(nanos) / 1000));
                    let micros = micros.ok_or_else(|| broken("a timestamp is out of range"))?;
                    Some(Slot::Typed(Typed::Timestamp(micros, true)))
                }
                (How::Duration, Wire::Bytes(bytes)) => Some(Slot::Typed(Typed::Interval(duration(bytes)?))),
                (How::Wrapped(kind), Wire::Bytes(bytes)) => {
                    let mut wrapped = Input(bytes);
                    let mut slot = default(kind, row);
                    while !wrapped.0.is_empty() {
                        if let (1, wire) = wrapped.field()? {
                            slot = plain(kind, wire, row)?.unwrap_or(slot);
                        }
                    }
                    Some(slot)
                }
                (How::Nested, _) => {
                    nested = true;
                    None
                }
                _ => None,
            };
            if let Some(slot) = slot {
                row.set(field.column, slot);
            }
        }
        if nested {
            let message = DynamicMessage::decode(self.message.clone(), bytes).map_err(broken)?;
            for field in self.fields.iter().filter(|f| matches!(f.how, How::Nested)) {
                if message.has_field(&field.descriptor) {
                    let value = message.get_field(&field.descriptor);
                    let slot = written(row, |out| write_value(&value, &field.descriptor, out));
                    row.set(field.column, slot);
                }
            }
        }
        Ok(())
    }
}

fn how(field: &FieldDescriptor) -> How {
    match field.kind() {
        _ if field.is_list() || field.is_map() => How::Nested,
        Kind::Message(message) => match well_known(&message) {
            Some(WellKnown::Timestamp) => How::Timestamp,
            Some(WellKnown::Duration) => How::Duration,
            Some(WellKnown::Wrapped(kind)) => How::Wrapped(kind),
            None => How::Nested,
        },
        kind => How::Plain(kind),
    }
}

/// The value of a field that is not in the record: NULL where its absence can be told, else what the language says.
fn absent(field: &Field, row: &mut Row) -> Slot {
    if field.descriptor.is_list() {
        return written(row, |out| out.push_str("[]"));
    }
    if field.descriptor.is_map() {
        return written(row, |out| out.push_str("{}"));
    }
    match &field.how {
        How::Plain(kind) if !field.descriptor.supports_presence() => default(kind, row),
        _ => Slot::Null,
    }
}

fn default(kind: &Kind, row: &mut Row) -> Slot {
    match kind {
        Kind::Bool => Slot::Bool(false),
        Kind::Float | Kind::Double => Slot::Typed(Typed::Float(0.0)),
        Kind::String => text(row, ""),
        Kind::Bytes => Slot::Bytes((row.bytes.len()..row.bytes.len()).into()),
        Kind::Enum(of) => {
            let name = of.default_value().name().to_string();
            text(row, &name)
        }
        _ => Slot::Typed(Typed::Integer(0)),
    }
}

fn text(row: &mut Row, text: &str) -> Slot {
    let start = row.unescaped.len();
    row.unescaped.push_str(text);
    Slot::Unescaped((start..row.unescaped.len()).into())
}

fn written(row: &mut Row, write: impl FnOnce(&mut String)) -> Slot {
    let start = row.unescaped.len();
    write(&mut row.unescaped);
    Slot::Written((start..row.unescaped.len()).into())
}

/// A value of a plain kind; `None` when the wire has another type, which makes it an unknown field.
fn plain(kind: &Kind, wire: Wire<'_>, row: &mut Row) -> Read<Option<Slot>> {
    let integer = |n: i64| Slot::Typed(Typed::Integer(n));
    let unsigned = |n: u64| match i64::try_from(n) {
        Ok(n) => integer(n),
        Err(_) => Slot::Typed(Typed::Decimal(i128::from(n), 0)),
    };
    Ok(Some(match (kind, wire) {
        (Kind::Int32, Wire::Varint(n)) => integer(i64::from(n as i32)),
        (Kind::Int64, Wire::Varint(n)) => integer(n as i64),
        (Kind::Uint32, Wire::Varint(n)) => integer(i64::from(n as u32)),
        (Kind::Uint64, Wire::Varint(n)) => unsigned(n),
        (Kind::Sint32, Wire::Varint(n)) => integer(i64::from((n as u32 >> 1) as i32 ^ -((n & 1) as i32))),
        (Kind::Sint64, Wire::Varint(n)) => integer((n >> 1) as i64 ^ -((n & 1) as i64)),
        (Kind::Bool, Wire::Varint(n)) => Slot::Bool(n != 0),
        (Kind::Enum(of), Wire::Varint(n)) => match of.get_value(n as i32) {
            Some(value) => text(row, value.name()),
            // Protobuf keeps numbers that a newer writer has names for.
            None => text(row, &(n as i32).to_string()),
        },
        (Kind::Fixed32, Wire::Fixed32(n)) => integer(i64::from(n)),
        (Kind::Sfixed32, Wire::Fixed32(n)) => integer(i64::from(n as i32)),
        (Kind::Float, Wire::Fixed32(n)) => Slot::Typed(Typed::Float(f64::from(f32::from_bits(n)))),
        (Kind::Fixed64, Wire::Fixed64(n)) => unsigned(n),
        (Kind::Sfixed64, Wire::Fixed64(n)) => integer(n as i64),
        (Kind::Double, Wire::Fixed64(n)) => Slot::Typed(Typed::Float(f64::from_bits(n))),
        (Kind::String, Wire::Bytes(bytes)) => match std::str::from_utf8(bytes) {
            Ok(string) if !bytes.contains(&0) => text(row, string),
            _ => return Err(broken("a string is no UTF-8, or has a zero byte")),
        },
        (Kind::Bytes, Wire::Bytes(bytes)) => {
            let start = row.bytes.len();
            row.bytes.extend_from_slice(bytes);
            Slot::Bytes((start..row.bytes.len()).into())
        }
        _ => return Ok(None),
    }))
}

/// The two fields of Timestamp and Duration.
fn seconds_and_nanos(bytes: &[u8]) -> Read<(i64, i32)> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut input = Input(bytes);
    while !input.0.is_empty() {
        match input.field()? {
            (1, Wire::Varint(n)) => seconds = n as i64,
            (2, Wire::Varint(n)) => nanos = n as i32,
            _ => (),
        }
    }
    Ok((seconds, nanos))
}

fn duration(bytes: &[u8]) -> Read<IntervalMonthDayNano> {
    let (seconds, nanos) = seconds_and_nanos(bytes)?;
    let total = seconds.checked_mul(1_000_000_000).and_then(|s| s.checked_add(i64::from(nanos)));
    // Intervals count µs.
    let total = total.map(|n| n / 1000 * 1000).ok_or_else(|| broken("a duration is out of range"))?;
    Ok(IntervalMonthDayNano::new(0, 0, total))
}

/// Appends a message as a JSON object of the fields that are there, by the names that the schema gives them.
fn write_message(message: &DynamicMessage, out: &mut String) {
    if let Some(known) = well_known(&message.descriptor()) {
        return write_well_known(&known, message, out);
    }
    if message.descriptor().parent_file().package_name() == "google.protobuf" {
        // Struct, Value, ListValue and the like have a form of their own in JSON.
        out.push_str(&serde_json::to_string(message).unwrap_or_else(|_| "null".to_string()));
        return;
    }
    out.push('{');
    let start = out.len();
    for field in message.descriptor().fields() {
        if field.supports_presence() && !message.has_field(&field) {
            continue;
        }
        if out.len() > start {
            out.push(',');
        }
        quote::write_string(field.name(), out);
        out.push(':');
        write_value(&message.get_field(&field), &field, out);
    }
    out.push('}');
}

fn write_well_known(known: &WellKnown, message: &DynamicMessage, out: &mut String) {
    let number = |name: &str| match message.get_field_by_name(name).as_deref() {
        Some(Value::I64(n)) => *n,
        Some(Value::I32(n)) => i64::from(*n),
        _ => 0,
    };
    match known {
        WellKnown::Timestamp => {
            let micros = number("seconds").saturating_mul(1_000_000).saturating_add(number("nanos") / 1000);
            write_typed(Typed::Timestamp(micros, true), out);
        }
        WellKnown::Duration => {
            let nanos = number("seconds").saturating_mul(1_000_000_000).saturating_add(number("nanos"));
            write_typed(Typed::Interval(IntervalMonthDayNano::new(0, 0, nanos / 1000 * 1000)), out);
        }
        WellKnown::Wrapped(_) => match message.descriptor().get_field(1) {
            Some(field) => write_value(&message.get_field(&field), &field, out),
            None => out.push_str("null"),
        },
    }
}

fn write_typed(value: Typed<'_>, out: &mut String) {
    let start = out.len();
    if !typed::write_text(value, out) {
        let text = out.split_off(start);
        quote::write_string(&text, out);
    }
}

/// Appends a value as JSON; `field` is the one that it is of, or that its list or map is of.
fn write_value(value: &Value, field: &FieldDescriptor, out: &mut String) {
    match value {
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::I32(n) => write_typed(Typed::Integer(i64::from(*n)), out),
        Value::I64(n) => write_typed(Typed::Integer(*n), out),
        Value::U32(n) => write_typed(Typed::Integer(i64::from(*n)), out),
        Value::U64(n) => write_typed(Typed::Decimal(i128::from(*n), 0), out),
        Value::F32(x) => write_typed(Typed::Float(f64::from(*x)), out),
        Value::F64(x) => write_typed(Typed::Float(*x), out),
        // PostgreSQL's text has no zero byte.
        Value::String(text) => quote::write_string(&text.replace('\0', ""), out),
        Value::Bytes(bytes) => write_typed(Typed::Bytes(bytes), out),
        Value::EnumNumber(n) => {
            let name = match field.kind() {
                Kind::Enum(of) => of.get_value(*n).map(|v| v.name().to_string()),
                _ => None,
            };
            quote::write_string(&name.unwrap_or_else(|| n.to_string()), out);
        }
        Value::Message(message) => write_message(message, out),
        Value::List(values) => {
            out.push('[');
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(value, field, out);
            }
            out.push(']');
        }
        Value::Map(members) => {
            let of = match field.kind() {
                Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field(),
                _ => field.clone(),
            };
            // In one order: reflection's maps have none.
            let mut members: Vec<(String, &Value)> = members.iter().map(|(k, v)| (key_text(k), v)).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            out.push('{');
            for (i, (key, value)) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                quote::write_string(key, out);
                out.push(':');
                write_value(value, &of, out);
            }
            out.push('}');
        }
    }
}

fn key_text(key: &prost_reflect::MapKey) -> String {
    use prost_reflect::MapKey;
    match key {
        MapKey::Bool(b) => b.to_string(),
        MapKey::I32(n) => n.to_string(),
        MapKey::I64(n) => n.to_string(),
        MapKey::U32(n) => n.to_string(),
        MapKey::U64(n) => n.to_string(),
        MapKey::String(text) => text.replace('\0', ""),
    }
}
