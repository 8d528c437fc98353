//! An operator in several copies, each of which has the rows of some of the keys, so that workers can share a tick.
//!
//! Only for operators whose answer for a key depends on that key's rows alone. Which copy has a key depends on its
//! hash: rows that meet are in one copy, whichever input they come from.

use arrow::datatypes::SchemaRef;

use crate::engine::keys::KeySpec;
use crate::engine::plan::spec::{Expr, NodeSpec, Touch};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::runtime::workers::Workers;
use crate::engine::state::{Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::Result;

/// Rows from which on the copies work at once: below it, waking a thread takes longer than the work. Tests are built
/// with debug assertions, and are to see the threads.
pub(super) const PARALLEL_ROWS_MIN: usize = if cfg!(debug_assertions) { 2 } else { 1024 };
/// Rows that wait for the workers at most: more of them go through before the tick ends, as when a view is filled.
const WAITING_ROWS_MAX: usize = 64 << 10;

/// The copies.
pub struct Sharded {
    workers: Workers,
    /// By port, what decides about a row's copy.
    keys: Vec<KeySpec>,
    shards: Vec<Shard>,
    waiting: usize,
    /// Every operator is finished once in its first tick, even without a row.
    first: bool,
}

struct Shard {
    operator: Box<dyn Operator>,
    waiting: Vec<(usize, Delta)>,
    /// Whether this tick has anything for it.
    touched: bool,
}

/// By port, the keys by which an operator with output `schema` can be cut into copies; `None`: it cannot.
pub fn keys(spec: &NodeSpec, schema: &SchemaRef) -> Result<Option<Vec<KeySpec>>> {
    let by = |exprs: &[Expr], schema| KeySpec::new(exprs, schema);
    let keys = match spec {
        NodeSpec::Join(join) => vec![by(&join.left_keys, &join.left)?, by(&join.right_keys, &join.right)?],
        NodeSpec::Aggregate(aggregate) => vec![by(&aggregate.keys, &aggregate.input)?],
        NodeSpec::TopK(top) => vec![by(&top.partition, &top.input)?],
        NodeSpec::Window(window) => vec![by(&window.partition, &window.input)?],
        NodeSpec::Recompute(recompute) => match &recompute.touch {
            Touch::Keys { inputs, .. } => {
                let ports = inputs.iter().zip(&recompute.inputs);
                ports.map(|(keys, schema)| by(keys, schema)).collect::<Result<_>>()?
            }
            Touch::Rows | Touch::Whole => return Ok(None),
        },
        NodeSpec::Distinct => {
            vec![KeySpec::columns(&(0..schema.fields().len()).collect::<Vec<_>>(), schema)?]
        }
        NodeSpec::Expiring(expiring) => return keys(&expiring.inner, schema),
        NodeSpec::Collection(_)
        | NodeSpec::Gate(_)
        | NodeSpec::Close(_)
        | NodeSpec::Constant(_)
        // Its rows are for all that look them up by whatever key; these share a tick by its rows.
        | NodeSpec::Arrange(_)
        | NodeSpec::Paths(_)
        | NodeSpec::Map(_)
        | NodeSpec::Union
        | NodeSpec::Temporal(_) => return Ok(None),
    };
    Ok(keys.iter().all(|k| !k.types().is_empty()).then_some(keys))
}

impl Sharded {
    /// As many copies of what `new` makes as there are workers.
    pub fn new(
        workers: &Workers,
        keys: Vec<KeySpec>,
        new: impl Fn() -> Result<Box<dyn Operator>>,
    ) -> Result<Sharded> {
        let shard = |_| Ok(Shard { operator: new()?, waiting: Vec::new(), touched: false });
        let shards = (0..workers.count()).map(shard).collect::<Result<_>>()?;
        Ok(Sharded { workers: workers.clone(), keys, shards, waiting: 0, first: true })
    }

    /// Does `work` with the touched shards, by the workers when there are `rows` enough.
    fn each(
        &mut self,
        rows: usize,
        out: &mut Output,
        work: impl Fn(&mut Shard, &mut Output) -> Result<()> + Send + Sync + 'static,
    ) -> Result<()> {
        if rows < PARALLEL_ROWS_MIN {
            return self.shards.iter_mut().filter(|s| s.touched).try_for_each(|shard| work(shard, out));
        }
        let shards = std::mem::take(&mut self.shards);
        let done = self.workers.run(shards, move |shard| {
            let mut out = Output::default();
            if shard.touched {
                work(shard, &mut out)?;
            }
            Ok(out)
        })?;
        for (shard, output) in done {
            self.shards.push(shard);
            out.deltas.extend(output.deltas);
            out.errors.extend(output.errors);
        }
        Ok(())
    }
}

impl Shard {
    fn push_waiting(&mut self, out: &mut Output) -> Result<()> {
        std::mem::take(&mut self.waiting)
            .into_iter()
            .try_for_each(|(port, delta)| self.operator.push(port, delta, out))
    }
}

impl Operator for Sharded {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        // A row whose key fails has no copy; the operator would have set it apart in the same way.
        let (delta, keys) = self.keys[port].evaluate(delta, &mut out.errors)?;
        let count = self.shards.len();
        let mut positions: Vec<Vec<u32>> = vec![Vec::new(); count];
        for (hash, at) in keys.hashes.iter().zip(0..) {
            // The upper bits, evenly cut: the indexes inside of the copies go by the lower ones.
            positions[((u128::from(*hash) * count as u128) >> 64) as usize].push(at);
        }
        for (shard, positions) in self.shards.iter_mut().zip(positions) {
            if positions.is_empty() {
                continue;
            }
            let part =
                if positions.len() == delta.num_rows() { delta.clone() } else { delta.take(&positions)? };
            shard.touched = true;
            shard.waiting.push((port, part));
        }
        self.waiting += delta.num_rows();
        if self.waiting > WAITING_ROWS_MAX {
            let rows = std::mem::take(&mut self.waiting);
            self.each(rows, out, Shard::push_waiting)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        if std::mem::take(&mut self.first) {
            self.shards.iter_mut().for_each(|s| s.touched = true);
        }
        let rows = std::mem::take(&mut self.waiting);
        self.each(rows, out, |shard, out| {
            shard.push_waiting(out)?;
            shard.operator.finish(out)
        })
    }

    fn commit(&mut self) -> Result<()> {
        for shard in self.shards.iter_mut().filter(|s| s.touched) {
            shard.touched = false;
            shard.operator.commit()?;
        }
        Ok(())
    }

    fn closes_for(&self) -> Option<CollectionId> {
        self.shards.first().and_then(|shard| shard.operator.closes_for())
    }

    fn set_watermark(&mut self, before: i64, after: i64) {
        for shard in &mut self.shards {
            shard.operator.set_watermark(before, after);
            // What closes is dropped where nothing else happens, too.
            shard.touched |= before != after;
        }
    }

    fn resume_watermark(&mut self, watermark: i64, late_rows: u64) -> Result<()> {
        self.shards.iter_mut().try_for_each(|shard| shard.operator.resume_watermark(watermark, late_rows))
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.shards.iter().try_for_each(|shard| shard.operator.save(state))
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.first = false;
        self.shards.iter_mut().try_for_each(|shard| shard.operator.restore(state))
    }

    fn state_bytes(&self) -> usize {
        self.shards.iter().map(|s| s.operator.state_bytes()).sum()
    }

    fn state_rows(&self) -> usize {
        self.shards.iter().map(|s| s.operator.state_rows()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::physical_expr::expressions::Column;

    use super::*;
    use crate::engine::ops;
    use crate::engine::ops::testing::{Rng, random_delta, sample_schema, tally};
    use crate::engine::plan::spec::{JoinKind, JoinSpec};

    fn full_join() -> NodeSpec {
        let schema = sample_schema();
        let key = || vec![Arc::new(Column::new("a", 0)) as Expr];
        let both = schema.fields().iter().chain(schema.fields()).cloned().collect::<Vec<_>>();
        NodeSpec::Join(JoinSpec {
            kind: JoinKind::Full,
            left_keys: key(),
            right_keys: key(),
            null_equals_null: false,
            residual: None,
            left: sample_schema(),
            right: sample_schema(),
            schema: Arc::new(arrow::datatypes::Schema::new(both)),
        })
    }

    /// Ticks from nothing to more than the copies hold back, with as many workers as there may be.
    #[test]
    fn any_number_of_workers_gives_the_same() {
        for spec in [full_join(), NodeSpec::Distinct] {
            let ports = if spec == NodeSpec::Distinct { 1 } else { 2 };
            let mut answers = Vec::new();
            for count in [1, 2, 4] {
                let workers = Workers::new(count).unwrap();
                let mut op = ops::build(&spec, &sample_schema(), &workers).unwrap();
                let mut rng = Rng::new(5);
                let mut ticks = Vec::new();
                for rows in [0, 1, 40, 700, 70_000, 3] {
                    let mut out = Output::default();
                    for port in 0..ports {
                        // Few rows on one side of a join, or the pairs would be too many.
                        let rows = if port == 0 { rows } else { rows.min(40) };
                        for delta in random_delta(&mut rng, rows, true).chunks() {
                            op.push(port, delta, &mut out).unwrap();
                        }
                    }
                    op.finish(&mut out).unwrap();
                    op.commit().unwrap();
                    ticks.push((tally(&out.deltas), out.errors.len(), op.state_rows()));
                }
                answers.push(ticks);
            }
            assert_eq!(answers[0], answers[1]);
            assert_eq!(answers[0], answers[2]);
        }
    }
}
