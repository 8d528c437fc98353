//! FORMAT AVRO: records whose schema a registry knows by the number before them, or that a statement gives.
//!
//! Each writer's schema is made a plan once: for every field the column that it goes into, or that it is passed over.
//! What a column's field was called before, and what it is where a writer does not have it, the reader's schema tells:
//! the subject's latest.

pub mod columns;
mod decode;
mod defaults;
pub mod encode;
pub mod schema;

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema as Columns};

use self::decode::Input;
use self::schema::{Kind, Record, Schema, Type};
use super::cell::{FieldNames, Row};
use super::values::Encoding;
use super::{BadFormat, JsonOptions, is_whole_document};
use crate::connectors::Options;
use crate::connectors::schema_registry::RegistrySettings;
use crate::connectors::schema_registry::client::{Registered, SchemaKind, SchemaRegistry};
use crate::connectors::schema_registry::frame::Plans;
use crate::connectors::schema_registry::subject::{Part, Subjects};
use crate::error::{Error, Result, SqlState};

/// Options of FORMAT AVRO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvroOptions {
    /// Where schemas are; `None`: `schema` is the only one.
    pub registry: Option<RegistrySettings>,
    /// The value's schema.
    pub schema: Option<String>,
    /// The key's schema.
    pub key_schema: Option<String>,
    /// Under which names the registry has them.
    pub subjects: Subjects,
    /// What numbers that no logical type explains count, in time columns.
    timestamp: Option<Encoding>,
}

