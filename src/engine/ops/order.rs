//! Sorting stored rows by an order, then by the whole row.
//!
//! The first columns of an order nearly always decide. They are read of all rows; the rest, and with it every text, only
//! of rows that are equal in them.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::expressions::Column;

use crate::engine::delta::batch;
use crate::engine::keys::canonical;
use crate::engine::plan::spec::Expr;
use crate::engine::state::Arrangement;
use crate::error::Result;

/// Columns that are read of all rows, at most.
const FIRST_MAX: usize = 3;

/// An order of rows.
pub(super) struct Order {
    first: Part,
    /// What else the order says.
    rest: Part,
    /// All columns of a row, as they are.
    row: Part,
}

/// Expressions, and the columns of a stored row that they read.
struct Part {
    exprs: Vec<Expr>,
    reads: Vec<usize>,
    schema: SchemaRef,
    converter: RowConverter,
    canonical: bool,
}

impl Part {
    fn new(order: &[(Expr, SortOptions)], schema: &SchemaRef, canonical: bool) -> Result<Part> {
        let fields = order
            .iter()
            .map(|(e, options)| Ok(SortField::new_with_options(e.data_type(schema)?, *options)))
            .collect::<Result<Vec<_>>>()?;
        let mut reads: Vec<usize> = Vec::new();
        let mut exprs = Vec::with_capacity(order.len());
        for (expr, _) in order {
            let narrowed = Arc::clone(expr).transform_up(|e| {
                let Some(column) = e.downcast_ref::<Column>() else { return Ok(Transformed::no(e)) };
                let at = reads.iter().position(|read| *read == column.index()).unwrap_or_else(|| {
                    reads.push(column.index());
                    reads.len() - 1
                });
                Ok(Transformed::yes(Arc::new(Column::new(column.name(), at)) as Expr))
            })?;
            exprs.push(narrowed.data);
        }
        let read = reads.iter().map(|column| schema.field(*column).clone()).collect::<Vec<Field>>();
        Ok(Part {
            exprs,
            reads,
            schema: Arc::new(Schema::new(read)),
            converter: RowConverter::new(fields)?,
            canonical,
        })
    }

    /// The keys that rows are compared by, in the order of `ids`.
    fn keys(&self, rows: &Arrangement, ids: &[u32]) -> Result<Rows> {
        let columns = rows.gather(ids, self.reads.iter().copied())?;
        let read: RecordBatch = batch(&self.schema, columns, ids.len())?;
        let columns = self
            .exprs
            .iter()
            .map(|e| {
                let column = e.evaluate(&read)?.into_array(ids.len())?;
                Ok(if self.canonical { canonical(column) } else { column })
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        Ok(self.converter.convert_columns(&columns)?)
    }
}

impl Order {
    /// The order by `order` of rows of `schema`.
    pub fn new(order: &[(Expr, SortOptions)], schema: &SchemaRef) -> Result<Order> {
        let fixed = |e: &Expr| {
            e.data_type(schema).is_ok_and(|t| t.primitive_width().is_some() || t == DataType::Boolean)
        };
        let first = order.iter().take_while(|(e, _)| fixed(e)).count().clamp(order.len().min(1), FIRST_MAX);
        let (first, rest) = order.split_at(first);
        let row: Vec<(Expr, SortOptions)> = schema
            .fields()
            .iter()
            .enumerate()
            .map(|(i, f)| (Arc::new(Column::new(f.name(), i)) as Expr, SortOptions::default()))
            .collect();
        Ok(Order {
            first: Part::new(first, schema, true)?,
            rest: Part::new(rest, schema, true)?,
            row: Part::new(&row, schema, false)?,
        })
    }

    /// Of each of `ids`, which are in their order, whether it is not equal in it to the one before.
    pub fn begins(&self, rows: &Arrangement, ids: &[u32]) -> Result<Vec<bool>> {
        let mut begins: Vec<bool> = (0..ids.len()).map(|at| at == 0).collect();
        for part in [&self.first, &self.rest].into_iter().filter(|part| !part.exprs.is_empty()) {
            let keys = part.keys(rows, ids)?;
            for (at, begins) in begins.iter_mut().enumerate().skip(1) {
                *begins |= keys.row(at) != keys.row(at - 1);
            }
        }
        Ok(begins)
    }

    /// Positions of `ids`, which stand in `groups` in ascending order, sorted within their groups. Rows that are equal in
    /// everything are in the order of their numbers.
    pub fn sort(&self, rows: &Arrangement, groups: &[u32], ids: &[u32]) -> Result<Vec<u32>> {
        let mut sorted: Vec<u32> = (0..ids.len() as u32).collect();
        let mut ties: Vec<std::ops::Range<usize>> = Vec::new();
        let bounds = {
            let mut start = 0;
            groups.chunk_by(|a, b| a == b).map(move |group| {
                let from = start;
                start += group.len();
                from..start
            })
        };
        ties.extend(bounds.filter(|group| group.len() > 1));
        for part in [&self.first, &self.rest, &self.row] {
            if ties.is_empty() {
                break;
            }
            ties = part.sort_ties(rows, ids, &mut sorted, ties)?;
        }
        for tie in ties {
            sorted[tie].sort_unstable_by_key(|at| ids[*at as usize]);
        }
        Ok(sorted)
    }
}

impl Part {
    /// Sorts the ranges of `sorted` that are tied so far; gives those that still are.
    fn sort_ties(
        &self,
        rows: &Arrangement,
        ids: &[u32],
        sorted: &mut [u32],
        ties: Vec<std::ops::Range<usize>>,
    ) -> Result<Vec<std::ops::Range<usize>>> {
        if self.exprs.is_empty() {
            return Ok(ties);
        }
        let tied: Vec<u32> =
            ties.iter().flat_map(|tie| &sorted[tie.clone()]).map(|at| ids[*at as usize]).collect();
        let keys = self.keys(rows, &tied)?;
        let mut left = Vec::new();
        let mut first = 0;
        for tie in ties {
            // Positions among the tied, and what they stand for.
            let mut pairs: Vec<(usize, u32)> = (first..).zip(sorted[tie.clone()].iter().copied()).collect();
            first += tie.len();
            pairs.sort_by(|(a, _), (b, _)| keys.row(*a).cmp(&keys.row(*b)));
            let mut at = tie.start;
            for equal in pairs.chunk_by(|(a, _), (b, _)| keys.row(*a) == keys.row(*b)) {
                if equal.len() > 1 {
                    left.push(at..at + equal.len());
                }
                for (_, position) in equal {
                    sorted[at] = *position;
                    at += 1;
                }
            }
        }
        Ok(left)
    }
}
