//! Where in a query's text a name stands: from the spans that the parser left in its tree.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Ident, ObjectName, Query, Spanned, Value, Visitor};
use datafusion::sql::sqlparser::tokenizer::Location;

use crate::error::{Error, SqlState};
use crate::names::fold;
use crate::sql::parser::SourceText;
use crate::sql::walk::walk;

/// Gives an error the place of the name that its message quotes, when it has none.
pub(super) fn attach(error: Error, query: &Query, text: &str) -> Error {
    if error.position.is_some() {
        return error;
    }
    let Some(name) = quoted(&error.message) else { return error };
    let parts: Vec<&str> = name.split('.').collect();
    let found = match error.sqlstate {
        SqlState::UNDEFINED_TABLE if error.message.starts_with("missing FROM") => column_with(query, |ids| {
            ids.len() > parts.len() && ids.iter().zip(&parts).all(|(id, part)| fold(id) == *part)
        }),
        SqlState::UNDEFINED_TABLE | SqlState::WRONG_OBJECT_TYPE => relation(query, &parts),
        SqlState::UNDEFINED_COLUMN | SqlState::AMBIGUOUS_COLUMN | SqlState::GROUPING_ERROR => {
            column_with(query, |ids| ends_with(ids, &parts))
        }
        SqlState::UNDEFINED_FUNCTION | SqlState::FEATURE_NOT_SUPPORTED => function(query, name),
        _ => None,
    };
    match found {
        Some(location) => error.at(SourceText::new(text).position(location)),
        None => error,
    }
}

/// What a message is about: the first quoted part, or the name before a parenthesis (`function foo(integer) …`).
fn quoted(message: &str) -> Option<&str> {
    if let Some((_, rest)) = message.split_once('"') {
        return rest.split_once('"').map(|(name, _)| name);
    }
    let words =
        message.strip_prefix("function ").or_else(|| message.strip_prefix("column ")).unwrap_or(message);
    let end = words.find(['(', ' ']).unwrap_or(words.len());
    Some(&words[..end]).filter(|w| !w.is_empty())
}

fn ends_with(ids: &[Ident], parts: &[&str]) -> bool {
    ids.len() >= parts.len().min(1)
        && ids.iter().rev().zip(parts.iter().rev()).all(|(id, part)| fold(id) == *part)
}

/// The first place where a relation is named so.
fn relation(query: &Query, parts: &[&str]) -> Option<Location> {
    first(query, |node| match node {
        Node::Relation(name) => {
            let ids: Vec<Ident> = name.0.iter().filter_map(|p| p.as_ident()).cloned().collect();
            (ids.len() == parts.len() && ends_with(&ids, parts)).then(|| ids[0].span.start)
        }
        Node::Expr(_) => None,
    })
}

/// The first place of a column reference that satisfies `is`.
fn column_with(query: &Query, is: impl Fn(&[Ident]) -> bool) -> Option<Location> {
    first(query, |node| match node {
        Node::Expr(Expr::Identifier(id)) if is(std::slice::from_ref(id)) => Some(id.span.start),
        Node::Expr(Expr::CompoundIdentifier(ids)) if is(ids) => ids.first().map(|id| id.span.start),
        _ => None,
    })
}

/// The first place where a function of this name is called.
fn function(query: &Query, name: &str) -> Option<Location> {
    first(query, |node| match node {
        Node::Expr(Expr::Function(call)) => {
            let last = call.name.0.last()?.as_ident()?;
            (fold(last) == name).then(|| call.name.span().start)
        }
        _ => None,
    })
}

/// The first place of a parameter.
pub(super) fn placeholder(query: &Query) -> Option<Location> {
    first(query, |node| match node {
        Node::Expr(Expr::Value(v)) if matches!(v.value, Value::Placeholder(_)) => Some(v.span.start),
        _ => None,
    })
}

enum Node<'a> {
    Relation(&'a ObjectName),
    Expr(&'a Expr),
}

struct First<F>(F);

impl<F: Fn(Node<'_>) -> Option<Location>> Visitor for First<F> {
    type Break = Location;

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Location> {
        (self.0)(Node::Relation(relation)).map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Location> {
        (self.0)(Node::Expr(expr)).map_or(ControlFlow::Continue(()), ControlFlow::Break)
    }
}

/// The first known location that `find` answers with.
fn first(query: &Query, find: impl Fn(Node<'_>) -> Option<Location>) -> Option<Location> {
    match walk(query, &mut First(|node: Node<'_>| find(node).filter(|l| l.line > 0))) {
        ControlFlow::Break(location) => Some(location),
        ControlFlow::Continue(()) => None,
    }
}
