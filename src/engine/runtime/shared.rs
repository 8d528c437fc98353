//! What the tick thread shares with everybody: the inbox, the published snapshot, durability, progress, holds.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};

use super::core::Command;
use super::inbox::Inbox;
use super::workers::Workers;
use crate::engine::durable::sync::Durability;
use crate::engine::serve::snapshot::EngineSnapshot;
use crate::engine::{EngineConfig, Tick};

/// See the module.
pub(crate) struct Shared {
    pub(crate) config: EngineConfig,
    pub(crate) inbox: Inbox<Command>,
    pub(crate) snapshot: ArcSwap<EngineSnapshot>,
    pub(crate) durability: Arc<Durability>,
    pub(crate) progress: Progress,
    pub(crate) holds: Holds,
    pub(crate) workers: Workers,
}

/// How far each source has been read.
#[derive(Default)]
pub(crate) struct Progress {
    positions: Mutex<HashMap<String, Positions>>,
}

/// One source's positions: the last durable one and those after it, with their ticks.
type Positions = VecDeque<(Tick, Vec<u8>)>;

impl Progress {
    /// `source` was read up to `position` in `tick`.
    pub(crate) fn set(&self, source: &str, tick: Tick, position: Vec<u8>, durable: Tick) {
        let mut positions = self.positions.lock();
        let recent = positions.entry(source.to_string()).or_default();
        recent.push_back((tick, position));
        settle(recent, durable);
    }

    /// The last position that is durable.
    pub(crate) fn durable(&self, source: &str, durable: Tick) -> Option<Vec<u8>> {
        let mut positions = self.positions.lock();
        let recent = positions.get_mut(source)?;
        settle(recent, durable);
        recent.front().filter(|(tick, _)| *tick <= durable).map(|(_, position)| position.clone())
    }

    /// The last position of a source, durable or not.
    pub(crate) fn applied(&self, source: &str) -> Option<Vec<u8>> {
        self.positions.lock().get(source)?.back().map(|(_, position)| position.clone())
    }

    /// The last position of every source, durable or not, by name.
    pub(crate) fn last(&self) -> Vec<(String, Vec<u8>)> {
        let positions = self.positions.lock();
        let mut last: Vec<_> = positions
            .iter()
            .filter_map(|(source, recent)| Some((source.clone(), recent.back()?.1.clone())))
            .collect();
        last.sort();
        last
    }
}

/// Forgets positions that a later durable one stands for.
fn settle(recent: &mut Positions, durable: Tick) {
    while recent.get(1).is_some_and(|(tick, _)| *tick <= durable) {
        recent.pop_front();
    }
}

/// Ticks that the journal must be able to go back to, by the name of whoever may ask.
#[derive(Default)]
pub(crate) struct Holds {
    ticks: Mutex<(BTreeMap<String, Tick>, bool)>,
    changed: Condvar,
}

impl Holds {
    /// Holds the journal at `tick`, or no longer.
    pub(crate) fn set(&self, name: &str, tick: Option<Tick>) {
        let mut ticks = self.ticks.lock();
        match tick {
            Some(tick) => ticks.0.insert(name.to_string(), tick),
            None => ticks.0.remove(name),
        };
        drop(ticks);
        self.changed.notify_all();
    }

    /// Waits until nobody holds a tick before `tick`; false when it is over before that.
    pub(crate) fn wait_past(&self, tick: Tick) -> bool {
        let mut ticks = self.ticks.lock();
        loop {
            if ticks.1 {
                return false;
            }
            if ticks.0.values().all(|held| *held >= tick) {
                return true;
            }
            self.changed.wait(&mut ticks);
        }
    }

    /// The oldest tick that somebody holds.
    pub(crate) fn oldest(&self) -> Option<Tick> {
        self.ticks.lock().0.values().min().copied()
    }

    /// Whether it is over.
    pub(crate) fn stopped(&self) -> bool {
        self.ticks.lock().1
    }

    /// Nobody needs to wait any more.
    pub(crate) fn stop(&self) {
        self.ticks.lock().1 = true;
        self.changed.notify_all();
    }
}
