//! When memory has come to its end: the view that holds the most is stopped, and the others go on.

use std::time::Duration;

use super::core::{Core, Kind};
use crate::engine::CollectionId;
use crate::error::SqlState;
use crate::{memory, world};

/// How long what was freed has time to go back to the system before another view is stopped.
const PATIENCE: Duration = Duration::from_secs(2);

impl Core {
    /// Stops the running view with the most state, and those that read it, while memory is exhausted.
    pub(super) fn relieve_memory(&mut self) {
        let waiting = |last: &std::time::Instant| world::instant().duration_since(*last) < PATIENCE;
        if !memory::exhausted() || self.relieved.as_ref().is_some_and(waiting) {
            return;
        }
        let Err(mut error) = memory::check() else { return };
        self.relieved = Some(world::instant());
        let state = self.circuit.state();
        let bytes = |id: &CollectionId| state.get(id).map_or(0, |(_, bytes)| *bytes);
        let views = self.collections.iter().filter_map(|(id, collection)| match collection.kind {
            Kind::View { root, .. } if collection.failed.is_none() => Some((*id, root)),
            _ => None,
        });
        let Some((view, root)) = views.max_by_key(|(id, _)| bytes(id)).filter(|(id, _)| bytes(id) > 0) else {
            tracing::error!(%error, "no view has state that could be freed");
            return;
        };
        debug_assert_eq!(error.sqlstate, SqlState::OUT_OF_MEMORY);
        error.message = format!("stopped for want of memory, with {} MB of state", bytes(&view) >> 20);
        error.hint = Some(
            "Raise memory_limit and start again, or drop this view or others and create it again.".into(),
        );
        let stopped = self.circuit.stop(root, error);
        let changed = self.take_errors(Default::default(), stopped);
        if let Err(error) = self.publish_snapshot(changed) {
            tracing::error!(%error, "the snapshot still shows rows of a view that has stopped");
        }
    }
}
