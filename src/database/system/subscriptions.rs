//! `tidemill.subscriptions`: who follows what, and how far.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::database::Database;
use crate::database::system::cells::Kind;
use crate::database::system::{Cell, Column, Definition};
use crate::engine::{CollectionId, Tick};
use crate::error::Result;
use crate::world;

pub(super) const RELATIONS: &[Definition] = &[Definition {
    name: "subscriptions",
    columns: &[
        Column("id", Kind::Int),
        Column("relation", Kind::Text),
        Column("user", Kind::Text),
        Column("since", Kind::Timestamp),
        Column("tick", Kind::Int),
        Column("rows", Kind::Int),
    ],
    rows,
}];

/// Everything that is followed by SUBSCRIBE.
#[derive(Default)]
pub(crate) struct Subscriptions(Mutex<State>);

#[derive(Default)]
struct State {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// Views that exist only for their subscribers, and what they read.
    views: HashMap<CollectionId, Vec<CollectionId>>,
}

struct Entry {
    relation: String,
    user: String,
    since: i64,
    tick: Tick,
    rows: u64,
}

/// One open subscription; it is listed until this is dropped.
pub(crate) struct Following {
    id: u64,
    all: Arc<Subscriptions>,
}

impl Subscriptions {
    /// Lists a new subscription.
    pub fn follow(self: &Arc<Self>, relation: &str, user: &str, tick: Tick) -> Following {
        let mut state = self.0.lock();
        let id = state.next;
        state.next += 1;
        let (relation, user) = (relation.to_string(), user.to_string());
        state.open.insert(id, Entry { relation, user, since: world::now_micros(), tick, rows: 0 });
        Following { id, all: Arc::clone(self) }
    }
}

impl Subscriptions {
    /// Notes a view that exists only for its subscriber.
    pub fn own(&self, view: CollectionId, reads: Vec<CollectionId>) {
        self.0.lock().views.insert(view, reads);
    }

    /// Forgets a subscriber's view; says whether it was still there.
    pub fn disown(&self, view: CollectionId) -> bool {
        self.0.lock().views.remove(&view).is_some()
    }

    /// Takes out the subscribers' views that read any of these: they go with them, and their subscriptions end.
    pub fn take_readers(&self, of: &[CollectionId]) -> Vec<CollectionId> {
        let mut state = self.0.lock();
        let gone: Vec<CollectionId> = state
            .views
            .iter()
            .filter(|(_, reads)| reads.iter().any(|id| of.contains(id)))
            .map(|(view, _)| *view)
            .collect();
        for view in &gone {
            state.views.remove(view);
        }
        gone
    }
}

impl Following {
    /// Rows of a tick were handed over.
    pub fn sent(&self, tick: Tick, rows: usize) {
        if let Some(entry) = self.all.0.lock().open.get_mut(&self.id) {
            entry.tick = tick;
            entry.rows += rows as u64;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.all.0.lock().open.remove(&self.id);
    }
}

fn rows(database: &Database) -> Result<Vec<Vec<Cell>>> {
    let state = database.subscriptions.0.lock();
    Ok(state
        .open
        .iter()
        .map(|(id, e)| {
            vec![
                Cell::int(*id),
                Cell::text(&e.relation),
                Cell::text(&e.user),
                Cell::Timestamp(e.since),
                Cell::int(e.tick),
                Cell::int(e.rows),
            ]
        })
        .collect())
}
