//! Nodes, the edges between them, and one pass of changes through those that are touched.
//!
//! A circuit is a slab of nodes. Every node has a rank that is greater than its inputs' ranks: running the
//! touched nodes by rank is running them in topological order, and because a view only reads what was there
//! before it, splicing it in never changes a rank. A view under construction is a circuit of its own,
//! joined to the running one by [`Circuit::absorb`].

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::ops::output::View;
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::{CollectionId, Delta, Tick};
use crate::error::{Error, Result};

/// A node's place in its circuit's slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(usize);

/// What a node does with what it is given.
pub(crate) enum Body {
    /// Hands a collection's changes on: an input, or where a view reads another collection.
    Tap {
        /// Changes of ticks up to this one are not for this node: a collection that keeps no rows
        /// shows a later view only what comes after it.
        after: Tick,
    },
    /// Computes.
    Operator(Box<dyn Operator>),
    /// Keeps a view's rows and hands its changes on.
    View(Box<View>),
}

struct Node {
    rank: u64,
    body: Body,
    /// Whom its changes go to, and on which port.
    consumers: Vec<(Slot, usize)>,
    /// The collection it works for.
    owner: CollectionId,
    /// Its view failed: it does nothing any more.
    dead: bool,
}

/// What one pass left behind, by collection.
#[derive(Default)]
pub(crate) struct Outcome {
    /// Changes of the views' rows, not consolidated.
    pub(crate) changes: HashMap<CollectionId, Vec<Delta>>,
    /// Rows that failed in a view's own operators.
    pub(crate) errors: HashMap<CollectionId, Vec<RowError>>,
    /// Views that failed as a whole, and why.
    pub(crate) failed: Vec<(CollectionId, Error)>,
}

/// The nodes of all collections, or of one view under construction.
#[derive(Default)]
pub(crate) struct Circuit {
    nodes: Vec<Option<Node>>,
    free: Vec<Slot>,
    rank_next: u64,
    /// Nodes touched in this pass, by rank.
    touched: BTreeMap<u64, Slot>,
    /// Ranks below this one were finished in this pass.
    finished: u64,
    outcome: Outcome,
    tick: Tick,
}

