//! VALUES that DataFusion's cannot be: with subqueries, columns of outer queries, or literals beside other types.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, Query, SelectItem, SetExpr, SetOperator, SetQuantifier, Value, Values, Visitor,
};

use super::expressions::SESSION_VALUES;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser;
use crate::sql::walk::walk;

/// Whether the rows have to be written as a union.
pub(super) fn needs_union(values: &Values) -> bool {
    values.rows.iter().any(|row| row.content.iter().any(looks_around)) || mixes_strings(values)
}

/// Whether an expression names columns or has subqueries: DataFusion's VALUES know neither.
fn looks_around(expr: &Expr) -> bool {
    struct Looks;
    impl Visitor for Looks {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
                Expr::Identifier(id)
                    if id.quote_style.is_some() || !SESSION_VALUES.contains(&fold(id).as_str()) =>
                {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    walk(expr, &mut Looks).is_break()
}

/// Whether string literals stand below other things, whose type they have to take, as they do in a union.
fn mixes_strings(values: &Values) -> bool {
    let kind = |expr: &Expr| match expr {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(_) | Value::EscapedStringLiteral(_) => Some(true),
            Value::Null | Value::Placeholder(_) => None,
            _ => Some(false),
        },
        _ => Some(false),
    };
    let width = values.rows.first().map_or(0, |row| row.content.len());
    (0..width).any(|column| {
        let mut kinds = values.rows.iter().filter_map(|row| kind(row.content.get(column)?));
        kinds.next().is_some_and(|first| kinds.any(|other| other != first))
    })
}

/// `VALUES (a, b), …` as `SELECT a, b UNION ALL …`.
pub(super) fn rows_as_selects(values: &Values) -> Result<SetExpr> {
    let mut selects = Vec::with_capacity(values.rows.len());
    for row in &values.rows {
        let mut one = parser::parse_query("SELECT 1")?;
        if let SetExpr::Select(select) = one.body.as_mut() {
            select.projection = row
                .content
                .iter()
                .enumerate()
                .map(|(i, expr)| SelectItem::ExprWithAlias {
                    expr: expr.clone(),
                    alias: Ident::new(format!("column{}", i + 1)),
                })
                .collect();
        }
        selects.push(*one.body);
    }
    let union = |left, right| SetExpr::SetOperation {
        op: SetOperator::Union,
        set_quantifier: SetQuantifier::All,
        left: Box::new(left),
        right: Box::new(right),
    };
    let all = selects.into_iter().reduce(union);
    all.ok_or_else(|| Error::new(SqlState::SYNTAX_ERROR, "VALUES without rows"))
}
