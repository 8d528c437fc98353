//! `files('…')` in FROM: files read where they are, for one query. Their columns are looked up when it is planned.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName, Query, TableAlias, TableFactor, Value, VisitorMut,
};

use crate::connectors::files::{once, read};
use crate::connectors::{Envelope, FormatSpec, OptionValue, SourceDefinition, registry};
use crate::database::connect;
use crate::error::{Error, Result, SqlState};
use crate::names::{Name, fold};
use crate::sql::Catalog;
use crate::sql::ast::ObjectKind;
use crate::sql::walk::walk_mut;

/// The function.
const FUNCTION: &str = "files";
/// Arguments that say how the format is to be read; others belong to the store.
const OF_FORMAT: [&str; 4] = ["header", "delimiter", "quote", "null"];
/// Batches that wait for whoever reads them.
const WAITING: usize = 2;

/// Files that a query names, each by the name that stands for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Previews(HashMap<String, Arc<dyn TableProvider>>);

impl Previews {
    /// What stands under a name of schema `tidemill`.
    pub(crate) fn get(&self, name: &str) -> Option<Arc<dyn TableProvider>> {
        self.0.get(name).map(Arc::clone)
    }
}

/// A call: its first argument, and the others by name.
struct Call {
    url: String,
    named: Vec<(String, String)>,
}

/// Finds calls, and puts names in their places.
#[derive(Default)]
struct Calls {
    found: Vec<(String, Call)>,
    error: Option<Error>,
}

fn text_of(argument: &FunctionArgExpr) -> Option<String> {
    match argument {
        FunctionArgExpr::Expr(Expr::Value(value)) => match &value.value {
            Value::SingleQuotedString(text) | Value::Number(text, _) => Some(text.clone()),
            Value::Boolean(value) => Some(value.to_string()),
            _ => None,
        },
        FunctionArgExpr::Expr(Expr::Identifier(word)) => Some(fold(word)),
        _ => None,
    }
}

fn call(arguments: &[FunctionArg]) -> Option<Call> {
    let mut call = Call { url: String::new(), named: Vec::new() };
    for (i, argument) in arguments.iter().enumerate() {
        match argument {
            FunctionArg::Unnamed(value) if i == 0 => call.url = text_of(value)?,
            FunctionArg::Named { name, arg, .. } => call.named.push((fold(name), text_of(arg)?)),
            FunctionArg::ExprNamed { name: Expr::Identifier(name), arg, .. } => {
                call.named.push((fold(name), text_of(arg)?));
            }
            _ => return None,
        }
    }
    (!call.url.is_empty()).then_some(call)
}

impl VisitorMut for Calls {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, args, alias, .. } = factor else { return ControlFlow::Continue(()) };
        let is_ours = matches!(&name.0[..], [part] if part.as_ident().is_some_and(|i| fold(i) == FUNCTION));
        let Some(arguments) = args.as_ref().filter(|_| is_ours) else { return ControlFlow::Continue(()) };
        let Some(call) = call(&arguments.args) else {
            let message = "files() takes a path or a url, and options by name, all of them literals";
            self.error = Some(
                Error::new(SqlState::UNDEFINED_FUNCTION, message)
                    .with_hint("For example: SELECT * FROM files('/data/*.csv', format => 'csv') LIMIT 5."),
            );
            return ControlFlow::Break(());
        };
        let stands_for_it = format!("files {}", self.found.len() + 1);
        let schema = Ident::with_quote('"', "tidemill");
        *name = ObjectName::from(vec![schema, Ident::with_quote('"', &stands_for_it)]);
        *args = None;
        alias.get_or_insert_with(|| TableAlias {
            explicit: true,
            name: Ident::new(FUNCTION),
            columns: Vec::new(),
            at: None,
        });
        self.found.push((stands_for_it, call));
        ControlFlow::Continue(())
    }
}

/// The format by the name of a file, and what goes without saying about it.
fn format_of(url: &str) -> Option<(&'static str, &'static [(&'static str, &'static str)])> {
    let name = url.to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
    let (_, ending) = name.rsplit_once('.')?;
    Some(match ending {
        "csv" => ("csv", &[("header", "true")]),
        "tsv" => ("csv", &[("header", "true"), ("delimiter", "\\t")]),
        "json" | "ndjson" | "jsonl" => ("json", &[]),
        "parquet" => ("parquet", &[]),
        "avro" => ("avro", &[]),
        "txt" | "log" => ("text", &[]),
        _ => return None,
    })
}

