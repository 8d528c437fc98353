//! Window functions that look at a bounded number of rows before and after a row, or at all rows up to it.
//!
//! The rows of each partition are listed in their order. A change touches the rows that can see it, and these are
//! computed anew from the rows that they see: once as it was, once as it is. What a partition showed is not kept.
//! A change is found in the list by a search, and no more of the list is looked at than can see it.
//!
//! Functions of all rows up to the current one are computed from the last fence before the first change on: at every
//! so many rows of a list the results are kept, and what follows goes on from them. It goes on to the first fence behind
//! the changes at which the results are what they were: what stands behind that has not changed. Where rows that are
//! equal in the order have one result, no fence stands between them. Fences are not saved: a list without is computed
//! from its beginning, which sets them.
//!
//! Where a function fails, its whole partition leaves the answer for one error, until it no longer does.

mod running;
mod search;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::execution::context::ExecutionProps;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::window::WindowExpr;
use datafusion::physical_planner::create_window_expr;
use hashbrown::HashMap;

use self::running::Told;
use super::order::Order;
use crate::engine::Delta;
use crate::engine::delta::{batch, nullable, take_rows};
use crate::engine::expr;
use crate::engine::keys::KeySpec;
use crate::engine::plan::spec::{Expr, Running, WindowSpec};
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::state::saved::misfit;
use crate::engine::state::{Arrangement, NONE, Restored, Saved, Table};
use crate::error::{Error, Result};

/// Rows between the places where results of running functions are kept. Tests are to see some.
const FENCE: usize = if cfg!(debug_assertions) { 16 } else { 1024 };

/// Window functions of bounded reach.
pub struct Window {
    partition: KeySpec,
    // Order expressions that may fail on a row.
    fallible: Vec<Expr>,
    order: Order,
    functions: Vec<Arc<dyn WindowExpr>>,
    // By function.
    running: Vec<Option<Running>>,
    // Whether rows that are equal in the order belong together.
    peers: bool,
    before: usize,
    after: usize,
    input: SchemaRef,
    schema: SchemaRef,
    rows: Arrangement,
    partitions: Table,
    // By partition.
    lists: Vec<List>,
    touched: Vec<Touched>,
    // By partition, its place in `touched`, or `NONE`.
    touched_at: Vec<u32>,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default)]
struct List {
    /// Its rows that are there, in their order.
    ids: Vec<u32>,
    /// The sum of its rows' absolute weights: nothing is known of a partition of which it is 0.
    size: i64,
    /// Why it is not in the answer.
    error: Option<Error>,
    /// What the running functions were after about every `FENCE` rows, as far as that is known.
    fences: Vec<Fence>,
}

/// A place in a list from which running functions go on.
#[derive(Clone, Debug)]
struct Fence {
    /// The rows of the list before it.
    end: usize,
    /// How often these count, together.
    rows: i64,
    /// By running function, what it goes on from.
    values: Vec<ScalarValue>,
}

/// A partition that a tick changes.
struct Touched {
    partition: u32,
    /// Rows whose weight has changed, and what it was before.
    changed: HashMap<u32, i64>,
}

/// A part of a list, with the rows that have come to it.
struct Part {
    list: Range<usize>,
    ids: Vec<u32>,
}

/// The rows of a part of a partition that were or are there, in their order.
struct Merged {
    /// Which part of the list.
    list: Range<usize>,
    ids: Vec<u32>,
    /// How often each was there, and is.
    weights: Vec<(i64, i64)>,
    /// Which can see a change.
    seeing: Vec<bool>,
    /// Which are seen by those.
    seen: Vec<bool>,
    /// What running functions go on from.
    fence: Option<Fence>,
}

/// Which of the two states of a tick.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Before,
    After,
}

impl Window {
    /// Does what `spec` says.
    pub fn new(spec: &WindowSpec) -> Result<Window> {
        let input = nullable(&spec.input);
        let partition = KeySpec::new(&spec.partition, &input)?;
        let props = ExecutionProps::new();
        let functions = spec
            .functions
            .iter()
            .map(|f| Ok(create_window_expr(f, &spec.plan_input, &props, &Default::default())?));
        Ok(Window {
            order: Order::new(&spec.order, &input)?,
            fallible: spec.order.iter().map(|(e, _)| e).filter(|e| !e.is::<Column>()).cloned().collect(),
            functions: functions.collect::<Result<_>>()?,
            running: spec.running.clone(),
            peers: spec.peers,
            before: spec.before,
            after: spec.after,
            schema: nullable(&spec.schema),
            rows: Arrangement::new(partition.stored_schema(), partition.positions().to_vec()),
            partitions: Table::new(partition.types().to_vec()),
            partition,
            input,
            lists: Vec::new(),
            touched: Vec::new(),
            touched_at: Vec::new(),
        })
    }

