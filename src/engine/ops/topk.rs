//! The first rows of each partition in an order, after an offset, numbered if wanted. Ties are broken by the whole row,
//! so that the answer is a function of the rows alone.
//!
//! All rows are kept, because any of them may move up, but only the first of each partition are listed in their order.
//! A tick sorts what is listed together with what has changed. Rows that are not listed come behind the last that is,
//! so they are looked at only when so many of the listed ones went that those behind them are needed.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::SchemaRef;
use datafusion::physical_expr::expressions::Column;

use super::order::Order;
use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::expr;
use crate::engine::keys::{KeySpec, Keys};
use crate::engine::plan::spec::{Expr, TopKSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Arrangement, Cursor, Matches, NONE, Restored, Saved, Table};
use crate::error::Result;

/// Pairs of a partition and a row that are looked up at a time.
const MATCHES_MAX: usize = 64 * 1024;

/// ORDER BY … LIMIT … OFFSET, by partition.
pub struct TopK {
    partition: KeySpec,
    // Order expressions that may fail on a row.
    fallible: Vec<Expr>,
    order: Order,
    offset: i64,
    limit: i64,
    numbered: bool,
    schema: SchemaRef,
    width: usize,
    rows: Arrangement,
    partitions: Table,
    // By partition.
    tops: Vec<Top>,
    touched: Vec<Touched>,
    // By partition, its place in `touched`, or `NONE`.
    touched_at: Vec<u32>,
    // Whether rows ever went: then some more than are shown are listed.
    shrinks: bool,
    listed_bytes: usize,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default)]
struct Top {
    /// Its first rows in their order, all of them there.
    listed: Box<[u32]>,
    /// Rows that are there.
    rows: usize,
    /// The sum of its rows' absolute weights: nothing is known of a partition of which it is 0.
    size: i64,
}

/// A partition that a tick changes.
struct Touched {
    partition: u32,
    /// What it showed before.
    before: Vec<Shown>,
    /// Rows whose weight has changed.
    changed: Vec<u32>,
}

/// A row that is shown.
#[derive(Clone, Copy, Debug)]
struct Shown {
    id: u32,
    /// How often.
    weight: i64,
    /// The number of the first of these in its partition, from 1.
    number: i64,
}

impl TopK {
    /// Does what `spec` says.
    pub fn new(spec: &TopKSpec) -> Result<TopK> {
        let input = nullable(&spec.input);
        let partition = KeySpec::new(&spec.partition, &input)?;
        let fallible = spec.order.iter().map(|(e, _)| e).filter(|e| !e.is::<Column>()).cloned().collect();
        let at_most = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(TopK {
            order: Order::new(&spec.order, &input)?,
            rows: Arrangement::new(partition.stored_schema(), partition.positions().to_vec()),
            partitions: Table::new(partition.types().to_vec()),
            partition,
            fallible,
            offset: at_most(spec.offset),
            limit: spec.limit.map_or(i64::MAX, at_most),
            numbered: spec.numbered,
            schema: nullable(&spec.schema),
            width: input.fields().len(),
            tops: Vec::new(),
            touched: Vec::new(),
            touched_at: Vec::new(),
            shrinks: false,
            listed_bytes: 0,
        })
    }

    /// How many rows from the first on decide what is shown.
    fn needed(&self) -> i64 {
        self.offset.saturating_add(self.limit)
    }

    /// What a partition shows of the rows that are listed.
    fn shown(&self, partition: u32) -> Vec<Shown> {
        let (mut passed, needed) = (0i64, self.needed());
        let mut shown = Vec::new();
        for id in &self.tops[partition as usize].listed {
            if passed >= needed {
                break;
            }
            let weight = self.rows.weight(*id).max(0);
            let (first, last) = (passed.max(self.offset), passed.saturating_add(weight).min(needed));
            if last > first {
                shown.push(Shown { id: *id, weight: last - first, number: first + 1 });
            }
            passed = passed.saturating_add(weight);
        }
        shown
    }

