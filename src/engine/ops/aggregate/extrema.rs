//! Minimum and maximum, right under retraction.
//!
//! While nothing is ever retracted only the best value of each group matters; the others are merely written down.
//! From the first retraction on, all values are kept sorted by group, so that the next best is at hand.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{DataType, Field, Schema, UInt32Type};

use super::ordered::{Form, Ordered, form};
use crate::engine::delta::batch;
use crate::engine::state::rows::RowStore;
use crate::engine::state::saved::misfit;
use crate::engine::state::{Restored, Saved};
use crate::error::Result;

/// The minimum or maximum of each group.
pub(super) enum Extrema {
    Small(Of<i64>),
    Wide(Of<i128>),
    Bytes(Of<Box<[u8]>>),
}

macro_rules! each {
    ($extrema:expr, $of:ident => $body:expr) => {
        match $extrema {
            Extrema::Small($of) => $body,
            Extrema::Wide($of) => $body,
            Extrema::Bytes($of) => $body,
        }
    };
}

impl Extrema {
    /// Of arguments of type `arg`; the maximum if `max`.
    pub(super) fn new(arg: &DataType, max: bool) -> Result<Extrema> {
        Ok(match form(arg)? {
            Form::Small => Extrema::Small(Of::new(arg, max)),
            Form::Wide => Extrema::Wide(Of::new(arg, max)),
            Form::Bytes => Extrema::Bytes(Of::new(arg, max)),
        })
    }

    /// Makes room for slots below `slots`.
    pub(super) fn resize(&mut self, slots: usize) {
        each!(self, of => of.best.resize(slots, None))
    }

    /// Must be called before rows go.
    pub(super) fn expect_retractions(&mut self) -> Result<()> {
        each!(self, of => of.sort())
    }

    /// Adds values, none of which is NULL.
    pub(super) fn update(&mut self, slots: &[u32], values: &ArrayRef, weights: Option<&[i64]>) -> Result<()> {
        each!(self, of => of.update(slots, values, weights))
    }

    /// The results.
    pub(super) fn evaluate(&self, slots: &[u32]) -> Result<ArrayRef> {
        each!(self, of => Ordered::array(slots.iter().map(|s| of.result(*s)).collect(), &of.data_type))
    }

    /// Whether a group has no values.
    pub(super) fn is_zero(&self, slot: u32) -> bool {
        each!(self, of => of.is_zero(slot))
    }

    /// Values held.
    pub(super) fn rows(&self) -> usize {
        each!(self, of => of.sorted.as_ref().map_or(of.written.len(), BTreeMap::len))
    }

    /// Gives the values of each group.
    pub(super) fn save(&self, state: &mut Saved) -> Result<()> {
        each!(self, of => of.save(state))
    }

    /// Takes up what [`Extrema::save`] gave of slots below `slots`.
    pub(super) fn restore(&mut self, slots: usize, state: &mut Restored) -> Result<()> {
        each!(self, of => of.restore(slots, state))
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        each!(self, of => of.bytes())
    }
}

/// The extrema of values of one form.
pub(super) struct Of<V> {
    data_type: DataType,
    max: bool,
    // Until the first retraction.
    best: Vec<Option<V>>,
    written: RowStore,
    // From then on: how often each group has each value, never 0 times.
    sorted: Option<BTreeMap<(u32, V), i64>>,
}

impl<V: Ordered> Of<V> {
    fn new(data_type: &DataType, max: bool) -> Of<V> {
        let fields =
            vec![Field::new("slot", DataType::UInt32, false), Field::new("value", data_type.clone(), false)];
        let written = RowStore::new(&Arc::new(Schema::new(fields)));
        Of { data_type: data_type.clone(), max, best: Vec::new(), written, sorted: None }
    }

    fn update(&mut self, slots: &[u32], values: &ArrayRef, weights: Option<&[i64]>) -> Result<()> {
        let read = V::read(values)?;
        if let Some(sorted) = &mut self.sorted {
            for (i, (slot, value)) in slots.iter().zip(read).enumerate() {
                add(sorted, *slot, V::own(value), weights.map_or(1, |w| w[i]));
            }
            return Ok(());
        }
        // What is written down counts once.
        if weights.is_some_and(|w| w.iter().any(|w| *w != 1)) {
            self.sort()?;
            return self.update(slots, values, weights);
        }
        let better = if self.max { Ordering::Less } else { Ordering::Greater };
        for (slot, value) in slots.iter().zip(read) {
            let best = &mut self.best[*slot as usize];
            if best.as_ref().is_none_or(|b| b.compare(value) == better) {
                *best = Some(V::own(value));
            }
        }
        let slots: ArrayRef = Arc::new(UInt32Array::from(slots.to_vec()));
        let rows = batch(self.written.schema(), vec![slots, Arc::clone(values)], values.len())?;
        self.written.append(&rows)
    }

