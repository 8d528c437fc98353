//! Nodes, the edges between them, and one pass of changes through those that are touched.
//!
//! A circuit is a slab of nodes. Every node has a rank that is greater than its inputs' ranks: running the
//! touched nodes by rank is running them in topological order, and because a view only reads what was there
//! before it, splicing it in never changes a rank. A view under construction is a circuit of its own,
//! joined to the running one by [`Circuit::absorb`]: those of its nodes that do what a running node does to the
//! same inputs are not needed any more then, and the running one works for both views.

mod readers;
pub(crate) mod resume;
mod windows;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::engine::ops::output::View;
use crate::engine::plan::lower::LoweredNode;
use crate::engine::plan::spec::NodeSpec;
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::{CollectionId, Delta, Tick};
use crate::error::{Error, Result};
use readers::Readers;
use resume::Identity;

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
    /// By port.
    inputs: Vec<Slot>,
    /// Whom its changes go to, and on which port.
    consumers: Readers,
    /// The collections it works for, in the order in which they came.
    owners: Vec<CollectionId>,
    /// What the operator was made of, where another view may have the same.
    lowered: Option<LoweredNode>,
    /// What that says.
    does: Option<Identity>,
    /// Its views failed: it does nothing any more.
    dead: bool,
    /// It is never shared.
    alone: bool,
}

impl Node {
    fn is_made_of(&self, lowered: &LoweredNode) -> bool {
        self.lowered.as_ref().is_some_and(|own| own.spec == lowered.spec && own.schema == lowered.schema)
    }

    /// Frees what it keeps.
    fn forget(&mut self) {
        self.body = match &self.body {
            Body::View(view) => Body::View(Box::new(View::new(view.schema()))),
            Body::Operator(_) | Body::Tap { .. } => Body::Tap { after: Tick::MAX },
        };
    }

    /// Whether it does to its inputs what `other` does to the same ones.
    fn does_the_same(&self, other: &Node) -> bool {
        match (&self.body, &other.body) {
            (Body::Operator(_), Body::Operator(_)) => {
                self.does == other.does
                    && other.lowered.as_ref().is_some_and(|lowered| self.is_made_of(lowered))
            }
            (Body::View(own), Body::View(others)) => own.schema() == others.schema(),
            _ => false,
        }
    }
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
    /// Nodes whose output changes as time passes.
    timed: Vec<Slot>,
    /// Nodes that must know what their view has closed, with that view.
    closing: Vec<(Slot, CollectionId)>,
    /// Ranks below this one were finished in this pass.
    finished: u64,
    /// Views that do nothing any more.
    failed: BTreeSet<CollectionId>,
    /// Nodes that have their state already, in the pass in which the others are filled.
    settled: BTreeSet<Slot>,
    outcome: Outcome,
    tick: Tick,
}

impl Circuit {
    /// Adds a node that works for `owner` and reads `inputs`, one a port.
    pub(crate) fn add(&mut self, owner: CollectionId, body: Body, inputs: &[Slot]) -> Slot {
        let rank = self.rank_next;
        self.rank_next += 1;
        let (inputs, owners) = (inputs.to_vec(), vec![owner]);
        self.place(Node {
            rank,
            body,
            inputs,
            consumers: Readers::default(),
            owners,
            lowered: None,
            does: None,
            dead: false,
            alone: false,
        })
    }

    /// Keeps a node from being shared.
    pub(crate) fn keep_alone(&mut self, slot: Slot) {
        self.node_mut(slot).alone = true;
    }

    /// As [`add`](Self::add), for an operator made of `lowered`.
    pub(crate) fn add_lowered(
        &mut self,
        owner: CollectionId,
        operator: Box<dyn Operator>,
        lowered: LoweredNode,
        inputs: &[Slot],
    ) -> Slot {
        let slot = self.add(owner, Body::Operator(operator), inputs);
        let node = self.node_mut(slot);
        node.does = Some(Identity::of(&format!("{:?} {:?}", lowered.spec, lowered.schema)));
        node.lowered = Some(lowered);
        slot
    }

