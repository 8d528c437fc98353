//! The columns of a database's tables upstream against those that they have here, and what is done where they differ.
//!
//! * `ignore`: columns that came are not seen; when one of ours is gone, the source stops;
//! * `pause`: the source stops before the first row of another shape;
//! * `evolve`: columns that came are added here, NULL in the rows there are; those that are gone are NULL from then on.
//!
//! A column's type here never changes. Where the upstream's did, values that fit are taken, and others become rows of
//! `tidemill.errors`.
//!
//! Whether the rows that are here already lack something is told by what a position notes: how many columns of each table
//! the rows up to there were read with, and whether any were passed over. A column that gives old rows values without a
//! word in the log (a default, another name for a column) has all tables copied again.

use std::collections::BTreeMap;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use super::gathered::Gathered;
use super::{Discovered, OnSchemaChange, SourceContext, SourceOutput};
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;
use crate::world;

/// A table as it is upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamTable {
    /// `schema.table`, as outputs refer to it.
    pub name: String,
    /// Its columns, by our types.
    pub schema: SchemaRef,
    /// Positions of its key's columns; empty: none.
    pub key: Vec<usize>,
    /// Columns that may have a value in rows that were there before the column.
    pub filled: Vec<String>,
}

impl From<UpstreamTable> for Discovered {
    fn from(table: UpstreamTable) -> Self {
        Discovered { upstream: table.name, schema: table.schema, key: table.key }
    }
}

/// What a position notes of the rows up to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    /// How many of its columns each table's rows were read with, by our numbers.
    pub columns: BTreeMap<u64, usize>,
    /// No column that came was passed over.
    pub whole: bool,
}

/// In what a table here differs from the one upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Differences {
    added: Vec<FieldRef>,
    gone: Vec<String>,
    retyped: Vec<(FieldRef, FieldRef)>,
}

impl Differences {
    /// Compares by name.
    pub fn between(output: &SourceOutput, upstream: &Schema) -> Self {
        let mut found = Differences::default();
        for there in upstream.fields() {
            match output.schema.field_with_name(there.name()) {
                Err(_) => found.added.push(there.clone()),
                Ok(here) if SqlType::of(here) != SqlType::of(there) => {
                    found.retyped.push((std::sync::Arc::new(here.clone()), there.clone()));
                }
                Ok(_) => {}
            }
        }
        let is_gone = |field: &&FieldRef| upstream.field_with_name(field.name()).is_err();
        found.gone = output.schema.fields().iter().filter(is_gone).map(|f| f.name().clone()).collect();
        found
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Differences::default()
    }

