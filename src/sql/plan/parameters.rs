//! Types that a query's text gives to its parameters.

use std::ops::ControlFlow;

use arrow::datatypes::FieldRef;
use datafusion::sql::sqlparser::ast::{Expr, LimitClause, Query, Value, Visitor};

use crate::sql::walk::walk;
use crate::types::{SqlType, sql_type_of};

/// Gives parameters that are cast the type they are cast to (`$1::date`), as PostgreSQL does.
pub(super) fn infer_cast_parameters(query: &Query, declared: &mut Vec<Option<FieldRef>>) {
    struct Casts<'a>(&'a mut Vec<Option<FieldRef>>);
    impl Visitor for Casts<'_> {
        type Break = ();
        // So is the number of rows, a bigint.
        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            if let Some(LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                for expr in limit.iter().chain(offset.iter().map(|o| &o.value)) {
                    if let Some(index) = parameter_index(expr) {
                        declare(self.0, index, &SqlType::Int8);
                    }
                }
            }
            ControlFlow::Continue(())
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Cast { expr, data_type, .. } = expr
                && let Some(index) = parameter_index(expr)
                && let Ok(sql_type) = sql_type_of(data_type)
            {
                declare(self.0, index, &sql_type);
            }
            ControlFlow::Continue(())
        }
    }
    // The visitor never breaks.
    let _ = walk(query, &mut Casts(declared));
}

/// The 0-based number of the parameter that an expression is.
pub(super) fn parameter_index(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(v) => match &v.value {
            Value::Placeholder(p) => p.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1),
            _ => None,
        },
        Expr::Nested(inner) => parameter_index(inner),
        _ => None,
    }
}

/// Gives a parameter a type unless it has one.
pub(super) fn declare(declared: &mut Vec<Option<FieldRef>>, index: usize, sql_type: &SqlType) {
    // The wire protocol counts parameters in 16 bits.
    if index >= usize::from(u16::MAX) {
        return;
    }
    if declared.len() <= index {
        declared.resize(index + 1, None);
    }
    if declared[index].is_none() {
        declared[index] = Some(sql_type.field_ref(format!("${}", index + 1), true));
    }
}