    /// Gives a node a slot and connects it with its inputs.
    fn place(&mut self, node: Node) -> Slot {
        let inputs = node.inputs.clone();
        let timed = matches!(&node.body, Body::Operator(operator) if operator.is_timed());
        let closes_for = match &node.body {
            Body::Operator(operator) => operator.closes_for(),
            _ => None,
        };
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
        if timed {
            self.timed.push(slot);
        }
        self.closing.extend(closes_for.map(|view| (slot, view)));
        for (port, input) in inputs.into_iter().enumerate() {
            self.node_mut(input).consumers.all_mut().push((slot, port));
        }
        self.bind(slot);
        slot
    }

    /// Tells a node where its inputs keep rows for it.
    fn bind(&mut self, slot: Slot) {
        let Some(inputs) = self.nodes[slot.0].as_ref().map(|node| node.inputs.clone()) else { return };
        for (port, input) in inputs.into_iter().enumerate() {
            let rows = match self.nodes[input.0].as_ref().map(|node| &node.body) {
                Some(Body::Operator(operator)) => operator.arranged().cloned(),
                _ => None,
            };
            if let (Some(rows), Body::Operator(operator)) = (rows, &mut self.node_mut(slot).body) {
                operator.bind(port, &rows);
            }
        }
    }

    /// Sends what `from` emits to `to`, a tap without an input, which must have been added later.
    pub(crate) fn connect(&mut self, from: Slot, to: Slot) {
        self.node_mut(to).inputs = vec![from];
        self.node_mut(from).consumers.all_mut().push((to, 0));
    }

    /// Removes all nodes that work for this collection alone.
    pub(crate) fn remove(&mut self, owner: CollectionId) {
        self.failed.remove(&owner);
        for (i, place) in self.nodes.iter_mut().enumerate() {
            let Some(node) = place else { continue };
            node.owners.retain(|o| *o != owner);
            if node.owners.is_empty() {
                *place = None;
                self.free.push(Slot(i));
            }
        }
        let nodes = &self.nodes;
        self.timed.retain(|slot| nodes[slot.0].is_some());
        self.closing.retain(|(slot, _)| nodes[slot.0].is_some());
        let gone: Vec<bool> = nodes.iter().map(Option::is_none).collect();
        for node in self.nodes.iter_mut().flatten() {
            if node.consumers.all().iter().any(|(to, _)| gone[to.0]) {
                node.consumers.all_mut().retain(|(to, _)| !gone[to.0]);
            }
        }
    }

    /// Takes the nodes of `other`, a view up to the same tick, over; answers with their new slots, by their old ones.
    /// `known` says for some of its taps which running node they stand for. A node that a running one equals is left
    /// out, and its slot is that one's.
    pub(crate) fn absorb(&mut self, other: Circuit, known: HashMap<Slot, Slot>) -> HashMap<Slot, Slot> {
        let mut nodes: Vec<(Slot, Node)> =
            other.nodes.into_iter().enumerate().filter_map(|(i, n)| Some((Slot(i), n?))).collect();
        nodes.sort_by_key(|(_, n)| n.rank);
        let mut moved = known;
        for (old, mut node) in nodes {
            if moved.contains_key(&old) {
                continue;
            }
            // Inputs have lower ranks, so they were here before.
            node.inputs.iter_mut().for_each(|input| *input = moved[input]);
            let running = self.running(&node.inputs, |other| other.does_the_same(&node));
            let new = match running.filter(|_| !node.alone) {
                Some(running) => {
                    self.node_mut(running).owners.extend(node.owners);
                    running
                }
                None => {
                    let rank = self.rank_next;
                    self.rank_next += 1;
                    self.place(Node { rank, consumers: Readers::default(), ..node })
                }
            };
            moved.insert(old, new);
        }
        moved
    }

    /// A node over these inputs that is alike.
    fn running(&self, inputs: &[Slot], alike: impl Fn(&Node) -> bool) -> Option<Slot> {
        let readers = self.nodes[inputs.first()?.0].as_ref()?.consumers.all();
        let same = |node: &Node| node.inputs == inputs && !node.dead && !node.alone && alike(node);
        readers.iter().map(|(slot, _)| *slot).find(|slot| self.nodes[slot.0].as_ref().is_some_and(same))
    }