    /// Sorts what was only written down so far.
    fn sort(&mut self) -> Result<()> {
        if self.sorted.is_some() {
            return Ok(());
        }
        let mut sorted = BTreeMap::new();
        for tile in self.written.tiles() {
            let slots = tile.column(0).as_primitive::<UInt32Type>().values();
            for (slot, value) in slots.iter().zip(V::read(tile.column(1))?) {
                add(&mut sorted, *slot, V::own(value), 1);
            }
        }
        self.written = RowStore::new(self.written.schema());
        self.best.iter_mut().for_each(|b| *b = None);
        self.sorted = Some(sorted);
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        state.numbers(&[u8::from(self.sorted.is_some())]);
        let Some(sorted) = &self.sorted else {
            state.rows(self.written.schema(), self.written.tiles().to_vec());
            return Ok(());
        };
        let slots: ArrayRef = Arc::new(UInt32Array::from_iter_values(sorted.keys().map(|(slot, _)| *slot)));
        let values =
            V::array(sorted.keys().map(|(_, value)| Some(value.clone())).collect(), &self.data_type)?;
        let rows = batch(self.written.schema(), vec![slots, values], sorted.len())?;
        state.rows(self.written.schema(), vec![Arc::new(rows)]);
        state.numbers(&sorted.values().copied().collect::<Vec<_>>());
        Ok(())
    }

    fn restore(&mut self, slots: usize, state: &mut Restored) -> Result<()> {
        let is_sorted = state.number::<u8>()? != 0;
        let tiles = state.rows(self.written.schema())?;
        self.written = RowStore::new(self.written.schema());
        (self.best, self.sorted) = (vec![None; slots], is_sorted.then(BTreeMap::new));
        let rows = tiles.iter().map(|tile| tile.num_rows()).sum();
        let weights: Option<Vec<i64>> = is_sorted.then(|| state.numbers_of(rows)).transpose()?;
        let mut weights = weights.as_deref();
        for tile in tiles {
            let of = tile.column(0).as_primitive::<UInt32Type>().values();
            if of.iter().any(|slot| *slot as usize >= slots) {
                return Err(misfit());
            }
            let (own, others) = weights.map(|w| w.split_at(tile.num_rows())).unzip();
            self.update(of, tile.column(1), own)?;
            weights = others;
        }
        Ok(())
    }

    fn result(&self, slot: u32) -> Option<V> {
        let Some(sorted) = &self.sorted else { return self.best[slot as usize].clone() };
        let mut values =
            sorted.range((slot, V::least())..(slot + 1, V::least())).filter(|(_, weight)| **weight > 0);
        let found = if self.max { values.next_back() } else { values.next() };
        found.map(|((_, value), _)| value.clone())
    }

    fn is_zero(&self, slot: u32) -> bool {
        match &self.sorted {
            Some(sorted) => sorted.range((slot, V::least())..(slot + 1, V::least())).next().is_none(),
            None => self.best[slot as usize].is_none(),
        }
    }

    fn bytes(&self) -> usize {
        let entry = size_of::<((u32, V), i64)>();
        // The first value stands for all: walking them would cost more than the number is worth.
        let extra = |s: &BTreeMap<(u32, V), i64>| s.keys().next().map_or(0, |(_, v)| v.extra_bytes());
        self.best.capacity() * size_of::<Option<V>>()
            + self.written.bytes()
            + self.sorted.as_ref().map_or(0, |s| s.len() * (entry + extra(s)))
    }
}

fn add<V: Ordered>(sorted: &mut BTreeMap<(u32, V), i64>, slot: u32, value: V, weight: i64) {
    use std::collections::btree_map::Entry;
    match sorted.entry((slot, value)) {
        Entry::Vacant(entry) => {
            entry.insert(weight);
        }
        Entry::Occupied(mut entry) => {
            *entry.get_mut() += weight;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}