    /// For people; `None`: there are none.
    pub fn told(&self) -> Option<String> {
        let added =
            self.added.iter().map(|f| format!("column \"{}\" ({}) is not here", f.name(), SqlType::of(f)));
        let gone = self.gone.iter().map(|name| format!("column \"{name}\" is gone upstream"));
        let retyped = self.retyped.iter().map(|(here, there)| {
            let (name, here, there) = (here.name(), SqlType::of(here), SqlType::of(there));
            format!("column \"{name}\" is {there} upstream and {here} here")
        });
        let all: Vec<String> = added.chain(gone).chain(retyped).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// The tables are as they will be read.
pub struct Settled {
    /// What the positions from now on note.
    pub noted: Noted,
    /// Some table has got columns.
    pub grown: bool,
    /// Why the rows that are here lack something, if they do.
    pub copy: Option<String>,
}

/// Holds the outputs against the tables upstream and does what the source's policy says. `note` is called before any
/// table gets columns if `noted` does not say how many it had: it must make a position durable that does.
///
/// # Errors
/// 42P01 for a table that is gone; 55000 for another key.
pub fn settle(
    cx: &mut SourceContext,
    gathered: &mut Gathered,
    upstream: &[UpstreamTable],
    noted: Option<&Noted>,
    mut note: impl FnMut(&SourceContext, &Noted) -> Result<()>,
) -> Result<Settled> {
    let policy = cx.feed.on_schema_change();
    let (mut grown, mut copy, mut told) = (false, None, Vec::new());
    let mut before = noted.cloned().unwrap_or_default();
    let mut to_be_noted =
        noted.is_some() && widths(&cx.outputs).keys().any(|id| !before.columns.contains_key(id));
    for (number, width) in widths(&cx.outputs) {
        before.columns.entry(number).or_insert(width);
    }
    let mut passed_over = policy == OnSchemaChange::Ignore;
    for i in 0..cx.outputs.len() {
        let output = cx.outputs[i].clone();
        let Some(table) = upstream.iter().find(|t| t.name == output.upstream) else {
            let message = format!("table {} is gone upstream", output.upstream);
            return Err(Error::new(SqlState::UNDEFINED_TABLE, message)
                .with_hint("Create it again upstream, or drop the table here."));
        };
        check_key(&output, table)?;
        let found = Differences::between(&output, &table.schema);
        let number = output.collection.0;
        if policy == OnSchemaChange::Evolve && !found.added.is_empty() {
            if std::mem::take(&mut to_be_noted) {
                note(cx, &before)?;
            }
            match cx.feed.add_columns(output.collection, &found.added) {
                Ok(schema) => {
                    tracing::info!(source = %cx.name, table = %output.upstream, differences = ?found.told(),
                        "the table has got the columns that came upstream");
                    world::crash_point("source.grown");
                    grown = true;
                    cx.outputs[i].schema = schema;
                    gathered.redefine(i, cx.outputs[i].clone())?;
                }
                Err(e) if e.sqlstate == SqlState::DEPENDENT_OBJECTS_STILL_EXIST => {
                    tracing::warn!(source = %cx.name, table = %output.upstream, error = %e,
                        "the table does not get the columns that came upstream");
                    passed_over = true;
                }
                Err(e) => return Err(e),
            }
        }
        let output = &cx.outputs[i];
        let read_with = before.columns.get(&number).copied().unwrap_or_default();
        let new = output.schema.fields().iter().skip(read_with);
        let lacks = new.clone().any(|f| table.filled.contains(f.name()));
        if noted.is_some() && new.len() > 0 && (!before.whole || !found.gone.is_empty() || lacks) {
            copy = Some(format!("the rows of {} have values in columns that came upstream", output.upstream));
        }
        told.extend(Differences::between(output, &table.schema).told().map(|what| (output.collection, what)));
    }
    cx.status.update(|s| s.differences = told);
    let noted = Noted { columns: widths(&cx.outputs), whole: !passed_over };
    Ok(Settled { noted, grown, copy })
}

/// The error of a copy that has begun with tables that are no longer as they were looked at: it is tried again.
pub fn changed_before_copy() -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, "tables were changed upstream while their copy began")
}

/// How many columns each output has.
fn widths(outputs: &[SourceOutput]) -> BTreeMap<u64, usize> {
    outputs.iter().map(|o| (o.collection.0, o.schema.fields().len())).collect()
}

/// Where each column of an output stands among these; nowhere, which is behind all: it is NULL.
///
/// # Errors
/// 42703 for a column that is not among them, where that is not followed.
pub fn places<'a>(
    output: &SourceOutput,
    names: impl Iterator<Item = &'a str> + Clone,
    policy: OnSchemaChange,
) -> Result<Vec<usize>> {
    let place = |field: &FieldRef| match names.clone().position(|name| name == field.name()) {
        Some(place) => Ok(place),
        None if policy == OnSchemaChange::Evolve && !is_key(output, field.name()) => Ok(usize::MAX),
        None => Err(gone(output, field.name())),
    };
    output.schema.fields().iter().map(place).collect()
}

