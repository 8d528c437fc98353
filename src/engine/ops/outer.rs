//! Outer, semi, anti and mark joins.
//!
//! Each stored row of a *preserved* side has a degree: the weight of the other side's rows it matches. What the row
//! contributes without a partner (a row padded with NULLs, itself, a mark) depends only on its weight and on whether
//! its degree is positive. So a tick notes both for every row it touches, and in the end emits the difference.
//!
//! Without a residual condition, semi, anti and mark joins keep no rows of the other side, only a count per key, and
//! touch rows only when a key's count becomes or stops being positive.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, new_null_array};
use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::keys::Keys;
use crate::engine::ops::side::{Change, Pairs, Side};
use crate::engine::plan::spec::{JoinKind, JoinSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Cursor, Matches, NONE, Restored, Saved, Table};
use crate::error::{Error, Result};

/// A join that preserves rows without partners, or only asks whether there are any.
pub struct Outer {
    sides: [Side; 2],
    pairs: Pairs,
    emits_pairs: bool,
    preserved: [Option<Preserved>; 2],
    counts: Option<Counts>,
    waiting: [Vec<Change>; 2],
    schema: SchemaRef,
}

/// What a preserved row contributes by itself.
#[derive(Clone, Copy, PartialEq)]
enum Alone {
    /// Padded with NULLs, while it has no partner.
    Padded,
    /// As it is, while it has one.
    Matched,
    /// As it is, while it has none.
    Unmatched,
    /// With a boolean: has a partner.
    Marked,
}

struct Preserved {
    alone: Alone,
    degrees: Vec<i64>,
    touched: Vec<Touched>,
    is_touched: Vec<bool>,
}

/// A stored row as it was before this tick.
struct Touched {
    id: u32,
    weight: i64,
    matched: bool,
}

/// How many rows of the side that is not preserved have each key.
struct Counts {
    keys: Table,
    weights: Vec<i64>,
    // Slots touched in this tick, with whether their count was positive before it.
    touched: Vec<(u32, bool)>,
    is_touched: Vec<bool>,
}

impl Outer {
    /// A join of any kind but inner.
    pub fn new(spec: &JoinSpec) -> Result<Outer> {
        let (left, right) = match spec.kind {
            JoinKind::Inner => return Err(Error::internal("an inner join preserves no side")),
            JoinKind::Left => (Some(Alone::Padded), None),
            JoinKind::Right => (None, Some(Alone::Padded)),
            JoinKind::Full => (Some(Alone::Padded), Some(Alone::Padded)),
            JoinKind::LeftSemi => (Some(Alone::Matched), None),
            JoinKind::LeftAnti => (Some(Alone::Unmatched), None),
            JoinKind::RightSemi => (None, Some(Alone::Matched)),
            JoinKind::RightAnti => (None, Some(Alone::Unmatched)),
            JoinKind::LeftMark => (Some(Alone::Marked), None),
        };
        let emits_pairs = matches!(spec.kind, JoinKind::Left | JoinKind::Right | JoinKind::Full);
        let sides = Side::both(spec)?;
        let pairs = Pairs::new(spec)?;
        let counted = !emits_pairs && !pairs.conditional();
        let types = sides[0].key.types().to_vec();
        Ok(Outer {
            sides,
            pairs,
            emits_pairs,
            preserved: [left, right].map(|alone| alone.map(Preserved::new)),
            counts: counted.then(|| Counts::new(types)),
            waiting: [Vec::new(), Vec::new()],
            schema: nullable(&spec.schema),
        })
    }

    /// The change of `port` meets the other side's stored rows, and is stored itself.
    fn meet(&mut self, port: usize, change: &Change, out: &mut Output) -> Result<()> {
        // The degrees of this change's rows with what is stored now.
        let mut degrees = vec![0; change.delta.num_rows()];
        let Output { deltas, errors } = out;
        let other_preserved = &mut self.preserved[1 - port];
        self.pairs.each(port, change, &mut self.sides[1 - port], errors, |other, matches, weights| {
            for (row, id) in matches.probe.iter().zip(&matches.ids) {
                let stored = other.rows.weight(*id);
                degrees[*row as usize] += stored;
                if let Some(preserved) = other_preserved.as_mut() {
                    preserved.touch(*id, stored);
                    preserved.degrees[*id as usize] += change.delta.weight(*row as usize);
                }
            }
            if self.emits_pairs {
                let rows = self.pairs.rows(port, change, other, matches, weights)?;
                deltas.push(Delta {
                    rows: batch(&self.schema, rows.rows.columns().to_vec(), rows.num_rows())?,
                    ..rows
                });
            }
            Ok(())
        })?;
        self.store(port, change, &degrees)
    }

