//! Prepared look-ups of rows by their key or another index: no planning, no plan, one search.

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::Placeholder;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, LogicalPlan, Operator, TableScan};

use super::execute::session_state;
use super::indexes::Bound;
use super::snapshot::EngineSnapshot;
use crate::engine::CollectionId;
use crate::engine::plan::CollectionSource;
use crate::error::Result;

/// A query that asks for columns of one collection's rows whose other columns equal constants or parameters.
#[derive(Debug)]
pub struct PointRead {
    collection: CollectionId,
    /// By column of the collection.
    equals: Vec<(usize, Wanted)>,
    /// What it gives, by columns of the collection.
    columns: Vec<usize>,
}

#[derive(Debug)]
enum Wanted {
    Value(ScalarValue),
    /// By position, as this type.
    Parameter(usize, DataType),
}

impl PointRead {
    /// The plan as such a query; `None` if it is another one.
    pub fn of(plan: &LogicalPlan) -> Option<PointRead> {
        // Casts of constants are worked out, and what stands over the scan is no more than it must be.
        let plan = session_state().optimize(plan).ok()?;
        let (chosen, filter) = match &plan {
            LogicalPlan::Projection(projection) => (Some(&projection.expr), projection.input.as_ref()),
            other => (None, other),
        };
        let LogicalPlan::Filter(filter) = below_names(filter) else { return None };
        let LogicalPlan::TableScan(scan @ TableScan { fetch: None, .. }) = below_names(&filter.input) else {
            return None;
        };
        let source = scan.source.downcast_ref::<CollectionSource>().filter(|_| scan.filters.is_empty())?;
        let schema = &source.schema;
        let columns = match chosen {
            Some(exprs) => exprs.iter().map(|e| column(e, schema)).collect::<Option<_>>()?,
            // Nothing above has given a column another name.
            None => plan
                .schema()
                .fields()
                .iter()
                .map(|f| schema.index_of(f.name()).ok())
                .collect::<Option<_>>()?,
        };
        let equals = split_conjunction(&filter.predicate).into_iter().map(|part| equality(part, schema));
        let equals: Vec<(usize, Wanted)> = equals.collect::<Option<_>>()?;
        let mut distinct: Vec<usize> = equals.iter().map(|(column, _)| *column).collect();
        distinct.sort_unstable();
        distinct.dedup();
        (distinct.len() == equals.len()).then_some(PointRead { collection: source.id, equals, columns })
    }

    /// The rows, with these parameters; `None` if no index has just these columns first, most rows are asked for, or a parameter is of a type
    /// that the column's would have to be made into: then the query has to be planned.
    ///
    /// # Errors
    /// As a scan: the view has no answer.
    pub fn run(&self, snapshot: &EngineSnapshot, params: &[ScalarValue]) -> Result<Option<RecordBatch>> {
        let Some(collection) = snapshot.collection(self.collection) else { return Ok(None) };
        let mut bounds = Vec::with_capacity(self.equals.len());
        for (column, wanted) in &self.equals {
            let value = match wanted {
                Wanted::Value(value) => value.clone(),
                Wanted::Parameter(at, data_type) => match params.get(*at) {
                    Some(value) if value.data_type() == *data_type => value.clone(),
                    _ => return Ok(None),
                },
            };
            if value.is_null() {
                return Ok(None);
            }
            bounds.push((*column, Bound::In(vec![value])));
        }
        // A transaction may see a collection as it was before it got a column.
        let width = collection.schema().fields().len();
        let unknown = self.columns.iter().chain(bounds.iter().map(|(column, _)| column)).any(|c| *c >= width);
        if unknown || !collection.keeps_rows() || !collection.errors().is_empty() {
            return Ok(None);
        }
        match collection.indexes().search(&bounds)?.filter(|search| search.columns() == bounds.len()) {
            Some(search) => collection.find(&search, &self.columns),
            None => Ok(None),
        }
    }
}

/// The plan below what only names it as a whole or leaves columns out: the columns' own names are the same there.
fn below_names(mut plan: &LogicalPlan) -> &LogicalPlan {
    loop {
        plan = match plan {
            LogicalPlan::SubqueryAlias(alias) => &alias.input,
            LogicalPlan::Projection(p) if p.expr.iter().all(|e| matches!(e, Expr::Column(_))) => &p.input,
            _ => return plan,
        }
    }
}

/// The column that an expression is, under whatever name.
fn column(expr: &Expr, schema: &Schema) -> Option<usize> {
    match expr {
        Expr::Alias(alias) => column(&alias.expr, schema),
        Expr::Column(column) => schema.index_of(&column.name).ok(),
        _ => None,
    }
}

/// The column that a filter says is equal to something that is known before the rows are.
fn equality(filter: &Expr, schema: &Schema) -> Option<(usize, Wanted)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = filter else { return None };
    let (column, value) = match (&**left, &**right) {
        (Expr::Column(found), value) | (value, Expr::Column(found)) => {
            (schema.index_of(&found.name).ok()?, value)
        }
        _ => return None,
    };
    let data_type = schema.field(column).data_type();
    let wanted = match value {
        Expr::Literal(value, _) if value.data_type() == *data_type => Wanted::Value(value.clone()),
        Expr::Placeholder(parameter) => Wanted::Parameter(position(parameter)?, data_type.clone()),
        // Of another type than its name says it is: the cast does nothing where the parameter has the column's type.
        Expr::Cast(Cast { expr, field }) if field.data_type() == data_type => match &**expr {
            Expr::Placeholder(parameter) => Wanted::Parameter(position(parameter)?, data_type.clone()),
            _ => return None,
        },
        _ => return None,
    };
    Some((column, wanted))
}

/// `$1` is the first.
fn position(parameter: &Placeholder) -> Option<usize> {
    parameter.id.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)
}
