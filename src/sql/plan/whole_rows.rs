//! A relation's name as a value: `SELECT t FROM t` is `SELECT ROW(t.a, t.b) AS t FROM t`, `row_to_json(t)` a document with
//! its columns' names.
//!
//! A name means that only where no column is called so, and where the relation's columns are known from the text and
//! the catalog. Of a row that an outer join has not found nothing is left: it is NULL, and so is one of NULLs only.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, JoinOperator, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, SetExpr,
    TableAlias, TableFactor, Value, VisitorMut,
};

use super::naming;
use super::rewrite::{binary, call, cast};
use super::rows;
use crate::names::{Name, fold};
use crate::sql::catalog::Catalog;
use crate::sql::walk::walk_mut;

/// Spells out the rows that a query names as values.
pub(super) fn spell_out(query: &mut Query, catalog: &Catalog) {
    let mut rows = Rows { catalog, scopes: Vec::new(), with: Vec::new() };
    // The visitor never breaks.
    let _ = walk_mut(query, &mut rows);
}

/// Functions that make a document of a row.
const DOCUMENTS: [&str; 5] = ["row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg"];

/// A relation in FROM.
struct Relation {
    columns: Vec<String>,
    /// Whether an outer join may have found no row of it.
    nullable: bool,
}

struct Rows<'a> {
    catalog: &'a Catalog,
    /// The relations of each SELECT around, by the names they go by.
    scopes: Vec<HashMap<String, Relation>>,
    /// The columns of the WITH queries of each query around; `None`: unknown.
    with: Vec<HashMap<String, Option<Vec<String>>>>,
}

/// Names with those of an alias in their places.
fn renamed(mut columns: Vec<String>, alias: Option<&TableAlias>) -> Vec<String> {
    let given = alias.into_iter().flat_map(|alias| &alias.columns);
    for (column, given) in columns.iter_mut().zip(given) {
        *column = fold(&given.name);
    }
    columns
}

impl Rows<'_> {
    /// What a FROM item is called, and its columns.
    fn relation(&self, factor: &TableFactor) -> Option<(String, Vec<String>)> {
        match factor {
            TableFactor::Table { name, args: None, alias, .. } => {
                let called = match alias {
                    Some(alias) => fold(&alias.name),
                    None => fold(name.0.last()?.as_ident()?),
                };
                Some((called, renamed(self.columns_of(name)?, alias.as_ref())))
            }
            TableFactor::Derived { subquery, alias: Some(alias), .. } => {
                Some((fold(&alias.name), renamed(self.outputs(&subquery.body)?, Some(alias))))
            }
            _ => None,
        }
    }

    fn columns_of(&self, name: &ObjectName) -> Option<Vec<String>> {
        if let [only] = name.0.as_slice() {
            let only = fold(only.as_ident()?);
            if let Some(columns) = self.with.iter().rev().find_map(|with| with.get(&only)) {
                return columns.clone();
            }
        }
        let entry = self.catalog.find_relation(&Name::from_object_name(name).ok()?)?;
        let seen = self.catalog.columns_seen(entry);
        Some(entry.columns()?.iter().take(seen).map(|column| column.name.clone()).collect())
    }

    /// The names of a query's columns.
    fn outputs(&self, body: &SetExpr) -> Option<Vec<String>> {
        match body {
            SetExpr::Select(select) => {
                let mut columns = Vec::new();
                for item in &select.projection {
                    match item {
                        SelectItem::UnnamedExpr(expr) => columns.push(naming::output_name(expr)),
                        SelectItem::ExprWithAlias { alias, .. } => columns.push(fold(alias)),
                        SelectItem::Wildcard(_) => match select.from.as_slice() {
                            [only] if only.joins.is_empty() => {
                                columns.extend(self.relation(&only.relation)?.1)
                            }
                            _ => return None,
                        },
                        SelectItem::QualifiedWildcard(
                            SelectItemQualifiedWildcardKind::ObjectName(name),
                            _,
                        ) => {
                            let name = fold(name.0.last()?.as_ident()?);
                            let factors = select.from.iter().flat_map(|from| {
                                std::iter::once(&from.relation).chain(from.joins.iter().map(|j| &j.relation))
                            });
                            let found = factors.filter_map(|f| self.relation(f)).find(|(n, _)| *n == name);
                            columns.extend(found?.1);
                        }
                        _ => return None,
                    }
                }
                Some(columns)
            }
            SetExpr::Query(query) => self.outputs(&query.body),
            SetExpr::SetOperation { left, .. } => self.outputs(left),
            SetExpr::Values(values) => {
                let width = values.rows.first()?.content.len();
                Some((1..=width).map(|n| format!("column{n}")).collect())
            }
            _ => None,
        }
    }

    fn scope(&self, select: &Select) -> HashMap<String, Relation> {
        let mut scope: HashMap<String, Relation> = HashMap::new();
        for from in &select.from {
            let mut before: Vec<String> = Vec::new();
            let joined = from.joins.iter().map(|join| (&join.relation, Some(&join.join_operator)));
            for (factor, join) in std::iter::once((&from.relation, None)).chain(joined) {
                use JoinOperator::{FullOuter, Left, LeftOuter, Right, RightOuter};
                if matches!(join, Some(Right(_) | RightOuter(_) | FullOuter(_))) {
                    for name in &before {
                        scope.entry(name.clone()).and_modify(|relation| relation.nullable = true);
                    }
                }
                if let Some((name, columns)) = self.relation(factor) {
                    let nullable = matches!(join, Some(Left(_) | LeftOuter(_) | FullOuter(_)));
                    before.push(name.clone());
                    scope.insert(name, Relation { columns, nullable });
                } else if let Some((name, columns)) = opaque(factor) {
                    scope.insert(name, Relation { columns, nullable: false });
                }
            }
        }
        scope
    }

    /// The relation that a name means as a value.
    fn named(&self, expr: &Expr) -> Option<(Ident, &Relation)> {
        let Expr::Identifier(id) = expr else { return None };
        let name = fold(id);
        for scope in self.scopes.iter().rev() {
            if scope.values().any(|relation| relation.columns.contains(&name)) {
                return None;
            }
            if let Some(relation) = scope.get(&name) {
                return Some((id.clone(), relation)).filter(|_| !relation.columns.is_empty());
            }
        }
        None
    }

    /// The names and values of a row, and whether it may be none.
    fn fields(&self, expr: &Expr) -> Option<(Vec<(String, Expr)>, bool)> {
        if let Some(fields) = rows::fields(expr) {
            let named = fields.into_iter().enumerate().map(|(i, field)| (format!("f{}", i + 1), field));
            return Some((named.collect(), false));
        }
        let (id, relation) = self.named(expr)?;
        let column =
            |name: &String| Expr::CompoundIdentifier(vec![id.clone(), Ident::with_quote('"', name.clone())]);
        let fields = relation.columns.iter().map(|name| (name.clone(), column(name)));
        Some((fields.collect(), relation.nullable))
    }

    /// What a name, a question about it or a document of it stands for.
    fn spelled(&self, expr: &Expr) -> Option<Expr> {
        match expr {
            Expr::Identifier(_) => {
                let (fields, nullable) = self.fields(expr)?;
                let row = call("row", fields.iter().map(|(_, value)| value.clone()).collect());
                Some(if nullable { unless_missing(row, &fields) } else { row })
            }
            Expr::IsNull(inner) | Expr::IsNotNull(inner) if self.named(inner).is_some() => {
                let (fields, _) = self.fields(inner)?;
                let missing = matches!(expr, Expr::IsNull(_));
                let each = fields.into_iter().map(|(_, value)| {
                    let value = Box::new(value);
                    if missing { Expr::IsNull(value) } else { Expr::IsNotNull(value) }
                });
                all(each)
            }
            Expr::Function(function) => {
                let name = document(function)?;
                let FunctionArguments::List(list) = &function.args else { return None };
                let [FunctionArg::Unnamed(FunctionArgExpr::Expr(row))] = list.args.as_slice() else {
                    return None;
                };
                let (fields, nullable) = self.fields(row)?;
                let text = |name: &String| Expr::Value(Value::SingleQuotedString(name.clone()).into());
                let members = fields.iter().flat_map(|(name, value)| [text(name), value.clone()]);
                let document = call("json_of_row", members.collect());
                let document = if nullable { unless_missing(document, &fields) } else { document };
                Some(match name.as_str() {
                    "row_to_json" | "to_json" => document,
                    "to_jsonb" => cast(document, DataType::JSONB),
                    _ => {
                        let mut collected = function.clone();
                        if let FunctionArguments::List(list) = &mut collected.args {
                            list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(document))];
                        }
                        Expr::Function(collected)
                    }
                })
            }
            _ => None,
        }
    }
}