impl AvroOptions {
    /// From the options of a FORMAT.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let (schema, key_schema) = (options.take("schema"), options.take("key.schema"));
        let taken = AvroOptions {
            registry: RegistrySettings::of_format(options)?,
            schema,
            key_schema,
            subjects: Subjects::take(options)?,
            timestamp: JsonOptions::take_timestamp(options)?,
        };
        if taken.registry.is_none() && taken.schema.is_none() {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "FORMAT AVRO needs a schema").with_hint(
                "FORMAT AVRO USING SCHEMA REGISTRY CONNECTION name, or FORMAT AVRO (schema = '{\"type\": \"record\", …}').",
            ));
        }
        if taken.registry.is_some() && taken.schema.is_some() {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "FORMAT AVRO takes schemas from a registry or from the option \"schema\", not from both",
            ));
        }
        Ok(taken)
    }

    /// The schema of a part, as the statement or the registry has it; `None`: there is none for the key.
    ///
    /// # Errors
    /// 42704 when the subject is not there; 22023 when its schema is no Avro.
    pub fn reader_schema(&self, part: Part) -> Result<Option<Schema>> {
        let inline = if part == Part::Key { &self.key_schema } else { &self.schema };
        if let Some(text) = inline {
            return Schema::parse(text, &[]).map(Some);
        }
        let Some(registry) = &self.registry else { return Ok(None) };
        let Some(subject) = self.subjects.subject(part, None) else {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "the registry's subject is named after the record, and the option \"message\" does not name it",
            ));
        };
        let version = self.subjects.version.filter(|_| part == Part::Value);
        match SchemaRegistry::new(registry.clone())?.of_subject(&subject, version) {
            Ok(registered) => parse(&registered).map(Some),
            Err(e) if e.sqlstate == SqlState::UNDEFINED_OBJECT && part == Part::Key => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn parse(registered: &Registered) -> Result<Schema> {
    if registered.kind != SchemaKind::Avro {
        let message = format!("the schema with the number {} is no Avro", registered.id);
        return Err(Error::new(SqlState::DATA_EXCEPTION, message));
    }
    let references: Vec<&str> = registered.references.iter().map(|(_, text)| text.as_str()).collect();
    Schema::parse(&registered.text, &references)
}

/// Where the plans of records come from.
#[derive(Debug)]
enum Writers<P> {
    /// Each record says the number of its schema.
    Registry(Plans<P>),
    /// All have the one schema, and nothing before them.
    One(Arc<P>),
}

/// What is the same for all writers: the columns, and the subject that has the reader's schema.
#[derive(Debug)]
struct Target {
    names: FieldNames,
    /// The one column takes whatever comes as a document.
    whole_document: bool,
    part: Part,
    subjects: Subjects,
}

/// The columns that the fields of a record go into.
#[derive(Debug)]
struct FieldColumns {
    record: usize,
    columns: Vec<Option<usize>>,
    /// Columns without a field: their values in Avro, by the reader's schema.
    defaults: Vec<(usize, Type, Vec<u8>)>,
    reader: Option<Arc<Schema>>,
}

impl Target {
    fn new(columns: &Columns, part: Part, options: &AvroOptions) -> Self {
        Target {
            names: FieldNames::new(columns.fields().iter().map(|f| f.name().as_str())),
            whole_document: is_whole_document(columns),
            part,
            subjects: options.subjects.clone(),
        }
    }

    /// Finds the columns of a record's fields; of fields that would go into one column the one of its exact name does.
    fn fields(
        &mut self,
        schema: &Schema,
        record: usize,
        registry: Option<&SchemaRegistry>,
    ) -> Result<FieldColumns> {
        let empty = Record::default();
        let fields = &schema.records.get(record).unwrap_or(&empty).fields;
        let mut columns = vec![None; fields.len()];
        let mut filled: Vec<Option<usize>> = vec![None; self.names.len()];
        for exactly in [true, false] {
            for (i, field) in fields.iter().enumerate() {
                if let Some((column, exact)) = self.names.find(&field.name, i)
                    && exact == exactly
                    && filled[column].is_none()
                {
                    filled[column] = Some(i);
                    columns[i] = Some(column);
                }
            }
        }
        let mut found = FieldColumns { record, columns, defaults: Vec::new(), reader: None };
        if filled.iter().all(Option::is_some) {
            return Ok(found);
        }
        // Some column has no field of its name: the reader's schema may know an older name, or a default.
        let Some(reader) = self.reader_schema(schema, registry)? else { return Ok(found) };
        let Some(reader_record) = counterpart(&reader, &schema.records[record]) else { return Ok(found) };
        for (i, of_reader) in reader_record.fields.iter().enumerate() {
            let Some((column, _)) = self.names.find(&of_reader.name, i) else { continue };
            if filled[column].is_some() {
                continue;
            }
            let older = fields.iter().position(|f| of_reader.aliases.contains(&f.name));
            if let Some(field) = older.filter(|f| found.columns[*f].is_none()) {
                found.columns[field] = Some(column);
            } else if let Some(value) = &of_reader.default {
                let mut bytes = Vec::new();
                defaults::write(value, &of_reader.of, &reader, &mut bytes).ok_or_else(|| {
                    let message =
                        format!("the default of field \"{}\" is no value of its type", of_reader.name);
                    Error::new(SqlState::DATA_EXCEPTION, message)
                })?;
                found.defaults.push((column, of_reader.of.clone(), bytes));
            }
        }
        found.reader = Some(reader);
        Ok(found)
    }

    /// The subject's latest schema, asked for whenever a new writer is met.
    fn reader_schema(
        &self,
        writer: &Schema,
        registry: Option<&SchemaRegistry>,
    ) -> Result<Option<Arc<Schema>>> {
        let name = writer.root_record().map(|r| r.name.as_str());
        let (Some(registry), Some(subject)) = (registry, self.subjects.subject(self.part, name)) else {
            return Ok(None);
        };
        match registry.of_subject(&subject, None) {
            Ok(registered) => Ok(Some(Arc::new(parse(&registered)?))),
            Err(e) if e.sqlstate == SqlState::UNDEFINED_OBJECT => Ok(None),
            Err(e) => Err(e),
        }
    }
}

/// The record of a schema that stands for one of another: of the same name, or else the outermost.
fn counterpart<'a>(schema: &'a Schema, record: &Record) -> Option<&'a Record> {
    schema.records.iter().find(|r| r.name == record.name).or_else(|| schema.root_record())
}

