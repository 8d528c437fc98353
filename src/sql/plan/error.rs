//! DataFusion's planning errors as PostgreSQL's.

use std::str::FromStr;

use arrow::datatypes::{DataType, Field};
use datafusion::common::SchemaError;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::ast::Query;

use super::{locate, naming};
use crate::error::{Error, SqlState};
use crate::sql::parser::SourceText;
use crate::types::SqlType;

/// The error that PostgreSQL would give, with its place in `text`.
pub(super) fn from_datafusion(error: DataFusionError, query: &Query, text: &str) -> Error {
    let (error, location) = unwrap(error);
    let error = translate(error);
    let error = match location {
        Some(l) if error.position.is_none() => error.at(SourceText::new(text).position(l)),
        _ => error,
    };
    locate::attach(error, query, text)
}

/// Takes off what only describes where the error passed; keeps the place that a diagnostic tells.
fn unwrap(
    mut error: DataFusionError,
) -> (DataFusionError, Option<datafusion::sql::sqlparser::tokenizer::Location>) {
    let mut location = None;
    loop {
        error = match error {
            DataFusionError::Context(_, inner) => *inner,
            DataFusionError::Diagnostic(diagnostic, inner) => {
                let start = diagnostic.span.map(|s| s.start).filter(|l| l.line > 0);
                location =
                    location
                        .or(start
                            .map(|l| datafusion::sql::sqlparser::tokenizer::Location::new(l.line, l.column)));
                *inner
            }
            DataFusionError::Collection(mut all) if !all.is_empty() => all.swap_remove(0),
            other => return (other, location),
        };
    }
}

fn translate(error: DataFusionError) -> Error {
    match error {
        DataFusionError::SchemaError(e, _) => schema_error(&e),
        DataFusionError::Plan(message) => plan_error(&message),
        DataFusionError::NotImplemented(message) => not_implemented(&message),
        DataFusionError::Execution(message) if message.starts_with("No function matches") => {
            plan_error(&message)
        }
        // Frames of interval-ordered windows are checked before the order is that of lengths.
        DataFusionError::Internal(message) if message.contains("Cannot run range queries on datatype") => {
            Error::unsupported("a window with a RANGE frame that is ordered by an interval")
                .with_hint("Order by extract(epoch from the interval).")
        }
        other => other.into(),
    }
}

fn schema_error(error: &SchemaError) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let name = naming::shown(&field.name);
            let Some(relation) = &field.relation else {
                return Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" does not exist"));
            };
            let known = valid_fields
                .iter()
                .any(|f| f.relation.as_ref().is_some_and(|r| r.table() == relation.table()));
            if known {
                let table = relation.table();
                Error::new(SqlState::UNDEFINED_COLUMN, format!("column {table}.{name} does not exist"))
            } else {
                Error::new(
                    SqlState::UNDEFINED_TABLE,
                    format!("missing FROM-clause entry for table \"{}\"", relation.table()),
                )
            }
        }
        SchemaError::AmbiguousReference { field } => Error::new(
            SqlState::AMBIGUOUS_COLUMN,
            format!("column reference \"{}\" is ambiguous", naming::shown(&field.name)),
        ),
        SchemaError::DuplicateQualifiedField { qualifier, .. } => Error::new(
            SqlState("42712"),
            format!("table name \"{}\" specified more than once", qualifier.table()),
        ),
        SchemaError::DuplicateUnqualifiedField { name } => Error::new(
            SqlState::DUPLICATE_COLUMN,
            format!("column name \"{}\" specified more than once", naming::shown(name)),
        ),
    }
}