    /// For each of a view's nodes the view for which a running node does the same; `source` gives the running node of
    /// a collection.
    pub(crate) fn shared(
        &self,
        nodes: &[LoweredNode],
        source: impl Fn(CollectionId) -> Option<Slot>,
    ) -> Vec<Option<CollectionId>> {
        let mut slots: Vec<Option<Slot>> = Vec::with_capacity(nodes.len());
        for node in nodes {
            slots.push(match &node.spec {
                NodeSpec::Collection(id) => source(*id),
                _ => {
                    let inputs: Option<Vec<Slot>> = node.inputs.iter().map(|i| slots[*i]).collect();
                    inputs.and_then(|inputs| self.running(&inputs, |other| other.is_made_of(node)))
                }
            });
        }
        let owner = |slot: Slot| self.nodes[slot.0].as_ref()?.owners.first().copied();
        let operator = |(node, slot): (&LoweredNode, Option<Slot>)| match node.spec {
            NodeSpec::Collection(_) => None,
            _ => slot.and_then(owner),
        };
        nodes.iter().zip(slots).map(operator).collect()
    }

    /// Those that a node's changes go to, who get them from `to` from now on. They must be able to take what it emits.
    pub(crate) fn redirect(&mut self, from: Slot, to: Slot) -> Vec<(Slot, usize)> {
        let readers = std::mem::take(self.node_mut(from).consumers.all_mut());
        for (reader, port) in &readers {
            self.node_mut(*reader).inputs[*port] = to;
        }
        self.node_mut(to).consumers.all_mut().extend(&readers);
        readers
    }

    /// Puts a new node between `from` and all who read it, between two passes: they get what it makes of `from`'s changes.
    /// It works for `owner`, the collection of `from`.
    pub(crate) fn interpose(
        &mut self,
        from: Slot,
        owner: CollectionId,
        operator: Box<dyn Operator>,
        lowered: LoweredNode,
    ) {
        let between = self.add_lowered(owner, operator, lowered, &[from]);
        let (own, others): (Vec<_>, Vec<_>) = std::mem::take(self.node_mut(from).consumers.all_mut())
            .into_iter()
            .partition(|(reader, _)| *reader == between);
        *self.node_mut(from).consumers.all_mut() = own;
        for (reader, port) in &others {
            self.node_mut(*reader).inputs[*port] = between;
        }
        *self.node_mut(between).consumers.all_mut() = others;
        self.rank_anew();
    }

    /// Whether anything reads a node.
    pub(crate) fn is_read(&self, slot: Slot) -> bool {
        self.nodes[slot.0].as_ref().is_some_and(|node| !node.consumers.all().is_empty())
    }

    /// What was built for `from` works for `to`.
    pub(crate) fn hand_over(&mut self, from: CollectionId, to: CollectionId) {
        for owner in self.nodes.iter_mut().flatten().flat_map(|node| &mut node.owners) {
            if *owner == from {
                *owner = to;
            }
        }
    }

    /// Ranks all nodes anew, between two passes, after readers were redirected to nodes that came after them.
    pub(crate) fn rank_anew(&mut self) {
        debug_assert!(self.touched.is_empty(), "the pass before was committed");
        let mut lacking: Vec<usize> =
            self.nodes.iter().map(|node| node.as_ref().map_or(0, |node| node.inputs.len())).collect();
        let ready = |(i, node): (usize, &Option<Node>)| {
            node.as_ref().filter(|node| node.inputs.is_empty()).map(|node| (node.rank, Slot(i)))
        };
        let mut ready: BTreeSet<(u64, Slot)> = self.nodes.iter().enumerate().filter_map(ready).collect();
        self.rank_next = 0;
        while let Some((_, slot)) = ready.pop_first() {
            let rank = self.rank_next;
            self.rank_next += 1;
            let node = self.node_mut(slot);
            node.rank = rank;
            for (reader, _) in node.consumers.all().to_vec() {
                lacking[reader.0] -= 1;
                if lacking[reader.0] == 0 {
                    ready.insert((self.node_mut(reader).rank, reader));
                }
            }
        }
    }

    /// Begins a pass.
    pub(crate) fn begin(&mut self, tick: Tick) {
        debug_assert!(self.touched.is_empty(), "the pass before was committed");
        self.tick = tick;
        self.finished = 0;
    }

    /// Tells the nodes what time it is in this pass, and touches those that are due.
    pub(crate) fn set_now(&mut self, now: i64) {
        for slot in &self.timed {
            if let Some(Node { rank, body: Body::Operator(operator), dead: false, .. }) =
                &mut self.nodes[slot.0]
            {
                operator.set_now(now);
                if operator.next_due().is_some_and(|due| due <= now) {
                    self.touched.insert(*rank, *slot);
                }
            }
        }
    }

