//! Comparing a target in Snowflake with the rows that it must hold, sending only those where the two differ.
//!
//! Rows fall into ranges by the first digits of their key's MD5. Both sides hash each row's values as text and each
//! range's hashes, sorted, once more; a range whose digests agree holds the same rows. Only ranges that do not agree
//! are staged, loaded beside the target and compared there, value by value, so that a value which the two sides
//! merely write differently costs an upload and is never reported. Floating-point numbers and documents have no text
//! that both sides are sure to write alike: a relation with such columns is compared whole.

use std::collections::HashMap;
use std::fmt::Write;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Decimal128Array, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, DecimalType, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use md5::{Digest, Md5};
use serde_json::{Map, Value};

use super::statements::{Statements, list, quoted};
use super::types::Column;
use super::wire::Rows;
use crate::connectors::Differences;
use crate::connectors::warehouse::{Mode, Step};
use crate::error::{Error, Result};

/// A range holds about this many rows.
const RANGE_ROWS: usize = 1_000;
/// So many differing ranges are asked for by name; more of them, and everything is compared.
const RANGES_MAX: usize = 1_000;
/// How many differing rows are shown.
const SHOWN: usize = 20;

/// What both sides know of a range: how many rows it has, and their digest.
pub type Digests = HashMap<String, (u64, String)>;

/// How many digits of a hash name a range, for a relation of so many rows.
pub fn range_digits(rows: usize) -> u32 {
    (1..5).find(|&digits| 16_usize.pow(digits) * RANGE_ROWS >= rows).unwrap_or(5)
}

/// Whether every column has a text that both sides write alike.
pub fn has_texts(columns: &[Column]) -> bool {
    columns.iter().all(|c| text(c).is_some())
}

/// A value as text in Snowflake's SQL; `None`: it has none to rely on.
fn text(column: &Column) -> Option<String> {
    let name = quoted(&column.name);
    if column.variant {
        return None;
    }
    Some(match column.encoding.data_type() {
        DataType::Boolean => format!("CASE WHEN {name} THEN 't' WHEN NOT {name} THEN 'f' END"),
        DataType::Int32 | DataType::Int64 | DataType::Decimal128(..) => format!("{name}::VARCHAR"),
        DataType::Utf8 => format!("LENGTH({name})::VARCHAR || ':' || {name}"),
        DataType::Binary => format!("HEX_ENCODE({name})"),
        DataType::Date32 => format!("DATEDIFF('day', '1970-01-01'::DATE, {name})::VARCHAR"),
        DataType::Time64(_) => format!("DATEDIFF('microsecond', '00:00:00'::TIME, {name})::VARCHAR"),
        DataType::Timestamp(..) => format!("DATE_PART(EPOCH_MICROSECOND, {name})::VARCHAR"),
        _ => return None,
    })
}

/// The hash of several values in Snowflake's SQL.
fn hash<'a>(columns: impl Iterator<Item = &'a Column>) -> String {
    let texts: Vec<String> =
        columns.filter_map(text).map(|text| format!("COALESCE({text}, 'N') || ';'")).collect();
    match texts.is_empty() {
        true => "MD5('')".to_string(),
        false => format!("MD5({})", texts.join(" || ")),
    }
}

impl Statements {
    /// The columns that say which range a row is in.
    fn range_columns(&self) -> Vec<&Column> {
        match &self.shape.mode {
            Mode::Keyed(key) => key.iter().map(|&k| &self.columns[k]).collect(),
            Mode::Bag | Mode::Append => self.columns.iter().collect(),
        }
    }

    fn range(&self, digits: u32) -> String {
        format!("SUBSTR({}, 1, {digits})", hash(self.range_columns().into_iter()))
    }

    /// Asks for the digests of the target's ranges.
    pub fn digests(&self, digits: u32) -> String {
        format!(
            "SELECT R, COUNT(*) AS N, MD5(LISTAGG(H, '') WITHIN GROUP (ORDER BY H)) AS D \
             FROM (SELECT {} AS R, {} AS H FROM {}) X GROUP BY R",
            self.range(digits),
            hash(self.columns.iter()),
            self.names.target
        )
    }

