//! Inner join of any number of inputs, without anything kept between them.
//!
//! Δ(R₁⋈…⋈Rₙ) = Σᵢ ΔRᵢ ⋈ R₁…Rᵢ₋₁ after ⋈ Rᵢ₊₁…Rₙ before. Each term is a path: the changed rows look up the rows of
//! one other input, these together those of the next, in the order that was planned. The inputs' rows are kept by the
//! operators below, each once for all joins and all paths, and are known as they were before the tick and as they are
//! after it; so it does not matter which inputs change in one tick, or whether one is there twice.
//!
//! What has come together so far is a list of row numbers for each input; columns are read when they are needed.

use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{Schema, SchemaRef};
use parking_lot::RwLockReadGuard;

use super::sharded::PARALLEL_ROWS_MIN;
use super::side::Residual;
use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::keys::Keys;
use crate::engine::plan::spec::PathsSpec;
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::runtime::workers::Workers;
use crate::engine::state::{Arranged, Arrangement, Cursor, Key, Matches, Moment};
use crate::error::{Error, Result};

/// A join of many inputs.
pub struct Paths {
    workers: Workers,
    finder: Finder,
    /// By port, changes of this tick.
    waiting: Vec<Vec<Delta>>,
}

/// Follows the paths.
#[derive(Clone)]
struct Finder {
    plan: Arc<Plan>,
    /// By look-up; `None` until it is bound.
    found_in: Arc<Vec<Option<(Arranged, Key)>>>,
}

/// What to do.
struct Plan {
    spec: PathsSpec,
    /// By path, its conditions: of the changed rows, then of each step.
    conditions: Vec<Vec<Option<Residual>>>,
    /// By input, where its columns begin among those of all.
    starts: Vec<usize>,
    schema: SchemaRef,
}

/// Rows of some inputs that have come together.
struct Tuples<'a> {
    /// The changed input, and the changed rows.
    input: usize,
    changed: &'a Delta,
    /// Which of them.
    at: Vec<u32>,
    /// By step so far, the numbers of the rows that were found.
    ids: Vec<Vec<u32>>,
    /// `None`: all 1.
    weights: Option<Vec<i64>>,
}

impl Paths {
    /// Does what `spec` says; large ticks are shared by the workers.
    pub fn new(spec: &PathsSpec, workers: &Workers) -> Result<Paths> {
        let all: Vec<_> = spec.inputs.iter().flat_map(|schema| schema.fields().iter().cloned()).collect();
        let all = nullable(&Schema::new(all));
        let conditions = spec.paths.iter().map(|path| {
            let steps = path.steps.iter().map(|step| &step.condition);
            let conditions = std::iter::once(&path.condition).chain(steps);
            conditions.map(|c| c.as_ref().map(|c| Residual::new(c, &all)).transpose()).collect()
        });
        let mut starts = Vec::with_capacity(spec.inputs.len());
        let mut width = 0;
        for schema in &spec.inputs {
            starts.push(width);
            width += schema.fields().len();
        }
        let plan = Plan {
            conditions: conditions.collect::<Result<_>>()?,
            starts,
            schema: nullable(&spec.schema),
            spec: spec.clone(),
        };
        let found_in = Arc::new(vec![None; spec.lookups.len()]);
        let waiting = vec![Vec::new(); spec.inputs.len()];
        Ok(Paths { workers: workers.clone(), finder: Finder { plan: Arc::new(plan), found_in }, waiting })
    }
}

impl Operator for Paths {
    fn push(&mut self, port: usize, delta: Delta, _out: &mut Output) -> Result<()> {
        if !self.finder.finds_nothing(port) {
            self.waiting[port].extend(delta.chunks());
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let waiting = self.waiting.iter_mut().map(std::mem::take).enumerate();
        let waiting: Vec<(usize, Delta)> =
            waiting.flat_map(|(port, deltas)| deltas.into_iter().map(move |delta| (port, delta))).collect();
        let rows: usize = waiting.iter().map(|(_, delta)| delta.num_rows()).sum();
        if self.workers.count() == 1 || rows < PARALLEL_ROWS_MIN {
            return waiting.iter().try_for_each(|(port, delta)| self.finder.follow(*port, delta, out));
        }
        let piece = rows.div_ceil(self.workers.count()).min(CHUNK_ROWS);
        let mut parts: Vec<Vec<(usize, Delta)>> = vec![Vec::new(); self.workers.count()];
        let pieces = waiting.iter().flat_map(|(port, delta)| {
            let piece_at = move |at| (*port, delta.slice(at, piece.min(delta.num_rows() - at)));
            (0..delta.num_rows()).step_by(piece).map(piece_at)
        });
        for (n, piece) in pieces.enumerate() {
            parts[n % self.workers.count()].push(piece);
        }
        let finder = self.finder.clone();
        let done = self.workers.run(parts, move |part| {
            let mut out = Output::default();
            part.iter().try_for_each(|(port, delta)| finder.follow(*port, delta, &mut out))?;
            Ok(out)
        })?;
        for (_, output) in done {
            out.deltas.extend(output.deltas);
            out.errors.extend(output.errors);
        }
        Ok(())
    }

    fn bind(&mut self, port: usize, rows: &Arranged) {
        let mut found_in = self.finder.found_in.to_vec();
        for ((input, columns), place) in self.finder.plan.spec.lookups.iter().zip(&mut found_in) {
            if *input == port {
                *place = Some((Arc::clone(rows), rows.write().key(columns)));
            }
        }
        self.finder.found_in = Arc::new(found_in);
    }
}

impl Finder {
    fn lookup(&self, lookup: usize) -> Result<&(Arranged, Key)> {
        self.found_in[lookup].as_ref().ok_or_else(|| Error::internal("an input of a join that keeps no rows"))
    }