impl FieldColumns {
    /// Reads a record into a row.
    fn read(
        &self,
        input: &mut Input<'_>,
        schema: &Schema,
        row: &mut Row,
    ) -> std::result::Result<(), BadFormat> {
        let fields = schema.records.get(self.record).map(|r| &r.fields[..]).unwrap_or_default();
        for (field, column) in fields.iter().zip(&self.columns) {
            match column {
                Some(column) => {
                    let slot = input.slot(&field.of, schema, row)?;
                    row.set(*column, slot);
                }
                None => input.skip(&field.of, schema)?,
            }
        }
        if let Some(reader) = &self.reader {
            for (column, of, bytes) in &self.defaults {
                let slot = Input::new(bytes).slot(of, reader, row)?;
                row.set(*column, slot);
            }
        }
        Ok(())
    }
}

impl<P> Writers<P> {
    fn new(options: &AvroOptions, part: Part, make: impl FnOnce(Schema) -> Result<P>) -> Result<Self> {
        let inline = if part == Part::Key { &options.key_schema } else { &options.schema };
        match (&options.registry, inline) {
            (_, Some(text)) => Ok(Writers::One(Arc::new(make(Schema::parse(text, &[])?)?))),
            (Some(registry), None) => {
                Ok(Writers::Registry(Plans::new(Arc::new(SchemaRegistry::new(registry.clone())?))))
            }
            (None, None) => Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "FORMAT AVRO needs a schema")),
        }
    }

    fn plan<'a>(
        &mut self,
        record: &'a [u8],
        make: impl FnOnce(&SchemaRegistry, Schema) -> Result<P>,
    ) -> std::result::Result<(Arc<P>, &'a [u8]), BadFormat> {
        match self {
            Writers::One(plan) => Ok((Arc::clone(plan), record)),
            Writers::Registry(plans) => plans.of(record, |registry, schema| make(registry, parse(schema)?)),
        }
    }
}

/// How a datum of one writer becomes a row.
#[derive(Debug)]
struct Plan {
    schema: Schema,
    /// `None`: the whole datum is the one column.
    fields: Option<FieldColumns>,
}

impl Plan {
    fn new(schema: Schema, target: &mut Target, registry: Option<&SchemaRegistry>) -> Result<Plan> {
        let record = match schema.root.not_null().map(|t| &t.kind) {
            Some(Kind::Record(record)) if !target.whole_document => Some(*record),
            _ => None,
        };
        let fields = match record {
            Some(record) => Some(target.fields(&schema, record, registry)?),
            None if target.names.len() == 1 => None,
            None => {
                return Err(Error::new(SqlState::DATA_EXCEPTION, "the record's schema is no Avro record"));
            }
        };
        Ok(Plan { schema, fields })
    }
}

/// Reads records into rows.
#[derive(Debug)]
pub struct AvroReader {
    writers: Writers<Plan>,
    target: Target,
    row: Row,
    encodings: Vec<Encoding>,
}

impl AvroReader {
    /// For a part of records, with these columns.
    ///
    /// # Errors
    /// 22023 for a schema that is none.
    pub fn new(columns: &Columns, part: Part, options: &AvroOptions) -> Result<Self> {
        let mut target = Target::new(columns, part, options);
        let writers = Writers::new(options, part, |schema| Plan::new(schema, &mut target, None))?;
        Ok(AvroReader {
            writers,
            target,
            row: Row::new(columns.fields().len()),
            encodings: encodings(columns, options),
        })
    }

    /// Whether each record says which schema it has.
    pub fn is_framed(&self) -> bool {
        matches!(self.writers, Writers::Registry(_))
    }

    /// How the fields are written, where their types do not tell.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// The row that was read last.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Why it is bad; see [`BadFormat::is_unavailable`].
    pub fn read(&mut self, record: &[u8]) -> std::result::Result<&Row, BadFormat> {
        let AvroReader { writers, target, row, .. } = self;
        row.clear();
        let (plan, bytes) =
            writers.plan(record, |registry, schema| Plan::new(schema, target, Some(registry)))?;
        let mut input = Input::new(bytes);
        match &plan.fields {
            Some(fields) => {
                if input.present(&plan.schema.root)?.is_some() {
                    fields.read(&mut input, &plan.schema, row)?;
                }
            }
            None => {
                let slot = input.slot(&plan.schema.root, &plan.schema, row)?;
                row.set(0, slot);
            }
        }
        input.end()?;
        Ok(row)
    }
}

