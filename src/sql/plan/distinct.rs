//! Places and names in DISTINCT ON and in the order of SELECT DISTINCT.

use datafusion::sql::sqlparser::ast::{Distinct, Expr, Select, SelectItem, Value, ValueWithSpan};

use crate::error::{Error, Result, SqlState};
use crate::names::fold;

/// Places in the list and names of its items, in DISTINCT ON, as the items that they mean.
pub(super) fn distinct_on(select: &mut Select) -> Result<()> {
    let Some(Distinct::On(exprs)) = &mut select.distinct else { return Ok(()) };
    for expr in exprs {
        let item = match &*expr {
            Expr::Value(ValueWithSpan { value: Value::Number(place, _), .. }) => {
                let index = place.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
                Some(index.and_then(|i| select.projection.get(i)).ok_or_else(|| {
                    Error::new(
                        SqlState("42P10"),
                        format!("SELECT DISTINCT ON position {place} is not in select list"),
                    )
                })?)
            }
            Expr::Identifier(name) => select.projection.iter().find(
                |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(name)),
            ),
            _ => None,
        };
        match item {
            Some(SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }) => {
                *expr = item.clone();
            }
            Some(_) => return Err(Error::unsupported("DISTINCT ON a place that a wildcard fills")),
            None => {}
        }
    }
    Ok(())
}

/// What SELECT DISTINCT is ordered by stands in its list: by its place, since it will be found under another name there.
pub(super) fn order_by_position(expr: &mut Expr, select: &Select) {
    if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_)) {
        return;
    }
    let position = select.projection.iter().position(|item| match item {
        SelectItem::UnnamedExpr(e) | SelectItem::ExprWithAlias { expr: e, .. } => e == expr,
        _ => false,
    });
    let wildcard = select
        .projection
        .iter()
        .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)));
    if let (Some(i), false) = (position, wildcard) {
        *expr = Expr::Value(Value::Number((i + 1).to_string(), true).into());
    }
}
