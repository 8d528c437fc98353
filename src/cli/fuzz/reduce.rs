//! The smaller queries of a query: each without one of its parts.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::Visit;
use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Query, Select, SetExpr, TableFactor, Value, VisitMut, Visitor, VisitorMut, WindowType,
};

/// Whether every alias that the query names is given in it: the fuzzer's own, `r1`, `r2`, ….
pub fn is_closed(query: &str) -> bool {
    let mut rest = query;
    while let Some(dot) = rest.find('.') {
        let name = rest[..dot].rsplit(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
        let is_alias = name.strip_prefix('r').is_some_and(|n| n.parse::<u32>().is_ok());
        let given = [" ", ")", ",", ";"].iter().any(|end| query.contains(&format!("AS {name}{end}")));
        if is_alias && !given && !query.ends_with(&format!("AS {name}")) {
            return false;
        }
        rest = &rest[dot + 1..];
    }
    true
}

/// The `n`-th smaller query; `None`: there are no more.
pub fn nth(query: &str, n: usize) -> Option<String> {
    let mut tree = tidemill::sql::parser::parse_query(query).ok()?;
    let mut inner = Inner::default();
    // The visitor never stops by itself.
    let _ = Visit::visit(&tree, &mut inner);
    // A query of the query for the whole.
    let n = match inner.0.get(n) {
        Some(whole) => return Some(whole.clone()),
        None => n - inner.0.len(),
    };
    let mut cut = Cut { left: n, done: false };
    let _ = VisitMut::visit(&mut tree, &mut cut);
    cut.done.then(|| tree.to_string())
}

/// Collects the queries inside of a query.
#[derive(Default)]
struct Inner(Vec<String>);

impl Visitor for Inner {
    type Break = ();

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.0.push(query.to_string());
        ControlFlow::Continue(())
    }
}

/// Takes one part out.
struct Cut {
    /// How many parts are passed by first.
    left: usize,
    done: bool,
}

impl Cut {
    /// Whether this is the part to be taken out.
    fn here(&mut self) -> bool {
        if self.done {
            return false;
        }
        match self.left {
            0 => self.done = true,
            _ => self.left -= 1,
        }
        self.done
    }

    /// Empties something that is there.
    fn take<T>(&mut self, part: &mut Option<T>) {
        if part.is_some() && self.here() {
            *part = None;
        }
    }

    /// Leaves out one element of a list; `least` stay.
    fn one_of<T>(&mut self, list: &mut Vec<T>, least: usize) {
        for i in (0..list.len()).rev() {
            if list.len() > least && self.here() {
                list.remove(i);
                return;
            }
        }
    }

    fn select(&mut self, select: &mut Select) {
        self.take(&mut select.distinct);
        self.take(&mut select.selection);
        self.take(&mut select.having);
        self.one_of(&mut select.projection, 1);
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            self.one_of(keys, 0);
        }
        for from in &mut select.from {
            self.one_of(&mut from.joins, 0);
            for i in 0..from.joins.len() {
                // What is joined takes the place of what it is joined to.
                if self.here() {
                    from.relation = from.joins.remove(i).relation;
                    return;
                }
            }
        }
        self.one_of(&mut select.from, 1);
    }
}

impl VisitorMut for Cut {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        self.take(&mut query.with);
        self.take(&mut query.limit_clause);
        self.take(&mut query.order_by);
        if let Some(with) = &mut query.with {
            self.one_of(&mut with.cte_tables, 1);
        }
        if let SetExpr::SetOperation { left, right, .. } = query.body.as_ref() {
            for side in [left.clone(), right.clone()] {
                if self.here() {
                    query.body = side;
                    return ControlFlow::Continue(());
                }
            }
        }
        if let SetExpr::Select(select) = query.body.as_mut() {
            self.select(select);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Derived { lateral, .. } = factor
            && *lateral
            && self.here()
        {
            *lateral = false;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        for smaller in parts(expr) {
            if self.here() {
                *expr = smaller;
                break;
            }
        }
        if let Expr::Function(function) = expr {
            self.take(&mut function.filter);
            if let Some(WindowType::WindowSpec(spec)) = &mut function.over {
                self.take(&mut spec.window_frame);
                self.one_of(&mut spec.partition_by, 0);
                self.one_of(&mut spec.order_by, 0);
            }
        }
        ControlFlow::Continue(())
    }
}

/// What may stand in the place of an expression: its operands, or a constant.
fn parts(expr: &Expr) -> Vec<Expr> {
    let mut parts: Vec<Expr> = match expr {
        Expr::BinaryOp { left, right, .. } => vec![left.as_ref().clone(), right.as_ref().clone()],
        Expr::Nested(e) | Expr::UnaryOp { expr: e, .. } => vec![e.as_ref().clone()],
        Expr::Cast { expr: e, .. } if !matches!(e.as_ref(), Expr::Value(_)) => vec![e.as_ref().clone()],
        Expr::Case { conditions, else_result, .. } => conditions
            .iter()
            .map(|when| when.result.clone())
            .chain(else_result.iter().map(|e| e.as_ref().clone()))
            .collect(),
        Expr::Function(function) => {
            use datafusion::sql::sqlparser::ast::{FunctionArg, FunctionArgExpr, FunctionArguments};
            match &function.args {
                FunctionArguments::List(list) => list
                    .args
                    .iter()
                    .filter_map(|arg| match arg {
                        FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                        _ => None,
                    })
                    .collect(),
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let is_condition = matches!(
        expr,
        Expr::Exists { .. }
            | Expr::InSubquery { .. }
            | Expr::InList { .. }
            | Expr::Between { .. }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
    );
    if is_condition {
        parts.push(Expr::Value(Value::Boolean(true).into()));
    }
    if matches!(expr, Expr::Subquery(_)) {
        parts.push(Expr::Value(Value::Number("1".into(), false).into()));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_left_out_once() {
        let query = "SELECT a AS c1, b AS c2 FROM t WHERE (a = 1) LIMIT 3";
        let smaller: Vec<String> = (0..).map_while(|n| nth(query, n)).collect();
        for part in ["a AS c1, ", ", b AS c2", " WHERE (a = 1)", " LIMIT 3", "a = ", " = 1"] {
            let without = query.replacen(part, "", 1);
            assert!(smaller.contains(&without), "{without} is not in {smaller:#?}");
        }
    }

    #[test]
    fn aliases_must_be_given() {
        assert!(is_closed("SELECT r1.a + 0.5 FROM t AS r1"));
        assert!(!is_closed("SELECT r1.a FROM t AS r12"));
    }

    #[test]
    fn queries_inside_stand_for_the_whole() {
        let smaller = nth("SELECT (SELECT max(a) AS c1 FROM t) AS c1 FROM u", 0);
        assert_eq!(smaller.as_deref(), Some("SELECT max(a) AS c1 FROM t"));
    }
}
