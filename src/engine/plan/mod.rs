//! From logical plans to circuits.

mod bounds;
pub mod closing;
mod dependent;
pub mod explain;
mod fragment;
pub mod guard;
pub mod lower;
pub mod optimize;
mod paths;
mod peers;
mod plain;
pub mod push_down;
mod reach;
pub mod rewrite;
mod single_row;
pub mod spec;
mod subquery;
pub mod temporal;
mod timed;
mod topk;
mod windows;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::{LogicalPlan, TableSource};

use crate::engine::CollectionId;

/// A collection as a plan names it. It holds no rows: reads bind it to a snapshot, views to a node.
#[derive(Debug, Clone)]
pub struct CollectionSource {
    /// Which collection.
    pub id: CollectionId,
    /// Its columns.
    pub schema: SchemaRef,
    /// Positions of its key's columns; empty: none.
    pub key: Vec<usize>,
    /// The position of the column that its watermark follows, if it has one.
    pub watermark: Option<usize>,
}

impl TableSource for CollectionSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// Input `port` of a plan fragment.
#[derive(Debug, Clone)]
pub struct PortSource {
    /// Which port.
    pub port: usize,
    /// Its columns.
    pub schema: SchemaRef,
}

impl TableSource for PortSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }
}

/// The collections a plan reads, in order of first mention, without repetition; subqueries in expressions included.
pub fn collections(plan: &LogicalPlan) -> Vec<CollectionId> {
    widths(plan).into_iter().map(|(id, _)| id).collect()
}

/// As [`collections`], each with the number of columns that it had when the plan was made.
pub fn widths(plan: &LogicalPlan) -> Vec<(CollectionId, usize)> {
    use datafusion::common::tree_node::TreeNodeRecursion;
    let mut found: Vec<(CollectionId, usize)> = Vec::new();
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(source) = scan.source.downcast_ref::<CollectionSource>()
            && !found.iter().any(|(id, _)| *id == source.id)
        {
            found.push((source.id, source.schema.fields().len()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}