    fn store(&mut self, port: usize, change: &Change, degrees: &[i64]) -> Result<()> {
        let preserved = &mut self.preserved[port];
        self.sides[port].rows.apply_with(&change.delta, Some(&change.keys.hashes), |row, id, before, _| {
            if let Some(preserved) = preserved {
                if id as usize == preserved.degrees.len() {
                    preserved.add(degrees[row as usize]);
                }
                preserved.touch(id, before);
            }
        })
    }

    /// One tick of a join that counts the other side's keys; `port` is the preserved one.
    fn count(&mut self, port: usize, counts: &mut Counts) -> Result<()> {
        for change in std::mem::take(&mut self.waiting[1 - port]) {
            counts.add(&change)?;
        }
        let (side, Some(preserved)) = (&mut self.sides[port], &mut self.preserved[port]) else {
            return Err(Error::internal("one side is preserved"));
        };
        for slots in counts.turned().chunks(CHUNK_ROWS) {
            let keys = Keys::exact(counts.keys.gather(slots)?, slots.len());
            let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
            loop {
                let more = side.rows.probe(&keys, true, &mut cursor, CHUNK_ROWS, &mut matches)?;
                for (row, id) in matches.probe.iter().zip(&matches.ids) {
                    preserved.touch(*id, side.rows.weight(*id));
                    preserved.degrees[*id as usize] = counts.degree(slots[*row as usize]);
                }
                if !more {
                    break;
                }
            }
        }
        for change in std::mem::take(&mut self.waiting[port]) {
            let slots = counts.keys.lookup(&change.keys);
            let degrees: Vec<i64> = slots.into_iter().map(|slot| counts.degree(slot)).collect();
            self.store(port, &change, &degrees)?;
        }
        Ok(())
    }

    /// What the touched rows of side `port` contribute now, minus what they did.
    fn settle(&mut self, port: usize, out: &mut Output) -> Result<()> {
        let Some(preserved) = &mut self.preserved[port] else { return Ok(()) };
        let alone = preserved.alone;
        // Rows by what stands beside them: a mark, if it is a marking join.
        let mut changes: Vec<(u32, bool, i64)> = Vec::new();
        for Touched { id, weight, matched } in std::mem::take(&mut preserved.touched) {
            preserved.is_touched[id as usize] = false;
            let now = (self.sides[port].rows.weight(id), preserved.degrees[id as usize] > 0);
            let shows = |matched: bool| match alone {
                Alone::Matched => matched,
                Alone::Padded | Alone::Unmatched => !matched,
                Alone::Marked => true,
            };
            let before = if shows(matched) { weight } else { 0 };
            let after = if shows(now.1) { now.0 } else { 0 };
            if alone == Alone::Marked && matched != now.1 {
                changes.push((id, matched, -before));
                changes.push((id, now.1, after));
            } else {
                changes.push((id, now.1, after - before));
            }
        }
        changes.retain(|(_, _, weight)| *weight != 0);
        for chunk in changes.chunks(CHUNK_ROWS) {
            let ids: Vec<u32> = chunk.iter().map(|(id, _, _)| *id).collect();
            let marks = chunk.iter().map(|(_, mark, _)| Some(*mark)).collect();
            let columns = self.alone(port, alone, self.sides[port].own_columns(&ids)?, marks);
            let rows = batch(&self.schema, columns, chunk.len())?;
            out.deltas.push(Delta::weighted(rows, chunk.iter().map(|(_, _, weight)| *weight).collect())?);
        }
        Ok(())
    }

    /// What rows of side `port` contribute by themselves.
    fn alone(&self, port: usize, alone: Alone, own: Vec<ArrayRef>, marks: BooleanArray) -> Vec<ArrayRef> {
        let rows = marks.len();
        match alone {
            Alone::Matched | Alone::Unmatched => own,
            Alone::Marked => own.into_iter().chain([Arc::new(marks) as ArrayRef]).collect(),
            Alone::Padded => {
                let width = self.schema.fields().len() - own.len();
                let missing = if port == 0 { own.len()..own.len() + width } else { 0..width };
                let nulls = missing.map(|c| new_null_array(self.schema.field(c).data_type(), rows));
                if port == 0 { own.into_iter().chain(nulls).collect() } else { nulls.chain(own).collect() }
            }
        }
    }
}