    /// At which moment a changed row of one input sees another input.
    fn moment(input: usize, other: usize) -> Moment {
        if other < input { Moment::After } else { Moment::Before }
    }

    /// Whether it is known already that changes of an input meet nothing: when everything is new, only those of the
    /// last one do.
    fn finds_nothing(&self, input: usize) -> bool {
        self.plan.spec.paths[input].steps.iter().any(|step| {
            let other = self.plan.spec.lookups[step.lookup].0;
            Self::moment(input, other) == Moment::Before
                && self.found_in[step.lookup]
                    .as_ref()
                    .is_some_and(|(rows, _)| rows.read().is_empty_at(Moment::Before))
        })
    }

    /// Gives what changed rows of an input, at most a chunk of them, mean for the join.
    fn follow(&self, input: usize, changed: &Delta, out: &mut Output) -> Result<()> {
        let steps = &self.plan.spec.paths[input].steps;
        let rows = steps.iter().map(|step| Ok(self.lookup(step.lookup)?.0.read_recursive()));
        let rows: Vec<RwLockReadGuard<'_, Arrangement>> = rows.collect::<Result<_>>()?;
        let tuples = Tuples {
            input,
            changed,
            at: (0..changed.num_rows() as u32).collect(),
            ids: Vec::new(),
            weights: changed.weights.as_ref().map(|w| w.to_vec()),
        };
        match self.passing(tuples, &rows, &mut out.errors)? {
            Some(tuples) => self.step(&tuples, &rows, out),
            None => Ok(()),
        }
    }

    /// Finds what comes next on the path, chunk by chunk, and goes on from each.
    fn step(
        &self,
        tuples: &Tuples<'_>,
        rows: &[RwLockReadGuard<'_, Arrangement>],
        out: &mut Output,
    ) -> Result<()> {
        let depth = tuples.ids.len();
        let Some(step) = self.plan.spec.paths[tuples.input].steps.get(depth) else {
            let columns = self.columns(tuples, rows, &self.plan.spec.output)?;
            let rows = batch(&self.plan.schema, columns, tuples.at.len())?;
            out.deltas.push(Delta { rows, weights: tuples.weights.clone().map(Into::into) });
            return Ok(());
        };
        let (key, moment) =
            (&self.lookup(step.lookup)?.1, Self::moment(tuples.input, self.plan.spec.lookups[step.lookup].0));
        let keys = Keys::new(self.columns(tuples, rows, &step.from)?, tuples.at.len());
        let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
        loop {
            let more = rows[depth].look_up(key, moment, &keys, &mut cursor, CHUNK_ROWS, &mut matches)?;
            if !matches.ids.is_empty() {
                let next = tuples.with(&matches, &rows[depth], moment);
                if let Some(next) = self.passing(next, rows, &mut out.errors)? {
                    self.step(&next, rows, out)?;
                }
            }
            if !more {
                return Ok(());
            }
        }
    }

    /// Those that pass the condition of the path so far, if any do.
    fn passing<'a>(
        &self,
        mut tuples: Tuples<'a>,
        rows: &[RwLockReadGuard<'_, Arrangement>],
        errors: &mut Vec<RowError>,
    ) -> Result<Option<Tuples<'a>>> {
        let plan = &self.plan;
        if let Some(condition) = &plan.conditions[tuples.input][tuples.ids.len()] {
            let of = |column: &usize| {
                let input = plan.starts.partition_point(|start| start <= column) - 1;
                (input, column - plan.starts[input])
            };
            let read: Vec<(usize, usize)> = condition.columns.iter().map(of).collect();
            let columns = self.columns(&tuples, rows, &read)?;
            let weights = tuples.weights.take();
            let (kept, weights) = condition.passing(columns, tuples.at.len(), weights, errors)?;
            tuples.weights = weights;
            if let Some(kept) = kept {
                for numbers in std::iter::once(&mut tuples.at).chain(&mut tuples.ids) {
                    *numbers = kept.iter().map(|at| numbers[*at as usize]).collect();
                }
            }
        }
        Ok((!tuples.at.is_empty()).then_some(tuples))
    }