fn plan_error(message: &str) -> Error {
    let message = message.strip_prefix("Error during planning: ").unwrap_or(message);
    if message.contains("must appear in the GROUP BY clause") && message.contains("column \"") {
        let column = between(message, "column \"", "\"").unwrap_or_default();
        // A merged column's qualifier is not the user's.
        let column = match column.split_once('.') {
            Some((qualifier, name)) if naming::shown(qualifier).is_empty() => name,
            _ => column,
        };
        return Error::new(
            SqlState::GROUPING_ERROR,
            format!(
                "column \"{column}\" must appear in the GROUP BY clause or be used in an aggregate function"
            ),
        );
    }
    if message.contains("cannot contain window function calls") {
        return Error::new(
            SqlState::GROUPING_ERROR,
            "aggregate function calls cannot contain window function calls",
        );
    }
    if let Some(name) = between(message, "The window ", " is not defined") {
        return Error::new(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist"));
    }
    if message.contains("Window functions are not allowed in the WHERE clause") {
        return Error::new(SqlState("42P20"), "window functions are not allowed in WHERE");
    }
    if message.starts_with("QUALIFY clause requires window functions") {
        return Error::new(
            SqlState::WINDOWING_ERROR,
            "QUALIFY needs a window function, in its condition or in the SELECT list",
        )
        .with_hint("Conditions on rows belong into WHERE, on groups into HAVING.");
    }
    if let Some(name) = message.strip_prefix("Invalid qualifier ") {
        return Error::new(
            SqlState::UNDEFINED_TABLE,
            format!("missing FROM-clause entry for table \"{}\"", first_line(name)),
        );
    }
    if let Some((_, given)) = message.split_once("non-boolean predicate ")
        && let Some((_, given)) = given.rsplit_once(" returning ")
    {
        return Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("argument of WHERE must be type boolean, not type {}", sql_name(first_line(given))),
        );
    }
    if message.starts_with("LIMIT must be >= 0") {
        return Error::new(SqlState("2201W"), "LIMIT must not be negative");
    }
    if message.starts_with("OFFSET must be >=0") || message.starts_with("OFFSET must be >= 0") {
        return Error::new(SqlState("2201X"), "OFFSET must not be negative");
    }
    if let Some(name) = between(message, "Invalid function '", "'") {
        return undefined_function(name, None);
    }
    if let Some(name) = between(message, "table function '", "'") {
        return undefined_function(name, None);
    }
    if message.contains("No function matches the given name and argument types")
        && let Some(call) = between(message, "argument types '", "'")
        && let Some((name, types)) = call.strip_suffix(')').unwrap_or(call).split_once('(')
    {
        return undefined_function(name, Some(types));
    }
    if let Some(pair) = between(message, "comparison operation ", " to valid types")
        .or_else(|| between(message, "arithmetic expression ", " to valid types"))
        .or_else(|| between(message, "Cannot get result type for temporal operation ", ": "))
        .or_else(|| message.split_once("comparison operation ").map(|(_, rest)| rest))
        .or_else(|| {
            message.split_once("Cannot infer common string type for string concat operation ").map(|(_, r)| r)
        })
        && let Some(operator) = operator_error(pair)
    {
        return operator;
    }
    if message.starts_with("Aggregate functions are not allowed in the WHERE clause") {
        return Error::new(SqlState::GROUPING_ERROR, "aggregate functions are not allowed in WHERE");
    }
    if message.starts_with("HAVING clause references")
        || message.contains("Aggregate function calls cannot be nested")
    {
        return Error::new(SqlState::GROUPING_ERROR, lower_first(message));
    }
    if message.contains("different number of columns") || message.contains("same number of columns") {
        return Error::new(
            SqlState::SYNTAX_ERROR,
            "each query of a set operation must have the same number of columns",
        );
    }
    if message.contains("should only return one column") || message.contains("must return only one column") {
        return Error::new(SqlState::SYNTAX_ERROR, "subquery must return only one column");
    }
    if message.contains("Incompatible inputs for Union") {
        return Error::new(SqlState::DATATYPE_MISMATCH, lower_first(first_line(message)));
    }
    if message.contains("boolean") || message.contains("Boolean") {
        return Error::new(SqlState::DATATYPE_MISMATCH, lower_first(first_line(message)));
    }
    Error::new(SqlState("42000"), lower_first(first_line(message)))
}

fn not_implemented(message: &str) -> Error {
    // The tree of what is not understood can be pages long.
    let line = first_line(message);
    let line: String = line.chars().take(200).collect();
    Error::new(SqlState::FEATURE_NOT_SUPPORTED, lower_first(&line))
}

fn undefined_function(name: &str, types: Option<&str>) -> Error {
    // What TUMBLE, HOP and SESSION call with their column.
    if let ("tumble_start" | "hop_starts" | "session_start", Some(types)) = (name, types) {
        let given = arguments(types).next().map(sql_name).unwrap_or_default();
        return Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("the time column of a window must be a timestamp or a date, not {given}"),
        );
    }
    let shown = match types {
        Some(types) => format!("{name}({})", arguments(types).map(sql_name).collect::<Vec<_>>().join(", ")),
        None => format!("{name}()"),
    };
    Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {shown} does not exist")).with_hint(
        "No function matches the given name and argument types. You might need to add explicit type casts.",
    )
}

/// The types of a list, of which some have commas inside: `Decimal128(5, 1), Utf8`.
fn arguments(types: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    types
        .split(move |c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
        .filter(|t| !t.is_empty())
}

/// `Int64 = Boolean` as `operator does not exist: bigint = boolean`.
fn operator_error(pair: &str) -> Option<Error> {
    let pair = first_line(pair).trim_end_matches('.');
    let operators = [
        " = ",
        " != ",
        " <> ",
        " <= ",
        " >= ",
        " < ",
        " > ",
        " + ",
        " - ",
        " * ",
        " / ",
        " % ",
        " || ",
        " LIKE ",
        " AND ",
        " OR ",
        " IS DISTINCT FROM ",
    ];
    let operator = operators.iter().find(|o| pair.contains(*o))?;
    let (left, right) = pair.split_once(operator)?;
    let shown = format!("{} {} {}", sql_name(left.trim()), operator.trim(), sql_name(right.trim()));
    Some(Error::new(SqlState::UNDEFINED_FUNCTION, format!("operator does not exist: {shown}")).with_hint(
        "No operator matches the given name and argument types. You might need to add explicit type casts.",
    ))
}

/// An Arrow type's text as PostgreSQL's name for it.
fn sql_name(arrow: &str) -> String {
    match DataType::from_str(arrow) {
        // How many digits a numeric has never matters.
        Ok(DataType::Decimal128(..)) => "numeric".to_string(),
        Ok(data_type) => SqlType::of(&Field::new("", data_type, true)).to_string(),
        Err(_) => arrow.to_string(),
    }
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn lower_first(text: &str) -> String {
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        // An abbreviation keeps its capitals.
        (Some(a), Some(b)) if a.is_uppercase() && !b.is_uppercase() => {
            a.to_lowercase().collect::<String>() + &text[a.len_utf8()..]
        }
        _ => text.to_string(),
    }
}
