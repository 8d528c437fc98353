//! An arrangement that several operators look rows up in, each by keys of its own.
//!
//! Until it is settled at the end of a tick, it answers for both moments of the tick: rows that have come have numbers
//! from a mark on, and what a row that was there counted is noted when that changes. Rows that have gone stay in the
//! indexes until then.

use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use hashbrown::HashMap;

use super::probe::{Cursor, Matches, verify};
use super::{Arrangement, SHORT_CHAIN, index_of};
use crate::engine::keys::{Keys, hash_is_key, hash_stored};
use crate::engine::state::index::HashIndex;
use crate::error::{Error, Result};

/// One of the two moments of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Without the tick's changes.
    Before,
    /// With them.
    After,
}

/// A key by which an operator looks rows up. The index by it is kept as long as one of these is.
#[derive(Clone, Debug)]
pub struct Key {
    at: usize,
    _used: Arc<()>,
}

/// Rows by a key.
pub(super) struct Index {
    columns: Vec<usize>,
    hash_is_key: bool,
    numbers: HashIndex,
    used: Weak<()>,
}

impl Index {
    pub(super) fn bytes(&self) -> usize {
        self.numbers.bytes()
    }

    /// Hashes of rows by the key.
    pub(super) fn hashes(&self, rows: &RecordBatch) -> Vec<u64> {
        if self.is_used() { hash_stored(rows, &self.columns) } else { Vec::new() }
    }

    /// Rows have got numbers from `first` on.
    pub(super) fn append(&mut self, rows: &RecordBatch, first: u32) {
        if self.is_used() {
            let hashes = self.hashes(rows);
            self.numbers.reserve(hashes.len());
            hashes.iter().zip(first..).for_each(|(hash, id)| self.numbers.insert(*hash, id));
        }
    }

    fn is_used(&self) -> bool {
        self.used.strong_count() > 0
    }
}

/// The first number, with its index, of a chain in which row `i` of the delta that is applied is found soon.
pub(super) fn short_chain<'a>(
    indexes: &'a [Index],
    applied: &[Vec<u64>],
    i: usize,
) -> Option<(&'a HashIndex, u32)> {
    indexes.iter().zip(applied).find_map(|(index, hashes)| {
        let (id, len) = index.numbers.find(*hashes.get(i)?);
        (len <= SHORT_CHAIN).then_some((&index.numbers, id))
    })
}

/// What was before the tick.
#[derive(Default)]
pub(super) struct Before {
    /// Rows from this number on were not there.
    mark: u32,
    /// What a row counted that counts otherwise now.
    weights: HashMap<u32, i64>,
    /// Rows that count no more.
    pub(super) emptied: Vec<u32>,
    /// How many of these had gone when the index by row was built, which is without them.
    pub(super) unlisted: usize,
}

impl Before {
    /// A row counted `weight` and will not any more.
    pub(super) fn note(&mut self, id: u32, weight: i64) {
        if id < self.mark {
            self.weights.entry(id).or_insert(weight);
        }
    }
}

impl Arrangement {
    /// An empty bag of rows for several operators.
    pub fn shared(schema: &SchemaRef) -> Arrangement {
        Arrangement { before: Some(Before::default()), ..Arrangement::new(schema, Vec::new()) }
    }

    /// The key in these columns, which are canonical.
    pub fn key(&mut self, columns: &[usize]) -> Key {
        let used = Arc::new(());
        let known = self.looked_up.iter().position(|index| index.columns == columns && index.is_used());
        if let Some((at, used)) = known.and_then(|at| Some((at, self.looked_up[at].used.upgrade()?))) {
            return Key { at, _used: used };
        }
        let types: Vec<DataType> =
            columns.iter().map(|c| self.schema().field(*c).data_type().clone()).collect();
        let index = Index {
            columns: columns.to_vec(),
            hash_is_key: hash_is_key(&types),
            numbers: index_of(&self.rows, &self.weights, columns),
            used: Arc::downgrade(&used),
        };
        let at = match self.looked_up.iter().position(|index| !index.is_used()) {
            Some(free) => {
                self.looked_up[free] = index;
                free
            }
            None => {
                self.looked_up.push(index);
                self.looked_up.len() - 1
            }
        };
        Key { at, _used: used }
    }

