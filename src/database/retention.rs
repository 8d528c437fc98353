//! How long bad records are kept in `tidemill.errors`: so many, so large, so old. The oldest go first.

use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::array::{AsArray, BooleanArray};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use parking_lot::Mutex;

use crate::config::Config;
use crate::database::{Database, system};
use crate::engine::{Delta, Engine, InputChange, Transaction};
use crate::error::Result;
use crate::world;

/// How often to look whether there are too many.
const LOOK: Duration = Duration::from_millis(500);
/// How often to look whether some are too old.
const LOOK_FOR_OLD: Duration = Duration::from_secs(60);
/// How often to look whether the database is closed.
const POLL: Duration = Duration::from_millis(50);

/// The bounds, as configured.
struct Bounds {
    rows: u64,
    bytes: u64,
    age_micros: i64,
}

/// Keeps the errors within their bounds, on a thread of its own, for as long as the database is open.
///
/// # Errors
/// The thread cannot be started.
pub(super) fn start(database: &Arc<Database>) -> Result<()> {
    let Config { errors_rows, errors_bytes, errors_hours, .. } = database.config;
    let age_micros = i64::try_from(errors_hours.saturating_mul(3_600_000_000)).unwrap_or(i64::MAX);
    let bounds = Bounds { rows: errors_rows, bytes: errors_bytes, age_micros };
    let (open, engine, alone) =
        (Arc::downgrade(database), database.engine.clone(), Arc::clone(&database.errors));
    let work = move || run(&open, &engine, &alone, &bounds);
    std::thread::Builder::new().name("errors".into()).spawn(work)?;
    Ok(())
}

fn run(open: &Weak<Database>, engine: &Engine, alone: &Mutex<()>, bounds: &Bounds) {
    let (mut seen, mut looked) = (None, world::instant());
    loop {
        let until = world::instant() + LOOK;
        while world::instant() < until {
            if open.strong_count() == 0 {
                return;
            }
            world::sleep(POLL);
        }
        let rows = engine.snapshot().collection(system::ERRORS).map(|c| c.num_rows());
        if rows == seen && world::instant() - looked < LOOK_FOR_OLD {
            continue;
        }
        looked = world::instant();
        match trim(engine, alone, bounds) {
            Ok(()) => seen = rows,
            // The engine may be about to stop; else the next look tells.
            Err(error) => tracing::warn!(%error, "bad records could not be taken out of tidemill.errors"),
        }
    }
}

/// Takes out what is beyond the bounds.
fn trim(engine: &Engine, alone: &Mutex<()>, bounds: &Bounds) -> Result<()> {
    let _alone = alone.lock();
    let errors = concat_batches(&system::errors_schema(), &system::stored_errors(engine)?)?;
    let at = errors.column(6).as_primitive::<TimestampMicrosecondType>();
    let size = |row: usize| {
        let bytes = [4, 7].map(|c| errors.column(c).as_binary::<i32>().value(row).len());
        let texts = [3, 5, 8].map(|c| errors.column(c).as_string_view().value(row).len());
        bytes.iter().chain(&texts).sum::<usize>() as u64
    };
    let mut newest: Vec<usize> = (0..errors.num_rows()).collect();
    newest.sort_by_key(|row| std::cmp::Reverse(at.value(*row)));
    let oldest = world::now_micros().saturating_sub(bounds.age_micros);
    let (mut bytes, mut gone) = (0u64, vec![false; errors.num_rows()]);
    for (n, row) in newest.into_iter().enumerate() {
        bytes = bytes.saturating_add(size(row));
        if let Some(gone) = gone.get_mut(row) {
            *gone = n as u64 >= bounds.rows || bytes > bounds.bytes || at.value(row) < oldest;
        }
    }
    let gone = filter_record_batch(&errors, &BooleanArray::from(gone))?;
    if gone.num_rows() > 0 {
        let changes = vec![(system::ERRORS, InputChange::Delta(Delta::delete(gone)))];
        engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
    }
    Ok(())
}
