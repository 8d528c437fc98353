//! What two multisets of rows do not have in common, row by row.

use arrow::array::{RecordBatch, UInt64Array};
use arrow::compute::take_record_batch;
use hashbrown::HashMap;

use super::hash::row_hashes;
use crate::connectors::Differences;
use crate::error::Result;

/// How many differing rows are shown.
const SHOWN: usize = 20;

/// One side's surplus of equal rows.
#[derive(Clone, Copy)]
struct Surplus {
    /// How much more often our side has the row; negative: theirs.
    more: i64,
    /// One of the rows: which batch of which side, and where in it.
    ours: bool,
    batch: usize,
    row: usize,
}

/// Compares rows that should be there with rows that are, both in the same columns. `key`: the columns that at most
/// one row of either side agrees in; empty: there are none.
pub fn differences(should: &[RecordBatch], are: &[RecordBatch], key: &[usize]) -> Result<Differences> {
    let mut surplus: HashMap<u128, Surplus, ahash::RandomState> = HashMap::default();
    for (ours, batches) in [(true, should), (false, are)] {
        for (batch, rows) in batches.iter().enumerate() {
            let all: Vec<usize> = (0..rows.num_columns()).collect();
            for (row, hash) in row_hashes(rows, &all)?.into_iter().enumerate() {
                let first = Surplus { more: 0, ours, batch, row };
                surplus.entry(hash).or_insert(first).more += if ours { 1 } else { -1 };
            }
        }
    }
    let mut apart: Vec<Surplus> = surplus.into_values().filter(|s| s.more != 0).collect();
    apart.sort_unstable_by_key(|s| (!s.ours, s.batch, s.row));
    let of = |s: &Surplus| if s.ours { &should[s.batch] } else { &are[s.batch] };

    let mut found = Differences::default();
    for s in &apart {
        let side = if s.more > 0 { &mut found.lacks } else { &mut found.extra };
        *side += s.more.unsigned_abs();
    }
    if !key.is_empty() {
        let mut sides: HashMap<u128, (u64, u64), ahash::RandomState> = HashMap::default();
        for s in &apart {
            let hash = row_hashes(&of(s).slice(s.row, 1), key)?[0];
            let (lacks, has) = sides.entry(hash).or_default();
            *if s.more > 0 { lacks } else { has } += s.more.unsigned_abs();
        }
        found.changed = sides.values().filter(|sides| **sides == (1, 1)).count() as u64;
        found.lacks -= found.changed;
        found.extra -= found.changed;
    }
    for s in apart.iter().take(SHOWN) {
        let row = take_record_batch(of(s), &UInt64Array::from(vec![s.row as u64]))?;
        let mut writer = arrow::json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, arrow::json::writer::LineDelimited>(Vec::new());
        writer.write(&row)?;
        writer.finish()?;
        let side = if s.more > 0 { "lacks" } else { "has" };
        found.shown.push(format!("{side} {}", String::from_utf8_lossy(&writer.into_inner()).trim_end()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(rows: &[(i64, i64)]) -> Vec<RecordBatch> {
        let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let columns = [
            ("k", column(rows.iter().map(|r| r.0).collect())),
            ("v", column(rows.iter().map(|r| r.1).collect())),
        ];
        vec![RecordBatch::try_from_iter(columns).unwrap()]
    }

    #[test]
    fn rows_are_missing_too_many_or_changed() {
        let found = differences(&rows(&[(1, 1), (2, 2), (3, 3)]), &rows(&[(4, 4), (2, 9), (3, 3)]), &[0]);
        let found = found.unwrap();
        assert_eq!((found.lacks, found.extra, found.changed), (1, 1, 1));
        assert_eq!(
            found.shown,
            [
                r#"lacks {"k":1,"v":1}"#,
                r#"lacks {"k":2,"v":2}"#,
                r#"has {"k":4,"v":4}"#,
                r#"has {"k":2,"v":9}"#
            ]
        );
        // Without a key copies count, and no row is a change of another.
        let found = differences(&rows(&[(1, 1), (1, 1), (2, 2)]), &rows(&[(2, 2), (1, 1), (1, 7)]), &[]);
        let found = found.unwrap();
        assert_eq!((found.lacks, found.extra, found.changed), (1, 1, 0));
        assert!(differences(&rows(&[(1, 1), (2, 2)]), &rows(&[(2, 2), (1, 1)]), &[0]).unwrap().is_empty());
    }
}