fn encodings(columns: &Columns, options: &AvroOptions) -> Vec<Encoding> {
    let json = JsonOptions { timestamp: options.timestamp, ..JsonOptions::default() };
    let encoding = |data_type: &DataType| json.encoding(data_type);
    columns.fields().iter().map(|f| encoding(f.data_type())).collect()
}

/// What a change event says besides its rows.
#[derive(Clone, Copy, Debug, Default)]
pub struct AvroEvent<'a> {
    /// What happened.
    pub op: Option<&'a str>,
    /// Whether there is a row before.
    pub has_before: bool,
    /// Whether there is a row after.
    pub has_after: bool,
}

/// What a field of a change event is.
#[derive(Debug)]
enum EventPart {
    Before(FieldColumns),
    After(FieldColumns),
    Op,
    Other,
}

#[derive(Debug)]
struct EventPlan {
    schema: Schema,
    record: usize,
    parts: Vec<EventPart>,
}

impl EventPlan {
    fn new(schema: Schema, target: &mut Target, registry: Option<&SchemaRegistry>) -> Result<EventPlan> {
        let Some(Kind::Record(record)) = schema.root.not_null().map(|t| t.kind.clone()) else {
            return Err(Error::new(SqlState::DATA_EXCEPTION, "the record's schema is no Avro record"));
        };
        let mut parts = Vec::new();
        for field in schema.records.get(record).map(|r| &r.fields[..]).unwrap_or_default() {
            let row = match field.of.not_null().map(|t| &t.kind) {
                Some(Kind::Record(row)) => Some(*row),
                _ => None,
            };
            parts.push(match (field.name.as_str(), row) {
                ("before", Some(row)) => EventPart::Before(target.fields(&schema, row, registry)?),
                ("after", Some(row)) => EventPart::After(target.fields(&schema, row, registry)?),
                ("op", _) => EventPart::Op,
                _ => EventPart::Other,
            });
        }
        Ok(EventPlan { schema, record, parts })
    }
}

/// Reads Debezium's change events.
#[derive(Debug)]
pub struct AvroEvents {
    writers: Writers<EventPlan>,
    target: Target,
    encodings: Vec<Encoding>,
}

impl AvroEvents {
    /// For events of a table with these columns.
    ///
    /// # Errors
    /// 22023 for a schema that is none.
    pub fn new(columns: &Columns, options: &AvroOptions) -> Result<Self> {
        let mut target = Target::new(columns, Part::Value, options);
        target.whole_document = false;
        let writers = Writers::new(options, Part::Value, |schema| EventPlan::new(schema, &mut target, None))?;
        Ok(AvroEvents { writers, target, encodings: encodings(columns, options) })
    }

    /// How the fields are written, where their types do not tell.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// Reads an event, its rows into `before` and `after`.
    ///
    /// # Errors
    /// Why it is bad; see [`BadFormat::is_unavailable`].
    pub fn read<'a>(
        &mut self,
        record: &'a [u8],
        before: &mut Row,
        after: &mut Row,
    ) -> std::result::Result<AvroEvent<'a>, BadFormat> {
        let AvroEvents { writers, target, .. } = self;
        let (plan, bytes) =
            writers.plan(record, |registry, schema| EventPlan::new(schema, target, Some(registry)))?;
        let mut input = Input::new(bytes);
        let mut event = AvroEvent::default();
        if input.present(&plan.schema.root)?.is_none() {
            return Ok(event);
        }
        let fields = plan.schema.records.get(plan.record).map(|r| &r.fields[..]).unwrap_or_default();
        for (field, part) in fields.iter().zip(&plan.parts) {
            match part {
                EventPart::Before(columns) => {
                    event.has_before = input.present(&field.of)?.is_some();
                    if event.has_before {
                        columns.read(&mut input, &plan.schema, before)?;
                    }
                }
                EventPart::After(columns) => {
                    event.has_after = input.present(&field.of)?.is_some();
                    if event.has_after {
                        columns.read(&mut input, &plan.schema, after)?;
                    }
                }
                EventPart::Op => event.op = input.optional_text(&field.of, &plan.schema)?,
                EventPart::Other => input.skip(&field.of, &plan.schema)?,
            }
        }
        input.end()?;
        Ok(event)
    }
}

#[cfg(test)]
mod tests;
