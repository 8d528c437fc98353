//! The universal operator: touched keys → the fragment in batch over those keys' rows → difference with the last answer.
//!
//! Every query shape is right with it on the first day; each specialised operator must agree with it. Its state is
//! its ports' rows and its last answer, both by key.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::batch::Fragment;
use crate::engine::delta::{batch, nullable, with_schema};
use crate::engine::keys::{KeySpec, Keys};
use crate::engine::plan::spec::{RecomputeSpec, Touch};
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::state::saved::misfit;
use crate::engine::state::{Arrangement, Cursor, Matches, Restored, Saved, Table};
use crate::error::{Error, Result};

/// Keys that are recomputed in one run of the fragment.
const KEYS_PER_RUN: usize = 16_384;

/// Runs a fragment of a plan again for whatever a tick has touched.
pub struct Recompute {
    fragment: Fragment,
    schema: SchemaRef,
    mode: Mode,
}

/// How much a change touches, with the state that goes with it.
enum Mode {
    Rows,
    Keys(Box<Keyed>),
    Whole(Box<Whole>),
}

/// Rows of a port or of the answer, by key.
struct Part {
    keys: KeySpec,
    rows: Arrangement,
}

struct Keyed {
    ports: Vec<Part>,
    answer: Part,
    /// Keys that changed in this tick.
    touched: Table,
    /// Keys whose rows the fragment fails on, and by slot what it says.
    failing: Table,
    errors: Vec<Option<Error>>,
}

struct Whole {
    ports: Vec<Arrangement>,
    answer: Arrangement,
    /// Whether the answer is to be found anew; at first it is, for a fragment may answer something to nothing.
    stale: bool,
    error: Option<Error>,
}

impl Recompute {
    /// Does what `spec` says.
    pub fn new(spec: &RecomputeSpec) -> Result<Recompute> {
        let schema = nullable(&spec.schema);
        let mode = match &spec.touch {
            Touch::Rows => Mode::Rows,
            Touch::Keys { inputs, output } => {
                let part = |keys: KeySpec| Part {
                    rows: Arrangement::new(keys.stored_schema(), keys.positions().to_vec()),
                    keys,
                };
                let ports = inputs.iter().zip(&spec.inputs);
                let ports = ports.map(|(keys, schema)| Ok(part(KeySpec::new(keys, schema)?)));
                let answer = part(KeySpec::new(output, &schema)?);
                let types = answer.keys.types().to_vec();
                Mode::Keys(Box::new(Keyed {
                    ports: ports.collect::<Result<_>>()?,
                    touched: Table::new(types.clone()),
                    failing: Table::new(types),
                    errors: Vec::new(),
                    answer,
                }))
            }
            Touch::Whole => Mode::Whole(Box::new(Whole {
                ports: spec.inputs.iter().map(Arrangement::by_row).collect(),
                answer: Arrangement::by_row(&schema),
                stale: true,
                error: None,
            })),
        };
        Ok(Recompute { fragment: Fragment::new(&spec.plan, &spec.inputs)?, schema, mode })
    }
}

impl Operator for Recompute {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        match &mut self.mode {
            Mode::Rows => {
                let (come, go) = (delta.expand()?, delta.negate().expand()?);
                for (rows, weight) in [(come, 1), (go, -1)] {
                    let mut answers = Vec::new();
                    each_row(&mut self.fragment, rows, weight, &mut answers, &mut out.errors)?;
                    for rows in answers {
                        let rows = with_schema(&rows, &self.schema)?;
                        out.deltas.push(if weight > 0 { Delta::insert(rows) } else { Delta::delete(rows) });
                    }
                }
            }
            Mode::Keys(state) => {
                let part = &mut state.ports[port];
                let (delta, keys) = part.keys.evaluate(delta, &mut out.errors)?;
                if !delta.is_empty() {
                    state.touched.upsert(&keys)?;
                    part.rows.apply(&part.keys.store(delta, &keys)?, Some(&keys.hashes))?;
                }
            }
            Mode::Whole(state) => {
                state.stale = true;
                let schema = Arc::clone(state.ports[port].schema());
                let delta = Delta { rows: with_schema(&delta.rows, &schema)?, weights: delta.weights };
                state.ports[port].apply(&delta, None)?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        match &mut self.mode {
            Mode::Rows => Ok(()),
            Mode::Keys(state) => state.finish(&mut self.fragment, &self.schema, out),
            Mode::Whole(state) => state.finish(&mut self.fragment, &self.schema, out),
        }
    }