    /// Whether any function is of all rows up to the current one.
    fn runs(&self) -> bool {
        self.running.iter().any(Option::is_some)
    }

    /// Which rows of a part see a change, and which they see.
    fn look(&self, touched: &Touched, part: Part) -> Merged {
        let (weights, changes) = self.changes(touched, &part.ids);
        // Who sees a change lies before it as far as rows look ahead, or after it as far as they look back.
        let mut seeing = spread(&weights, &changes, self.after, self.before);
        if !self.runs() {
            let seen = spread(&weights, &seeing, self.before, self.after);
            return Merged { list: part.list, ids: part.ids, weights, seeing, seen, fence: None };
        }
        // Those before the first change that are equal to it in the order see it, too; what is the same for the others
        // goes out again.
        let first = if self.peers { Some(0) } else { changes.iter().position(|changed| *changed) };
        seeing[first.unwrap_or(part.ids.len())..].fill(true);
        let fences = &self.lists[touched.partition as usize].fences;
        let fence = fences.binary_search_by_key(&part.list.start, |fence| fence.end);
        let fence = fence.ok().map(|at| fences[at].clone());
        let seen = vec![true; part.ids.len()];
        Merged { list: part.list, ids: part.ids, weights, seeing, seen, fence }
    }

    /// All rows of a partition, each to be computed; `ids` are those of a part of its list.
    fn whole(&self, touched: &Touched, part: Range<usize>, ids: &[u32]) -> Merged {
        let list = &self.lists[touched.partition as usize].ids;
        let ids = [&list[..part.start], ids, &list[part.end..]].concat();
        let (weights, _) = self.changes(touched, &ids);
        let (seeing, seen) = (vec![true; ids.len()], vec![true; ids.len()]);
        Merged { list: 0..list.len(), ids, weights, seeing, seen, fence: None }
    }

    /// How often each row was there and is, and whether the tick changes that.
    fn changes(&self, touched: &Touched, ids: &[u32]) -> (Vec<(i64, i64)>, Vec<bool>) {
        let of = |id: &u32| {
            let (now, before) = (self.rows.weight(*id), touched.changed.get(id));
            ((before.copied().unwrap_or(now).max(0), now.max(0)), before.is_some())
        };
        ids.iter().map(of).unzip()
    }

    /// The results of the rows that see a change, in one of the two states; by partition, where they fail, or the
    /// fences that follow.
    fn results(
        &self,
        parts: &[&Merged],
        state: State,
        told: &mut dyn FnMut(usize, std::result::Result<Told, Error>),
    ) -> Result<Option<RecordBatch>> {
        let (mut ids, mut wanted) = (Vec::new(), Vec::new());
        let mut ends = Vec::with_capacity(parts.len());
        for part in parts {
            for (at, id) in part.ids.iter().enumerate().filter(|(at, _)| part.seen[*at]) {
                let (before, after) = part.weights[at];
                let times = if state == State::Before { before } else { after };
                for _ in 0..times {
                    ids.push(*id);
                    wanted.push(part.seeing[at]);
                }
            }
            ends.push(ids.len());
        }
        let width = self.input.fields().len();
        let rows = batch(&self.input, self.rows.gather(&ids, 0..width)?, ids.len())?;
        let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.functions.len()];
        let mut kept: Vec<u32> = Vec::new();
        let mut start = 0;
        let mut computed = 0u32;
        let mut from: Vec<u32> = Vec::new();
        for (part, end) in ends.into_iter().enumerate() {
            let slice = rows.slice(start, end - start);
            if end > start {
                let results = self.functions.iter().map(|f| f.evaluate(&slice));
                match results.collect::<datafusion::error::Result<Vec<ArrayRef>>>() {
                    Ok(results) => {
                        let results = self.go_on(parts[part], results)?;
                        if state == State::After {
                            told(part, Ok(self.told(parts[part], &results)?));
                        }
                        let wanted = (0u32..).zip(&wanted[start..end]).filter(|(_, wanted)| **wanted);
                        for (at, _) in wanted {
                            kept.push(start as u32 + at);
                            from.push(computed + at);
                        }
                        columns.iter_mut().zip(results).for_each(|(all, result)| all.push(result));
                        computed += (end - start) as u32;
                    }
                    Err(error) => told(part, Err(error.into())),
                }
            }
            start = end;
        }
        if kept.is_empty() {
            return Ok(None);
        }
        let mut out = take_rows(&rows, &kept)?.columns().to_vec();
        let indices = arrow::array::UInt32Array::from(from);
        for (results, field) in columns.into_iter().zip(&self.schema.fields()[width..]) {
            let results: Vec<&dyn arrow::array::Array> = results.iter().map(AsRef::as_ref).collect();
            let column = arrow::compute::take(&concat(&results)?, &indices, None)?;
            out.push(expr::cast_to(column, field.data_type())?);
        }
        Ok(Some(batch(&self.schema, out, kept.len())?))
    }
}

