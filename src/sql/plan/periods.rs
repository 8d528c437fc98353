//! `(a, b) OVERLAPS (c, d)`: whether two periods of time have a moment in common, spelled out as comparisons.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType, Expr, TypedString, VisitorMut};

use super::rewrite::binary;
use super::rows;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser;
use crate::sql::walk::walk_mut;

/// What it means. An end that is NULL is unknown; a period of one moment holds it; ends may come in any order.
const MEANING: &str = "CASE WHEN least(a, b) IS NULL OR least(c, d) IS NULL THEN NULL \
    WHEN least(a, b) > least(c, d) THEN CASE WHEN c IS NULL OR d IS NULL THEN NULL \
        WHEN least(a, b) < greatest(c, d) THEN true WHEN a IS NULL OR b IS NULL THEN NULL ELSE false END \
    WHEN least(a, b) < least(c, d) THEN CASE WHEN a IS NULL OR b IS NULL THEN NULL \
        WHEN least(c, d) < greatest(a, b) THEN true WHEN c IS NULL OR d IS NULL THEN NULL ELSE false END \
    WHEN a IS NULL OR b IS NULL OR c IS NULL OR d IS NULL THEN NULL ELSE true END";

/// The condition that `left OVERLAPS right` stands for.
///
/// # Errors
/// 42601 when a side is no pair.
pub(super) fn overlap(left: &Expr, right: &Expr) -> Result<Expr> {
    let pair = |side: &Expr, name: &str| match rows::fields(side).as_deref() {
        Some([start, end]) => Ok([start.clone(), end_of(start, end)]),
        _ => Err(Error::new(
            SqlState::SYNTAX_ERROR,
            format!("wrong number of parameters on {name} side of OVERLAPS expression"),
        )),
    };
    let ([a, b], [c, d]) = (pair(left, "left")?, pair(right, "right")?);
    let mut meaning = parser::parse_expression(MEANING)?;
    // The visitor never breaks.
    let _ = walk_mut(&mut meaning, &mut Filling([("a", a), ("b", b), ("c", c), ("d", d)]));
    Ok(Expr::Nested(Box::new(meaning)))
}

/// The end of a period, which may be given as its length.
fn end_of(start: &Expr, end: &Expr) -> Expr {
    let is_length = match end {
        Expr::Interval(_) => true,
        Expr::Cast { data_type, .. } | Expr::TypedString(TypedString { data_type, .. }) => {
            matches!(data_type, DataType::Interval { .. })
        }
        _ => false,
    };
    match is_length {
        true => Expr::Nested(Box::new(binary(start.clone(), BinaryOperator::Plus, end.clone()))),
        false => end.clone(),
    }
}

/// Puts expressions in the places of the names that stand for them.
struct Filling([(&'static str, Expr); 4]);

impl VisitorMut for Filling {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && let Some((_, meant)) = self.0.iter().find(|(known, _)| *known == fold(name))
        {
            *expr = Expr::Nested(Box::new(meant.clone()));
        }
        ControlFlow::Continue(())
    }
}