    /// Finds rows that are there at a moment of the tick, at most about `max` pairs at a time; true while there may be
    /// more. A key with a NULL finds nothing.
    ///
    /// # Errors
    /// XX001 for a key of another arrangement.
    pub fn look_up(
        &self,
        key: &Key,
        moment: Moment,
        keys: &Keys,
        cursor: &mut Cursor,
        max: usize,
        matches: &mut Matches,
    ) -> Result<bool> {
        matches.clear();
        let (Some(index), Some(before)) = (self.looked_up.get(key.at), &self.before) else {
            return Err(Error::internal("a key of another arrangement"));
        };
        if self.is_empty_at(moment) {
            return Ok(false);
        }
        let more = cursor.walk(&index.numbers, keys, false, max, matches);
        if !index.hash_is_key {
            verify(&self.rows, &index.columns, keys, matches);
        }
        let all_there = match moment {
            Moment::Before => before.mark as usize == self.rows.len() && before.weights.is_empty(),
            Moment::After => before.emptied.is_empty(),
        };
        if !all_there {
            let keep: Vec<bool> = matches.ids.iter().map(|id| self.weight_at(*id, moment) != 0).collect();
            matches.retain(&keep);
        }
        Ok(more)
    }

    /// What a row counts at a moment of the tick.
    pub fn weight_at(&self, id: u32, moment: Moment) -> i64 {
        let was = match (&self.before, moment) {
            (Some(before), Moment::Before) if id >= before.mark => Some(0),
            (Some(before), Moment::Before) => before.weights.get(&id).copied(),
            _ => None,
        };
        was.unwrap_or_else(|| self.weights.get(id))
    }

    /// Whether it is known at once that every row that is there at a moment of the tick counts once.
    pub fn ones_at(&self, moment: Moment) -> bool {
        self.all_ones()
            && (moment == Moment::After
                || self.before.as_ref().is_none_or(|before| before.weights.is_empty()))
    }

    /// Whether it is known at once that there are no rows at a moment of the tick.
    pub fn is_empty_at(&self, moment: Moment) -> bool {
        match (&self.before, moment) {
            (Some(before), Moment::Before) => before.mark == 0,
            _ => self.live_rows() == 0,
        }
    }

    /// The tick is over: nobody asks any more what was before it. Forgets dead rows and indexes that nobody uses.
    pub fn settle(&mut self) -> Result<()> {
        let Some(before) = &mut self.before else { return Ok(()) };
        before.weights = HashMap::new();
        let (emptied, unlisted) = (std::mem::take(&mut before.emptied), before.unlisted);
        self.applied = Vec::new();
        self.looked_up.iter_mut().filter(|i| !i.is_used()).for_each(|i| i.numbers = HashIndex::default());
        if self.compact()?.is_none() && !emptied.is_empty() {
            let hashes = |columns: &mut dyn Iterator<Item = usize>| -> Result<Vec<u64>> {
                Ok(Keys::exact(self.rows.gather(&emptied, columns)?, emptied.len()).hashes)
            };
            for index in self.looked_up.iter_mut().filter(|i| i.is_used()) {
                let hashes = hashes(&mut index.columns.iter().copied())?;
                hashes.iter().zip(&emptied).for_each(|(hash, id)| index.numbers.remove(*hash, *id));
            }
            if let Some(index) = &mut self.by_row {
                let hashes = hashes(&mut (0..self.rows.columns().len()))?;
                hashes.iter().zip(&emptied).skip(unlisted).for_each(|(hash, id)| index.remove(*hash, *id));
            }
        }
        self.begin();
        Ok(())
    }

    /// What it holds now is what was before.
    fn begin(&mut self) {
        if let Some(before) = &mut self.before {
            *before = Before { mark: self.rows.len() as u32, ..Before::default() };
        }
    }

    /// Its rows have other numbers than before, between two ticks.
    pub(super) fn look_up_anew(&mut self) {
        for index in &mut self.looked_up {
            index.numbers = match index.is_used() {
                true => index_of(&self.rows, &self.weights, &index.columns),
                false => HashIndex::default(),
            };
        }
        self.begin();
    }
}
