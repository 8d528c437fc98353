//! Looking many keys up at once: pairs of a probing row and a stored one.

use crate::engine::keys::Keys;
use crate::engine::state::NONE;
use crate::engine::state::column::{Loc, TiledColumn};
use crate::engine::state::index::HashIndex;
use crate::engine::state::rows::RowStore;

/// Pairs of a probing row and a stored row with equal keys.
#[derive(Debug, Default)]
pub struct Matches {
    /// Positions among the probing rows, ascending.
    pub probe: Vec<u32>,
    /// Numbers of stored rows.
    pub ids: Vec<u32>,
}

/// How far a probe has come.
#[derive(Debug)]
pub struct Cursor {
    row: usize,
    // The next of the current row's chain, if it has been begun.
    id: Option<u32>,
    heads: Vec<u32>,
    // The first row that `heads` is of.
    window: usize,
}

/// Rows whose chains are looked up together.
const WINDOW: usize = 64;

impl Default for Cursor {
    fn default() -> Self {
        Cursor { row: 0, id: None, heads: Vec::with_capacity(WINDOW), window: usize::MAX }
    }
}

impl Matches {
    pub(super) fn clear(&mut self) {
        self.probe.clear();
        self.ids.clear();
    }

    /// Leaves the pairs for which `keep` is true.
    pub(super) fn retain(&mut self, keep: &[bool]) {
        if keep.contains(&false) {
            for numbers in [&mut self.probe, &mut self.ids] {
                let mut kept = keep.iter();
                numbers.retain(|_| *kept.next().unwrap_or(&false));
            }
        }
    }
}

impl Cursor {
    /// Goes on through the chains of the probing rows' hashes; true while there may be more.
    pub(super) fn walk(
        &mut self,
        index: &HashIndex,
        keys: &Keys,
        nulls_match: bool,
        max: usize,
        matches: &mut Matches,
    ) -> bool {
        let skip = keys.nulls.as_ref().filter(|_| !nulls_match);
        while self.row < keys.len() && matches.ids.len() < max {
            let window = self.row - self.row % WINDOW;
            if self.window != window {
                let end = (window + WINDOW).min(keys.len());
                index.find_all(&keys.hashes[window..end], &mut self.heads);
                self.window = window;
            }
            let mut id = match self.id.take() {
                Some(id) => id,
                None if skip.is_some_and(|n| n.is_null(self.row)) => NONE,
                None => self.heads[self.row - window],
            };
            while id != NONE && matches.ids.len() < max {
                matches.probe.push(self.row as u32);
                matches.ids.push(id);
                id = index.next(id);
            }
            if id == NONE {
                self.row += 1;
            } else {
                self.id = Some(id);
            }
        }
        self.row < keys.len()
    }
}

/// Leaves only the pairs whose keys are equal and not merely of one hash.
pub(super) fn verify(rows: &RowStore, key: &[usize], keys: &Keys, matches: &mut Matches) {
    if key.is_empty() || matches.ids.is_empty() {
        return;
    }
    let mut keep = vec![true; matches.ids.len()];
    let stored = rows.locate_all(&matches.ids);
    let probing: Vec<Loc> = matches.probe.iter().map(|row| Loc { tile: 0, row: *row }).collect();
    for (position, column) in key.iter().zip(&keys.columns) {
        rows.columns()[*position].equal_all(&stored, &TiledColumn::of(column), &probing, &mut keep);
    }
    matches.retain(&keep);
}