    /// The first of sorted rows that are listed: those that are needed, and some more where rows go.
    fn enough(&self, sorted: &[u32]) -> (Box<[u32]>, bool) {
        let (mut weight, needed) = (0i64, self.needed());
        let mut count = 0;
        while count < sorted.len() && weight < needed {
            weight = weight.saturating_add(self.rows.weight(sorted[count]).max(0));
            count += 1;
        }
        let enough = weight >= needed;
        if self.shrinks && enough {
            count = count.saturating_mul(2).saturating_add(8).min(sorted.len());
        }
        (sorted[..count].into(), enough)
    }

    fn list(&mut self, partition: u32, listed: Box<[u32]>) {
        let top = &mut self.tops[partition as usize];
        self.listed_bytes = self.listed_bytes + size_of_val(&*listed) - size_of_val(&*top.listed);
        top.listed = listed;
    }

    /// Lists the first rows of touched partitions anew.
    fn relist(&mut self, touched: &[Touched]) -> Result<()> {
        let (mut groups, mut ids) = (Vec::new(), Vec::new());
        for (group, Touched { partition, changed, .. }) in (0u32..).zip(touched) {
            let listed = &self.tops[*partition as usize].listed;
            let mut candidates: Vec<u32> = listed.iter().chain(changed).copied().collect();
            candidates.sort_unstable();
            candidates.dedup();
            // The last that was listed is the border of what is known, even when it has gone.
            candidates.retain(|id| self.rows.weight(*id) > 0 || listed.last() == Some(id));
            groups.resize(groups.len() + candidates.len(), group);
            ids.append(&mut candidates);
        }
        let sorted = self.order.sort(&self.rows, &groups, &ids)?;
        let mut short = Vec::new();
        let mut rest = sorted.as_slice();
        for (group, Touched { partition, .. }) in (0u32..).zip(touched) {
            let count = rest.iter().take_while(|at| groups[**at as usize] == group).count();
            let (of_group, after) = rest.split_at(count);
            rest = after;
            let all: Vec<u32> = of_group.iter().map(|at| ids[*at as usize]).collect();
            let Top { listed, rows, .. } = &self.tops[*partition as usize];
            let there = all.iter().filter(|id| self.rows.weight(**id) > 0).count();
            let known = match listed.last() {
                Some(border) if there < *rows => {
                    let border = all.iter().position(|id| id == border).map_or(0, |at| at + 1);
                    &all[..border]
                }
                _ => &all[..],
            };
            let whole = there == *rows;
            let known: Vec<u32> = known.iter().copied().filter(|id| self.rows.weight(*id) > 0).collect();
            let (first, enough) = self.enough(&known);
            if enough || whole {
                self.list(*partition, first);
            } else {
                short.push(*partition);
            }
        }
        self.refill(&short)
    }

    /// Lists the first rows of partitions by looking at all of them.
    fn refill(&mut self, partitions: &[u32]) -> Result<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        let keys = Keys::exact(self.partitions.gather(partitions)?, partitions.len());
        let (mut groups, mut ids) = (Vec::new(), Vec::new());
        let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
        loop {
            let more = self.rows.probe(&keys, true, &mut cursor, MATCHES_MAX, &mut matches)?;
            for (group, id) in matches.probe.iter().zip(&matches.ids) {
                if self.rows.weight(*id) > 0 {
                    groups.push(*group);
                    ids.push(*id);
                }
            }
            if !more {
                break;
            }
        }
        let sorted = self.order.sort(&self.rows, &groups, &ids)?;
        let mut rest = sorted.as_slice();
        for (group, partition) in (0u32..).zip(partitions) {
            let count = rest.iter().take_while(|at| groups[**at as usize] == group).count();
            let (of_group, after) = rest.split_at(count);
            rest = after;
            let all: Vec<u32> = of_group.iter().map(|at| ids[*at as usize]).collect();
            let (first, _) = self.enough(&all);
            self.list(*partition, first);
        }
        Ok(())
    }

    fn emit(&self, changes: &[Shown], out: &mut Output) -> Result<()> {
        for chunk in changes.chunks(CHUNK_ROWS) {
            let ids: Vec<u32> = chunk.iter().map(|c| c.id).collect();
            let mut columns = self.rows.gather(&ids, 0..self.width)?;
            if self.numbered {
                let numbers: ArrayRef =
                    Arc::new(Int64Array::from_iter_values(chunk.iter().map(|c| c.number)));
                // Row numbers that the planner has put in have no sign.
                columns.push(expr::cast_to(numbers, self.schema.field(self.width).data_type())?);
            }
            let rows = batch(&self.schema, columns, chunk.len())?;
            out.deltas.push(Delta::weighted(rows, chunk.iter().map(|c| c.weight).collect())?);
        }
        Ok(())
    }
}