/// What a FROM item that is no table nor query is called; a column of it may be called the same.
fn opaque(factor: &TableFactor) -> Option<(String, Vec<String>)> {
    let (TableFactor::Table { alias, .. }
    | TableFactor::Function { alias, .. }
    | TableFactor::UNNEST { alias, .. }
    | TableFactor::Derived { alias, .. }) = factor
    else {
        return None;
    };
    let alias = alias.as_ref()?;
    let name = fold(&alias.name);
    let columns = alias.columns.iter().map(|column| fold(&column.name));
    Some((name.clone(), columns.chain([name]).collect()))
}

/// The name of a function that makes a document of a row.
fn document(function: &Function) -> Option<String> {
    let [name] = function.name.0.as_slice() else { return None };
    let name = fold(name.as_ident()?);
    DOCUMENTS.contains(&name.as_str()).then_some(name)
}

fn all(conditions: impl Iterator<Item = Expr>) -> Option<Expr> {
    let all = conditions.reduce(|a, b| binary(a, BinaryOperator::And, b))?;
    Some(Expr::Nested(Box::new(all)))
}

/// The value, unless all fields are NULL.
fn unless_missing(value: Expr, fields: &[(String, Expr)]) -> Expr {
    let found = fields.iter().map(|(_, field)| Expr::IsNotNull(Box::new(field.clone())));
    let Some(found) = found.reduce(|a, b| binary(a, BinaryOperator::Or, b)) else { return value };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition: found, result: value }],
        else_result: None,
    }
}

impl VisitorMut for Rows<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.with.push(HashMap::new());
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let columns = self.outputs(&cte.query.body).map(|columns| renamed(columns, Some(&cte.alias)));
            if let Some(with) = self.with.last_mut() {
                with.insert(fold(&cte.alias.name), columns);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.with.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let scope = self.scope(select);
        self.scopes.push(scope);
        for item in &mut select.projection {
            // It is called as it was written.
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(spelled) = self.spelled(expr)
            {
                let alias = Ident::with_quote('"', naming::output_name(expr));
                *item = SelectItem::ExprWithAlias { expr: spelled, alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &mut Select) -> ControlFlow<()> {
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some(spelled) = self.spelled(expr) {
            *expr = spelled;
        }
        ControlFlow::Continue(())
    }
}
