//! What PostgreSQL's clients write when they ask the catalogs, as the planner understands it.
//!
//! Nothing here depends on who asks: the spellings (`pg_catalog.` before everything, `OPERATOR(…)`, COLLATE, casts to
//! `regclass` and its like) are taken away, and shapes that DataFusion cannot plan are turned into ones it can:
//! * A SELECT that reads an always empty relation has no rows, so what it would compute is never computed.
//! * A scalar subquery without aggregate becomes one; the catalogs have at most one row there.
//! * What is asked of domains and composite types is NULL: `pg_type` lists neither.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, JoinOperator, ObjectName, Query, Select,
    SelectItem, SetExpr, TableFactor, TableWithJoins, UnaryOperator, Value, VisitorMut,
};

use super::expand;
use super::functions::{
    REGCLASS_IN, REGCLASS_OUT, REGNAMESPACE_IN, REGNAMESPACE_OUT, REGTYPE_IN, REGTYPE_OUT,
};
use super::{is_always_empty, relation};
use crate::names::fold;
use crate::sql::parser::parse_expression;
use crate::sql::walk::walk_mut;

/// Rewrites a query in place. Queries that ask nothing of the catalogs stay as they are.
pub fn rewrite(query: &mut Query) {
    // The visitors never break.
    let _ = walk_mut(query, &mut Spelling);
    expand::rewrite(query);
    let mut asks = AsksCatalogs(false);
    let _ = walk_mut(query, &mut asks);
    if asks.0 {
        let _ = walk_mut(query, &mut Shape);
    }
}

type Flow = ControlFlow<()>;

/// Whether a system relation is read.
struct AsksCatalogs(bool);

