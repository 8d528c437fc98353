//! The first rows of each partition in an order, after an offset. Ties are broken by the whole row, so that the answer
//! is a function of the rows alone.
//!
//! All rows are kept, sorted, because any of them may move up. A row's place is a string of bytes: its order
//! columns, then the whole row, which can be read back from it.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray};
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};

use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::expr;
use crate::engine::keys::{KeySpec, canonical};
use crate::engine::plan::spec::{Expr, TopKSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::Table;
use crate::error::Result;

/// ORDER BY … LIMIT … OFFSET, by partition.
pub struct TopK {
    partition: KeySpec,
    order: Vec<Expr>,
    offset: i64,
    limit: Option<i64>,
    schema: SchemaRef,
    // Order columns, the row's columns, and a filler.
    places: RowConverter,
    partitions: Table,
    rows: BTreeMap<Place, i64>,
    // By partition: the sum of its rows' absolute weights.
    sizes: Vec<i64>,
    // Partitions touched in this tick, with the rows they showed before.
    touched: Vec<(u32, Shown)>,
    is_touched: Vec<bool>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    partition: u32,
    bytes: Box<[u8]>,
}

/// Rows of one partition and how often each is shown, in their order.
type Shown = Vec<(Box<[u8]>, i64)>;

impl TopK {
    /// Does what `spec` says.
    pub fn new(spec: &TopKSpec) -> Result<TopK> {
        let schema = nullable(&spec.schema);
        let partition = KeySpec::new(&spec.partition, &schema)?;
        let mut fields = Vec::new();
        for (expr, options) in &spec.order {
            fields.push(SortField::new_with_options(expr.data_type(&schema)?, *options));
        }
        let ascending = SortOptions::default();
        fields.extend(
            schema.fields().iter().map(|f| SortField::new_with_options(f.data_type().clone(), ascending)),
        );
        // Without any column all rows are equal, and one NULL stands for each.
        fields.push(SortField::new(arrow::datatypes::DataType::Boolean));
        let places = RowConverter::new(fields)?;
        let at_most = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        Ok(TopK {
            partitions: Table::new(partition.types().to_vec()),
            partition,
            order: spec.order.iter().map(|(e, _)| Arc::clone(e)).collect(),
            offset: at_most(spec.offset),
            limit: spec.limit.map(at_most),
            schema,
            places,
            rows: BTreeMap::new(),
            sizes: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
            bytes: 0,
        })
    }

    /// The rows that a partition shows now.
    fn shown(&self, partition: u32) -> Shown {
        let (mut skip, mut left) = (self.offset, self.limit.unwrap_or(i64::MAX));
        let mut shown = Vec::new();
        for (place, weight) in self.rows.range((first_of(partition), last_of(partition))) {
            if left == 0 {
                break;
            }
            // A row that went before it came is not there.
            let weight = (*weight).max(0);
            let skipped = weight.min(skip);
            skip -= skipped;
            let taken = (weight - skipped).min(left);
            left -= taken;
            if taken > 0 {
                shown.push((place.bytes.clone(), taken));
            }
        }
        shown
    }

    fn emit(&self, changes: &[(Box<[u8]>, i64)], out: &mut Output) -> Result<()> {
        for chunk in changes.chunks(CHUNK_ROWS) {
            let places = BinaryArray::from_iter_values(chunk.iter().map(|(place, _)| place));
            let rows = self.places.from_binary(places);
            let columns: Vec<ArrayRef> = self.places.convert_rows(rows.iter())?;
            let own = columns[self.order.len()..self.order.len() + self.schema.fields().len()].to_vec();
            let own = own.into_iter().zip(self.schema.fields()).map(|(c, f)| expr::cast_to(c, f.data_type()));
            let rows = batch(&self.schema, own.collect::<Result<Vec<_>>>()?, chunk.len())?;
            out.deltas.push(Delta::weighted(rows, chunk.iter().map(|(_, weight)| *weight).collect())?);
        }
        Ok(())
    }
}

fn first_of(partition: u32) -> Bound<Place> {
    Bound::Included(Place { partition, bytes: Box::default() })
}

fn last_of(partition: u32) -> Bound<Place> {
    match partition.checked_add(1) {
        Some(next) => Bound::Excluded(Place { partition: next, bytes: Box::default() }),
        None => Bound::Unbounded,
    }
}

impl Operator for TopK {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let (delta, order) = expr::evaluate(&self.order, delta, &mut out.errors)?;
        // The order goes along as columns of the delta, so that rows whose partition fails leave it too.
        let mut columns = delta.rows.columns().to_vec();
        let width = columns.len();
        let fields = self.schema.fields().iter().cloned();
        let order_fields = order
            .iter()
            .map(|c| Arc::new(arrow::datatypes::Field::new("order", c.data_type().clone(), true)));
        let wide = Arc::new(arrow::datatypes::Schema::new(fields.chain(order_fields).collect::<Vec<_>>()));
        columns.extend(order.into_iter().map(canonical));
        let delta = Delta { rows: batch(&wide, columns, delta.num_rows())?, weights: delta.weights };
        let (delta, keys) = self.partition.evaluate(delta, &mut out.errors)?;
        if delta.is_empty() {
            return Ok(());
        }

        let partitions = self.partitions.upsert(&keys)?;
        self.sizes.resize(self.partitions.slots(), 0);
        self.is_touched.resize(self.partitions.slots(), false);
        for partition in &partitions {
            if !std::mem::replace(&mut self.is_touched[*partition as usize], true) {
                let shown = self.shown(*partition);
                self.touched.push((*partition, shown));
            }
        }
        let (own, order) = delta.rows.columns().split_at(width);
        let filler = arrow::array::new_null_array(&arrow::datatypes::DataType::Boolean, delta.num_rows());
        let columns: Vec<ArrayRef> = order.iter().chain(own).cloned().chain([filler]).collect();
        let places = self.places.convert_columns(&columns)?;
        for (i, partition) in partitions.iter().enumerate() {
            let place = Place { partition: *partition, bytes: places.row(i).as_ref().into() };
            let size = &mut self.sizes[*partition as usize];
            let length = place.bytes.len() + PLACE_BYTES;
            match self.rows.entry(place) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    let weight = *entry.insert(delta.weight(i));
                    *size += weight.abs();
                    self.bytes += length;
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    let before = *entry.get();
                    let after = before + delta.weight(i);
                    *size += after.abs() - before.abs();
                    if after == 0 {
                        entry.remove();
                        self.bytes -= length;
                    } else {
                        *entry.get_mut() = after;
                    }
                }
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let mut changes: Vec<(Box<[u8]>, i64)> = Vec::new();
        let mut touched = std::mem::take(&mut self.touched);
        for (partition, before) in &mut touched {
            difference(std::mem::take(before), self.shown(*partition), &mut changes);
        }
        self.touched = touched;
        self.emit(&changes, out)
    }

    fn commit(&mut self) -> Result<()> {
        for (partition, _) in std::mem::take(&mut self.touched) {
            self.is_touched[partition as usize] = false;
            if self.sizes[partition as usize] == 0 {
                self.partitions.remove(partition);
            }
        }
        self.partitions.compact()
    }

    fn state_bytes(&self) -> usize {
        self.bytes + self.partitions.bytes()
    }

    fn state_rows(&self) -> usize {
        self.rows.len()
    }
}