/// What the files of a call are as a source.
fn definition(catalog: &Catalog, call: Call) -> Result<SourceDefinition> {
    let Call { url, mut named } = call;
    let mut take = |name: &str| {
        let at = named.iter().position(|(n, _)| n == name)?;
        Some(named.remove(at).1)
    };
    let connection = match take("connection") {
        None => Vec::new(),
        Some(name) => {
            let id = catalog.require(ObjectKind::Connection, &Name::bare(name))?.id;
            connect::connection(catalog, Some(id), FUNCTION)?
        }
    };
    let format = match (take("format"), format_of(&url)) {
        (Some(format), Some((known, options))) if format.eq_ignore_ascii_case(known) => {
            (known.to_string(), options)
        }
        (Some(format), _) if format.eq_ignore_ascii_case("csv") => (format, &[("header", "true")][..]),
        (Some(format), _) => (format, &[][..]),
        (None, Some((format, options))) => (format.to_string(), options),
        (None, None) => {
            let message = format!("the format of \"{url}\" does not show in its name");
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_hint("Say it: files('…', format => 'csv'), or json, parquet, avro, text."));
        }
    };
    let (name, without_saying) = format;
    let (said, options): (Vec<_>, Vec<_>) =
        named.into_iter().partition(|(n, _)| OF_FORMAT.contains(&n.as_str()));
    let mut format_options: Vec<(String, OptionValue)> =
        said.into_iter().map(|(n, v)| (n, OptionValue::Literal(v))).collect();
    for (option, value) in without_saying {
        if !format_options.iter().any(|(n, _)| n == option) {
            format_options.push(((*option).to_string(), OptionValue::Literal((*value).to_string())));
        }
    }
    let place = if connection.is_empty() { "url" } else { "path" };
    let mut options = options;
    options.insert(0, (place.to_string(), url));
    Ok(once(SourceDefinition {
        name: FUNCTION.to_string(),
        kind: FUNCTION.to_string(),
        connection,
        options,
        format: Some(FormatSpec { name, options: format_options }),
        envelope: Envelope::None,
        includes: Vec::new(),
        key: Vec::new(),
    }))
}

/// Files as DataFusion reads them.
#[derive(Debug)]
struct Reading {
    definition: SourceDefinition,
    schema: SchemaRef,
}

impl PartitionStream for Reading {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let mut builder = RecordBatchReceiverStreamBuilder::new(Arc::clone(&self.schema), WAITING);
        let rows = builder.tx();
        let (definition, schema) = (self.definition.clone(), Arc::clone(&self.schema));
        builder.spawn_blocking(move || {
            let forward = move |batch: RecordBatch| rows.blocking_send(Ok(batch)).is_ok();
            // It has a runtime of its own, and wants a thread of its own for it.
            read(&definition, &schema, Box::new(forward)).map_err(Into::into)
        });
        builder.build()
    }
}

/// Opens the files that a query names, and puts names that stand for them into it. Blocks while their columns are
/// looked up.
///
/// # Errors
/// What is wrong with a call; the store's.
pub(crate) fn open(catalog: &Catalog, query: &mut Query) -> Result<Previews> {
    let mut calls = Calls::default();
    // Where it breaks off, the error says why.
    let _ = walk_mut(query, &mut calls);
    if let Some(error) = calls.error {
        return Err(error);
    }
    let mut previews = Previews::default();
    for (name, call) in calls.found {
        let definition = definition(catalog, call)?;
        let schema = columns(&definition)?;
        let reading = Reading { definition, schema: Arc::clone(&schema) };
        let table = StreamingTable::try_new(schema, vec![Arc::new(reading)])?;
        previews.0.insert(name, Arc::new(table));
    }
    Ok(previews)
}

/// The files' columns, looked up by a thread that may wait.
fn columns(definition: &SourceDefinition) -> Result<SchemaRef> {
    let found = std::thread::scope(|scope| {
        let found = scope.spawn(|| registry::discover(definition)).join();
        found.unwrap_or_else(|_| Err(Error::internal("the columns of files could not be looked up")))
    })?;
    let first = found.into_iter().next();
    first.map(|f| f.schema).ok_or_else(|| Error::internal("files without columns"))
}
