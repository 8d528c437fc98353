//! From a plan over collections to a plan over their rows at one tick.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{LogicalPlan, TableScan, TableSource};

use super::provider::SnapshotTable;
use super::snapshot::EngineSnapshot;
use crate::engine::plan::{CollectionSource, rewrite, temporal};
use crate::engine::runtime::widen::other_columns;
use crate::engine::{CollectionId, Delta};
use crate::error::{Error, Result, SqlState};

/// What an open transaction has written so far, by collection, in order.
#[derive(Clone, Debug, Default)]
pub struct Overlay(pub HashMap<CollectionId, Vec<Delta>>);

/// Gives every scan of a collection its rows at the snapshot's tick, inside subqueries too, and `now()` its value.
///
/// # Errors
/// A collection that the snapshot does not have, and a view that has no answer because rows of it failed.
pub fn bind(plan: LogicalPlan, snapshot: &Arc<EngineSnapshot>, overlay: &Overlay) -> Result<LogicalPlan> {
    scans(temporal::at(rewrite::normalise(plan)?, snapshot.read_time())?, snapshot, overlay)
}

/// Replaces the scans and nothing else.
pub(crate) fn scans(plan: LogicalPlan, snapshot: &EngineSnapshot, overlay: &Overlay) -> Result<LogicalPlan> {
    let mut sources: HashMap<CollectionId, Arc<dyn TableSource>> = HashMap::new();
    let bound = plan.transform_down_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(Transformed::no(node)) };
        let Some(planned) = scan.source.downcast_ref::<CollectionSource>() else {
            return Ok(Transformed::no(LogicalPlan::TableScan(scan)));
        };
        let (id, columns) = (planned.id, planned.schema.fields().len());
        let source = match sources.get(&id) {
            Some(source) => Arc::clone(source),
            None => {
                let collection = snapshot.collection(id).ok_or_else(|| {
                    let message = format!("relation \"{}\" does not exist any more", scan.table_name);
                    Error::new(SqlState::UNDEFINED_TABLE, message)
                })?;
                let changes = overlay.0.get(&id).map_or(&[][..], Vec::as_slice);
                let source = provider_as_source(Arc::new(SnapshotTable::new(collection, changes)?));
                sources.insert(id, Arc::clone(&source));
                source
            }
        };
        let there = source.schema().fields().len();
        if columns > there {
            return Err(other_columns(scan.table_name.table()).into());
        }
        // Columns that came after the query was planned are not in it.
        let own = || (columns < there).then(|| (0..columns).collect());
        let projection = scan.projection.clone().or_else(own);
        Ok(Transformed::yes(LogicalPlan::TableScan(TableScan { source, projection, ..scan })))
    })?;
    Ok(bound.data)
}