impl VisitorMut for AsksCatalogs {
    type Break = ();

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> Flow {
        let parts = parts(name);
        let schema = parts.len().checked_sub(2).and_then(|i| parts.get(i)).map(String::as_str);
        self.0 |= matches!(schema, Some("pg_catalog" | "information_schema"));
        if self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Names and operators.
struct Spelling;

impl VisitorMut for Spelling {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        if let TableFactor::Table { name, args, .. } = factor {
            if args.is_some() {
                strip_schema(name);
            } else if let [bare] = parts(name).as_slice()
                && bare.starts_with("pg_")
                && relation("pg_catalog", bare).is_some()
            {
                // pg_catalog is always searched first.
                *name = ObjectName::from(vec![Ident::new("pg_catalog"), Ident::new(bare.as_str())]);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expr {
            Expr::Function(function) => strip_schema(&mut function.name),
            Expr::Collate { expr: inner, collation }
                if parts(collation).last().is_some_and(|c| is_bytewise(c)) =>
            {
                *expr = std::mem::replace(inner, null());
            }
            Expr::BinaryOp { op, .. } => {
                if let BinaryOperator::PGCustomBinaryOperator(name) = op
                    && let Some(builtin) = builtin_operator(name)
                {
                    *op = builtin;
                }
            }
            Expr::Cast { expr: inner, data_type, .. } => {
                if let DataType::Custom(name, _) = data_type {
                    strip_schema(name);
                }
                if let Some(alias) = oid_alias(data_type) {
                    let inner = std::mem::replace(inner.as_mut(), null());
                    *expr = alias.cast(inner);
                } else if is_text(data_type)
                    && let Some(alias) = OID_ALIASES.iter().find(|a| is_call(inner, a.input))
                {
                    // A name, its oid, its name again.
                    let inner = std::mem::replace(inner.as_mut(), null());
                    *expr = call(alias.output, vec![inner]);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        // As a column of the result an oid alias is shown as the name, and called as the cast would be.
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } = item
                && let Some(alias) = OID_ALIASES.iter().find(|a| is_call(expr, a.input))
            {
                let inner = std::mem::replace(expr, null());
                *expr = call(alias.output, vec![inner]);
            }
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(alias) = OID_ALIASES.iter().find(|a| is_call(expr, a.output))
            {
                let name = argument(expr).and_then(column).map_or(alias.name.to_string(), |(_, name)| name);
                let expr = std::mem::replace(expr, null());
                *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', name) };
            }
        }
        ControlFlow::Continue(())
    }
}

/// `regclass` and its like: an oid that is written and shown as a name.
struct OidAlias {
    name: &'static str,
    input: &'static str,
    output: &'static str,
}

const OID_ALIASES: [OidAlias; 3] = [
    OidAlias { name: "regclass", input: REGCLASS_IN, output: REGCLASS_OUT },
    OidAlias { name: "regtype", input: REGTYPE_IN, output: REGTYPE_OUT },
    OidAlias { name: "regnamespace", input: REGNAMESPACE_IN, output: REGNAMESPACE_OUT },
];

impl OidAlias {
    /// The cast to this type: of a constant to the oid it names, of an oid to the name it has.
    fn cast(&self, operand: Expr) -> Expr {
        let is_constant = match &operand {
            Expr::Value(v) => !matches!(v.value, Value::Number(..)),
            _ => false,
        };
        call(if is_constant { self.input } else { self.output }, vec![operand])
    }
}

fn oid_alias(data_type: &DataType) -> Option<&'static OidAlias> {
    let name = match data_type {
        DataType::Regclass => "regclass".to_string(),
        DataType::Custom(name, _) => parts(name).pop()?,
        _ => return None,
    };
    OID_ALIASES.iter().find(|a| a.name == name)
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Text => true,
        DataType::Custom(name, _) => parts(name).last().is_some_and(|n| n == "text"),
        _ => false,
    }
}

/// Collations under which strings compare as they do without one.
fn is_bytewise(collation: &str) -> bool {
    matches!(collation, "default" | "c" | "posix")
}

/// `OPERATOR(pg_catalog.~)` and its like.
fn builtin_operator(name: &[String]) -> Option<BinaryOperator> {
    let [.., operator] = name else { return None };
    Some(match operator.as_str() {
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        "=" => BinaryOperator::Eq,
        "<>" => BinaryOperator::NotEq,
        "||" => BinaryOperator::StringConcat,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        _ => return None,
    })
}

/// Queries within queries.
struct Shape;

impl VisitorMut for Shape {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        if plain_select(query).is_some_and(|select| is_empty(select)) {
            // No rows, no order.
            query.order_by = None;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        if is_empty(select) {
            never_computed(select);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Some(nothing) = of_unlisted_types(expr) {
            *expr = nothing;
        }
        match expr {
            Expr::Subquery(query) => {
                if let Some(select) = plain_select(query) {
                    if is_empty(select) {
                        *expr = null();
                    } else if let Some(condition) = to_aggregate(select) {
                        let subquery = std::mem::replace(expr, null());
                        *expr = guarded(condition, subquery);
                    }
                }
            }
            Expr::Exists { subquery, negated } => {
                let empty = plain_select(subquery).is_some_and(|select| is_empty(select));
                let negated = *negated;
                if empty {
                    *expr = Expr::Value(Value::Boolean(negated).into());
                }
            }
            Expr::Function(function) => {
                if let FunctionArguments::Subquery(query) = &mut function.args
                    && parts(&function.name) == ["array"]
                    && let Some(select) = plain_select(query)
                {
                    if is_empty(select) {
                        *expr = null_array();
                    } else if let [
                        SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. },
                    ] = select.projection.as_mut_slice()
                    {
                        let value = std::mem::replace(item, null());
                        *item = call("array_agg", vec![value]);
                        query.order_by = None;
                        *expr = Expr::Subquery(query.clone());
                    }
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// What `CASE WHEN t.typtype = 'd' THEN (…) ELSE NULL END` comes to: NULL, since there are no domains; with `'c'`
/// since no composite type is listed. The NULL has the type of the column that the subquery asks for.
fn of_unlisted_types(expr: &Expr) -> Option<Expr> {
    let Expr::Case { operand: None, conditions, else_result: Some(otherwise), .. } = expr else {
        return None;
    };
    let ([branch], Expr::Value(otherwise)) = (conditions.as_slice(), otherwise.as_ref()) else { return None };
    let Expr::BinaryOp { left, op: BinaryOperator::Eq, right } = &branch.condition else { return None };
    let (Expr::Value(kind), Expr::Subquery(query)) = (right.as_ref(), &branch.result) else { return None };
    let unlisted = matches!(&kind.value, Value::SingleQuotedString(k) if k == "d" || k == "c");
    if otherwise.value != Value::Null || !unlisted || column(left)?.1 != "typtype" {
        return None;
    }
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let of_names = item.to_string().contains("attname");
    let data_type = match (aggregates(select), of_names) {
        (true, true) => "text[]",
        (true, false) => "oid[]",
        (false, _) => "oid",
    };
    parse_expression(&format!("NULL::{data_type}")).ok()
}

/// The one SELECT that a query is, when it is nothing more.
fn plain_select(query: &mut Query) -> Option<&mut Select> {
    match query.body.as_mut() {
        SetExpr::Select(select) if query.with.is_none() && query.limit_clause.is_none() => Some(select),
        _ => None,
    }
}

/// Whether a SELECT has no rows, whatever is in the database.
fn is_empty(select: &Select) -> bool {
    let ungrouped = matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    ungrouped && select.having.is_none() && !aggregates(select) && select.from.iter().any(is_empty_join)
}

fn is_empty_join(from: &TableWithJoins) -> bool {
    let outer_right = |op: &JoinOperator| {
        matches!(op, JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_))
    };
    if from.joins.iter().any(|join| outer_right(&join.join_operator)) {
        return false;
    }
    let inner = |op: &JoinOperator| {
        matches!(op, JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_))
    };
    is_empty_factor(&from.relation)
        || from.joins.iter().any(|join| inner(&join.join_operator) && is_empty_factor(&join.relation))
}

/// Columns of arrays that are never set.
const NEVER_SET: [&str; 5] = ["reloptions", "evttags", "ftoptions", "srvoptions", "umoptions"];

fn is_empty_factor(factor: &TableFactor) -> bool {
    match factor {
        TableFactor::Table { name, args: None, .. } => match parts(name).as_slice() {
            [schema, name] => is_always_empty(schema, name),
            _ => false,
        },
        TableFactor::Table { name, args: Some(args), .. } if parts(name) == ["unnest"] => {
            args.args.iter().any(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => is_never_set(expr),
                _ => false,
            })
        }
        TableFactor::UNNEST { array_exprs, .. } => array_exprs.iter().any(is_never_set),
        TableFactor::NestedJoin { table_with_joins, .. } => is_empty_join(table_with_joins),
        _ => false,
    }
}

fn is_never_set(expr: &Expr) -> bool {
    column(expr).is_some_and(|(_, name)| NEVER_SET.contains(&name.as_str()))
}

/// Whether a SELECT without GROUP BY has a row in any case, because it aggregates.
fn aggregates(select: &Select) -> bool {
    const AGGREGATES: [&str; 9] =
        ["count", "sum", "min", "max", "avg", "array_agg", "string_agg", "bool_and", "bool_or"];
    let mut found = false;
    let mut items = select.projection.clone();
    // The visitor never breaks.
    let mut calls = Calls { depth: 0, each: &mut |name| found |= AGGREGATES.contains(&name) };
    let _ = walk_mut(&mut items, &mut calls);
    found
}

/// Functions that are called, not those within subqueries.
struct Calls<'a> {
    depth: usize,
    each: &'a mut dyn FnMut(&str),
}

impl VisitorMut for Calls<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> Flow {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> Flow {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        if let Expr::Function(function) = expr
            && self.depth == 0
            && let Some(name) = parts(&function.name).last()
        {
            (self.each)(name);
        }
        ControlFlow::Continue(())
    }
}

/// Takes away what a SELECT without rows would compute.
fn never_computed(select: &mut Select) {
    for item in &mut select.projection {
        match item {
            SelectItem::UnnamedExpr(expr) if column(expr).is_none() => {
                *item = SelectItem::ExprWithAlias { expr: null(), alias: Ident::with_quote('"', "?column?") };
            }
            SelectItem::ExprWithAlias { expr, .. } if column(expr).is_none() => *expr = null(),
            _ => {}
        }
    }
    select.selection = Some(Expr::Value(Value::Boolean(false).into()));
}

/// Turns a subquery of one column and at most one row into an aggregate, which has exactly one row. What it asks of
/// the outer query's columns alone is answered: the condition under which the subquery counts.
fn to_aggregate(select: &mut Select) -> Option<Vec<Expr>> {
    if aggregates(select) || !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
    {
        return None;
    }
    let inner: HashSet<String> = select.from.iter().flat_map(names_of).collect();
    let [SelectItem::UnnamedExpr(item) | SelectItem::ExprWithAlias { expr: item, .. }] =
        select.projection.as_mut_slice()
    else {
        return None;
    };
    let value = std::mem::replace(item, null());
    let is_condition =
        matches!(&value, Expr::BinaryOp { op: BinaryOperator::Eq | BinaryOperator::NotEq, .. });
    *item = call(if is_condition { "bool_or" } else { "max" }, vec![value]);
    let mut conditions = Vec::new();
    if let Some(selection) = select.selection.take() {
        conjuncts(selection, &mut conditions);
    }
    // inner = outer: any further mention of that outer column may as well be of the inner one, which keeps
    // the correlation an equality.
    let equal: Vec<(Expr, Expr)> = conditions
        .iter()
        .filter_map(|condition| match condition {
            Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
                let is_inner = |e: &Expr| column(e).and_then(|(q, _)| q).map(|q| inner.contains(&q));
                match (is_inner(left)?, is_inner(right)?) {
                    (true, false) => Some(((**right).clone(), (**left).clone())),
                    (false, true) => Some(((**left).clone(), (**right).clone())),
                    _ => None,
                }
            }
            _ => None,
        })
        .collect();
    let (mut outer, mut kept) = (Vec::new(), Vec::new());
    for mut condition in conditions {
        let is_outer = matches!(column(&condition), Some((Some(q), _)) if !inner.contains(&q));
        if is_outer {
            outer.push(condition);
            continue;
        }
        if let Expr::BinaryOp { left, op, right } = &mut condition
            && *op != BinaryOperator::Eq
        {
            for side in [left, right] {
                if let Some((_, same)) = equal.iter().find(|(from, _)| *from == **side) {
                    **side = same.clone();
                }
            }
        }
        kept.push(condition);
    }
    select.selection = kept.into_iter().reduce(and);
    Some(outer)
}

/// The subquery, where all conditions hold; otherwise NULL.
fn guarded(conditions: Vec<Expr>, subquery: Expr) -> Expr {
    let Some(condition) = conditions.into_iter().reduce(and) else { return subquery };
    Expr::Case {
        case_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        end_token: datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken::empty(),
        operand: None,
        conditions: vec![datafusion::sql::sqlparser::ast::CaseWhen { condition, result: subquery }],
        else_result: None,
    }
}

fn and(left: Expr, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op: BinaryOperator::And, right: Box::new(right) }
}

fn conjuncts(expr: Expr, out: &mut Vec<Expr>) {
    match expr {
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            conjuncts(*left, out);
            conjuncts(*right, out);
        }
        Expr::Nested(inner) => conjuncts(*inner, out),
        other => out.push(other),
    }
}