impl Circuit {
    /// Adds a node that works for `owner` and reads `inputs`, one a port.
    pub(crate) fn add(&mut self, owner: CollectionId, body: Body, inputs: &[Slot]) -> Slot {
        let node = Node { rank: self.rank_next, body, consumers: Vec::new(), owner, dead: false };
        self.rank_next += 1;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot.0] = Some(node);
                slot
            }
            None => {
                self.nodes.push(Some(node));
                Slot(self.nodes.len() - 1)
            }
        };
        for (port, input) in inputs.iter().enumerate() {
            self.connect(*input, slot, port);
        }
        slot
    }

    /// Sends what `from` emits to `port` of `to`, which must have been added later.
    pub(crate) fn connect(&mut self, from: Slot, to: Slot, port: usize) {
        self.node_mut(from).consumers.push((to, port));
    }

    /// Removes all nodes of a collection.
    pub(crate) fn remove(&mut self, owner: CollectionId) {
        for i in 0..self.nodes.len() {
            if self.nodes[i].as_ref().is_some_and(|n| n.owner == owner) {
                self.nodes[i] = None;
                self.free.push(Slot(i));
            }
        }
        let nodes = &self.nodes;
        let gone: Vec<bool> = nodes.iter().map(Option::is_none).collect();
        for node in self.nodes.iter_mut().flatten() {
            node.consumers.retain(|(to, _)| !gone[to.0]);
        }
    }

    /// Takes all nodes of `other` over; answers with their new slots, by their old ones.
    pub(crate) fn absorb(&mut self, other: Circuit) -> HashMap<Slot, Slot> {
        let mut nodes: Vec<(Slot, Node)> =
            other.nodes.into_iter().enumerate().filter_map(|(i, n)| Some((Slot(i), n?))).collect();
        nodes.sort_by_key(|(_, n)| n.rank);
        let mut moved = HashMap::new();
        let mut edges = Vec::new();
        for (old, node) in nodes {
            let new = self.add(node.owner, node.body, &[]);
            self.node_mut(new).dead = node.dead;
            moved.insert(old, new);
            edges.push((new, node.consumers));
        }
        for (from, consumers) in edges {
            for (to, port) in consumers {
                self.connect(from, moved[&to], port);
            }
        }
        moved
    }

    /// Begins a pass.
    pub(crate) fn begin(&mut self, tick: Tick) {
        debug_assert!(self.touched.is_empty(), "the pass before was committed");
        self.tick = tick;
        self.finished = 0;
    }

    /// Marks every node as touched: the first pass of new nodes, some of which emit without any input.
    pub(crate) fn touch_all(&mut self) {
        for (i, node) in self.nodes.iter().enumerate() {
            if let Some(node) = node {
                self.touched.insert(node.rank, Slot(i));
            }
        }
    }

    /// Gives a change to a node; what it and those after it emit at once is passed on at once.
    pub(crate) fn push(&mut self, slot: Slot, port: usize, delta: Delta) {
        let mut stack = vec![(slot, port, delta)];
        while let Some((slot, port, delta)) = stack.pop() {
            if delta.rows.num_rows() == 0 {
                continue;
            }
            let tick = self.tick;
            let node = self.node_mut(slot);
            if node.dead {
                continue;
            }
            if let Body::Tap { after } = node.body {
                if tick > after {
                    stack.extend(node.consumers.iter().map(|(to, port)| (*to, *port, delta.clone())));
                }
                continue;
            }
            let rank = node.rank;
            let mut out = Output::default();
            let result = guarded(|| match &mut node.body {
                Body::Operator(operator) => operator.push(port, delta, &mut out),
                Body::View(view) => view.push(port, delta, &mut out),
                Body::Tap { .. } => Ok(()),
            });
            self.touched.insert(rank, slot);
            match result {
                Ok(()) => self.emitted(slot, out, &mut stack),
                Err(error) => self.fail(slot, error),
            }
        }
    }

    /// Finishes every touched node in order.
    pub(crate) fn finish(&mut self) {
        while let Some((&rank, &slot)) = self.touched.range(self.finished..).next() {
            self.finished = rank + 1;
            let node = self.node_mut(slot);
            if node.dead {
                continue;
            }
            let mut out = Output::default();
            let result = guarded(|| match &mut node.body {
                Body::Operator(operator) => operator.finish(&mut out),
                Body::View(view) => view.finish(&mut out),
                Body::Tap { .. } => Ok(()),
            });
            if let Err(error) = result {
                self.fail(slot, error);
                continue;
            }
            let mut stack = Vec::new();
            self.emitted(slot, out, &mut stack);
            for (slot, port, delta) in stack {
                self.push(slot, port, delta);
            }
        }
    }

    /// Folds the pass into the touched nodes' states and answers with what it left.
    pub(crate) fn commit(&mut self) -> Outcome {
        for slot in std::mem::take(&mut self.touched).into_values() {
            let node = self.node_mut(slot);
            if node.dead {
                continue;
            }
            let result = guarded(|| match &mut node.body {
                Body::Operator(operator) => operator.commit(),
                Body::View(view) => view.commit(),
                Body::Tap { .. } => Ok(()),
            });
            if let Err(error) = result {
                self.fail(slot, error);
            }
        }
        let mut outcome = std::mem::take(&mut self.outcome);
        for (failed, _) in &outcome.failed {
            outcome.changes.remove(failed);
            outcome.errors.remove(failed);
        }
        outcome
    }

    /// The view that a node keeps the rows of.
    pub(crate) fn view(&self, slot: Slot) -> Option<&View> {
        match &self.nodes.get(slot.0)?.as_ref()?.body {
            Body::View(view) => Some(view),
            _ => None,
        }
    }

    /// The view that a node keeps the rows of, to add errors.
    pub(crate) fn view_mut(&mut self, slot: Slot) -> Option<&mut View> {
        match &mut self.nodes.get_mut(slot.0)?.as_mut()?.body {
            Body::View(view) => Some(view),
            _ => None,
        }
    }

    /// From when on a tap hands changes on.
    pub(crate) fn set_after(&mut self, slot: Slot, tick: Tick) {
        if let Body::Tap { after } = &mut self.node_mut(slot).body {
            *after = tick;
        }
    }

    /// Rows and bytes of state by collection.
    pub(crate) fn state(&self) -> HashMap<CollectionId, (usize, usize)> {
        let mut state: HashMap<CollectionId, (usize, usize)> = HashMap::new();
        for node in self.nodes.iter().flatten() {
            let entry = state.entry(node.owner).or_default();
            let (rows, bytes) = match &node.body {
                Body::Operator(operator) => (operator.state_rows(), operator.state_bytes()),
                Body::View(view) => (view.state_rows(), view.state_bytes()),
                Body::Tap { .. } => (0, 0),
            };
            entry.0 += rows;
            entry.1 += bytes;
        }
        state
    }

    /// Puts what a node emitted on the way to its consumers.
    fn emitted(&mut self, slot: Slot, out: Output, stack: &mut Vec<(Slot, usize, Delta)>) {
        let Circuit { nodes, outcome, .. } = self;
        let Some(node) = &nodes[slot.0] else { return };
        if !out.errors.is_empty() {
            outcome.errors.entry(node.owner).or_default().extend(out.errors);
        }
        if matches!(node.body, Body::View(_)) && !out.deltas.is_empty() {
            outcome.changes.entry(node.owner).or_default().extend(out.deltas.iter().cloned());
        }
        for delta in out.deltas {
            stack.extend(node.consumers.iter().map(|(to, port)| (*to, *port, delta.clone())));
        }
    }

    /// Stops the view of a node, and all that read it, from taking part any more.
    fn fail(&mut self, slot: Slot, error: Error) {
        let mut views = vec![(self.node_mut(slot).owner, error)];
        while let Some((view, error)) = views.pop() {
            let mut readers = Vec::new();
            for node in self.nodes.iter_mut().flatten().filter(|n| n.owner == view && !n.dead) {
                node.dead = true;
                readers.extend(node.consumers.iter().map(|(to, _)| *to));
            }
            for reader in readers {
                let node = self.node_mut(reader);
                if !node.dead {
                    views.push((node.owner, error.clone()));
                }
            }
            if !self.outcome.failed.iter().any(|(id, _)| *id == view) {
                self.outcome.failed.push((view, error));
            }
        }
    }

    fn node_mut(&mut self, slot: Slot) -> &mut Node {
        // Slots come from `add` only, and `remove` takes the edges to a node away with it.
        self.nodes[slot.0].as_mut().expect("a slot in use names a node")
    }
}

/// Runs an operator's code so that a panic in it is an error of its view, not the end of the tick thread.
/// What the panic left half-done is never used again: the view's nodes are dead from then on.
pub(crate) fn guarded(f: impl FnOnce() -> Result<()>) -> Result<()> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown cause".to_string());
        Err(Error::internal(format!("an operator panicked: {message}")))
    })
}
