//! EXPLAIN CREATE SINK: what a sink would do, and how much of it in an hour, before there is one.

use crate::connectors::registry;
use crate::connectors::warehouse::{Form, Mode, Rhythm, Shape};
use crate::database::objects::sink::new_sink;
use crate::database::{Database, Session, connect};
use crate::error::{Error, Result};
use crate::sql::Catalog;
use crate::sql::ast::CreateSink;
use crate::world;

/// So many rows are looked at for how long one is.
const SAMPLE_ROWS: usize = 10_000;
/// Nothing can be said of how often rows change after less time than this, in seconds.
const MEASURED_SECONDS_MIN: f64 = 1.0;

impl Session {
    /// The lines that say what a sink would do. Every option is checked as CREATE SINK does; nothing is made or asked.
    pub(crate) async fn explain_sink(&mut self, create: &CreateSink) -> Result<String> {
        let (create, catalog) = (create.clone(), self.catalog());
        self.database.blocking(move |db| explain(db, &catalog, &create)).await
    }
}

/// What is known of the relation that a sink would follow.
struct Relation {
    rows: usize,
    /// Of one row, in the form in which it is sent.
    row_bytes: f64,
    /// Changed rows in an hour, and for how many seconds they were counted; `None`: for too short.
    changes: Option<(f64, f64)>,
}

fn explain(database: &Database, catalog: &Catalog, create: &CreateSink) -> Result<String> {
    let sink = new_sink(catalog, create)?;
    let definition = connect::sink_definition(catalog, &create.name.name, &sink)?;
    let (from, schema) = connect::followed_schema(catalog, &sink)?;
    let key = connect::sink_key(&sink, &schema)?;
    let made = registry::sink(&definition, &schema, &key)?;
    let rhythm = made
        .rhythm()
        .ok_or_else(|| Error::unsupported(format!("EXPLAIN of a {} sink", create.kind.to_uppercase())))?;
    let shape = Shape::new(schema, &key, definition.append_only);
    let relation = relation(database, sink.from, &rhythm)?;

    let target = made.target().map_or(String::new(), |target| format!(": {target}"));
    let mut lines = vec![format!("Sink from {} into {}{target}", from.name, create.kind.to_uppercase())];
    let told = match &shape.mode {
        Mode::Keyed(_) => {
            format!("by ({}); a change replaces or removes the row of its key", sink.key.join(", "))
        }
        Mode::Bag => "by what they hold and a number; each copy comes and goes by itself".to_string(),
        Mode::Append => "not at all: the relation only grows, and rows are added".to_string(),
    };
    lines.push(format!("  rows are told apart: {told}"));
    let bytes = relation.rows as f64 * relation.row_bytes;
    lines.push(format!(
        "  first commit: {} rows, about {} in {} files",
        relation.rows,
        amount(bytes),
        files(&rhythm, relation.rows as f64, bytes)
    ));
    lines.push(format!(
        "  a commit at most every {:?}, or when {} of changes wait",
        rhythm.settings.commit_interval,
        amount(rhythm.settings.batch_bytes as f64)
    ));
    match relation.changes {
        None => lines.push("  an hour: the server has not run for long enough to tell".to_string()),
        Some((changes, seconds)) => {
            lines.push(format!(
                "  an hour, as in the last {seconds:.0} s, before changes of one row are merged:"
            ));
            let (commits, bytes) =
                (commits(&rhythm, changes, relation.row_bytes), changes * relation.row_bytes);
            lines.push(format!("    {changes:.0} changes, at most {commits:.0} commits"));
            let each = if commits > 0.0 { files(&rhythm, changes / commits, bytes / commits) } else { 0 };
            lines.push(format!("    about {} in at most {:.0} files", amount(bytes), commits * each as f64));
        }
    }
    Ok(lines.join("\n"))
}

/// Commits in an hour: no more than there are changes, than intervals pass, or, when much comes, than batches are full.
fn commits(rhythm: &Rhythm, changes: f64, row_bytes: f64) -> f64 {
    let interval = rhythm.settings.commit_interval.as_secs_f64();
    let by_time = if interval > 0.0 { 3_600.0 / interval } else { f64::INFINITY };
    let by_size = changes * row_bytes / rhythm.settings.batch_bytes as f64;
    by_time.max(by_size).min(changes).ceil()
}

/// Files of one commit.
fn files(rhythm: &Rhythm, rows: f64, bytes: f64) -> u64 {
    let each = match rhythm.form {
        Form::Parquet => bytes / rhythm.settings.file_bytes as f64,
        Form::Rows(Some(rows_max)) => rows / rows_max as f64,
        Form::Rows(None) => 1.0,
    };
    if rows > 0.0 { each.ceil().max(1.0) as u64 } else { 0 }
}

fn relation(database: &Database, from: crate::sql::ObjectId, rhythm: &Rhythm) -> Result<Relation> {
    let snapshot = database.engine.snapshot();
    let collection = snapshot.collection(from.collection());
    let mut row_bytes = 0.0;
    let mut rows = 0;
    if let Some(collection) = collection.filter(|c| c.keeps_rows()) {
        rows = collection.num_rows();
        let sample = collection.batches()?.into_iter().find(|b| b.num_rows() > 0);
        if let Some(sample) = sample {
            let sample = sample.slice(0, sample.num_rows().min(SAMPLE_ROWS));
            row_bytes = rhythm.form.bytes_of(&sample)? as f64 / sample.num_rows() as f64;
        }
    }
    let seconds = (world::instant() - database.opened_at).as_secs_f64();
    let stats = database.engine.stats();
    let changed = stats.collections.iter().find(|c| c.id == from.collection()).map_or(0, |c| c.rows_out);
    let changes = (seconds >= MEASURED_SECONDS_MIN).then_some((changed as f64 / seconds * 3_600.0, seconds));
    Ok(Relation { rows, row_bytes, changes })
}

/// Bytes for people.
fn amount(bytes: f64) -> String {
    let units = ["bytes", "kB", "MB", "GB", "TB"];
    let mut left = bytes;
    let mut unit = 0;
    while left >= 10_000.0 && unit + 1 < units.len() {
        left /= 1_000.0;
        unit += 1;
    }
    format!("{left:.0} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::connectors::warehouse::Settings;

    fn rhythm(interval: u64, form: Form) -> Rhythm {
        let settings = Settings {
            commit_interval: Duration::from_secs(interval),
            batch_bytes: 1_000_000,
            file_bytes: 100_000,
            retry: Duration::from_secs(1),
        };
        Rhythm { settings, form }
    }

    #[test]
    fn an_hour_has_as_many_commits_as_intervals_changes_or_full_batches() {
        let minute = rhythm(60, Form::Parquet);
        assert_eq!(commits(&minute, 1e6, 10.0), 60.0);
        assert_eq!(commits(&minute, 7.0, 10.0), 7.0);
        assert_eq!(commits(&minute, 1e9, 10.0), 10_000.0);
        assert_eq!(commits(&rhythm(0, Form::Parquet), 50.0, 1.0), 50.0);
        assert_eq!(files(&minute, 5_000.0, 450_000.0), 5);
        assert_eq!(files(&rhythm(1, Form::Rows(Some(1_000))), 2_001.0, 1.0), 3);
        assert_eq!(files(&minute, 0.0, 0.0), 0);
        assert_eq!(amount(9_345_678.0), "9346 kB");
        assert_eq!(amount(12_345_678.0), "12 MB");
    }
}