/// By which names a FROM clause's columns can be qualified.
fn names_of(from: &TableWithJoins) -> Vec<String> {
    std::iter::once(&from.relation)
        .chain(from.joins.iter().map(|join| &join.relation))
        .filter_map(|factor| match factor {
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. } => Some(fold(&alias.name)),
            TableFactor::Table { name, .. } => parts(name).pop(),
            _ => None,
        })
        .collect()
}

/// A column's qualifier and name, if the expression is a column and nothing else (or its negation).
pub(super) fn column(expr: &Expr) -> Option<(Option<String>, String)> {
    match expr {
        Expr::Identifier(name) => Some((None, fold(name))),
        Expr::CompoundIdentifier(names) => match names.as_slice() {
            [.., qualifier, name] => Some((Some(fold(qualifier)), fold(name))),
            _ => None,
        },
        Expr::Nested(inner) => column(inner),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => column(expr),
        _ => None,
    }
}

/// Parts of a name, folded.
fn parts(name: &ObjectName) -> Vec<String> {
    name.0.iter().filter_map(|part| part.as_ident()).map(fold).collect()
}

/// `pg_catalog.name` is `name`, where there are no schemas.
fn strip_schema(name: &mut ObjectName) {
    if let [schema, _] = name.0.as_slice()
        && schema.as_ident().is_some_and(|s| matches!(fold(s).as_str(), "pg_catalog" | "information_schema"))
    {
        name.0.remove(0);
    }
}