    /// Some columns of the inputs that have come together.
    fn columns(
        &self,
        tuples: &Tuples<'_>,
        rows: &[RwLockReadGuard<'_, Arrangement>],
        wanted: &[(usize, usize)],
    ) -> Result<Vec<ArrayRef>> {
        let mut columns: Vec<Option<ArrayRef>> = vec![None; wanted.len()];
        let of = |input: usize| (0..).zip(wanted).filter(move |(_, w)| w.0 == input).map(|(at, w)| (at, w.1));
        let changed = of(tuples.input).collect::<Vec<(usize, usize)>>();
        if !changed.is_empty() {
            let as_is = tuples.at.len() == tuples.changed.num_rows()
                && tuples.at.iter().zip(0..).all(|(row, i): (&u32, u32)| *row == i);
            let positions = UInt32Array::from(if as_is { Vec::new() } else { tuples.at.clone() });
            for (at, column) in changed {
                let column = tuples.changed.rows.column(column);
                columns[at] = Some(if as_is { Arc::clone(column) } else { take(column, &positions, None)? });
            }
        }
        let steps = self.plan.spec.paths[tuples.input].steps.iter().zip(rows);
        for ((step, rows), ids) in steps.zip(&tuples.ids) {
            let found: Vec<(usize, usize)> = of(self.plan.spec.lookups[step.lookup].0).collect();
            if !found.is_empty() {
                let gathered = rows.gather(ids, found.iter().map(|(_, column)| *column))?;
                found.iter().zip(gathered).for_each(|((at, _), column)| columns[*at] = Some(column));
            }
        }
        let columns: Option<Vec<ArrayRef>> = columns.into_iter().collect();
        columns.ok_or_else(|| Error::internal("a column of an input that is not on the path yet"))
    }
}

impl<'a> Tuples<'a> {
    /// Each with the rows that were found for it.
    fn with(&self, matches: &Matches, rows: &Arrangement, moment: Moment) -> Tuples<'a> {
        let of = |numbers: &Vec<u32>| matches.probe.iter().map(|at| numbers[*at as usize]).collect();
        let mut ids: Vec<Vec<u32>> = self.ids.iter().map(of).collect();
        ids.push(matches.ids.clone());
        let weights = (self.weights.is_some() || !rows.ones_at(moment)).then(|| {
            let weight = |at: &u32| self.weights.as_ref().map_or(1, |w| w[*at as usize]);
            let pairs = matches.probe.iter().zip(&matches.ids);
            pairs.map(|(at, id)| weight(at) * rows.weight_at(*id, moment)).collect()
        });
        Tuples { input: self.input, changed: self.changed, at: of(&self.at), ids, weights }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::Operator as Op;
    use datafusion::physical_expr::expressions::{BinaryExpr, Column};

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::arrange::Arrange;
    use crate::engine::ops::testing::{Multiset, check_operator, sample_schema};
    use crate::engine::plan::spec::{Expr, Path, Step};
    use crate::engine::state::{Restored, Saved};

    /// `r0.a = r1.a AND r1.s = r2.s`, and `r0.a <= r2.a` if it is wanted.
    fn spec(conditional: bool) -> PathsSpec {
        let column = |c: usize| Arc::new(Column::new("a", c)) as Expr;
        let ordered =
            || conditional.then(|| Arc::new(BinaryExpr::new(column(0), Op::LtEq, column(6))) as Expr);
        let step = |lookup, from, condition| Step { lookup, from: vec![from], condition };
        let (to_r1_by_a, to_r2, to_r0, to_r1_by_s) = (0, 1, 2, 3);
        let schema = sample_schema();
        let fields: Vec<_> = (0..3).flat_map(|_| schema.fields().iter().cloned()).collect();
        PathsSpec {
            inputs: vec![sample_schema(); 3],
            lookups: vec![(1, vec![0]), (2, vec![2]), (0, vec![0]), (1, vec![2])],
            paths: vec![
                Path {
                    condition: None,
                    steps: vec![step(to_r1_by_a, (0, 0), None), step(to_r2, (1, 2), ordered())],
                },
                Path {
                    condition: None,
                    steps: vec![step(to_r2, (1, 2), None), step(to_r0, (1, 0), ordered())],
                },
                Path {
                    condition: None,
                    steps: vec![step(to_r1_by_s, (2, 2), None), step(to_r0, (1, 0), ordered())],
                },
            ],
            output: (0..3).flat_map(|input| (0..3).map(move |column| (input, column))).collect(),
            schema: Arc::new(Schema::new(fields)),
        }
    }