    fn commit(&mut self) -> Result<()> {
        match &mut self.mode {
            Mode::Rows => {}
            Mode::Keys(state) => {
                state.touched = Table::new(state.answer.keys.types().to_vec());
                state.failing.compact()?;
                for part in state.ports.iter_mut().chain([&mut state.answer]) {
                    part.rows.compact()?;
                }
            }
            Mode::Whole(state) => {
                for rows in state.ports.iter_mut().chain([&mut state.answer]) {
                    rows.compact()?;
                }
            }
        }
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.kept().for_each(|rows| rows.save(state));
        match &self.mode {
            Mode::Rows => Ok(()),
            Mode::Keys(keyed) => {
                keyed.failing.save(state);
                let errors = (0..).zip(&keyed.errors);
                state.errors(errors.filter_map(|(slot, error)| Some((slot, error.as_ref()?))))
            }
            Mode::Whole(whole) => {
                state.numbers(&[u8::from(whole.stale)]);
                state.errors(whole.error.iter().map(|error| (0, error)))
            }
        }
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        match &mut self.mode {
            Mode::Rows => {}
            Mode::Keys(keyed) => {
                for part in keyed.ports.iter_mut().chain([&mut keyed.answer]) {
                    part.rows.restore(state)?;
                }
                keyed.failing.restore(state)?;
                keyed.errors = vec![None; keyed.failing.slots()];
                for (slot, error) in state.errors()? {
                    *keyed.errors.get_mut(slot as usize).ok_or_else(misfit)? = Some(error);
                }
            }
            Mode::Whole(whole) => {
                for rows in whole.ports.iter_mut().chain([&mut whole.answer]) {
                    rows.restore(state)?;
                }
                whole.stale = state.number::<u8>()? != 0;
                whole.error = state.errors()?.into_iter().next().map(|(_, error)| error);
            }
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.kept().map(Arrangement::bytes).sum()
    }

    fn state_rows(&self) -> usize {
        self.kept().map(Arrangement::live_rows).sum()
    }
}

impl Recompute {
    fn kept(&self) -> impl Iterator<Item = &Arrangement> {
        let (parts, whole) = match &self.mode {
            Mode::Rows => (None, None),
            Mode::Keys(state) => (Some(state.ports.iter().chain([&state.answer]).map(|p| &p.rows)), None),
            Mode::Whole(state) => (None, Some(state.ports.iter().chain([&state.answer]))),
        };
        parts.into_iter().flatten().chain(whole.into_iter().flatten())
    }
}

/// What the fragment makes of each row by itself; halves the rows until those it fails on stand alone.
fn each_row(
    fragment: &mut Fragment,
    rows: RecordBatch,
    weight: i64,
    answers: &mut Vec<RecordBatch>,
    errors: &mut Vec<RowError>,
) -> Result<()> {
    let mut todo = vec![rows];
    while let Some(rows) = todo.pop() {
        let n = rows.num_rows();
        if n == 0 {
            continue;
        }
        match fragment.run(vec![vec![rows.clone()]]) {
            Ok(batches) => answers.extend(batches.into_iter().filter(|b| b.num_rows() > 0)),
            Err(error) if n == 1 => errors.push(RowError { error, weight }),
            Err(_) => todo.extend([rows.slice(n / 2, n - n / 2), rows.slice(0, n / 2)]),
        }
    }
    Ok(())
}

impl Keyed {
    fn finish(&mut self, fragment: &mut Fragment, schema: &SchemaRef, out: &mut Output) -> Result<()> {
        let slots: Vec<u32> = (0..self.touched.slots() as u32).collect();
        // Chunks of keys still to do, the first on top.
        let mut todo: Vec<&[u32]> = slots.chunks(KEYS_PER_RUN).rev().collect();
        while let Some(slots) = todo.pop() {
            let keys = Keys::new(self.touched.gather(slots)?, slots.len());
            let inputs: Vec<_> = self.ports.iter_mut().map(|p| p.rows_of(&keys)).collect::<Result<_>>()?;
            let answer = match fragment.run(inputs) {
                Ok(answer) => {
                    self.answered(&keys, None, &mut out.errors)?;
                    answer
                }
                Err(error) if slots.len() == 1 => {
                    self.answered(&keys, Some(error), &mut out.errors)?;
                    Vec::new()
                }
                Err(_) => {
                    let (a, b) = slots.split_at(slots.len() / 2);
                    todo.extend([b, a]);
                    continue;
                }
            };
            self.replace(&keys, answer, schema, out)?;
        }
        Ok(())
    }