pub(super) fn is_call(expr: &Expr, name: &str) -> bool {
    matches!(expr, Expr::Function(function) if parts(&function.name) == [name])
}

/// The first argument of a call.
pub(super) fn argument(expr: &Expr) -> Option<&Expr> {
    let Expr::Function(Function { args: FunctionArguments::List(list), .. }) = expr else { return None };
    match list.args.first()? {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(argument)) => Some(argument),
        _ => None,
    }
}

/// No array: NULL, of the type of all arrays that clients put together.
fn null_array() -> Expr {
    let data_type = DataType::Array(ArrayElemTypeDef::SquareBracket(Box::new(DataType::Text), None));
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(null()), data_type, array: false, format: None }
}

fn null() -> Expr {
    Expr::Value(Value::Null.into())
}

pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::Statement;

    fn rewritten(sql: &str) -> String {
        let mut parsed = crate::sql::parse(sql).unwrap();
        let Statement::Query(mut query) = parsed.remove(0).statement else { panic!("not a query") };
        rewrite(&mut query);
        query.to_string()
    }

    #[test]
    fn spellings_are_taken_away() {
        for (from, to) in [
            (
                "SELECT pg_catalog.format_type(a, b) FROM t WHERE x OPERATOR(pg_catalog.~) '^a' COLLATE pg_catalog.default",
                "SELECT format_type(a, b) FROM t WHERE x ~ '^a'",
            ),
            ("SELECT 1 FROM pg_class", "SELECT 1 FROM pg_catalog.pg_class"),
            ("SELECT oid::pg_catalog.regclass FROM t", "SELECT regclassout(oid) AS \"oid\" FROM t"),
            ("SELECT 1 WHERE 't'::regclass = 5", "SELECT 1 WHERE regclassin('t') = 5"),
            ("SELECT 't'::regclass", "SELECT regclassout(regclassin('t')) AS \"regclass\""),
            ("SELECT * FROM pg_my_own_table", "SELECT * FROM pg_my_own_table"),
        ] {
            assert_eq!(rewritten(from), to);
        }
    }

    #[test]
    fn what_reads_an_empty_relation_computes_nothing() {
        assert_eq!(
            rewritten(
                "SELECT polname, CASE WHEN 1 = ANY (polroles) THEN 2 END FROM pg_catalog.pg_policy WHERE x = 1"
            ),
            "SELECT polname, NULL AS \"?column?\" FROM pg_catalog.pg_policy WHERE false"
        );
        assert_eq!(
            rewritten("SELECT count(*) FROM pg_catalog.pg_policy"),
            "SELECT count(*) FROM pg_catalog.pg_policy",
            "an aggregate has a row even then"
        );
        assert_eq!(
            rewritten("SELECT oid, (SELECT count(*) FROM pg_catalog.pg_class) FROM pg_catalog.pg_policy"),
            "SELECT oid, NULL AS \"?column?\" FROM pg_catalog.pg_policy WHERE false",
            "unless it is a subquery's own"
        );
        assert_eq!(
            rewritten(
                "SELECT n.nspname, ARRAY(SELECT 1 FROM pg_catalog.pg_auth_members) FROM pg_catalog.pg_namespace n"
            ),
            "SELECT n.nspname, NULL::TEXT[] FROM pg_catalog.pg_namespace n"
        );
    }

    #[test]
    fn a_scalar_subquery_becomes_an_aggregate() {
        assert_eq!(
            rewritten(
                "SELECT (SELECT c.collname FROM pg_catalog.pg_collation c, pg_catalog.pg_type t
                 WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND a.attcollation <> t.typcollation
                 AND a.attisdropped) FROM pg_catalog.pg_attribute a"
            ),
            "SELECT CASE WHEN a.attisdropped THEN (SELECT max(c.collname) FROM pg_catalog.pg_collation c, \
             pg_catalog.pg_type t WHERE c.oid = a.attcollation AND t.oid = a.atttypid AND c.oid <> t.typcollation) END \
             FROM pg_catalog.pg_attribute a"
        );
    }
}