/// The columns of an output that a copy can read, and where they stand among all of its columns.
pub fn readable(output: &SourceOutput, upstream: &Schema) -> Vec<(usize, String)> {
    let there = |(_, name): &(usize, String)| upstream.field_with_name(name).is_ok();
    output.schema.fields().iter().map(|f| f.name().clone()).enumerate().filter(there).collect()
}

fn is_key(output: &SourceOutput, name: &str) -> bool {
    output.key.iter().any(|k| output.schema.field(*k).name() == name)
}

fn check_key(output: &SourceOutput, table: &UpstreamTable) -> Result<()> {
    let names = |schema: &Schema, key: &[usize]| {
        key.iter().map(|i| schema.field(*i).name().clone()).collect::<Vec<_>>()
    };
    if names(&table.schema, &table.key) == names(&output.schema, &output.key) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the primary key of {} changed upstream", output.upstream),
    )
    .with_hint("Drop the table here and create it anew."))
}

fn gone(output: &SourceOutput, name: &str) -> Error {
    Error::new(
        SqlState::UNDEFINED_COLUMN,
        format!("column \"{name}\" of {} is gone upstream", output.upstream),
    )
    .with_hint("Add it again upstream; or let the table go on without: ALTER SOURCE … ON SCHEMA CHANGE EVOLVE; or drop it here and create it anew.")
}

/// Why a source that is to pause before rows of another shape has stopped.
pub fn paused(output: &SourceOutput, differences: &Differences) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the columns of {} changed upstream", output.upstream),
    )
    .with_detail(differences.told().unwrap_or_default())
    .with_hint(
        "ALTER SOURCE … ON SCHEMA CHANGE EVOLVE follows the change, ON SCHEMA CHANGE IGNORE passes it over.",
    )
}

/// Before rows are taken that have the table's present columns.
///
/// # Errors
/// 55000 when they are not those here, where the source is to pause; 42703 when one of ours is gone, where that is not
/// followed.
pub fn check_taken(output: &SourceOutput, upstream: &Schema, policy: OnSchemaChange) -> Result<()> {
    let differences = Differences::between(output, upstream);
    match policy {
        OnSchemaChange::Pause if !differences.is_empty() => Err(paused(output, &differences)),
        _ => places(output, upstream.fields().iter().map(|f| f.name().as_str()), policy).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::engine::CollectionId;

    fn output(columns: &[(&str, SqlType)]) -> SourceOutput {
        let fields: Vec<_> = columns.iter().map(|(name, t)| t.field(*name, true)).collect();
        let schema = Arc::new(Schema::new(fields));
        SourceOutput { collection: CollectionId(1), upstream: "public.t".into(), schema, key: vec![0] }
    }

    #[test]
    fn differences_are_told_by_name() {
        let here = output(&[("id", SqlType::Int4), ("n", SqlType::Int4), ("old", SqlType::Text)]);
        let there = output(&[("new", SqlType::Text), ("id", SqlType::Int4), ("n", SqlType::Int8)]);
        let found = Differences::between(&here, &there.schema);
        assert_eq!(
            found.told().unwrap(),
            "column \"new\" (text) is not here; column \"old\" is gone upstream; \
             column \"n\" is bigint upstream and integer here"
        );
        assert!(Differences::between(&here, &here.schema).is_empty());
        let names = ["new", "id", "n"];
        let evolving = places(&here, names.into_iter(), OnSchemaChange::Evolve).unwrap();
        assert_eq!(evolving, [1, 2, usize::MAX]);
        assert_eq!(
            places(&here, names.into_iter(), OnSchemaChange::Ignore).unwrap_err().sqlstate,
            SqlState::UNDEFINED_COLUMN
        );
        // Without its key no row can be told.
        assert!(places(&here, ["n", "old"].into_iter(), OnSchemaChange::Evolve).is_err());
        assert_eq!(readable(&here, &there.schema), [(0, "id".to_string()), (1, "n".to_string())]);
    }
}
