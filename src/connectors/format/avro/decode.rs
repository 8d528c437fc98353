//! Avro's binary encoding: values into slots of a row, values passed over, and nested ones as JSON.

use arrow::datatypes::IntervalMonthDayNano;

use super::schema::{Kind, Meaning, Schema, Ticks, Type};
use crate::connectors::format::cell::{Row, Slot, Typed};
use crate::connectors::format::{BadFormat, number, quote, typed};
use crate::error::SqlState;

/// How deep values may nest, as deep as JSON documents.
const DEPTH_MAX: usize = 128;
/// Items that take no bytes, such as nulls, could be any number in a short record.
const EMPTY_ITEMS_MAX: usize = 1 << 16;

/// Why bytes are not what the schema says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What was wrong.
    pub what: &'static str,
    /// Where.
    pub at: usize,
}

impl From<Broken> for BadFormat {
    fn from(broken: Broken) -> Self {
        BadFormat {
            sqlstate: SqlState::DATA_EXCEPTION,
            reason: format!("invalid Avro: {} (byte {})", broken.what, broken.at),
        }
    }
}

type Read<T> = std::result::Result<T, Broken>;

/// Bytes that are read from the front.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Input<'a> {
    /// All of these.
    pub fn new(bytes: &'a [u8]) -> Self {
        Input { bytes, at: 0 }
    }

    fn broken<T>(&self, what: &'static str) -> Read<T> {
        Err(Broken { what, at: self.at })
    }

    /// Nothing may be left.
    pub fn end(&self) -> Read<()> {
        if self.at == self.bytes.len() { Ok(()) } else { self.broken("bytes behind the record's end") }
    }

    #[inline]
    fn take(&mut self, length: usize) -> Read<&'a [u8]> {
        let end = self.at.checked_add(length);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => self.broken("the record ends too early"),
        }
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.take(N)?;
        bytes.try_into().or_else(|_| self.broken("the record ends too early"))
    }

    /// A variable-length integer.
    #[inline]
    pub fn long(&mut self) -> Read<i64> {
        let mut value = 0u64;
        let mut shift = 0;
        loop {
            let Some(&byte) = self.bytes.get(self.at) else {
                return self.broken("the record ends too early");
            };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
            shift += 7;
            if shift > 63 {
                return self.broken("an integer is too long");
            }
        }
    }

    fn length(&mut self) -> Read<usize> {
        let length = self.long()?;
        usize::try_from(length).or_else(|_| self.broken("a length is negative"))
    }

    #[inline]
    fn text(&mut self) -> Read<&'a str> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !bytes.contains(&0) => Ok(text),
            _ => self.broken("a string is no UTF-8, or has a zero byte"),
        }
    }

    fn branch<'t>(&mut self, branches: &'t [Type]) -> Read<&'t Type> {
        let at = self.long()?;
        let branch = usize::try_from(at).ok().and_then(|i| branches.get(i));
        branch.map_or_else(|| self.broken("a union has no such branch"), Ok)
    }

    fn symbol<'t>(&mut self, symbols: &'t [String]) -> Read<&'t str> {
        let at = self.long()?;
        let symbol = usize::try_from(at).ok().and_then(|i| symbols.get(i));
        symbol.map_or_else(|| self.broken("an enum has no such symbol"), |s| Ok(s.as_str()))
    }

    /// The items of an array or a map: `item` is called for each, and must pass it.
    fn blocks(&mut self, mut item: impl FnMut(&mut Self) -> Read<()>) -> Read<()> {
        let mut empty = 0;
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                // The block's size in bytes follows, for those who pass it over.
                self.long()?;
                count = count.checked_neg().map_or_else(|| self.broken("a block is too long"), Ok)?;
            }
            for _ in 0..count {
                let before = self.at;
                item(self)?;
                empty += usize::from(self.at == before);
                if empty > EMPTY_ITEMS_MAX {
                    return self.broken("too many items of no bytes");
                }
            }
        }
    }

    /// Whether a union's value is not null; what follows is then a value of the type that is given.
    pub fn present<'t>(&mut self, of: &'t Type) -> Read<Option<&'t Type>> {
        let of = match &of.kind {
            Kind::Union(branches) => self.branch(branches)?,
            _ => of,
        };
        Ok((of.kind != Kind::Null).then_some(of))
    }

    /// A text field as it is; `None` when it is null or no text.
    pub fn optional_text(&mut self, of: &Type, schema: &Schema) -> Read<Option<&'a str>> {
        let Some(of) = self.present(of)? else { return Ok(None) };
        if of.kind == Kind::String {
            return self.text().map(Some);
        }
        self.skip(of, schema).map(|()| None)
    }

    /// Passes a value over.
    pub fn skip(&mut self, of: &Type, schema: &Schema) -> Read<()> {
        self.skip_at(of, schema, 0)
    }

    fn skip_at(&mut self, of: &Type, schema: &Schema, depth: usize) -> Read<()> {
        if depth > DEPTH_MAX {
            return self.broken("values are nested too deeply");
        }
        match &of.kind {
            Kind::Null => Ok(()),
            Kind::Boolean => self.take(1).map(|_| ()),
            Kind::Int | Kind::Long | Kind::Enum(_) => self.long().map(|_| ()),
            Kind::Float => self.take(4).map(|_| ()),
            Kind::Double => self.take(8).map(|_| ()),
            Kind::Bytes | Kind::String => {
                let length = self.length()?;
                self.take(length).map(|_| ())
            }
            Kind::Fixed(size) => self.take(*size).map(|_| ()),
            Kind::Array(item) => self.blocks(|input| input.skip_at(item, schema, depth + 1)),
            Kind::Map(value) => self.blocks(|input| {
                let length = input.length()?;
                input.take(length)?;
                input.skip_at(value, schema, depth + 1)
            }),
            Kind::Union(branches) => {
                let branch = self.branch(branches)?;
                self.skip_at(branch, schema, depth + 1)
            }
            Kind::Record(i) => {
                let fields = schema.records.get(*i).map(|r| &r.fields[..]).unwrap_or_default();
                fields.iter().try_for_each(|f| self.skip_at(&f.of, schema, depth + 1))
            }
        }
    }

    /// The next value, for a slot of `row`.
    pub fn slot(&mut self, of: &Type, schema: &Schema, row: &mut Row) -> Read<Slot> {
        match (&of.kind, of.meaning) {
            (Kind::Null, _) => Ok(Slot::Null),
            (Kind::Union(branches), _) => {
                let branch = self.branch(branches)?;
                self.slot(branch, schema, row)
            }
            (Kind::Boolean, _) => Ok(Slot::Bool(self.boolean()?)),
            (Kind::Int | Kind::Long, Meaning::Plain) => Ok(Slot::Typed(Typed::Integer(self.long()?))),
            (Kind::String, meaning) => {
                let text = self.text()?;
                let start = row.unescaped.len();
                row.unescaped.push_str(text);
                let span = (start..row.unescaped.len()).into();
                Ok(if meaning == Meaning::Document { Slot::Document(span) } else { Slot::Unescaped(span) })
            }
            (Kind::Enum(symbols), _) => {
                let start = row.unescaped.len();
                row.unescaped.push_str(self.symbol(symbols)?);
                Ok(Slot::Unescaped((start..row.unescaped.len()).into()))
            }
            (Kind::Array(_) | Kind::Map(_), _) => self.written(of, schema, row),
            (Kind::Record(_), meaning) if meaning != Meaning::VariableScale => self.written(of, schema, row),
            _ => match self.typed(of, schema)? {
                Typed::Bytes(bytes) => {
                    let start = row.bytes.len();
                    row.bytes.extend_from_slice(bytes);
                    Ok(Slot::Bytes((start..row.bytes.len()).into()))
                }
                Typed::Integer(n) => Ok(Slot::Typed(Typed::Integer(n))),
                Typed::Float(x) => Ok(Slot::Typed(Typed::Float(x))),
                Typed::Decimal(unscaled, scale) => Ok(Slot::Typed(Typed::Decimal(unscaled, scale))),
                Typed::Date(days) => Ok(Slot::Typed(Typed::Date(days))),
                Typed::Time(micros) => Ok(Slot::Typed(Typed::Time(micros))),
                Typed::Timestamp(micros, zoned) => Ok(Slot::Typed(Typed::Timestamp(micros, zoned))),
                Typed::Interval(value) => Ok(Slot::Typed(Typed::Interval(value))),
            },
        }
    }

    fn written(&mut self, of: &Type, schema: &Schema, row: &mut Row) -> Read<Slot> {
        let start = row.unescaped.len();
        self.json(of, schema, &mut row.unescaped, 0)?;
        Ok(Slot::Written((start..row.unescaped.len()).into()))
    }

    fn boolean(&mut self) -> Read<bool> {
        match self.take(1)? {
            [0] => Ok(false),
            [1] => Ok(true),
            _ => self.broken("a boolean is neither 0 nor 1"),
        }
    }

    /// A scalar that is no text.
    fn typed(&mut self, of: &Type, schema: &Schema) -> Read<Typed<'a>> {
        let value = match (&of.kind, of.meaning) {
            (Kind::Int | Kind::Long, meaning) => {
                let n = self.long()?;
                let micros = |ticks: Ticks| {
                    ticks.to_micros(n).map_or_else(|| self.broken("a time is out of range"), Ok)
                };
                match meaning {
                    Meaning::Date => Typed::Date(n),
                    Meaning::Time(ticks) => match micros(ticks)? {
                        time @ 0..=86_400_000_000 => Typed::Time(time),
                        _ => return self.broken("a time of day is out of range"),
                    },
                    Meaning::Instant(ticks) => Typed::Timestamp(micros(ticks)?, true),
                    Meaning::Local(ticks) => Typed::Timestamp(micros(ticks)?, false),
                    Meaning::Interval(ticks) => {
                        let nanos = micros(ticks)?.checked_mul(1000);
                        let nanos = nanos.map_or_else(|| self.broken("an interval is out of range"), Ok)?;
                        Typed::Interval(IntervalMonthDayNano::new(0, 0, nanos))
                    }
                    _ => Typed::Integer(n),
                }
            }
            (Kind::Float, _) => Typed::Float(f64::from(f32::from_le_bytes(self.array()?))),
            (Kind::Double, _) => Typed::Float(f64::from_le_bytes(self.array()?)),
            (Kind::Fixed(12), Meaning::Duration) => {
                let [months, days, millis] =
                    [self.array()?, self.array()?, self.array()?].map(u32::from_le_bytes);
                match (i32::try_from(months), i32::try_from(days)) {
                    (Ok(months), Ok(days)) => {
                        let nanos = i64::from(millis) * 1_000_000;
                        Typed::Interval(IntervalMonthDayNano::new(months, days, nanos))
                    }
                    _ => return self.broken("an interval is out of range"),
                }
            }
            (Kind::Bytes | Kind::Fixed(_), meaning) => {
                let length = if let Kind::Fixed(size) = of.kind { size } else { self.length()? };
                let bytes = self.take(length)?;
                match meaning {
                    Meaning::Decimal(_, scale) => self.decimal(bytes, scale)?,
                    _ => Typed::Bytes(bytes),
                }
            }
            (Kind::Record(i), _) => {
                // io.debezium.data.VariableScaleDecimal
                let (mut scale, mut unscaled) = (0, None);
                for field in schema.records.get(*i).map(|r| &r.fields[..]).unwrap_or_default() {
                    match (field.name.as_str(), &field.of.kind) {
                        ("scale", Kind::Int | Kind::Long) => scale = self.long()?,
                        ("value", Kind::Bytes) => {
                            let length = self.length()?;
                            unscaled = Some(self.take(length)?);
                        }
                        _ => self.skip(&field.of, schema)?,
                    }
                }
                let scale = i32::try_from(scale).or_else(|_| self.broken("a scale is out of range"))?;
                self.decimal(unscaled.unwrap_or_default(), scale)?
            }
            _ => return self.broken("a scalar is none"),
        };
        Ok(value)
    }

    fn decimal(&self, bytes: &[u8], scale: i32) -> Read<Typed<'static>> {
        match number::unscaled_from_bytes(bytes) {
            Ok(unscaled) => Ok(Typed::Decimal(unscaled, scale)),
            Err(_) => self.broken("a decimal has more than 38 digits, or none"),
        }
    }

    /// Appends the next value as JSON.
    pub fn json(&mut self, of: &Type, schema: &Schema, out: &mut String, depth: usize) -> Read<()> {
        if depth > DEPTH_MAX {
            return self.broken("values are nested too deeply");
        }
        match &of.kind {
            Kind::Null => out.push_str("null"),
            Kind::Boolean => out.push_str(if self.boolean()? { "true" } else { "false" }),
            Kind::Union(branches) => {
                let branch = self.branch(branches)?;
                self.json(branch, schema, out, depth + 1)?;
            }
            Kind::String => quote::write_string(self.text()?, out),
            Kind::Enum(symbols) => quote::write_string(self.symbol(symbols)?, out),
            Kind::Array(item) => {
                out.push('[');
                let start = out.len();
                self.blocks(|input| {
                    if out.len() > start {
                        out.push(',');
                    }
                    input.json(item, schema, out, depth + 1)
                })?;
                out.push(']');
            }
            Kind::Map(value) => {
                out.push('{');
                let start = out.len();
                self.blocks(|input| {
                    if out.len() > start {
                        out.push(',');
                    }
                    quote::write_string(input.text()?, out);
                    out.push(':');
                    input.json(value, schema, out, depth + 1)
                })?;
                out.push('}');
            }
            Kind::Record(i) if of.meaning != Meaning::VariableScale => {
                out.push('{');
                for (n, field) in
                    schema.records.get(*i).map(|r| &r.fields[..]).unwrap_or_default().iter().enumerate()
                {
                    if n > 0 {
                        out.push(',');
                    }
                    quote::write_string(&field.name, out);
                    out.push(':');
                    self.json(&field.of, schema, out, depth + 1)?;
                }
                out.push('}');
            }
            _ => match self.typed(of, schema)? {
                Typed::Bytes(bytes) if of.meaning == Meaning::Uuid => {
                    let id = uuid::Uuid::from_slice(bytes).unwrap_or_default();
                    quote::write_string(&id.hyphenated().to_string(), out);
                }
                value => {
                    let start = out.len();
                    if !typed::write_text(value, out) {
                        let text = out.split_off(start);
                        quote::write_string(&text, out);
                    }
                }
            },
        }
        Ok(())
    }
}
