//! The state of all nodes, given for a checkpoint and taken up again after a restart.
//!
//! A node is known again by what it does and by what the nodes that it reads do, down to the collections: so it does not
//! matter in which order views are made, or which of them share it. Where that says the same of two nodes, neither is saved.
//!
//! A node can take up its state only if all that read it do, too: those that do not must be told all its rows, which only
//! a view's node keeps. So what is lacking is computed anew from the nearest collections.

use std::collections::{BTreeSet, HashMap};

use md5::{Digest, Md5};

use super::{Body, Circuit, Node, Slot};
use crate::engine::ops::{self, output::View};
use crate::engine::runtime::operator::Operator;
use crate::engine::runtime::workers::Workers;
use crate::engine::state::{Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::Result;

/// What a node does, and to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity(pub(crate) [u8; 16]);

impl Identity {
    /// What a text says.
    pub(crate) fn of(text: &str) -> Identity {
        Identity(Md5::digest(text).into())
    }
}

/// A node's state, on its way to or from a checkpoint.
pub(crate) struct NodeState<S> {
    pub(crate) identity: Identity,
    /// The collections it works for.
    pub(crate) owners: Vec<CollectionId>,
    pub(crate) state: S,
}

impl Node {
    fn operator(&self) -> Option<&dyn Operator> {
        match &self.body {
            Body::Operator(operator) => Some(operator.as_ref()),
            Body::View(view) => Some(view.as_ref()),
            Body::Tap { .. } => None,
        }
    }

    fn operator_mut(&mut self) -> Option<&mut dyn Operator> {
        match &mut self.body {
            Body::Operator(operator) => Some(operator.as_mut()),
            Body::View(view) => Some(view.as_mut()),
            Body::Tap { .. } => None,
        }
    }
}

impl Circuit {
    /// The nodes that keep state and are the only ones to do what they do.
    fn identities(&self) -> HashMap<Identity, Slot> {
        let mut by_rank: Vec<(Slot, &Node)> =
            self.nodes.iter().enumerate().filter_map(|(i, n)| Some((Slot(i), n.as_ref()?))).collect();
        by_rank.sort_by_key(|(_, node)| node.rank);
        let mut known: HashMap<Slot, Identity> = HashMap::new();
        let mut found: HashMap<Identity, Option<Slot>> = HashMap::new();
        for (slot, node) in by_rank {
            let own = match (&node.body, node.does) {
                (Body::Tap { .. }, _) => format!("tap {:?}", node.owners),
                (Body::View(view), _) => format!("view {:?}", view.schema()),
                (Body::Operator(_), Some(does)) => format!("{does:?}"),
                (Body::Operator(_), None) => continue,
            };
            let inputs: Option<Vec<&Identity>> = node.inputs.iter().map(|input| known.get(input)).collect();
            let Some(inputs) = inputs.filter(|_| !node.dead) else { continue };
            let identity = Identity::of(&format!("{own} of {inputs:?}"));
            known.insert(slot, identity);
            if !matches!(node.body, Body::Tap { .. }) {
                found.entry(identity).and_modify(|twice| *twice = None).or_insert(Some(slot));
            }
        }
        found.into_iter().filter_map(|(identity, slot)| Some((identity, slot?))).collect()
    }

    /// The state of all nodes that can be known again, between two ticks.
    pub(crate) fn save(&self) -> Result<Vec<NodeState<Saved>>> {
        let mut all = Vec::new();
        for (identity, slot) in self.identities() {
            let Some(node) = &self.nodes[slot.0] else { continue };
            let Some(operator) = node.operator() else { continue };
            let mut state = Saved::default();
            operator.save(&mut state)?;
            all.push(NodeState { identity, owners: node.owners.clone(), state });
        }
        Ok(all)
    }

    /// Takes state up, wherever it is some node's; the nodes for which there is none are made anew. Answers with the nodes
    /// that took it up.
    ///
    /// # Errors
    /// Of `states` only: then no node has any state.
    pub(crate) fn take_up(
        &mut self,
        states: impl Iterator<Item = Result<NodeState<Restored>>>,
        workers: &Workers,
    ) -> Result<BTreeSet<Slot>> {
        let identities = self.identities();
        let mut settled: BTreeSet<Slot> = BTreeSet::new();
        let mut failure = None;
        for state in states {
            let NodeState { identity, owners, mut state } = match state {
                Ok(state) => state,
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            };
            let Some(slot) = identities.get(&identity) else { continue };
            let node = self.node_mut(*slot);
            // A view never changes. So whatever an identity might not tell, a node that works for the same view is the same.
            if !node.owners.iter().any(|owner| owners.contains(owner)) {
                continue;
            }
            let restored = node.operator_mut().map(|operator| operator.restore(&mut state));
            match restored {
                Some(Ok(())) if state.is_empty() => drop(settled.insert(*slot)),
                Some(Err(error)) => tracing::warn!(%error, "state of a checkpoint is left out"),
                _ => {}
            }
        }
        if failure.is_some() {
            settled.clear();
        }
        self.leave_out_read_by_others(&mut settled);
        self.make_anew(&settled, workers)?;
        failure.map_or(Ok(settled), Err)
    }

    /// Leaves only nodes of which all readers are there, up to views, which can tell their rows.
    fn leave_out_read_by_others(&self, settled: &mut BTreeSet<Slot>) {
        let mut by_rank: Vec<Slot> = settled.iter().copied().collect();
        let node = |slot: &Slot| self.nodes[slot.0].as_ref();
        by_rank.sort_by_key(|slot| std::cmp::Reverse(node(slot).map(|n| n.rank)));
        for slot in by_rank {
            let readable = |n: &Node| {
                matches!(n.body, Body::View(_))
                    || n.consumers.all().iter().all(|(to, _)| settled.contains(to))
            };
            if !node(&slot).is_some_and(readable) {
                settled.remove(&slot);
            }
        }
    }

    fn make_anew(&mut self, settled: &BTreeSet<Slot>, workers: &Workers) -> Result<()> {
        for (i, node) in self.nodes.iter_mut().enumerate() {
            let Some(node) = node.as_mut().filter(|_| !settled.contains(&Slot(i))) else { continue };
            match (&mut node.body, &node.lowered) {
                (Body::View(view), _) => **view = View::new(view.schema()),
                (Body::Operator(operator), Some(lowered)) => {
                    *operator = ops::build(&lowered.spec, &lowered.schema, workers)?;
                }
                _ => {}
            }
        }
        (0..self.nodes.len()).for_each(|i| self.bind(Slot(i)));
        Ok(())
    }

    /// Whether all nodes that work for a collection are among these.
    pub(crate) fn has_settled(&self, owner: CollectionId, settled: &BTreeSet<Slot>) -> bool {
        let nodes = self.nodes.iter().enumerate().filter_map(|(i, node)| Some((Slot(i), node.as_ref()?)));
        let own = nodes.filter(|(_, n)| n.owners.contains(&owner) && !matches!(n.body, Body::Tap { .. }));
        own.into_iter().all(|(slot, _)| settled.contains(&slot))
    }

    /// In the pass that has begun, the nodes but for these are filled, as if it were their first.
    pub(crate) fn begin_filling(&mut self, settled: BTreeSet<Slot>) {
        for (i, node) in self.nodes.iter().enumerate() {
            if let Some(node) = node.as_ref().filter(|_| !settled.contains(&Slot(i))) {
                self.touched.insert(node.rank, Slot(i));
            }
        }
        self.settled = settled;
    }

    /// Whether a node has its state, while others are filled.
    pub(crate) fn is_settled(&self, slot: Slot) -> bool {
        self.settled.contains(&slot)
    }

    /// The pass of [`begin_filling`](Self::begin_filling) is committed.
    pub(crate) fn end_filling(&mut self) {
        self.settled.clear();
    }

    /// Whether anybody who is filled reads the node.
    pub(crate) fn fills_readers(&self, slot: Slot) -> bool {
        let node = self.nodes[slot.0].as_ref();
        node.is_some_and(|node| node.consumers.all().iter().any(|(to, _)| !self.settled.contains(to)))
    }

    /// Gives rows of a collection to those that read its node.
    pub(crate) fn push_to_readers(&mut self, slot: Slot, delta: &Delta) {
        let readers = self.nodes[slot.0].as_ref().map_or(Vec::new(), |node| node.consumers.all().to_vec());
        for (to, port) in readers {
            self.push(to, port, delta.clone());
        }
    }
}
