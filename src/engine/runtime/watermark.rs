//! How far event time has come, and what views have closed by it.
//!
//! An input's watermark is the latest event time of all rows that ever came, minus a delay. It is journalled whenever it
//! advances, as the position of a source of its own: so a replay knows it at each tick, and compaction keeps the last,
//! though the row that told it may be gone.
//!
//! What a view has closed depends on the ticks in which its rows came, not only on which rows are there: so a replay
//! makes a step of every tick in which a watermark advances that some view closes windows by. From when on a view closes
//! windows is journalled, too ([`SINCE`]); until then it takes in everything, as it does while it is filled. A base of the
//! journal tells the rows that it has given, and up to which watermark.

use std::collections::{BTreeMap, HashMap};

use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;

use super::core::{Collection, Core, Kind};
use super::tick::Changes;
use crate::engine::serve::snapshot::Closed;
use crate::engine::{CollectionId, Delta, Watermark};
use crate::error::Result;

/// Names an input's watermark among the sources, with the input's number.
const WATERMARK: &str = "\u{1}watermark ";

/// Names among the sources that a view closes windows, with the view's number.
const SINCE: &str = "\u{1}closes ";

/// What a position tells of watermarks.
pub(super) enum Told {
    /// An input's watermark.
    Watermark(CollectionId, i64),
    /// From here on a view closes windows; those that end up to the watermark, if there is one, it has closed, and so
    /// many rows have come too late.
    Closes(CollectionId, Option<(i64, u64)>),
}

/// What a source's position tells, if it is of this kind.
pub(super) fn told(source: &str, position: &[u8]) -> Option<Told> {
    let number = |bytes: &[u8]| bytes.try_into().ok().map(i64::from_le_bytes);
    if let Some(input) = source.strip_prefix(WATERMARK) {
        return Some(Told::Watermark(CollectionId(input.parse().ok()?), number(position)?));
    }
    let view = CollectionId(source.strip_prefix(SINCE)?.parse().ok()?);
    let closed = match position.split_at_checked(8) {
        Some((watermark, late)) => Some((number(watermark)?, number(late)?.unsigned_abs())),
        None => None,
    };
    Some(Told::Closes(view, closed))
}

fn watermark_position(input: CollectionId, watermark: i64) -> (String, Vec<u8>) {
    (format!("{WATERMARK}{}", input.0), watermark.to_le_bytes().to_vec())
}

/// What a view that closes windows knows of them.
pub(crate) struct Windows {
    /// The inputs whose watermarks count: the least of them.
    inputs: Vec<CollectionId>,
    /// Up to where windows are closed; `None`: it closes none yet.
    watermark: Option<i64>,
    /// What it has closed last.
    pub(crate) closed: Closed,
}

impl Windows {
    /// None of them is closed yet.
    pub(crate) fn new(inputs: Vec<CollectionId>) -> Windows {
        Windows { inputs, watermark: None, closed: Closed::default() }
    }
}

/// The latest event time among rows that come; those at the ends of time tell nothing.
fn latest(delta: &Delta, column: usize) -> Option<i64> {
    let times = delta.rows.column(column).as_primitive_opt::<TimestampMicrosecondType>()?;
    let tells = |time: i64| time != i64::MAX && time != i64::MIN;
    if delta.weights.is_none() && times.null_count() == 0 {
        return times.values().iter().copied().filter(|time| tells(*time)).max();
    }
    let comes = (0..times.len()).filter(|row| times.is_valid(*row) && delta.weight(*row) > 0);
    comes.map(|row| times.value(row)).filter(|time| tells(*time)).max()
}

impl Core {
    /// The watermarks that advance by these changes.
    pub(super) fn advancing(
        &self,
        by_input: &BTreeMap<CollectionId, Vec<Delta>>,
    ) -> Vec<(CollectionId, i64)> {
        let mut advancing = Vec::new();
        for (id, deltas) in by_input {
            let Some(Kind::Input { spec, .. }) = self.collections.get(id).map(|c| &c.kind) else { continue };
            let Some(Watermark { column, delay }) = spec.watermark else { continue };
            let Some(latest) = deltas.iter().filter_map(|delta| latest(delta, column)).max() else {
                continue;
            };
            let watermark = latest.saturating_sub(delay);
            if self.watermarks.get(id).is_none_or(|known| *known < watermark) {
                advancing.push((*id, watermark));
            }
        }
        advancing
    }

    /// How the journal tells them.
    pub(super) fn positions_of(advancing: &[(CollectionId, i64)]) -> impl Iterator<Item = (String, Vec<u8>)> {
        advancing.iter().map(|(input, watermark)| watermark_position(*input, *watermark))
    }

    /// An input's watermark, or up to where a view has closed windows.
    pub(super) fn watermark_of(&self, id: CollectionId) -> Option<i64> {
        let closed =
            self.collections.get(&id).and_then(Collection::windows).and_then(|windows| windows.watermark);
        // A view that waits for its first row has closed nothing.
        closed.filter(|closed| *closed > i64::MIN).or_else(|| self.watermarks.get(&id).copied())
    }

    /// Takes a watermark from the journal; answers whether a view closes windows by it.
    pub(super) fn advance(&mut self, input: CollectionId, watermark: i64) -> bool {
        self.watermarks.entry(input).and_modify(|known| *known = watermark.max(*known)).or_insert(watermark);
        self.windows().any(|(_, windows)| windows.watermark.is_some() && windows.inputs.contains(&input))
    }

