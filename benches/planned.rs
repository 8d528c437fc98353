//! What the benchmarks have in common: views as CREATE MATERIALIZED VIEW plans them, without a server around.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use tidemill::Result;
use tidemill::engine::{CollectionId, Engine, ViewSpec};
use tidemill::sql::Catalog;
use tidemill::sql::catalog::{Column, Entry, Object, Table};
use tidemill::sql::parser::parse_query;
use tidemill::sql::plan::{Planner, SessionInfo};

/// A query's plan over these collections.
pub fn plan<'a>(
    collections: impl IntoIterator<Item = (CollectionId, &'a str, SchemaRef)>,
    sql: &str,
) -> Result<LogicalPlan> {
    let entries = collections.into_iter().map(|(id, name, schema)| {
        let columns = schema.fields().iter().map(|f| Column::from_field(f)).collect();
        Entry::new(id.into(), name, "bench", Object::Table(Table { columns, ..Table::default() }))
    });
    let catalog = Catalog::from_entries(entries, 1 << 20)?;
    let query = parse_query(sql)?;
    Ok(Planner::new(&catalog, &SessionInfo::default(), None).plan_materialized_view(&query, &[], sql)?.plan)
}

/// Creates a view; answers with its columns.
pub fn create(engine: &Engine, id: CollectionId, name: &str, plan: LogicalPlan) -> Result<SchemaRef> {
    let schema: SchemaRef = Arc::new(plan.schema().as_arrow().clone());
    engine.create_view(ViewSpec { id, name: name.into(), schema: Arc::clone(&schema), plan })?;
    Ok(schema)
}