impl Operator for Outer {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        for delta in delta.chunks() {
            let (change, lonely) = self.sides[port].prepare(delta, &mut out.errors)?;
            if !change.delta.is_empty() {
                self.waiting[port].push(change);
            }
            // A row whose key is NULL never has a partner: what it contributes does not change.
            let alone = self.preserved[port].as_ref().map(|p| p.alone);
            if let (Some(lonely), Some(alone)) = (lonely.filter(|d| !d.is_empty()), alone)
                && alone != Alone::Matched
            {
                let marks = BooleanArray::from(vec![false; lonely.num_rows()]);
                let columns = self.alone(port, alone, lonely.rows.columns().to_vec(), marks);
                let rows = batch(&self.schema, columns, lonely.num_rows())?;
                out.deltas.push(Delta { rows, weights: lonely.weights });
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        if let Some(mut counts) = self.counts.take() {
            let counted = self.count(usize::from(self.preserved[0].is_none()), &mut counts);
            self.counts = Some(counts);
            counted?;
        } else {
            // Changes of the right with the left as it was, then those of the left with the right as it has become.
            for port in [1, 0] {
                for change in std::mem::take(&mut self.waiting[port]) {
                    self.meet(port, &change, out)?;
                }
            }
        }
        self.settle(0, out)?;
        self.settle(1, out)
    }

    fn commit(&mut self) -> Result<()> {
        for (side, preserved) in self.sides.iter_mut().zip(&mut self.preserved) {
            if let (Some(renumbered), Some(preserved)) = (side.rows.compact()?, preserved) {
                preserved.degrees = renumbered.iter().map(|id| preserved.degrees[*id as usize]).collect();
                preserved.is_touched = vec![false; renumbered.len()];
            }
        }
        if let Some(counts) = &mut self.counts {
            counts.commit()?;
        }
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        for (side, preserved) in self.sides.iter().zip(&self.preserved) {
            side.rows.save(state);
            if let Some(preserved) = preserved {
                state.numbers(&preserved.degrees);
            }
        }
        if let Some(counts) = &self.counts {
            counts.keys.save(state);
            state.numbers(&counts.weights);
        }
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        for (side, preserved) in self.sides.iter_mut().zip(&mut self.preserved) {
            side.rows.restore(state)?;
            if let Some(preserved) = preserved {
                preserved.degrees = state.numbers_of(side.rows.ids())?;
                preserved.is_touched = vec![false; preserved.degrees.len()];
            }
        }
        if let Some(counts) = &mut self.counts {
            counts.keys.restore(state)?;
            counts.weights = state.numbers_of(counts.keys.slots())?;
            counts.is_touched = vec![false; counts.weights.len()];
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let degrees = self.preserved.iter().flatten().map(|p| p.degrees.capacity() * 9).sum::<usize>();
        let counts = self.counts.as_ref().map_or(0, |c| c.keys.bytes() + c.weights.capacity() * 9);
        self.sides.iter().map(|s| s.rows.bytes()).sum::<usize>() + degrees + counts
    }

    fn state_rows(&self) -> usize {
        let counts = self.counts.as_ref().map_or(0, |c| c.keys.len());
        self.sides.iter().map(|s| s.rows.live_rows()).sum::<usize>() + counts
    }
}

impl Preserved {
    fn new(alone: Alone) -> Preserved {
        Preserved { alone, degrees: Vec::new(), touched: Vec::new(), is_touched: Vec::new() }
    }

    /// The next row, with its degree.
    fn add(&mut self, degree: i64) {
        self.degrees.push(degree);
        self.is_touched.push(false);
    }

    /// Notes what a row was before this tick, if this is the first time that it is touched in it.
    fn touch(&mut self, id: u32, weight: i64) {
        if !std::mem::replace(&mut self.is_touched[id as usize], true) {
            self.touched.push(Touched { id, weight, matched: self.degrees[id as usize] > 0 });
        }
    }
}

impl Counts {
    fn new(types: Vec<arrow::datatypes::DataType>) -> Counts {
        Counts { keys: Table::new(types), weights: Vec::new(), touched: Vec::new(), is_touched: Vec::new() }
    }

    fn add(&mut self, change: &Change) -> Result<()> {
        let slots = self.keys.upsert(&change.keys)?;
        self.weights.resize(self.keys.slots(), 0);
        self.is_touched.resize(self.keys.slots(), false);
        for (row, slot) in slots.iter().enumerate() {
            let at = *slot as usize;
            if !std::mem::replace(&mut self.is_touched[at], true) {
                self.touched.push((*slot, self.weights[at] > 0));
            }
            self.weights[at] += change.delta.weight(row);
        }
        Ok(())
    }

    /// 1 for a key that has rows, 0 for one that has none.
    fn degree(&self, slot: u32) -> i64 {
        i64::from(slot != NONE && self.weights[slot as usize] > 0)
    }

    /// The slots whose count became positive in this tick, or stopped being so.
    fn turned(&self) -> Vec<u32> {
        let turned = self.touched.iter().filter(|(slot, was)| (self.weights[*slot as usize] > 0) != *was);
        turned.map(|(slot, _)| *slot).collect()
    }

    fn commit(&mut self) -> Result<()> {
        for (slot, _) in std::mem::take(&mut self.touched) {
            self.is_touched[slot as usize] = false;
            if self.weights[slot as usize] == 0 {
                self.keys.remove(slot);
            }
        }
        self.keys.compact()
    }
}
