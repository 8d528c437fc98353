//! The relations of schema `tidemill` in Prometheus' text format.
//!
//! Every number, time or interval in a column of an object's row is one metric, called by relation and column and
//! labelled with the object's name: what SQL shows and what the metrics show cannot differ.

use std::collections::BTreeMap;
use std::fmt::Write;

use arrow::array::types::{Int64Type, IntervalMonthDayNanoType, TimestampMicrosecondType};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use futures::TryStreamExt;

use crate::database::{Outcome, Session};
use crate::error::Result;

/// Relations with a row for each object, and what their metrics begin with.
const OBJECTS: [(&str, &str); 4] = [
    ("sources", "tidemill_source"),
    ("sinks", "tidemill_sink"),
    ("materialized_views", "tidemill_view"),
    ("tables", "tidemill_table"),
];

/// Metrics by name: each with its samples, as they are to be printed after the name.
type Metrics = BTreeMap<String, Vec<String>>;

/// Everything there is to know now.
pub async fn render(session: &mut Session) -> Result<String> {
    let mut metrics = Metrics::new();
    for (relation, prefix) in OBJECTS {
        for batch in read(session, &format!("SELECT * FROM tidemill.{relation}")).await? {
            objects(prefix, &batch, &mut metrics)?;
        }
    }
    for batch in read(session, "SELECT name, value FROM tidemill.status").await? {
        status(&batch, &mut metrics)?;
    }
    let mut text = String::new();
    for (name, samples) in metrics {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# TYPE {name} gauge");
        for sample in samples {
            let _ = writeln!(text, "{name}{sample}");
        }
    }
    Ok(text)
}

async fn read(session: &mut Session, sql: &str) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::new();
    let mut outcome = session.simple(sql).await?;
    while let Some(answer) = outcome {
        if let Outcome::Rows { stream, .. } = answer {
            batches.extend(stream.try_collect::<Vec<_>>().await?);
        }
        outcome = session.simple_next().await?;
    }
    Ok(batches)
}

/// One metric for every column of numbers, one sample for every object.
fn objects(prefix: &str, batch: &RecordBatch, metrics: &mut Metrics) -> Result<()> {
    let Some(names) = batch.column_by_name("name") else { return Ok(()) };
    let names = cast(names, &DataType::Utf8View)?;
    let names = names.as_string_view();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        if field.name() == "id" {
            continue;
        }
        let mut samples = Vec::new();
        for row in (0..batch.num_rows()).filter(|row| column.is_valid(*row)) {
            let name = label(names.value(row));
            if field.name() == "status" {
                let states = cast(column, &DataType::Utf8View)?;
                let state = label(states.as_string_view().value(row));
                samples.push(format!("{{name=\"{name}\",status=\"{state}\"}} 1"));
            } else if let Some(value) = number(column, row) {
                samples.push(format!("{{name=\"{name}\"}} {value}"));
            }
        }
        if !samples.is_empty() {
            let unit = match column.data_type() {
                DataType::Interval(_) | DataType::Timestamp(..) => "_seconds",
                _ => "",
            };
            metrics.entry(format!("{prefix}_{}{unit}", field.name())).or_default().extend(samples);
        }
    }
    Ok(())
}

/// Names and values; the values that are numbers.
fn status(batch: &RecordBatch, metrics: &mut Metrics) -> Result<()> {
    let text = |i: usize| cast(batch.column(i), &DataType::Utf8View);
    let (names, values) = (text(0)?, text(1)?);
    let (names, values) = (names.as_string_view(), values.as_string_view());
    for row in 0..batch.num_rows() {
        if let Ok(value) = values.value(row).parse::<u64>() {
            metrics.entry(format!("tidemill_{}", names.value(row))).or_default().push(format!(" {value}"));
        }
    }
    Ok(())
}

/// A value as a metric's: numbers as they are, times in seconds since 1970, intervals in seconds.
fn number(column: &dyn Array, row: usize) -> Option<f64> {
    match column.data_type() {
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row) as f64),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Some(column.as_primitive::<TimestampMicrosecondType>().value(row) as f64 / 1e6)
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let (months, days, nanos) = IntervalMonthDayNanoType::to_parts(
                column.as_primitive::<IntervalMonthDayNanoType>().value(row),
            );
            // A month counts 30 days, as where PostgreSQL compares intervals.
            Some((f64::from(months) * 30.0 + f64::from(days)) * 86_400.0 + nanos as f64 / 1e9)
        }
        _ => None,
    }
}

/// A label's value, escaped.
fn label(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, IntervalMonthDayNanoArray, StringViewArray};
    use arrow::datatypes::{IntervalMonthDayNano, Schema};

    use super::*;
    use crate::types::SqlType;

    #[test]
    fn columns_of_numbers_become_metrics() {
        let schema = Schema::new(vec![
            SqlType::Int8.field("id", false),
            SqlType::Text.field("name", false),
            SqlType::Text.field("status", true),
            SqlType::Int8.field("rows", true),
            SqlType::Interval.field("freshness", true),
            SqlType::Text.field("error", true),
        ]);
        let interval = IntervalMonthDayNano::new(0, 1, 1_500_000_000);
        let batch = RecordBatch::try_new(
            Arc::new(schema),
            vec![
                Arc::new(Int64Array::from(vec![1, 2])),
                Arc::new(StringViewArray::from(vec!["a", "say \"b\""])),
                Arc::new(StringViewArray::from(vec![Some("running"), None])),
                Arc::new(Int64Array::from(vec![Some(7), None])),
                Arc::new(IntervalMonthDayNanoArray::from(vec![None, Some(interval)])),
                Arc::new(StringViewArray::from(vec![None, Some("broken")])),
            ],
        )
        .unwrap();
        let mut metrics = Metrics::new();
        objects("tidemill_sink", &batch, &mut metrics).unwrap();
        let expected = [
            ("tidemill_sink_freshness_seconds", "{name=\"say \\\"b\\\"\"} 86401.5"),
            ("tidemill_sink_rows", "{name=\"a\"} 7"),
            ("tidemill_sink_status", "{name=\"a\",status=\"running\"} 1"),
        ];
        let found: Vec<_> =
            metrics.iter().map(|(name, samples)| (name.as_str(), samples.join(" "))).collect();
        assert_eq!(found, expected.map(|(name, sample)| (name, sample.to_string())));
    }
}