/// Which positions are at most `back` rows before one of `origins`, or `ahead` rows after one, counting either the rows
/// that were there or those that are.
fn spread(weights: &[(i64, i64)], origins: &[bool], back: usize, ahead: usize) -> Vec<bool> {
    let mut near = origins.to_vec();
    let mut pass = |positions: &mut dyn Iterator<Item = usize>, far: usize| {
        // Rows since the last origin.
        let mut passed: Option<(usize, usize)> = None;
        for at in positions {
            if origins[at] {
                passed = Some((0, 0));
                continue;
            }
            let Some((before, after)) = &mut passed else { continue };
            near[at] |= *before < far || *after < far;
            *before += usize::from(weights[at].0 > 0);
            *after += usize::from(weights[at].1 > 0);
        }
    };
    pass(&mut (0..weights.len()), ahead);
    pass(&mut (0..weights.len()).rev(), back);
    near
}

impl Operator for Window {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let delta = match self.fallible.is_empty() {
            true => delta,
            false => expr::evaluate(&self.fallible, delta, &mut out.errors)?.0,
        };
        let (delta, keys) = self.partition.evaluate(delta, &mut out.errors)?;
        if delta.is_empty() {
            return Ok(());
        }
        let partitions = self.partitions.upsert(&keys)?;
        self.lists.resize(self.partitions.slots(), List::default());
        self.touched_at.resize(self.partitions.slots(), NONE);
        for partition in &partitions {
            if self.touched_at[*partition as usize] == NONE {
                self.touched_at[*partition as usize] = self.touched.len() as u32;
                self.touched.push(Touched { partition: *partition, changed: HashMap::new() });
            }
        }
        let (lists, touched, touched_at) = (&mut self.lists, &mut self.touched, &self.touched_at);
        let changed = |at: u32, id: u32, before: i64, after: i64| {
            let partition = partitions[at as usize] as usize;
            lists[partition].size += after.abs() - before.abs();
            // What it was before the tick stays what it was.
            touched[touched_at[partition] as usize].changed.entry(id).or_insert(before);
        };
        self.rows.apply_with(&self.partition.store(delta, &keys)?, Some(&keys.hashes), changed)
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let touched = std::mem::take(&mut self.touched);
        let parts = self.parts(&touched)?;
        let mut parts: Vec<Merged> = touched
            .iter()
            .zip(parts)
            .map(|(t, part)| match self.lists[t.partition as usize].error {
                Some(_) => self.whole(t, part.list, &part.ids),
                None => self.look(t, part),
            })
            .collect();
        self.settle(&touched, &mut parts)?;
        let mut errors: Vec<Option<Error>> = vec![None; parts.len()];
        let mut fences: Vec<Vec<Fence>> = vec![Vec::new(); parts.len()];
        let all: Vec<&Merged> = parts.iter().collect();
        let come = self.results(&all, State::After, &mut |part, told| match told {
            Ok(told) => fences[part] = told.fences,
            Err(error) => errors[part] = Some(error),
        })?;
        // A partition that fails from now on goes with all its rows; one that has failed has none.
        for ((part, t), error) in parts.iter_mut().zip(&touched).zip(&errors) {
            if error.is_some() && self.lists[t.partition as usize].error.is_none() {
                *part = self.whole(t, part.list.clone(), &part.ids);
            }
        }
        let shown: Vec<&Merged> = parts
            .iter()
            .zip(&touched)
            .filter(|(_, t)| self.lists[t.partition as usize].error.is_none())
            .map(|(part, _)| part)
            .collect();
        let mut broken = None;
        let gone =
            self.results(&shown, State::Before, &mut |_, told| broken = told.err().or(broken.take()))?;
        if let Some(error) = broken {
            return Err(Error::internal(format!(
                "a window that could be computed cannot be any more: {error}"
            )));
        }
        for (((part, t), error), fences) in parts.into_iter().zip(&touched).zip(errors).zip(fences) {
            let list = &mut self.lists[t.partition as usize];
            let more: i64 = part.weights.iter().map(|(before, after)| after - before).sum();
            let there = part.ids.into_iter().zip(part.weights).filter(|(_, (_, after))| *after > 0);
            let there: Vec<u32> = there.map(|(id, _)| id).collect();
            // Those behind the part stand where they did, after more rows or fewer.
            let mut behind =
                list.fences.split_off(list.fences.partition_point(|fence| fence.end < part.list.end));
            behind.retain(|_| part.list.end < list.ids.len());
            for fence in &mut behind {
                fence.end = fence.end - part.list.len() + there.len();
                fence.rows += more;
            }
            list.fences.truncate(list.fences.partition_point(|fence| fence.end <= part.list.start));
            list.fences.extend(fences);
            list.fences.extend(behind);
            drop(list.ids.splice(part.list, there));
            let before = std::mem::replace(&mut list.error, error.clone());
            out.errors.extend(before.map(|error| RowError { error, weight: -1 }));
            out.errors.extend(error.map(|error| RowError { error, weight: 1 }));
        }
        self.touched = touched;
        let deltas: Vec<Delta> = gone.map(Delta::delete).into_iter().chain(come.map(Delta::insert)).collect();
        out.deltas.extend(Delta::concat(&self.schema, &deltas)?.consolidate()?.chunks());
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for Touched { partition, .. } in std::mem::take(&mut self.touched) {
            self.touched_at[partition as usize] = NONE;
            if self.lists[partition as usize].size == 0 {
                self.partitions.remove(partition);
            }
        }
        self.partitions.compact()?;
        if let Some(kept) = self.rows.compact()? {
            Arrangement::renumber(&kept, self.lists.iter_mut().flat_map(|list| list.ids.iter_mut()));
        }
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.rows.save(state);
        self.partitions.save(state);
        state.lists(self.lists.iter().map(|list| &*list.ids));
        state.numbers(&self.lists.iter().map(|list| list.size).collect::<Vec<_>>());
        state.errors((0..).zip(&self.lists).filter_map(|(at, list)| Some((at, list.error.as_ref()?))))
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.rows.restore(state)?;
        self.partitions.restore(state)?;
        let slots = self.partitions.slots();
        let lists = state.lists(slots, self.rows.ids())?;
        let sizes: Vec<i64> = state.numbers_of(slots)?;
        self.lists =
            lists.into_iter().zip(sizes).map(|(ids, size)| List { ids, size, ..List::default() }).collect();
        for (at, error) in state.errors()? {
            self.lists.get_mut(at as usize).ok_or_else(misfit)?.error = Some(error);
        }
        self.touched_at = vec![NONE; slots];
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let by_partition = self.lists.capacity() * (size_of::<List>() + size_of::<u32>());
        let by_row = self.rows.live_rows() * size_of::<u32>();
        let fences = self.rows.live_rows() / FENCE * self.running.len() * size_of::<ScalarValue>();
        self.rows.bytes() + self.partitions.bytes() + by_partition + by_row + fences
    }

    fn state_rows(&self) -> usize {
        self.rows.live_rows()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::compute::SortOptions;
    use arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::DFSchema;
    use datafusion::functions_aggregate::count::count_udaf;
    use datafusion::functions_aggregate::min_max::max_udaf;
    use datafusion::functions_window::lead_lag::lag_udwf;
    use datafusion::functions_window::rank::{dense_rank_udwf, rank_udwf};
    use datafusion::functions_window::row_number::row_number_udwf;
    use datafusion::logical_expr::expr::WindowFunction;
    use datafusion::logical_expr::{
        Expr as LogicalExpr, WindowFrame, WindowFrameBound, WindowFrameUnits, col, lit,
    };

    use arrow::array::{Float64Array, Int64Array, StringViewArray};

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Multiset, check_operator, compare, key_text, sample_schema};

    /// `count(s)` over two rows before to one after, and `lag(a, 2)`.
    fn functions() -> Vec<LogicalExpr> {
        let mut count = WindowFunction::new(count_udaf(), vec![col("s")]);
        count.params.window_frame = WindowFrame::new_bounds(
            WindowFrameUnits::Rows,
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(2))),
            WindowFrameBound::Following(ScalarValue::UInt64(Some(1))),
        );
        let lag = WindowFunction::new(lag_udwf(), vec![col("a"), lit(2i64)]);
        vec![count.into(), lag.into()]
    }

    /// The functions by `partition` and `order`; `running`: `row_number()` and `count(a)` over all rows so far, too.
    fn spec(partition: &[usize], order: &[(usize, bool)], running: bool) -> WindowSpec {
        let input = sample_schema();
        let mut columns = input.fields().to_vec();
        columns.push(Arc::new(Field::new("count", DataType::Int64, true)));
        columns.push(Arc::new(Field::new("lag", DataType::Int64, true)));
        let column = |c: usize| Arc::new(Column::new(["a", "f", "s"][c], c)) as Expr;
        let options = |descending| SortOptions { descending, nulls_first: true };
        let (mut functions, mut runs) = (functions(), vec![None, None]);
        if running {
            let mut count = WindowFunction::new(count_udaf(), vec![col("a")]);
            count.params.window_frame = WindowFrame::new_bounds(
                WindowFrameUnits::Rows,
                WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
                WindowFrameBound::CurrentRow,
            );
            functions.extend([WindowFunction::new(row_number_udwf(), vec![]).into(), count.into()]);
            runs.extend([Some(Running::Sum), Some(Running::Sum)]);
            columns.push(Arc::new(Field::new("number", DataType::UInt64, true)));
            columns.push(Arc::new(Field::new("running", DataType::Int64, true)));
        }
        WindowSpec {
            partition: partition.iter().map(|c| column(*c)).collect(),
            order: order.iter().map(|(c, descending)| (column(*c), options(*descending))).collect(),
            functions,
            running: runs,
            peers: false,
            plan_input: Arc::new(DFSchema::try_from(input.as_ref().clone()).unwrap()),
            before: 2,
            after: 1,
            input,
            schema: Arc::new(Schema::new(columns)),
        }
    }

    fn check(seed: u64) {
        let partition: Vec<usize> = [vec![], vec![0], vec![1, 2]][seed as usize % 3].clone();
        let order: Vec<(usize, bool)> =
            [vec![], vec![(1, false)], vec![(0, true), (2, false)]][(seed / 3) as usize % 3].clone();
        let running = seed.is_multiple_of(2);
        let spec = spec(&partition, &order, running);
        let naive = |inputs: &[Multiset]| {
            let mut parts: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
            for (row, weight) in &inputs[0] {
                let part = parts.entry(partition.iter().map(|c| key_text(&row[*c])).collect()).or_default();
                (0..*weight).for_each(|_| part.push(row.clone()));
            }
            let mut rows = Multiset::new();
            for part in parts.values_mut() {
                part.sort_by(|a, b| {
                    let by_order = order.iter().map(|(c, descending)| {
                        let ordering = compare(*c, &a[*c], &b[*c], true);
                        // NULL stays first.
                        match *descending && a[*c] != "∅" && b[*c] != "∅" {
                            true => ordering.reverse(),
                            false => ordering,
                        }
                    });
                    let by_row = (0..3).map(|c| compare(c, &a[c], &b[c], false));
                    by_order.chain(by_row).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
                });
                for (i, row) in part.iter().enumerate() {
                    let frame = &part[i.saturating_sub(2)..(i + 2).min(part.len())];
                    let mut row = row.clone();
                    row.push(frame.iter().filter(|r| r[2] != "∅").count().to_string());
                    row.push(i.checked_sub(2).map_or("∅".to_string(), |at| part[at][0].clone()));
                    if running {
                        row.push((i + 1).to_string());
                        row.push(part[..=i].iter().filter(|r| r[0] != "∅").count().to_string());
                    }
                    *rows.entry(row).or_default() += 1;
                }
            }
            (rows, 0)
        };
        check_operator(
            seed,
            1,
            if running { 90 } else { 30 },
            || Box::new(Window::new(&spec).unwrap()),
            naive,
        );
    }

    #[test]
    fn it_computes_what_a_change_can_be_seen_from() {
        (0..45).for_each(check);
        weak::with(|| (45..54).for_each(check));
    }

    /// `rank()`, `dense_rank()`, `count(f)` and `max(s)` up to the rows with the same `a`, and the first row's `s`.
    fn spec_of_peers(partition: &[usize]) -> WindowSpec {
        let order = vec![col("a").sort(true, true)];
        let by_order = |mut function: WindowFunction| {
            function.params.order_by = order.clone();
            LogicalExpr::from(function)
        };
        let up_to_here = |function: WindowFunction| {
            let mut function = function;
            function.params.window_frame = WindowFrame::new_bounds(
                WindowFrameUnits::Range,
                WindowFrameBound::Preceding(ScalarValue::Null),
                WindowFrameBound::CurrentRow,
            );
            function
        };
        let functions = vec![
            by_order(WindowFunction::new(rank_udwf(), vec![])),
            by_order(WindowFunction::new(dense_rank_udwf(), vec![])),
            by_order(up_to_here(WindowFunction::new(count_udaf(), vec![col("f")]))),
            by_order(up_to_here(WindowFunction::new(max_udaf(), vec![col("s")]))),
        ];
        let columns = [DataType::UInt64, DataType::UInt64, DataType::Int64, DataType::Utf8View];
        let columns = columns.iter().enumerate().map(|(i, t)| Field::new(format!("w{i}"), t.clone(), true));
        let fields: Vec<_> = sample_schema().fields().iter().cloned().chain(columns.map(Arc::new)).collect();
        WindowSpec {
            functions,
            running: [Running::Rank, Running::Sum, Running::Sum, Running::Max].map(Some).into(),
            peers: true,
            before: 0,
            after: 0,
            schema: Arc::new(Schema::new(fields)),
            ..spec(partition, &[(0, false)], false)
        }
    }

    fn check_peers(seed: u64) {
        let partition: &[usize] = [&[][..], &[2]][seed as usize % 2];
        let naive = |inputs: &[Multiset]| {
            let mut parts: BTreeMap<Vec<String>, Vec<Vec<String>>> = BTreeMap::new();
            for (row, weight) in &inputs[0] {
                let part = parts.entry(partition.iter().map(|c| key_text(&row[*c])).collect()).or_default();
                (0..*weight).for_each(|_| part.push(row.clone()));
            }
            let mut rows = Multiset::new();
            for part in parts.values() {
                for row in part {
                    let by_a = |other: &&Vec<String>| compare(0, &other[0], &row[0], true);
                    let before: Vec<&Vec<String>> = part.iter().filter(|o| by_a(o).is_lt()).collect();
                    let seen: Vec<&Vec<String>> = part.iter().filter(|o| by_a(o).is_le()).collect();
                    let distinct: std::collections::BTreeSet<&str> = before.iter().map(|o| &*o[0]).collect();
                    let greatest = seen.iter().map(|o| &*o[2]).filter(|s| *s != "∅").max().unwrap_or("∅");
                    let mut row = row.clone();
                    row.push((before.len() + 1).to_string());
                    row.push((distinct.len() + 1).to_string());
                    row.push(seen.iter().filter(|o| o[1] != "∅").count().to_string());
                    row.push(greatest.to_string());
                    *rows.entry(row).or_default() += 1;
                }
            }
            (rows, 0)
        };
        let new = || Box::new(Window::new(&spec_of_peers(partition)).unwrap()) as Box<dyn Operator>;
        check_operator(seed, 1, 80, new, naive);
    }

    #[test]
    fn rows_equal_in_the_order_have_one_result() {
        (0..24).for_each(check_peers);
        weak::with(|| (24..30).for_each(check_peers));
    }

    /// Rows that a tick computes.
    fn looked_at(window: &Window) -> usize {
        let parts = window.parts(&window.touched).unwrap();
        let mut parts: Vec<Merged> =
            window.touched.iter().zip(parts).map(|(touched, part)| window.look(touched, part)).collect();
        window.settle(&window.touched, &mut parts).unwrap();
        parts.iter().map(|part| part.ids.len()).sum()
    }

    /// Rows of one partition, with `a` from twice `from` on, every other one.
    fn rows(from: i64, n: i64, f: f64) -> Delta {
        let a = Int64Array::from_iter_values((from..from + n).map(|n| n * 2));
        let (f, s) = (Float64Array::from(vec![f; n as usize]), StringViewArray::from(vec!["x"; n as usize]));
        Delta::insert(
            batch(&sample_schema(), vec![Arc::new(a), Arc::new(f), Arc::new(s)], n as usize).unwrap(),
        )
    }

    /// A change after which nobody has another rank costs the rows around it, in a partition of 100,000 rows, too.
    #[test]
    fn a_change_goes_no_further_than_it_is_seen() {
        const ROWS: i64 = 100_000;
        let mut window = Window::new(&spec_of_peers(&[2])).unwrap();
        let tick = |window: &mut Window, deltas: Vec<Delta>| {
            let mut out = Output::default();
            deltas.into_iter().for_each(|delta| window.push(0, delta, &mut out).unwrap());
            let looked = looked_at(window);
            window.finish(&mut out).unwrap();
            window.commit().unwrap();
            (looked, out.deltas.iter().map(Delta::num_rows).sum::<usize>())
        };
        tick(&mut window, vec![rows(0, ROWS, 0.0)]);
        for at in [0, 1, ROWS / 2, ROWS - 1] {
            let (looked, came) = tick(&mut window, vec![rows(at, 1, 0.0).negate(), rows(at, 1, 1.0)]);
            assert!(looked <= 4 * FENCE && came == 2, "at {at}: {looked} rows looked at, {came} out");
        }
        // One more changes the ranks of all that follow, and of none before.
        let (looked, came) = tick(&mut window, vec![rows(ROWS - 200, 1, 2.0)]);
        assert!(looked <= 200 + 4 * FENCE && came <= 402, "{looked} rows looked at, {came} out");
    }

    /// One row at the end of a long partition, or in the middle of it, is found without looking at the others.
    #[test]
    fn a_change_costs_what_can_see_it() {
        let rows = |from: i64, n: i64| rows(from, n, 0.0);
        const ROWS: i64 = 20_000;
        for running in [false, true] {
            let mut window = Window::new(&spec(&[2], &[(0, false)], running)).unwrap();
            let tick = |window: &mut Window, delta: Delta| {
                let mut out = Output::default();
                window.push(0, delta, &mut out).unwrap();
                let looked = looked_at(window);
                window.finish(&mut out).unwrap();
                window.commit().unwrap();
                (looked, out.deltas.iter().map(Delta::num_rows).sum::<usize>())
            };
            tick(&mut window, rows(0, ROWS));
            assert_eq!(window.lists[0].ids.len(), ROWS as usize);
            let (looked, came) = tick(&mut window, rows(ROWS, 1));
            assert!(looked <= 2 * FENCE && came <= 4, "at the end: {looked} rows looked at, {came} out");
            let (looked, came) = tick(&mut window, rows(ROWS - 100, 1).negate());
            assert!(looked <= 100 + 2 * FENCE && came <= 210, "near the end: {looked} rows, {came} out");
            if !running {
                let (looked, _) = tick(&mut window, rows(ROWS / 2, 1).negate());
                assert!(looked <= 8, "in the middle: {looked} rows looked at");
            }
        }
    }

    #[test]
    fn positions_spread_as_far_as_rows_of_either_state_reach() {
        // One row that has gone, between rows that stay.
        let weights = [(1, 1), (1, 1), (1, 0), (1, 1), (1, 1)];
        let origins = [false, false, false, false, true];
        assert_eq!(spread(&weights, &origins, 2, 0), [false, true, true, true, true]);
        assert_eq!(spread(&weights, &origins, 0, 3), origins);
        assert_eq!(
            spread(&weights, &[true, false, false, false, false], 0, 1),
            [true, true, false, false, false]
        );
    }
}