    /// The condition that a row of the target is in one of these ranges; none: there is no condition.
    fn in_ranges(&self, ranges: &[String]) -> String {
        let Some(first) = ranges.first() else { return String::new() };
        let names: Vec<String> = ranges.iter().map(|r| format!("'{r}'")).collect();
        format!(" WHERE {} IN ({})", self.range(first.len() as u32), names.join(", "))
    }

    /// Compares the target's rows in these ranges with those that were loaded beside it: the values of a row that one
    /// side has more often, how much more often the loaded side has it, and how many rows are missing, too many and
    /// changed in all.
    pub fn apart(&self, ranges: &[String]) -> String {
        let columns = list(self.columns.iter().map(|c| c.name.as_str()));
        let key = match &self.shape.mode {
            Mode::Keyed(key) => list(key.iter().map(|&k| self.columns[k].name.as_str())),
            Mode::Bag | Mode::Append => columns.clone(),
        };
        let more = |sign: char| {
            format!("SUM(CASE WHEN N {sign} 0 THEN ABS(N) ELSE 0 END) OVER (PARTITION BY {key})")
        };
        let total =
            |which: &str, what: &str| format!("SUM(CASE WHEN {which} THEN {what} ELSE 0 END) OVER ()");
        let changed = "LACKS = 1 AND HAS = 1";
        let shown: Vec<String> =
            self.columns.iter().map(|c| format!("{0}::VARCHAR AS {0}", quoted(&c.name))).collect();
        format!(
            "WITH BOTH_SIDES AS (SELECT 1 AS SIDE, O.* FROM ({ours}) O UNION ALL SELECT -1, {columns} FROM {target}{within}), \
             APART AS (SELECT {columns}, SUM(SIDE) AS N FROM BOTH_SIDES GROUP BY {columns} HAVING SUM(SIDE) <> 0), \
             MARKED AS (SELECT A.*, {lacks} AS LACKS, {has} AS HAS FROM APART A) \
             SELECT N AS \"{N}\", {missing} AS \"{MISSING}\", {extra} AS \"{EXTRA}\", {changes} AS \"{CHANGED}\", {shown} \
             FROM MARKED ORDER BY {key}, N DESC LIMIT {SHOWN}",
            ours = self.source_columns(),
            target = self.names.target,
            within = self.in_ranges(ranges),
            lacks = more('>'),
            has = more('<'),
            missing = total(&format!("N > 0 AND NOT ({changed})"), "N"),
            extra = total(&format!("N < 0 AND NOT ({changed})"), "-N"),
            changes = total(&format!("N > 0 AND {changed}"), "1"),
            shown = shown.join(", "),
        )
    }

    /// Removes the target's rows in these ranges; none: all rows.
    pub fn clear_ranges(&self, ranges: &[String]) -> String {
        format!("DELETE FROM {}{}", self.names.target, self.in_ranges(ranges))
    }

    /// What [`Statements::apart`] has found.
    pub fn differences(&self, rows: &Rows) -> Step<Differences> {
        let mut differences = Differences::default();
        for i in 0..rows.len() {
            let number = |name: &str| whole_number(rows, i, name);
            let lacks = rows.get(i, N).is_some_and(|n| !n.starts_with('-'));
            (differences.lacks, differences.extra) = (number(MISSING)?, number(EXTRA)?);
            differences.changed = number(CHANGED)?;
            let mut values = Map::new();
            for column in &self.columns {
                let value = rows.get(i, &column.name).map_or(Value::Null, Value::from);
                values.insert(column.name.clone(), value);
            }
            let side = if lacks { "lacks" } else { "has" };
            differences.shown.push(format!("{side} {}", Value::Object(values)));
        }
        Ok(differences)
    }
}

