//! The Snowflake emulator.

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Failed;
use tidemill::connectors::snowflake::apply::{SinkTag, Snowflake};
use tidemill::connectors::snowflake::config::Config;
use tidemill::connectors::snowflake::statements::Names;
use tidemill::connectors::warehouse::staging::staged_rows;
use tidemill::connectors::warehouse::{Batch, Effect, Net, Op, Progress, Shape, Warehouse};
use tidemill::connectors::{Status, StopFlag, snowflake};

use super::fakesnow::Fakesnow;
use super::history::{History, Kind, SNAPSHOT, batch, follow, row_text};
use super::{END, Task, crash_at, same};

fn task(server: &Fakesnow, root: &Path, table: String, kind: Kind, seed: u64) -> Task {
    Task {
        sink: "snowflake",
        url: server.url.clone(),
        table,
        memory: root.join("memory"),
        kind,
        seed,
        format: "",
    }
}

fn rows(server: &Fakesnow, table: &str) -> Vec<String> {
    let rows = server.query(&format!(
        "SELECT \"K\", \"V\", \"NAME\", \"AMOUNT\"::VARCHAR AS AMOUNT, \"FLAG\"::VARCHAR AS FLAG, \
         DATE_PART(EPOCH_MICROSECOND, \"AT\") AS A, \"DOC\":v::INT AS D FROM \"{table}\""
    ));
    let mut texts: Vec<String> = (0..rows.len())
        .map(|i| {
            let columns = ["K", "V", "NAME", "AMOUNT", "FLAG", "A", "D"];
            columns.map(|c| rows.get(i, c).unwrap_or("NULL").to_string()).join("|")
        })
        .collect();
    texts.sort();
    texts
}

/// Generation and tick of a sink's progress row.
fn progress(server: &Fakesnow, table: &str) -> Option<(u64, u64)> {
    let there = server.query("SHOW TABLES");
    let (beginning, end) = (format!("{table}__TIDEMILL_"), "_PROGRESS");
    let names = (0..there.len()).filter_map(|i| there.get(i, "name"));
    let name = { names }.find(|name| name.starts_with(&beginning) && name.ends_with(end))?;
    let rows = server.query(&format!("SELECT GENERATION, EPOCH FROM \"{name}\""));
    (rows.len() == 1).then(|| {
        (rows.number(0, "GENERATION").expect("a number"), rows.number(0, "EPOCH").expect("a number"))
    })
}

pub fn crash(server: &Fakesnow, kind: Kind, point: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // The first passing is in the snapshot.
    let passings: &[u64] = if kind == Kind::Keyed { &[1, 3] } else { &[2] };
    crash_at(
        passings,
        |passing| {
            let table = format!("T_{}_{}_{passing}", kind.name(), point.replace('.', "_")).to_uppercase();
            task(server, &root.path().join(passing.to_string()), table, kind, passing)
        },
        point,
        |task, finished| {
            let (generation, epoch) = progress(server, &task.table).unwrap_or((0, 0));
            if finished && epoch != END {
                return Err(format!("ended at tick {epoch}").into());
            }
            if generation > 0 {
                same(rows(server, &task.table), &task.history().model(epoch), "rows")?;
            }
            Ok(())
        },
    )
}

fn warehouse(server: &Fakesnow, table: &str) -> Snowflake {
    let config = Config::new(server.connection()).expect("a connection");
    let shape = Shape::new(History::schema(), &[0], false);
    let sink = SinkTag { name: "s".to_string(), uuid: uuid::Uuid::from_u128(1) };
    let names = Names::new(table, sink.uuid).expect("names");
    Snowflake::new(config, names, shape, sink, true).expect("a warehouse")
}

pub fn stale_writer(server: &Fakesnow) -> Result<(), Failed> {
    super::stale_writer(|| Box::new(warehouse(server, "STALE")))?;
    same(rows(server, "STALE"), &[row_text(Some(1), 3)], "after all")
}

/// Without VARIANT columns and without a key, on a relation that only grows, the table of changes is not used.
pub fn straight(server: &Fakesnow) -> Result<(), Failed> {
    let plain = [0, 1, 2, 3, 4];
    let shape = Shape::new(Arc::new(History::schema().project(&plain)?), &[], true);
    let config = Config::new(server.connection())?;
    let uuid = uuid::Uuid::from_u128(2);
    let names = Names::new("STRAIGHT", uuid)?;
    let changes = names.changes.clone();
    let sink = SinkTag { name: "s".to_string(), uuid };
    let mut warehouse = Snowflake::new(config, names, shape.clone(), sink, true)?;
    let mut from = warehouse.open(&StopFlag::default()).map_err(|f| f.error)?;
    for (effect, count) in
        [(Effect::Replace, 5), (Effect::Advance, 7), (Effect::Advance, 2), (Effect::Replace, 3)]
    {
        let shorts: Vec<_> = (0..count).map(|k| (Some(k), k)).collect();
        let rows = batch(&shorts).project(&plain)?;
        let net =
            Net { ops: vec![Op::Insert; rows.num_rows()], hashes: Vec::new(), copies: Vec::new(), rows };
        let staged = staged_rows(&shape, &net, &warehouse.encode(&net.rows)?)?;
        let generation = from.generation + u64::from(effect == Effect::Replace);
        let to = Progress { generation, epoch: from.epoch + 1, ..from };
        let directory = format!("{uuid}/g{generation}/{}/", to.epoch);
        let mut batch = Batch {
            effect,
            from,
            to,
            directory,
            files: Vec::new(),
            ranges: Vec::new(),
            counts: net.counts(),
        };
        batch.files = warehouse.stage(&batch, &staged, 1 << 10).map_err(|f| f.error)?;
        warehouse.apply(&batch).map_err(|f| f.error)?;
        from = to;
        let expected = match to.epoch {
            1 => 5,
            2 => 12,
            3 => 14,
            _ => 3,
        };
        if server.query("SELECT COUNT(*) AS N FROM \"STRAIGHT\"").number(0, "N")? != expected {
            return Err(format!("not {expected} rows after tick {}", to.epoch).into());
        }
    }
    let changes = server.query(&format!("SELECT COUNT(*) AS N FROM {changes}"));
    if changes.number(0, "N")? > 0 {
        return Err("the table of changes was used".into());
    }
    Ok(())
}