    /// Notes whether the fragment fails on these keys; it failed, if at all, on a single one.
    fn answered(&mut self, keys: &Keys, error: Option<Error>, errors: &mut Vec<RowError>) -> Result<()> {
        if !self.failing.is_empty() {
            for slot in self.failing.lookup(keys) {
                if let Some(error) = self.errors.get_mut(slot as usize).and_then(Option::take) {
                    errors.push(RowError { error, weight: -1 });
                    self.failing.remove(slot);
                }
            }
        }
        if let Some(error) = error {
            for slot in self.failing.upsert(keys)? {
                self.errors.resize(self.failing.slots(), None);
                self.errors[slot as usize] = Some(error.clone());
            }
            errors.push(RowError { error, weight: 1 });
        }
        Ok(())
    }

    /// Puts the keys' new answer in the place of the old and emits the difference.
    fn replace(
        &mut self,
        keys: &Keys,
        answer: Vec<RecordBatch>,
        schema: &SchemaRef,
        out: &mut Output,
    ) -> Result<()> {
        let stored = Arc::clone(self.answer.keys.stored_schema());
        let mut changes = vec![self.answer.old(keys)?.negate()];
        for rows in answer {
            let delta = Delta::insert(with_schema(&rows, schema)?);
            let (delta, keys) = self.answer.keys.evaluate(delta, &mut out.errors)?;
            changes.push(self.answer.keys.store(delta, &keys)?);
        }
        let change = Delta::concat(&stored, &changes)?.consolidate()?;
        if change.is_empty() {
            return Ok(());
        }
        self.answer.rows.apply(&change, None)?;
        let columns = change.rows.columns()[..schema.fields().len()].to_vec();
        let rows = batch(schema, columns, change.num_rows())?;
        out.deltas.extend(Delta { rows, weights: change.weights }.chunks());
        Ok(())
    }
}

impl Part {
    /// The numbers of the keys' rows.
    fn ids(&mut self, keys: &Keys) -> Result<Vec<u32>> {
        let (mut cursor, mut matches, mut ids) = (Cursor::default(), Matches::default(), Vec::new());
        loop {
            let more = self.rows.probe(keys, true, &mut cursor, usize::MAX, &mut matches)?;
            ids.extend_from_slice(&matches.ids);
            if !more {
                return Ok(ids);
            }
        }
    }

    /// The keys' rows without what is stored behind them, each as often as it counts.
    fn rows_of(&mut self, keys: &Keys) -> Result<Vec<RecordBatch>> {
        let mut ids = Vec::new();
        for id in self.ids(keys)? {
            ids.extend(std::iter::repeat_n(id, self.rows.weight(id).max(0) as usize));
        }
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let width = self.keys.width();
        let columns = self.rows.gather(&ids, 0..width)?;
        let schema = self.rows.schema().project(&(0..width).collect::<Vec<_>>())?;
        Ok(vec![batch(&schema.into(), columns, ids.len())?])
    }

    /// The keys' rows as stored, by weights.
    fn old(&mut self, keys: &Keys) -> Result<Delta> {
        let ids = self.ids(keys)?;
        let weights = ids.iter().map(|id| self.rows.weight(*id)).collect();
        let columns = self.rows.gather(&ids, 0..self.rows.schema().fields().len())?;
        Delta::weighted(batch(self.rows.schema(), columns, ids.len())?, weights)
    }
}

impl Whole {
    fn finish(&mut self, fragment: &mut Fragment, schema: &SchemaRef, out: &mut Output) -> Result<()> {
        if !std::mem::take(&mut self.stale) {
            return Ok(());
        }
        let inputs = self.ports.iter().map(|p| p.snapshot().batches()).collect::<Result<_>>()?;
        let (answer, error) = match fragment.run(inputs) {
            Ok(answer) => (answer, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let before = std::mem::replace(&mut self.error, error.clone());
        out.errors.extend(before.map(|error| RowError { error, weight: -1 }));
        out.errors.extend(error.map(|error| RowError { error, weight: 1 }));
        let mut changes: Vec<Delta> =
            self.answer.snapshot().deltas()?.into_iter().map(Delta::negate).collect();
        for rows in answer {
            changes.push(Delta::insert(with_schema(&rows, schema)?));
        }
        let change = Delta::concat(schema, &changes)?.consolidate()?;
        self.answer.apply(&change, None)?;
        out.deltas.extend(change.chunks());
        Ok(())
    }
}