/// Columns of [`Statements::apart`] besides the relation's own, named as none of those is.
const N: &str = "_TIDEMILL_N";
const MISSING: &str = "_TIDEMILL_MISSING";
const EXTRA: &str = "_TIDEMILL_EXTRA";
const CHANGED: &str = "_TIDEMILL_CHANGED";

/// A sum, which may come with a point.
fn whole_number(rows: &Rows, row: usize, column: &str) -> Result<u64> {
    let text = rows.get(row, column).unwrap_or_default();
    let whole = text.split('.').next().unwrap_or_default();
    whole.parse().map_err(|_| Error::internal(format!("{column} is \"{text}\"")))
}

/// The digests in an answer to [`Statements::digests`].
pub fn read_digests(rows: &Rows) -> Result<Digests> {
    let text = |i, column| rows.get(i, column).unwrap_or_default().to_string();
    (0..rows.len()).map(|i| Ok((text(i, "R"), (rows.number(i, "N")?, text(i, "D"))))).collect()
}

/// The names of ranges that differ, in order.
pub fn differing(ours: &Digests, theirs: &Digests) -> Vec<String> {
    let mut names: Vec<String> =
        ours.keys().chain(theirs.keys()).filter(|r| ours.get(*r) != theirs.get(*r)).cloned().collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Ranges as they are asked for: none stands for all.
pub fn named(differing: Vec<String>) -> Vec<String> {
    if differing.len() > RANGES_MAX { Vec::new() } else { differing }
}

/// Which range each row is in, and the digests of the ranges.
pub fn our_digests(
    statements: &Statements,
    staged: &RecordBatch,
    digits: u32,
) -> Result<(Vec<String>, Digests)> {
    let typed = |columns: Vec<&Column>| -> Result<Vec<Values>> {
        columns.into_iter().filter(|c| text(c).is_some()).map(|c| Values::new(staged, &c.name)).collect()
    };
    let (key, all) = (typed(statements.range_columns())?, typed(statements.columns.iter().collect())?);
    let mut range_of = Vec::with_capacity(staged.num_rows());
    let mut hashes: HashMap<String, Vec<String>> = HashMap::new();
    let mut buffer = String::new();
    for row in 0..staged.num_rows() {
        let mut range = hash_row(&key, row, &mut buffer);
        range.truncate(digits as usize);
        hashes.entry(range.clone()).or_default().push(hash_row(&all, row, &mut buffer));
        range_of.push(range);
    }
    let digest = |(range, mut hashes): (String, Vec<String>)| {
        hashes.sort_unstable();
        (range, (hashes.len() as u64, hex::encode(Md5::digest(hashes.concat()))))
    };
    Ok((range_of, hashes.into_iter().map(digest).collect()))
}

fn hash_row(values: &[Values], row: usize, buffer: &mut String) -> String {
    buffer.clear();
    for values in values {
        values.write(row, buffer);
        buffer.push(';');
    }
    hex::encode(Md5::digest(&buffer))
}

/// A staged column of a type that [`text`] knows.
enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int(&'a PrimitiveArray<Int32Type>),
    Long(&'a PrimitiveArray<Int64Type>),
    Decimal(&'a Decimal128Array),
    Text(&'a StringArray),
    Bytes(&'a BinaryArray),
    Date(&'a PrimitiveArray<Date32Type>),
    Time(&'a PrimitiveArray<Time64MicrosecondType>),
    Instant(&'a PrimitiveArray<TimestampMicrosecondType>),
}

impl<'a> Values<'a> {
    fn new(staged: &'a RecordBatch, name: &str) -> Result<Values<'a>> {
        let column =
            staged.column_by_name(name).ok_or_else(|| Error::internal(format!("{name} is not staged")))?;
        let unknown = || Error::internal(format!("{name} is staged as {}", column.data_type()));
        Ok(match column.data_type() {
            DataType::Boolean => Values::Boolean(column.as_boolean()),
            DataType::Int32 => Values::Int(column.as_primitive()),
            DataType::Int64 => Values::Long(column.as_primitive()),
            DataType::Decimal128(..) => Values::Decimal(column.as_primitive()),
            DataType::Utf8 => Values::Text(column.as_string()),
            DataType::Binary => Values::Bytes(column.as_binary()),
            DataType::Date32 => Values::Date(column.as_primitive()),
            DataType::Time64(_) => Values::Time(column.as_primitive_opt().ok_or_else(unknown)?),
            DataType::Timestamp(..) => Values::Instant(column.as_primitive_opt().ok_or_else(unknown)?),
            _ => return Err(unknown()),
        })
    }

    /// The value as [`text`] has it, `N` for NULL.
    fn write(&self, row: usize, out: &mut String) {
        let is_null = match self {
            Values::Boolean(a) => a.is_null(row),
            Values::Int(a) => a.is_null(row),
            Values::Long(a) => a.is_null(row),
            Values::Decimal(a) => a.is_null(row),
            Values::Text(a) => a.is_null(row),
            Values::Bytes(a) => a.is_null(row),
            Values::Date(a) => a.is_null(row),
            Values::Time(a) => a.is_null(row),
            Values::Instant(a) => a.is_null(row),
        };
        if is_null {
            return out.push('N');
        }
        // Writing to a String cannot fail.
        let _ = match self {
            Values::Boolean(a) => out.write_str(if a.value(row) { "t" } else { "f" }),
            Values::Int(a) => write!(out, "{}", a.value(row)),
            Values::Long(a) => write!(out, "{}", a.value(row)),
            Values::Decimal(a) => {
                out.write_str(&Decimal128Type::format_decimal(a.value(row), a.precision(), a.scale()))
            }
            Values::Text(a) => write!(out, "{}:{}", a.value(row).chars().count(), a.value(row)),
            Values::Bytes(a) => out.write_str(&hex::encode_upper(a.value(row))),
            Values::Date(a) => write!(out, "{}", a.value(row)),
            Values::Time(a) => write!(out, "{}", a.value(row)),
            Values::Instant(a) => write!(out, "{}", a.value(row)),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};

    use super::*;
    use crate::connectors::snowflake::statements::Names;
    use crate::connectors::snowflake::types::{columns, encode};
    use crate::connectors::warehouse::{Shape, batch_of, schema_of};
    use arrow::datatypes::Field;

    #[test]
    fn a_range_of_equal_rows_has_one_digest_in_any_order_and_none_of_other_rows() {
        let schema = schema_of(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("name", DataType::Utf8, true),
        ]);
        let columns = columns(&schema).unwrap();
        let names = Names::new("t", uuid::Uuid::nil()).unwrap();
        let shape = Shape::new(schema.clone(), &[0], false);
        let statements = Statements::new(names, shape, columns.clone(), uuid::Uuid::nil());
        let digests = |rows: &[(i64, Option<&str>)]| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(rows.iter().map(|r| r.0)));
            let texts: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|r| r.1)));
            let rows = batch_of(schema.clone(), vec![ids, texts], rows.len()).unwrap();
            our_digests(&statements, &encode(&columns, &rows).unwrap(), 1).unwrap()
        };
        let (_, base) = digests(&[(1, Some("a")), (2, None), (3, Some("N"))]);
        assert_eq!(digests(&[(3, Some("N")), (1, Some("a")), (2, None)]).1, base);
        // MD5('1;') begins with the same digit wherever it is computed.
        let (ranges, changed) = digests(&[(1, Some("b")), (2, None), (3, Some("N"))]);
        assert_eq!(ranges[0], hex::encode(Md5::digest("1;"))[..1]);
        assert_eq!(differing(&base, &changed), [ranges[0].clone()]);
        assert_eq!(differing(&base, &digests(&[(1, Some("a")), (2, None)]).1).len(), 1);
        assert_ne!(digests(&[(2, Some("N"))]).1, digests(&[(2, None)]).1);
    }

    #[test]
    fn ranges_grow_with_the_relation() {
        assert_eq!([0, 16_000, 16_001, 1_000_000].map(range_digits), [1, 1, 2, 3]);
        assert_eq!(range_digits(usize::MAX), 5);
    }
}
