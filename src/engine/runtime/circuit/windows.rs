//! What nodes know of windows that close, and what every node keeps, as it is shown.

use std::collections::HashMap;

use super::{Body, Circuit, Node, Slot};
use crate::engine::CollectionId;
use crate::engine::plan::explain::rows_go;
use crate::engine::plan::lower::LoweredNode;
use crate::engine::runtime::operator::Operator;
use crate::error::Result;

/// A node as it is shown.
pub(crate) struct OperatorNode<'a> {
    pub(crate) owners: &'a [CollectionId],
    /// What it was made of; `None`: it keeps a view's rows.
    pub(crate) lowered: Option<&'a LoweredNode>,
    /// By input, whether all its rows go as time passes.
    pub(crate) go: Vec<bool>,
    pub(crate) rows: usize,
    pub(crate) bytes: usize,
    pub(crate) late_rows: u64,
    /// The view whose closed windows it knows of.
    pub(crate) closes_for: Option<CollectionId>,
}

impl Circuit {
    /// Tells a view's nodes the watermark before this pass and after it; where it advances, they are touched.
    pub(crate) fn set_watermark(&mut self, view: CollectionId, before: i64, after: i64) {
        for (slot, _) in self.closing.iter().filter(|(_, of)| *of == view) {
            if let Some(Node { rank, body: Body::Operator(operator), dead: false, .. }) =
                &mut self.nodes[slot.0]
            {
                operator.set_watermark(before, after);
                if before != after {
                    self.touched.insert(*rank, *slot);
                }
            }
        }
    }

    /// Between two passes: what a view gives of windows that end up to the watermark, it has.
    pub(crate) fn resume_watermark(
        &mut self,
        view: CollectionId,
        watermark: i64,
        late_rows: u64,
    ) -> Result<()> {
        for (slot, _) in self.closing.iter().filter(|(_, of)| *of == view) {
            if let Some(Node { body: Body::Operator(operator), .. }) = &mut self.nodes[slot.0] {
                operator.resume_watermark(watermark, late_rows)?;
            }
        }
        Ok(())
    }

    /// Changed rows that came too late for a view.
    pub(crate) fn late_rows(&self, view: CollectionId) -> u64 {
        let own = self.closing.iter().filter(|(_, of)| *of == view);
        let nodes = own.filter_map(|(slot, _)| self.nodes[slot.0].as_ref());
        nodes
            .map(|node| match &node.body {
                Body::Operator(operator) => operator.late_rows(),
                _ => 0,
            })
            .sum()
    }

    /// Every operator that keeps or does something, in order: the views it works for, what it was made of, and what it
    /// keeps.
    pub(crate) fn operators(&self) -> Vec<OperatorNode<'_>> {
        let mut nodes: Vec<(Slot, &Node)> =
            self.nodes.iter().enumerate().filter_map(|(i, node)| Some((Slot(i), node.as_ref()?))).collect();
        nodes.sort_by_key(|(_, node)| node.rank);
        // Inputs have lower ranks.
        let mut goes: HashMap<Slot, bool> = HashMap::new();
        let told = nodes.into_iter().filter_map(|(slot, node)| {
            let go: Vec<bool> = node.inputs.iter().map(|input| goes.get(input) == Some(&true)).collect();
            let all = match &node.lowered {
                Some(lowered) => rows_go(&lowered.spec, &go),
                None => go[..] == [true],
            };
            goes.insert(slot, all);
            let operator: &dyn Operator = match &node.body {
                Body::Operator(operator) => operator.as_ref(),
                Body::View(view) => view.as_ref(),
                Body::Tap { .. } => return None,
            };
            Some(OperatorNode {
                owners: &node.owners,
                lowered: node.lowered.as_ref(),
                go,
                rows: operator.state_rows(),
                bytes: operator.state_bytes(),
                late_rows: operator.late_rows(),
                closes_for: operator.closes_for(),
            })
        });
        told.collect()
    }
}