impl Operator for TopK {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let delta = match self.fallible.is_empty() {
            true => delta,
            false => expr::evaluate(&self.fallible, delta, &mut out.errors)?.0,
        };
        let (delta, keys) = self.partition.evaluate(delta, &mut out.errors)?;
        if delta.is_empty() {
            return Ok(());
        }
        self.shrinks |= delta.has_negative();
        let partitions = self.partitions.upsert(&keys)?;
        self.tops.resize(self.partitions.slots(), Top::default());
        self.touched_at.resize(self.partitions.slots(), NONE);
        for partition in &partitions {
            if self.touched_at[*partition as usize] == NONE {
                self.touched_at[*partition as usize] = self.touched.len() as u32;
                let before = self.shown(*partition);
                self.touched.push(Touched { partition: *partition, before, changed: Vec::new() });
            }
        }
        let (tops, touched, touched_at) = (&mut self.tops, &mut self.touched, &self.touched_at);
        let changed = |at: u32, id: u32, before: i64, after: i64| {
            let partition = partitions[at as usize] as usize;
            let top = &mut tops[partition];
            top.size += after.abs() - before.abs();
            match (before > 0, after > 0) {
                (false, true) => top.rows += 1,
                (true, false) => top.rows -= 1,
                _ => {}
            }
            touched[touched_at[partition] as usize].changed.push(id);
        };
        self.rows.apply_with(&self.partition.store(delta, &keys)?, Some(&keys.hashes), changed)
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let mut touched = std::mem::take(&mut self.touched);
        self.relist(&touched)?;
        let mut changes: Vec<Shown> = Vec::new();
        for Touched { partition, before, .. } in &mut touched {
            let (before, after) = (std::mem::take(before), self.shown(*partition));
            match self.numbered {
                true => renumbered(&before, &after, &mut changes),
                false => difference(before, after, &mut changes),
            }
        }
        self.touched = touched;
        self.emit(&changes, out)
    }

    fn commit(&mut self) -> Result<()> {
        for Touched { partition, .. } in std::mem::take(&mut self.touched) {
            self.touched_at[partition as usize] = NONE;
            if self.tops[partition as usize].size == 0 {
                self.partitions.remove(partition);
            }
        }
        self.partitions.compact()?;
        if let Some(kept) = self.rows.compact()? {
            Arrangement::renumber(&kept, self.tops.iter_mut().flat_map(|top| top.listed.iter_mut()));
        }
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.rows.save(state);
        self.partitions.save(state);
        state.lists(self.tops.iter().map(|top| &*top.listed));
        state.numbers(&self.tops.iter().map(|top| top.rows as u64).collect::<Vec<_>>());
        state.numbers(&self.tops.iter().map(|top| top.size).collect::<Vec<_>>());
        state.numbers(&[u8::from(self.shrinks)]);
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.rows.restore(state)?;
        self.partitions.restore(state)?;
        let slots = self.partitions.slots();
        let lists = state.lists(slots, self.rows.ids())?;
        let (rows, sizes) = (state.numbers_of::<u64>(slots)?, state.numbers_of(slots)?);
        let top = |((listed, rows), size): ((Vec<u32>, u64), i64)| Top {
            listed: listed.into(),
            rows: rows as usize,
            size,
        };
        self.tops = lists.into_iter().zip(rows).zip(sizes).map(top).collect();
        self.touched_at = vec![NONE; slots];
        self.shrinks = state.number::<u8>()? != 0;
        self.listed_bytes = self.tops.iter().map(|top| size_of_val(&*top.listed)).sum();
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let by_partition = self.tops.capacity() * (size_of::<Top>() + size_of::<u32>());
        self.rows.bytes() + self.partitions.bytes() + by_partition + self.listed_bytes
    }

    fn state_rows(&self) -> usize {
        self.rows.live_rows()
    }
}

