//! Names of output columns, as PostgreSQL gives them: `count`, `?column?`, the column's own.
//!
//! DataFusion wants the names of a projection to be unique; PostgreSQL does not. A name that repeats gets a
//! suffix behind a mark that no identifier can hold; [`shown`] takes it off again.

use std::collections::HashSet;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, DataType, Expr, Ident, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr, Value,
};

use crate::names::fold;
use crate::types::sql_type_of;

/// Between a name and what makes it unique.
pub(super) const MARK: char = '\u{1}';

/// What PostgreSQL calls a column it has no name for.
const UNNAMED: &str = "?column?";

/// A name without what made it unique.
pub(super) fn shown(name: &str) -> &str {
    name.split(MARK).next().unwrap_or(name)
}

/// A name with a suffix that makes it unique.
pub(super) fn marked(name: &str, n: usize) -> String {
    format!("{name}{MARK}{n}")
}

/// Gives every item of a select list a name, each another.
pub(super) fn name_items(select: &mut Select) {
    let wildcards = Wildcards::of(select);
    let mut taken = HashSet::new();
    for (n, item) in select.projection.iter_mut().enumerate() {
        let (expr, name, own) = match item {
            SelectItem::UnnamedExpr(expr) => {
                let own = matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_));
                let name = output_name(expr);
                (expr, name, own)
            }
            SelectItem::ExprWithAlias { expr, alias } => (expr, fold(alias), false),
            _ => continue,
        };
        // A column keeps its qualified identity unless its name is taken, or a wildcard has it too.
        let fresh = taken.insert(name.clone());
        let alias = match (own, fresh, own && wildcards.hold(expr)) {
            (true, true, false) => continue,
            (_, false, _) | (_, _, true) => marked(&name, n),
            (false, true, false) => name,
        };
        let expr = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', alias) };
    }
}

/// The wildcards of a select list.
struct Wildcards {
    /// `*`
    all: bool,
    /// `a.*`, by what is before the last dot.
    of: Vec<String>,
    /// Whether there is but one relation that a bare name can be of.
    one_relation: bool,
}

impl Wildcards {
    fn of(select: &Select) -> Wildcards {
        let mut wildcards = Wildcards {
            all: false,
            of: Vec::new(),
            one_relation: matches!(&select.from[..], [only] if only.joins.is_empty()),
        };
        for item in &select.projection {
            match item {
                SelectItem::Wildcard(_) => wildcards.all = true,
                SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                    wildcards.of.extend(name.0.last().and_then(|part| part.as_ident()).map(fold));
                }
                _ => {}
            }
        }
        wildcards
    }

    /// Whether a column is among those that the wildcards stand for. A bare name among several relations is taken for
    /// one that is not, because it would hardly be written then.
    fn hold(&self, column: &Expr) -> bool {
        match column {
            Expr::CompoundIdentifier(ids) => {
                let relation = ids.len().checked_sub(2).map(|at| fold(&ids[at]));
                self.all || relation.is_some_and(|relation| self.of.contains(&relation))
            }
            _ => self.all || (self.one_relation && !self.of.is_empty()),
        }
    }
}

/// The name of a column that is computed by an expression.
pub(super) fn output_name(expr: &Expr) -> String {
    strong_name(expr).or_else(|| weak_name(expr)).unwrap_or_else(|| UNNAMED.to_string())
}

/// A name that also shows through a cast around the expression.
fn strong_name(expr: &Expr) -> Option<String> {
    let fixed = match expr {
        Expr::Identifier(id) => return Some(fold(id)),
        Expr::CompoundIdentifier(ids) => return ids.last().map(fold),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let field = access_chain.iter().rev().find_map(|a| match a {
                AccessExpr::Dot(Expr::Identifier(id)) => Some(fold(id)),
                _ => None,
            });
            return field.or_else(|| strong_name(root));
        }
        Expr::Function(call) => {
            let name = fold(call.name.0.last()?.as_ident()?);
            return Some(match name.as_str() {
                "current_catalog" => "current_catalog".to_string(),
                _ => name,
            });
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => return strong_name(inner),
        Expr::Cast { expr, .. } => return strong_name(expr),
        Expr::Subquery(query) => {
            return match query.body.as_ref() {
                SetExpr::Select(select) => match select.projection.first()? {
                    SelectItem::UnnamedExpr(expr) => strong_name(expr).or_else(|| weak_name(expr)),
                    SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
                    _ => None,
                },
                _ => None,
            };
        }
        Expr::Extract { .. } => "extract",
        Expr::Ceil { .. } => "ceil",
        Expr::Floor { .. } => "floor",
        Expr::Position { .. } => "position",
        Expr::Substring { .. } => "substring",
        Expr::Trim { .. } => "btrim",
        Expr::Overlay { .. } => "overlay",
        Expr::AtTimeZone { .. } => "timezone",
        Expr::Exists { .. } => "exists",
        Expr::Array(_) => "array",
        Expr::Tuple(_) | Expr::Struct { .. } => "row",
        _ => return None,
    };
    Some(fixed.to_string())
}

/// A name that a cast around the expression hides.
fn weak_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Case { else_result, .. } => {
            let inner = else_result.as_ref().and_then(|e| strong_name(e));
            Some(inner.unwrap_or_else(|| "case".to_string()))
        }
        Expr::Cast { expr, data_type, .. } => weak_name(expr).or_else(|| Some(type_name(data_type))),
        Expr::TypedString(typed) => Some(type_name(&typed.data_type)),
        Expr::Interval(_) => Some("interval".to_string()),
        Expr::Nested(inner) => weak_name(inner),
        Expr::Value(v) => matches!(v.value, Value::Boolean(_)).then(|| "bool".to_string()),
        _ => None,
    }
}

fn type_name(data_type: &DataType) -> String {
    match sql_type_of(data_type) {
        Ok(known) => known.internal_name().trim_start_matches('_').to_string(),
        Err(_) => data_type.to_string().to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parse_expression;

    #[test]
    fn names_are_postgresqls() {
        for (expr, name) in [
            ("a", "a"),
            ("t.\"B\"", "B"),
            ("count(*)", "count"),
            ("1", "?column?"),
            ("a + 1", "?column?"),
            ("'x'", "?column?"),
            ("true", "bool"),
            ("1::int8", "int8"),
            ("a::text", "a"),
            ("lower(a)::text", "lower"),
            ("case when a then 1 end", "case"),
            ("case when a then 1 else b end", "b"),
            ("date '2024-01-01'", "date"),
            ("interval '1 day'", "interval"),
            ("extract(year from a)", "extract"),
            ("(select max(b) from t)", "max"),
            ("exists (select 1)", "exists"),
            ("array[1]", "array"),
            ("a[1]", "a"),
            ("coalesce(a, b)", "coalesce"),
            ("trim(a)", "btrim"),
            ("current_date", "current_date"),
            ("a is null", "?column?"),
        ] {
            assert_eq!(output_name(&parse_expression(expr).unwrap()), name, "{expr}");
        }
        assert_eq!(shown(&marked("count", 3)), "count");
    }
}