    fn windows(&self) -> impl Iterator<Item = (CollectionId, &Windows)> {
        self.windowed.iter().filter_map(|id| Some((*id, self.collections.get(id)?.windows()?)))
    }

    /// The watermark of a view's inputs: the least one, if each has one.
    fn least(watermarks: &BTreeMap<CollectionId, i64>, inputs: &[CollectionId]) -> Option<i64> {
        let each: Option<Vec<i64>> = inputs.iter().map(|input| watermarks.get(input).copied()).collect();
        each?.into_iter().min()
    }

    /// Whether some view has windows to close though nothing else has happened.
    pub(super) fn has_to_close(&self) -> bool {
        self.windows().any(|(_, windows)| {
            windows.watermark.is_some_and(|known| {
                Self::least(&self.watermarks, &windows.inputs).is_some_and(|watermark| watermark > known)
            })
        })
    }

    /// Tells the nodes of views what is closed before this pass and what closes in it.
    pub(super) fn close_windows(&mut self) {
        for id in &self.windowed {
            let Some(windows) = self.collections.get_mut(id).and_then(Collection::windows_mut) else {
                continue;
            };
            let Some(before) = windows.watermark else { continue };
            let after =
                Self::least(&self.watermarks, &windows.inputs).map_or(before, |least| least.max(before));
            windows.watermark = Some(after);
            windows.closed = Closed { tick: self.tick, before, after, ..Closed::default() };
            self.circuit.set_watermark(*id, before, after);
        }
    }

    /// Takes note of what the views gave of the windows that closed in this pass; answers with these views.
    pub(super) fn windows_closed(
        &mut self,
        changes: &HashMap<CollectionId, Vec<Delta>>,
    ) -> Vec<CollectionId> {
        let mut closing = Vec::new();
        for id in &self.windowed {
            let windows = self.collections.get_mut(id).and_then(Collection::windows_mut);
            let Some(windows) = windows.filter(|w| w.watermark.is_some()) else { continue };
            windows.closed.given = changes.get(id).cloned().unwrap_or_default();
            windows.closed.late_rows = self.circuit.late_rows(*id);
            closing.push(*id);
        }
        closing
    }

    /// From the next tick on a view closes windows.
    pub(super) fn begin_closing(&mut self, view: CollectionId) {
        if let Some(windows) = self.collections.get_mut(&view).and_then(Collection::windows_mut) {
            windows.watermark = Some(i64::MIN);
        }
    }

    /// What ends up to a watermark a view has closed, and so many rows came too late.
    pub(super) fn resume_closing(
        &mut self,
        view: CollectionId,
        watermark: i64,
        late_rows: u64,
    ) -> Result<()> {
        let Some(windows) = self.collections.get_mut(&view).and_then(Collection::windows_mut) else {
            return Ok(());
        };
        windows.watermark = Some(watermark);
        windows.closed =
            Closed { tick: self.tick, before: watermark, after: watermark, late_rows, ..Closed::default() };
        self.circuit.resume_watermark(view, watermark, late_rows)
    }

    /// The nodes have taken up what they knew at this tick: so have the views that close windows.
    pub(super) fn closed_as_restored(&mut self) {
        for id in &self.windowed {
            let windows = self.collections.get_mut(id).and_then(Collection::windows_mut);
            let Some(windows) = windows.filter(|w| w.watermark.is_some()) else { continue };
            let Some(watermark) = Self::least(&self.watermarks, &windows.inputs) else { continue };
            let late_rows = self.circuit.late_rows(*id);
            windows.watermark = Some(watermark);
            windows.closed = Closed {
                tick: self.tick,
                before: watermark,
                after: watermark,
                late_rows,
                ..Closed::default()
            };
        }
    }

    /// Lets a view close windows from now on, in a tick of its own, in which it gives what is closed already.
    pub(super) fn close_from_now_on(&mut self, view: CollectionId) -> Result<()> {
        self.begin_closing(view);
        let mut changes = Changes::default();
        changes.tell((format!("{SINCE}{}", view.0), Vec::new()));
        self.run_tick(changes).map(drop)
    }

    /// Views that close windows and do not know from when on: the journal was lost before it said so.
    pub(super) fn close_rest(&mut self) -> Result<()> {
        let views: Vec<CollectionId> =
            self.windows().filter(|(_, windows)| windows.watermark.is_none()).map(|(id, _)| id).collect();
        views.into_iter().try_for_each(|view| self.close_from_now_on(view))
    }

    /// What a base of the journal is to tell of watermarks and of windows that are closed, in the place of what the journal
    /// told, and the views whose rows it is to have.
    pub(crate) fn closed_for_base(&self, progress: &mut Vec<(String, Vec<u8>)>) -> Vec<CollectionId> {
        progress.retain(|(source, position)| match told(source, position) {
            Some(Told::Watermark(input, _)) => self.collections.contains_key(&input),
            Some(Told::Closes(..)) => false,
            None => true,
        });
        let mut views = Vec::new();
        for (id, windows) in self.windows() {
            let failed = self.collections.get(&id).is_some_and(|view| view.failed.is_some());
            let Some(watermark) = windows.watermark.filter(|_| !failed) else { continue };
            let mut position = watermark.to_le_bytes().to_vec();
            position.extend(windows.closed.late_rows.to_le_bytes());
            progress.push((format!("{SINCE}{}", id.0), position));
            views.push(id);
        }
        views
    }
}
