//! Comparisons of rows, column by column: `(a, b) = (1, 2)`, `(a, b) < (1, 2)`, `(a, b) IN ((1, 2), …)`, `(a, b) IN (SELECT …)`.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Ident, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, UnaryOperator, Value,
};

use super::collecting::given_arguments;
use super::naming;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser;

/// Spells a comparison of rows out.
///
/// # Errors
/// 42601 when the rows have another number of columns.
pub(super) fn compare(expr: &mut Expr) -> Result<()> {
    let rewritten = match &*expr {
        Expr::BinaryOp { left, op, right } => match (fields(left), fields(right)) {
            (Some(l), Some(r)) if l.len() == r.len() => match op {
                BinaryOperator::Eq => equal(&l, &r),
                BinaryOperator::NotEq => equal(&l, &r).map(not),
                BinaryOperator::Lt | BinaryOperator::LtEq => ordered(&l, &r, &BinaryOperator::Lt, op),
                BinaryOperator::Gt | BinaryOperator::GtEq => ordered(&l, &r, &BinaryOperator::Gt, op),
                _ => None,
            },
            (Some(_), Some(_)) if is_comparison(op) => {
                return Err(Error::new(
                    SqlState::SYNTAX_ERROR,
                    "unequal number of entries in row expressions",
                ));
            }
            _ => None,
        },
        Expr::InList { expr: row, list, negated } => match row.as_ref() {
            Expr::Tuple(l) => list
                .iter()
                .map(|item| match item {
                    Expr::Tuple(r) if l.len() == r.len() => equal(l, r),
                    _ => None,
                })
                .collect::<Option<Vec<_>>>()
                .and_then(|rows| rows.into_iter().reduce(|a, b| binary(a, BinaryOperator::Or, b)))
                .map(nested)
                .map(|e| if *negated { not(e) } else { e }),
            _ => None,
        },
        Expr::InSubquery { expr: row, subquery, negated } => match row.as_ref() {
            Expr::Tuple(l) => {
                let found = contains(l, subquery)?;
                Some(if *negated { not(found) } else { found })
            }
            _ => None,
        },
        _ => None,
    };
    if let Some(rewritten) = rewritten {
        *expr = rewritten;
    }
    Ok(())
}

/// Rows that a condition keeps: those found in a subquery. Whether a comparison was false or unknown makes no
/// difference here, which spares the search for NULLs.
///
/// # Errors
/// As [`compare`].
pub(super) fn filter(condition: &mut Expr) -> Result<()> {
    match condition {
        Expr::Nested(inner) => filter(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            filter(left)?;
            filter(right)
        }
        Expr::InSubquery { expr, subquery, negated: false } => {
            if let Expr::Tuple(row) = expr.as_ref() {
                *condition = exists(subquery, row, |equal| equal)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// True when a row is in a subquery's result; NULL when it is not, but would be if some NULL were a value.
fn contains(row: &[Expr], subquery: &Query) -> Result<Expr> {
    let found = exists(subquery, row, |equal| equal)?;
    let unknown = exists(subquery, row, |equal| Expr::IsNull(Box::new(equal)))?;
    let unknown = binary(unknown, BinaryOperator::And, Expr::Value(Value::Null.into()));
    Ok(nested(binary(found, BinaryOperator::Or, nested(unknown))))
}

fn equal(left: &[Expr], right: &[Expr]) -> Option<Expr> {
    let pairs = left.iter().zip(right).map(|(l, r)| binary(l.clone(), BinaryOperator::Eq, r.clone()));
    pairs.reduce(|a, b| binary(a, BinaryOperator::And, b)).map(nested)
}

/// The fields of a row as written: `(a, b)` or `ROW(a, b)`.
pub(super) fn fields(expr: &Expr) -> Option<Vec<Expr>> {
    match expr {
        Expr::Tuple(fields) => Some(fields.clone()),
        Expr::Function(function) => {
            let [name] = function.name.0.as_slice() else { return None };
            (fold(name.as_ident()?) == "row").then(|| given_arguments(function))
        }
        _ => None,
    }
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// `l < r` column by column: the first that differ decide, the last ones by `last`.
fn ordered(left: &[Expr], right: &[Expr], strict: &BinaryOperator, last: &BinaryOperator) -> Option<Expr> {
    let (l, r) = (left.first()?, right.first()?);
    let compared = |op: &BinaryOperator| binary(l.clone(), op.clone(), r.clone());
    Some(nested(match ordered(&left[1..], &right[1..], strict, last) {
        None => compared(last),
        Some(rest) => {
            let tied = binary(compared(&BinaryOperator::Eq), BinaryOperator::And, rest);
            binary(compared(strict), BinaryOperator::Or, nested(tied))
        }
    }))
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// `EXISTS (SELECT 1 FROM (subquery) WHERE …)` of what `condition` makes of the rows being equal.
fn exists(subquery: &Query, row: &[Expr], condition: impl FnOnce(Expr) -> Expr) -> Result<Expr> {
    // Names that no query can write: those of the row mean what they mean outside.
    let alias = Ident::with_quote('"', naming::marked("row", 0));
    let columns: Vec<Ident> =
        (0..row.len()).map(|i| Ident::with_quote('"', naming::marked("column", i))).collect();
    if let SetExpr::Select(select) = subquery.body.as_ref()
        && !select
            .projection
            .iter()
            .any(|item| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..)))
        && select.projection.len() != row.len()
    {
        let problem = if select.projection.len() < row.len() { "few" } else { "many" };
        return Err(Error::new(SqlState::SYNTAX_ERROR, format!("subquery has too {problem} columns")));
    }
    let values: Vec<Expr> =
        columns.iter().map(|c| Expr::CompoundIdentifier(vec![alias.clone(), c.clone()])).collect();
    let Some(equal) = equal(row, &values) else {
        return Err(Error::new(SqlState::SYNTAX_ERROR, "a row needs columns"));
    };
    let mut query = parser::parse_query("SELECT 1 FROM t")?;
    if let SetExpr::Select(select) = query.body.as_mut() {
        let columns = columns.into_iter().map(|name| TableAliasColumnDef { name, data_type: None }).collect();
        let relation = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(subquery.clone()),
            alias: Some(TableAlias { explicit: true, name: alias, columns, at: None }),
            sample: None,
        };
        select.selection = Some(condition(equal));
        select.from = vec![TableWithJoins { relation, joins: vec![] }];
    }
    Ok(Expr::Exists { subquery: query, negated: false })
}