/// What must change for rows shown as `before` to be shown as `after`.
fn difference(before: Vec<Shown>, after: Vec<Shown>, changes: &mut Vec<Shown>) {
    let gone = before.into_iter().map(|s| Shown { weight: -s.weight, ..s });
    let mut all: Vec<Shown> = gone.chain(after).collect();
    all.sort_by_key(|s| s.id);
    for of_row in all.chunk_by(|a, b| a.id == b.id) {
        let weight = of_row.iter().map(|s| s.weight).sum();
        if weight != 0 {
            changes.push(Shown { weight, ..of_row[0] });
        }
    }
}

/// As [`difference`], of rows each with its number: whoever has another number than before goes and comes.
fn renumbered(before: &[Shown], after: &[Shown], changes: &mut Vec<Shown>) {
    let single = |shown: &[Shown], weight: i64| -> Vec<Shown> {
        let each = |s: &Shown| {
            let id = s.id;
            (s.number..s.number + s.weight).map(move |number| Shown { id, weight, number })
        };
        shown.iter().flat_map(each).collect()
    };
    let (before, after) = (single(before, -1), single(after, 1));
    let same = |i: &usize| matches!((before.get(*i), after.get(*i)), (Some(a), Some(b)) if a.id == b.id);
    for i in (0..before.len().max(after.len())).filter(|i| !same(i)) {
        changes.extend(before.get(i));
        changes.extend(after.get(i));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use arrow::compute::SortOptions;
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Multiset, check_operator, compare, key_text, sample_schema};

    fn column(c: usize) -> Expr {
        Arc::new(Column::new(["a", "f", "s"][c], c))
    }

    fn check(seed: u64) {
        let partition: Vec<usize> = [vec![], vec![0], vec![1, 2]][seed as usize % 3].clone();
        let order: Vec<(usize, bool)> =
            [vec![], vec![(1, false)], vec![(0, true), (2, false)]][(seed / 3) as usize % 3].clone();
        let (offset, limit) =
            [(0, Some(1)), (0, Some(3)), (2, Some(2)), (1, None), (0, Some(0))][seed as usize % 5];
        let numbered = seed % 2 == 1;
        let mut columns = sample_schema().fields().to_vec();
        if numbered {
            columns.push(Arc::new(Field::new("number", DataType::UInt64, true)));
        }
        let output = Arc::new(Schema::new(columns));
        let options = |descending| SortOptions { descending, nulls_first: true };
        let spec = TopKSpec {
            partition: partition.iter().map(|c| column(*c)).collect(),
            order: order.iter().map(|(c, descending)| (column(*c), options(*descending))).collect(),
            offset,
            limit,
            numbered,
            input: sample_schema(),
            schema: output,
        };
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
                        if *descending && a[*c] != "∅" && b[*c] != "∅" {
                            ordering.reverse()
                        } else {
                            ordering
                        }
                    });
                    let by_row = (0..3).map(|c| compare(c, &a[c], &b[c], false));
                    by_order.chain(by_row).find(|o| o.is_ne()).unwrap_or(std::cmp::Ordering::Equal)
                });
                for (i, row) in part.iter().enumerate().skip(offset).take(limit.unwrap_or(usize::MAX)) {
                    let mut row = row.clone();
                    if numbered {
                        row.push((i + 1).to_string());
                    }
                    *rows.entry(row).or_default() += 1;
                }
            }
            (rows, 0)
        };
        check_operator(seed, 1, 25, || Box::new(TopK::new(&spec).unwrap()), naive);
    }

    #[test]
    fn it_shows_the_first_rows_of_each_partition() {
        (0..45).for_each(check);
        weak::with(|| (45..54).for_each(check));
    }
}