    /// Whether any node's output changes as time passes.
    pub(crate) fn is_timed(&self) -> bool {
        !self.timed.is_empty()
    }

    /// The first time at which some node has something to do though nothing has changed.
    pub(crate) fn next_due(&self) -> Option<i64> {
        let nodes = self.timed.iter().filter_map(|slot| self.nodes[slot.0].as_ref());
        let due = nodes.filter(|node| !node.dead).filter_map(|node| match &node.body {
            Body::Operator(operator) => operator.next_due(),
            _ => None,
        });
        due.min()
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
            if !self.settled.is_empty() && self.settled.contains(&slot) {
                continue;
            }
            let node = self.node_mut(slot);
            if node.dead {
                continue;
            }
            if let Body::Tap { after } = node.body {
                // A view over nothing may have rows at tick 0 already: 0 leaves none out.
                if tick > after || after == 0 {
                    self.hand_on(slot, delta, &mut stack);
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

    /// Rows and bytes of state by collection; what several views share counts for the oldest of them.
    pub(crate) fn state(&self) -> HashMap<CollectionId, (usize, usize)> {
        let mut state: HashMap<CollectionId, (usize, usize)> = HashMap::new();
        for node in self.nodes.iter().flatten() {
            let Some(owner) = node.owners.first() else { continue };
            let entry = state.entry(*owner).or_default();
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
        for owner in &node.owners {
            if !out.errors.is_empty() {
                outcome.errors.entry(*owner).or_default().extend(out.errors.iter().cloned());
            }
            if matches!(node.body, Body::View(_)) && !out.deltas.is_empty() {
                outcome.changes.entry(*owner).or_default().extend(out.deltas.iter().cloned());
            }
        }
        for delta in out.deltas {
            self.hand_on(slot, delta, stack);
        }
    }

    /// Gives a node's change to those of its readers that it may concern.
    fn hand_on(&mut self, slot: Slot, delta: Delta, stack: &mut Vec<(Slot, usize, Delta)>) {
        if self.nodes[slot.0].as_ref().is_some_and(|node| node.consumers.want_routes()) {
            let mut readers = std::mem::take(&mut self.node_mut(slot).consumers);
            readers.route(|(reader, port)| match &self.nodes[reader.0].as_ref()?.body {
                Body::Operator(operator) => operator.wanted(port),
                Body::Tap { .. } | Body::View(_) => None,
            });
            self.node_mut(slot).consumers = readers;
        }
        self.node_mut(slot).consumers.hand_on(delta, stack);
    }

    /// Stops the views of a node, and all that read them, from taking part any more.
    fn fail(&mut self, slot: Slot, error: Error) {
        let mut views = self.node_mut(slot).owners.clone();
        while let Some(view) = views.pop() {
            if !self.failed.insert(view) {
                continue;
            }
            let failed = &self.failed;
            let mut readers = Vec::new();
            for node in self.nodes.iter_mut().flatten().filter(|n| !n.dead) {
                if node.owners.iter().all(|o| failed.contains(o)) {
                    node.dead = true;
                    node.forget();
                    readers.extend(node.consumers.all().iter().map(|(to, _)| *to));
                }
            }
            for reader in readers {
                views.extend_from_slice(&self.node_mut(reader).owners);
            }
            self.outcome.failed.push((view, error.clone()));
        }
    }

    /// Stops the view that a node keeps the rows of, and all that read it, as if it had failed; answers with these.
    pub(crate) fn stop(&mut self, slot: Slot, error: Error) -> Vec<(CollectionId, Error)> {
        self.fail(slot, error);
        std::mem::take(&mut self.outcome).failed
    }

    fn node_mut(&mut self, slot: Slot) -> &mut Node {
        // Slots come from `add` only, and `remove` takes the edges to a node away with it.
        self.nodes[slot.0].as_mut().expect("a slot in use names a node")
    }
}

/// Runs an operator's code so that a panic in it is an error of its view, not the end of the tick thread.
/// What the panic left half-done is never used again: the view's nodes are dead from then on.
pub(crate) fn guarded<T>(f: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<&str>()
            .map(|s| (*s).to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "unknown cause".to_string());
        Err(Error::internal(format!("an operator panicked: {message}")))
    })
}

#[cfg(test)]
mod tests;