pub fn existing_targets(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // Columns in another order and one more: what the sink needs is there.
    server.query(
        "CREATE TABLE \"FITS\" (\"V\" NUMBER(38,0), \"DOC\" VARIANT, \"NOTE\" VARCHAR, \"K\" NUMBER(38,0), \
         \"NAME\" VARCHAR, \"AT\" TIMESTAMP_LTZ, \"FLAG\" BOOLEAN, \"AMOUNT\" NUMBER(20,4))",
    );
    let fits = task(server, &root.path().join("a"), "FITS".to_string(), Kind::Keyed, 31);
    fits.run_here()?;
    let count = server
        .query("SELECT COUNT(*) AS N FROM \"FITS\" WHERE \"AMOUNT\" = \"V\" * 0.07 AND \"NOTE\" IS NULL");
    if count.number(0, "N")? as usize != fits.history().model(END).len() {
        return Err("rows are missing".into());
    }

    server.query("CREATE TABLE \"MISFIT\" (\"K\" VARCHAR, \"V\" NUMBER(4,0), \"NAME\" VARCHAR)");
    let misfit = task(server, &root.path().join("b"), "misfit".to_string(), Kind::Keyed, 32);
    let error = misfit.run_here().err().ok_or("a table with other columns was taken")?;
    let detail = error.detail.unwrap_or_default();
    for part in ["K is VARCHAR", "V is NUMBER(4,0)", "AMOUNT is missing"] {
        if !detail.contains(part) {
            return Err(format!("{part} is not in: {detail}").into());
        }
    }
    Ok(())
}

pub fn duplicate_key(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // A history without a key, followed as if column k were one.
    let task = task(server, root.path(), "DUPLICATES".to_string(), Kind::Bag, 2);
    let keyed = snowflake::sink(&task.definition(), &History::schema(), &[0])?;
    let mut history = task.history();
    history.kind = Kind::Keyed;
    std::fs::create_dir_all(&task.memory)?;
    let status = Arc::new(Status::default());
    let error = follow(keyed, history, task.uuid(), task.memory.clone(), status.clone())
        .err()
        .ok_or("a key that is none was taken")?;
    if error.sqlstate != tidemill::SqlState::UNIQUE_VIOLATION || status.get().state != "failed" {
        return Err(format!("{error:?} {:?}", status.get()).into());
    }
    if status.get().error.is_none() || progress(server, "DUPLICATES").is_none_or(|(g, _)| g > 0) {
        return Err("something was written".into());
    }
    Ok(())
}

/// Somebody drops the progress: the sink says so and begins again with a snapshot.
pub fn lost_progress(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let task = task(server, root.path(), "LOST".to_string(), Kind::Keyed, 4);
    task.run_here()?;
    task.sink()?.clean_up()?;
    if progress(server, "LOST").is_some() {
        return Err("the progress was not removed".into());
    }
    let error = task.run_here().err().ok_or("the sink went on from nowhere")?;
    if error.sqlstate != tidemill::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE {
        return Err(format!("{error:?}").into());
    }
    task.run_here()?;
    same(rows(server, "LOST"), &task.history().model(END), "again")?;
    match progress(server, "LOST") {
        Some((1, END)) if END > SNAPSHOT => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// What an old sink left is removed only when another one, of the same name, keeps the same table.
pub fn late_clean_up(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let task = |seed: u64| {
        let root = root.path().join(seed.to_string());
        task(server, &root, "LATE".to_string(), Kind::Keyed, seed)
    };
    let (old, new) = (task(41), task(42));
    old.run_here()?;
    new.run_here()?;
    old.sink()?.clean_up()?;
    if progress(server, "LATE") != Some((1, END)) {
        return Err("the new sink's progress is gone".into());
    }
    new.run_here()?;
    same(rows(server, "LATE"), &new.history().model(END), "of the new sink")
}

pub fn connection(server: &Fakesnow) -> Result<(), Failed> {
    snowflake::validate_connection(server.connection())?;
    let mut nowhere = server.connection();
    nowhere.retain(|(name, _)| name != "url");
    nowhere.push(("url".to_string(), "ftp://x".to_string()));
    match snowflake::validate_connection(nowhere) {
        Err(e) if e.sqlstate == tidemill::SqlState::INVALID_PARAMETER_VALUE => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