/// Of a stored row beside its bytes.
const PLACE_BYTES: usize = size_of::<Place>() + size_of::<i64>();

/// What must change for rows shown as `before` to be shown as `after`; both are sorted.
fn difference(before: Shown, after: Shown, changes: &mut Vec<(Box<[u8]>, i64)>) {
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(old), Some(new)) => old.0.cmp(&new.0),
        };
        let old = if order.is_le() { before.next() } else { None };
        let new = if order.is_ge() { after.next() } else { None };
        let weight = new.as_ref().map_or(0, |n| n.1) - old.as_ref().map_or(0, |o| o.1);
        if let Some((row, _)) = new.or(old)
            && weight != 0
        {
            changes.push((row, weight));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Ordering;
    use std::collections::BTreeMap;

    use datafusion::physical_expr::expressions::Column;

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Multiset, check_operator, key_text, sample_schema};

    fn column(c: usize) -> Expr {
        Arc::new(Column::new(["a", "f", "s"][c], c))
    }

    /// Two texts of column `c`, NULL first, NaN last, and -0.0 before 0.0 unless `canonical`.
    fn compare(c: usize, a: &str, b: &str, canonical: bool) -> Ordering {
        match (a == "∅", b == "∅") {
            (false, false) => {}
            (a, b) => return b.cmp(&a),
        }
        let float = |v: &str| if canonical { key_text(v) } else { v.to_string() }.parse::<f64>().unwrap();
        match c {
            0 => a.parse::<i64>().unwrap().cmp(&b.parse().unwrap()),
            1 => float(a).total_cmp(&float(b)),
            _ => a.cmp(b),
        }
    }

    fn check(seed: u64) {
        let partition: Vec<usize> = [vec![], vec![0], vec![1, 2]][seed as usize % 3].clone();
        let order: Vec<(usize, bool)> =
            [vec![], vec![(1, false)], vec![(0, true), (2, false)]][(seed / 3) as usize % 3].clone();
        let (offset, limit) =
            [(0, Some(1)), (0, Some(3)), (2, Some(2)), (1, None), (0, Some(0))][seed as usize % 5];
        let options = |descending| SortOptions { descending, nulls_first: true };
        let spec = TopKSpec {
            partition: partition.iter().map(|c| column(*c)).collect(),
            order: order.iter().map(|(c, descending)| (column(*c), options(*descending))).collect(),
            offset,
            limit,
            schema: sample_schema(),
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
                    by_order.chain(by_row).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
                });
                for row in part.iter().skip(offset).take(limit.unwrap_or(usize::MAX)) {
                    *rows.entry(row.clone()).or_default() += 1;
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