    /// The join over what keeps its inputs: of which the `n`th is that of port `of[n]`.
    struct Whole {
        inputs: Vec<Arrange>,
        of: Vec<usize>,
        join: Paths,
    }

    impl Whole {
        fn new(of: &[usize], conditional: bool, workers: &Workers) -> Whole {
            let ports = of.iter().max().unwrap() + 1;
            let inputs: Vec<Arrange> = (0..ports).map(|_| Arrange::new(&sample_schema())).collect();
            let mut join = Paths::new(&spec(conditional), workers).unwrap();
            for (port, input) in of.iter().enumerate() {
                join.bind(port, inputs[*input].arranged().unwrap());
            }
            Whole { inputs, of: of.to_vec(), join }
        }
    }

    impl Operator for Whole {
        fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
            let mut told = Output::default();
            self.inputs[port].push(0, delta, &mut told)?;
            for delta in told.deltas {
                for (n, _) in self.of.iter().enumerate().filter(|(_, of)| **of == port) {
                    self.join.push(n, delta.clone(), out)?;
                }
            }
            Ok(())
        }

        fn finish(&mut self, out: &mut Output) -> Result<()> {
            self.join.finish(out)
        }

        fn commit(&mut self) -> Result<()> {
            self.inputs.iter_mut().try_for_each(Arrange::commit)
        }

        fn save(&self, state: &mut Saved) -> Result<()> {
            self.inputs.iter().try_for_each(|input| input.save(state))
        }

        fn restore(&mut self, state: &mut Restored) -> Result<()> {
            self.inputs.iter_mut().try_for_each(|input| input.restore(state))
        }

        fn state_rows(&self) -> usize {
            self.inputs.iter().map(Arrange::state_rows).sum()
        }
    }

    /// The join by its definition.
    fn naive(inputs: &[Multiset], of: &[usize], conditional: bool) -> Multiset {
        let mut rows = Multiset::new();
        let equal = |l: &[String], r: &[String], c: usize| l[c] == r[c] && l[c] != "∅";
        let number = |row: &[String]| row[0].parse::<i64>();
        for (r0, w0) in &inputs[of[0]] {
            for (r1, w1) in inputs[of[1]].iter().filter(|(r1, _)| equal(r0, r1, 0)) {
                for (r2, w2) in inputs[of[2]].iter().filter(|(r2, _)| equal(r1, r2, 2)) {
                    let ordered = matches!((number(r0), number(r2)), (Ok(a), Ok(b)) if a <= b);
                    if !conditional || ordered {
                        *rows.entry([&r0[..], r1, r2].concat()).or_default() += w0 * w1 * w2;
                    }
                }
            }
        }
        rows.retain(|_, weight| *weight != 0);
        rows
    }

    fn check(seed: u64, workers: usize) {
        let of: &[usize] = [&[0, 1, 2][..], &[0, 0, 1], &[0, 1, 0], &[0, 0, 0]][seed as usize % 4];
        let conditional = seed / 4 % 2 == 1;
        let workers = Workers::new(workers).unwrap();
        check_operator(
            seed,
            of.iter().max().unwrap() + 1,
            14,
            || Box::new(Whole::new(of, conditional, &workers)),
            |inputs| (naive(inputs, of, conditional), 0),
        );
    }

    #[test]
    fn it_is_what_its_definition_says() {
        (0..32).for_each(|seed| check(seed, 1 + seed as usize % 3));
        // Hashes are weak on this thread only.
        weak::with(|| (32..40).for_each(|seed| check(seed, 1)));
    }

    /// What is kept is each input once, with an index for each key that somebody uses.
    #[test]
    fn joins_share_what_they_look_rows_up_in() {
        use crate::engine::ops::testing::{Rng, random_delta};
        let mut rows = Arrange::new(&sample_schema());
        let delta = random_delta(&mut Rng::new(3), 5_000, false);
        rows.push(0, delta, &mut Output::default()).unwrap();
        rows.commit().unwrap();
        let plain = rows.state_bytes();
        let new = || {
            let mut join = Paths::new(&spec(false), &Workers::one()).unwrap();
            join.bind(1, rows.arranged().unwrap());
            join
        };
        let first = new();
        let indexed = rows.state_bytes();
        assert!(indexed > plain);
        let second = new();
        assert_eq!(rows.state_bytes(), indexed, "another join by the same keys costs nothing");
        drop(first);
        rows.commit().unwrap();
        assert_eq!(rows.state_bytes(), indexed);
        drop(second);
        rows.commit().unwrap();
        assert!(rows.state_bytes() < indexed, "nobody looks rows up any more");
    }
}
