//! Sinks that are killed between any two steps of a commit: whatever the moment, the target ends up with every
//! change once. The same tests run against a directory and against a Snowflake emulator.
//!
//! The sink runs in a process of its own, this same program told so by its environment, and dies where
//! `TIDEMILL_CRASH_AT` says.

#[path = "common/fakesnow.rs"]
mod fakesnow;
#[path = "common/history.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod history;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Decimal128Type, Int64Type, TimestampMicrosecondType};
use libtest_mimic::{Arguments, Failed, Trial};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::connectors::snowflake::apply::{SinkTag, Snowflake};
use tidemill::connectors::snowflake::config::Config;
use tidemill::connectors::snowflake::statements::Names;
use tidemill::connectors::warehouse::local::{FileFormat, LocalWarehouse, read_manifest};
use tidemill::connectors::warehouse::staging::staged_rows;
use tidemill::connectors::warehouse::{Batch, Effect, Net, Op, Progress, Remedy, Shape, Warehouse};
use tidemill::connectors::{Envelope, FormatSpec, Sink, SinkDefinition, Status, StopFlag, files, snowflake};

use fakesnow::Fakesnow;
use history::{History, Kind, SNAPSHOT, batch, follow, row_text};

/// Every place between two durable steps of a commit.
const CRASH_POINTS: [&str; 9] = [
    "sink.before_put",
    "sink.put",
    "sink.begin",
    "sink.fenced",
    "sink.deleted",
    "sink.copied",
    "sink.merged",
    "sink.committed",
    "sink.recorded",
];
/// The last tick of the histories.
const END: u64 = 9;
const CHILD: &str = "TIDEMILL_TEST_SINK";

fn main() {
    if let Ok(task) = std::env::var(CHILD) {
        std::process::exit(child(&task));
    }
    let mut trials = Vec::new();
    for kind in [Kind::Keyed, Kind::Bag, Kind::Append] {
        for point in CRASH_POINTS.into_iter().chain(["sink.renaming"]) {
            // A directory has no table of changes to be cleared.
            if point != "sink.deleted" {
                trials.push(Trial::test(format!("local_{}_{point}", kind.name()), move || {
                    local_crash(kind, point)
                }));
            }
        }
        trials.push(Trial::test(format!("local_{}_many_histories", kind.name()), move || {
            local_histories(kind)
        }));
    }
    trials.push(Trial::test("local_formats", local_formats));
    trials.push(Trial::test("local_stale_writer_changes_nothing", local_stale_writer));
    trials.push(Trial::test("local_damage_is_noticed", local_damage));

    let server = Arc::new(Lazy::default());
    for kind in [Kind::Keyed, Kind::Bag, Kind::Append] {
        for point in CRASH_POINTS {
            let server = server.clone();
            let test = move || snowflake_crash(&server.get(), kind, point);
            trials.push(Trial::test(format!("snowflake_{}_{point}", kind.name()), test));
        }
    }
    for (name, test) in [
        (
            "snowflake_stale_writer_changes_nothing",
            snowflake_stale_writer as fn(&Fakesnow) -> Result<(), Failed>,
        ),
        ("snowflake_rows_that_only_grow_are_copied_straight", snowflake_straight),
        ("snowflake_existing_targets", snowflake_existing_targets),
        ("snowflake_duplicate_key_writes_nothing", snowflake_duplicate_key),
        ("snowflake_lost_progress_starts_over", snowflake_lost_progress),
        ("snowflake_late_clean_up_spares_a_new_sink", snowflake_late_clean_up),
        ("snowflake_connection", snowflake_connection),
    ] {
        let server = server.clone();
        trials.push(Trial::test(name, move || test(&server.get())));
    }
    let arguments = Arguments::from_args();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(server); // `exit` would leave the emulator running
    conclusion.exit();
}

/// One emulator for all tests, started by the first that needs it.
#[derive(Default)]
struct Lazy(std::sync::Mutex<Option<Arc<Fakesnow>>>);

impl Lazy {
    fn get(&self) -> Arc<Fakesnow> {
        let mut server = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        server.get_or_insert_with(|| Arc::new(Fakesnow::start())).clone()
    }
}

/// What a child process is to do, as one line of text.
struct Task {
    /// `files` or `snowflake`.
    sink: &'static str,
    /// The url of either.
    url: String,
    table: String,
    memory: PathBuf,
    kind: Kind,
    seed: u64,
    format: &'static str,
}

impl Task {
    fn definition(&self) -> SinkDefinition {
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let connection = match self.sink {
            "files" => pairs(&[("url", &self.url)]),
            _ => pairs(&[
                ("account", "org-test"),
                ("user", "LOADER"),
                ("password", "pw"),
                ("database", "DB"),
                ("schema", "PUBLIC"),
                ("url", &self.url),
            ]),
        };
        SinkDefinition {
            name: "s".to_string(),
            uuid: self.uuid(),
            kind: self.sink.to_string(),
            connection,
            options: pairs(&[
                ("table", &self.table),
                ("commit_interval", "0 s"),
                ("retry", "100 ms"),
                // Small files, so that a batch has several.
                ("file_size", "1024"),
            ]),
            format: (self.sink == "files")
                .then(|| FormatSpec { name: self.format.to_string(), options: Vec::new() }),
            envelope: Envelope::None,
        }
    }

    fn sink(&self) -> tidemill::Result<Box<dyn Sink>> {
        let definition = self.definition();
        match self.sink {
            "files" => files::sink(&definition, &History::schema(), &self.kind.key()),
            _ => snowflake::sink(&definition, &History::schema(), &self.kind.key()),
        }
    }

    fn history(&self) -> History {
        History::new(self.kind, self.seed, END)
    }

    fn uuid(&self) -> uuid::Uuid {
        uuid::Uuid::from_u128(u128::from(self.seed) + 1)
    }

    fn run_here(&self) -> tidemill::Result<Arc<Status>> {
        std::fs::create_dir_all(&self.memory)?;
        let status = Arc::new(Status::default());
        follow(self.sink()?, self.history(), self.uuid(), self.memory.clone(), status.clone())?;
        Ok(status)
    }

    /// Runs the sink in a process that dies at a crash point, if one is given. Whether it came to the end.
    fn run_apart(&self, crash_at: Option<String>) -> Result<bool, Failed> {
        std::fs::create_dir_all(&self.memory)?;
        let text = [
            self.sink,
            &self.url,
            &self.table,
            &self.memory.to_string_lossy(),
            self.kind.name(),
            &self.seed.to_string(),
            self.format,
        ]
        .join("\t");
        let mut command = Command::new(std::env::current_exe()?);
        command.env(CHILD, text);
        if let Some(point) = crash_at {
            command.env("TIDEMILL_CRASH_AT", point);
        }
        let output = command.output()?;
        match output.status.code() {
            Some(0) => Ok(true),
            // No code: a signal ended it.
            None => Ok(false),
            Some(code) => {
                Err(format!("exit code {code}: {}", String::from_utf8_lossy(&output.stderr)).into())
            }
        }
    }
}

fn child(task: &str) -> i32 {
    let parts: Vec<&str> = task.split('\t').collect();
    let [sink, url, table, memory, kind, seed, format] = parts[..] else { return 3 };
    let task = Task {
        sink: if sink == "files" { "files" } else { "snowflake" },
        url: url.to_string(),
        table: table.to_string(),
        memory: PathBuf::from(memory),
        kind: Kind::parse(kind),
        seed: seed.parse().expect("a seed"),
        format: if format == "parquet" { "parquet" } else { "json" },
    };
    match task.run_here() {
        Ok(_) => 0,
        Err(e) => {
            eprintln!("{e}");
            1
        }
    }
}

/// Kills a sink at some passings of a crash point, each time a new one, and lets the next process finish.
fn crash_at(
    passings: &[u64],
    task: impl Fn(u64) -> Task,
    point: &str,
    check: impl Fn(&Task, bool) -> Result<(), Failed>,
) -> Result<(), Failed> {
    for &passing in passings {
        let task = task(passing);
        if task.run_apart(Some(format!("{point}:{passing}")))? {
            return Err(format!("{point} was not passed {passing} times").into());
        }
        check(&task, false)?;
        if !task.run_apart(None)? {
            return Err("the second process was killed, too".into());
        }
        check(&task, true)?;
    }
    Ok(())
}

fn same(found: Vec<String>, expected: &[String], what: &str) -> Result<(), Failed> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: found {found:#?}\nexpected {expected:#?}").into())
}

// The directory.

fn local_task(root: &Path, kind: Kind, seed: u64) -> Task {
    Task {
        sink: "files",
        url: format!("file://{}", root.join("w").display()),
        table: "t".to_string(),
        memory: root.join("memory"),
        kind,
        seed,
        format: "parquet",
    }
}

fn table_of(task: &Task) -> PathBuf {
    PathBuf::from(task.url.trim_start_matches("file://")).join(&task.table)
}

/// The rows that any reader of Parquet finds, knowing nothing of manifests.
fn local_rows(table: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in std::fs::read_dir(table).expect("the table") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "parquet") {
            continue;
        }
        let file = std::fs::File::open(&path).expect("a file");
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("a reader");
        for batch in reader {
            rows.extend(row_texts(&batch.expect("rows")));
        }
    }
    rows.sort();
    rows
}

fn row_texts(rows: &RecordBatch) -> Vec<String> {
    let number = |name: &str| rows[name].as_primitive::<Int64Type>();
    let (k, v, name) = (number("k"), number("v"), rows["name"].as_string::<i32>());
    let (amount, flag) = (rows["amount"].as_primitive::<Decimal128Type>(), rows["flag"].as_boolean());
    let (at, doc) = (rows["at"].as_primitive::<TimestampMicrosecondType>(), rows["doc"].as_string::<i32>());
    let text = |i: usize| {
        let k = if k.is_null(i) { "NULL".to_string() } else { k.value(i).to_string() };
        let name = if name.is_null(i) { "NULL" } else { name.value(i) };
        let doc: serde_json::Value = serde_json::from_str(doc.value(i)).expect("JSON");
        format!(
            "{k}|{}|{name}|{}.{:02}|{}|{}|{}",
            v.value(i),
            amount.value(i) / 100,
            amount.value(i) % 100,
            flag.value(i),
            at.value(i),
            doc["v"]
        )
    };
    (0..rows.num_rows()).map(text).collect()
}

fn local_crash(kind: Kind, point: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    crash_at(
        &[1, 2, 3],
        |passing| local_task(&root.path().join(passing.to_string()), kind, passing),
        point,
        |task, finished| {
            let table = table_of(task);
            let Some(manifest) = read_manifest(&table)? else {
                return if finished { Err("no manifest".into()) } else { Ok(()) };
            };
            // Renames that are still to be made are made by the next to open the table.
            let settled = manifest.files.iter().all(|f| f.pending.is_none());
            if settled && manifest.generation > 0 {
                same(local_rows(&table), &task.history().model(manifest.epoch), "between")?;
            }
            if finished {
                if !settled || manifest.epoch != END {
                    return Err(format!("not finished: {manifest:?}").into());
                }
                let staged = std::fs::read_dir(table.join(".stage").join(task.uuid().to_string()))?.count();
                if staged > 1 {
                    return Err(format!("{staged} staged batches were left").into());
                }
            }
            Ok(())
        },
    )
}

fn local_histories(kind: Kind) -> Result<(), Failed> {
    for seed in 100..130 {
        let root = tempfile::tempdir()?;
        let task = local_task(root.path(), kind, seed);
        let status = task.run_here()?.get();
        same(local_rows(&table_of(&task)), &task.history().model(END), "at the end")?;
        if status.tick_committed != Some(END) || status.commits == 0 || status.freshness_micros.is_none() {
            return Err(format!("{status:?}").into());
        }
    }
    Ok(())
}

fn local_formats() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    for format in ["json", "csv"] {
        let mut task = local_task(&root.path().join(format), Kind::Append, 5);
        task.format = format;
        task.run_here()?;
        let mut lines = 0;
        for entry in std::fs::read_dir(table_of(&task))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == format) && !path.ends_with("manifest.json") {
                let text = std::fs::read_to_string(&path)?;
                lines += text.lines().count() - usize::from(format == "csv");
                if format == "json" {
                    let first: serde_json::Value =
                        serde_json::from_str(text.lines().next().unwrap_or_default())?;
                    if first["v"].as_i64().is_none() {
                        return Err(format!("{first}").into());
                    }
                }
            }
        }
        if lines != task.history().model(END).len() {
            return Err(format!("{lines} lines of {format}").into());
        }
    }
    // Rows that go away cannot be taken out of such files.
    let mut task = local_task(&root.path().join("bag"), Kind::Bag, 5);
    task.format = "json";
    match task.run_here() {
        Err(e) if e.sqlstate == tidemill::SqlState::FEATURE_NOT_SUPPORTED => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// Takes a destination to one row, then lets a writer that was opened before try to change it.
fn stale_writer(mut open: impl FnMut() -> Box<dyn Warehouse>) -> Result<(), Failed> {
    let shape = Shape::new(History::schema(), &[0], false);
    let stage = |warehouse: &mut dyn Warehouse, from: Progress, v: i64, op: Op| -> Result<Batch, Failed> {
        let rows = batch(&[(Some(1), v)]);
        let net = Net { ops: vec![op], hashes: Vec::new(), copies: Vec::new(), rows };
        let staged = staged_rows(&shape, &net, &warehouse.encode(&net.rows)?)?;
        let effect = if op == Op::Insert { Effect::Replace } else { Effect::Advance };
        let generation = from.generation + u64::from(effect == Effect::Replace);
        let to = Progress { generation, epoch: from.epoch + 1, ..from };
        let directory =
            format!("{}/g{generation}/{:020}/f{}a1/", uuid::Uuid::from_u128(1), to.epoch, from.fence);
        let mut batch = Batch { effect, from, to, directory, files: Vec::new(), counts: net.counts() };
        batch.files = warehouse.stage(&batch, &staged, 1 << 20).map_err(|f| f.error)?;
        Ok(batch)
    };
    let mut old = open();
    let at = old.open(&StopFlag::default()).map_err(|f| f.error)?;
    let first = stage(old.as_mut(), at, 1, Op::Insert)?;
    old.apply(&first).map_err(|f| f.error)?;
    // The old writer is about to write, and sleeps.
    let late = stage(old.as_mut(), first.to, 2, Op::Update)?;

    let mut new = open();
    let at = new.open(&StopFlag::default()).map_err(|f| f.error)?;
    if (at.generation, at.epoch) != (first.to.generation, first.to.epoch) || at.fence <= first.to.fence {
        return Err(format!("{at} after {}", first.to).into());
    }
    match old.apply(&late) {
        Err(failure) if failure.remedy == Remedy::Retry => {}
        other => return Err(format!("a stale writer got {other:?}").into()),
    }
    drop(old);
    // The same batch, replayed with the new fence after it was applied once, changes nothing either.
    let next = stage(new.as_mut(), at, 3, Op::Update)?;
    new.apply(&next).map_err(|f| f.error)?;
    match new.apply(&next) {
        Err(failure) if failure.remedy == Remedy::Retry => Ok(()),
        other => Err(format!("a replay got {other:?}").into()),
    }
}

fn local_stale_writer() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let table = root.path().join("t");
    stale_writer(|| {
        let shape = Shape::new(History::schema(), &[0], false);
        let uuid = uuid::Uuid::from_u128(1);
        Box::new(LocalWarehouse::new(table.clone(), uuid, shape, FileFormat::Parquet).expect("a warehouse"))
    })?;
    same(local_rows(&table), &[row_text(Some(1), 3)], "after all")
}

/// A file that somebody changed is noticed when the sink's next change does not find its row, and healed by a snapshot.
fn local_damage() -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let mut task = local_task(root.path(), Kind::Keyed, 8);
    task.run_here()?;
    let table = table_of(&task);
    let file = std::fs::read_dir(&table)?
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.extension().is_some_and(|e| e == "parquet"))
        .ok_or("no file")?;
    let empty = tidemill::connectors::warehouse::staging::parquet_bytes(&{
        let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(&file)?)?;
        RecordBatch::new_empty(reader.schema().clone())
    })?;
    std::fs::write(&file, empty)?;
    // Seed 8 goes on as seed 8 with three more ticks would; the first change of a lost row tells.
    let shape = Shape::new(History::schema(), &[0], false);
    let mut warehouse = LocalWarehouse::new(table.clone(), task.uuid(), shape.clone(), FileFormat::Parquet)?;
    let from = warehouse.open(&StopFlag::default()).map_err(|f| f.error)?;
    let net = Net {
        ops: vec![Op::Delete],
        hashes: Vec::new(),
        copies: Vec::new(),
        rows: batch(&[(Some(1_000), 7)]),
    };
    let staged = staged_rows(&shape, &net, &warehouse.encode(&net.rows)?)?;
    let to = Progress { epoch: from.epoch + 1, ..from };
    let directory = format!("{}/x/", task.uuid());
    let mut batch =
        Batch { effect: Effect::Advance, from, to, directory, files: Vec::new(), counts: net.counts() };
    batch.files = warehouse.stage(&batch, &staged, 1 << 20).map_err(|f| f.error)?;
    match warehouse.apply(&batch) {
        Err(failure) if failure.remedy == Remedy::Snapshot => {}
        other => return Err(format!("{other:?}").into()),
    }
    // What the loop does then: the next start is given a snapshot.
    task.memory = root.path().join("memory of nothing");
    task.run_here()?;
    same(local_rows(&table), &task.history().model(END), "healed")
}

// The emulator.

fn snowflake_task(server: &Fakesnow, root: &Path, table: String, kind: Kind, seed: u64) -> Task {
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

fn snowflake_rows(server: &Fakesnow, table: &str) -> Vec<String> {
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
fn snowflake_progress(server: &Fakesnow, table: &str) -> Option<(u64, u64)> {
    let there = server.query("SHOW TABLES");
    let (beginning, end) = (format!("{table}__TIDEMILL_"), "_PROGRESS");
    let names = (0..there.len()).filter_map(|i| there.get(i, "name"));
    let name = { names }.find(|name| name.starts_with(&beginning) && name.ends_with(end))?;
    let rows = server.query(&format!("SELECT GENERATION, EPOCH FROM \"{name}\""));
    (rows.len() == 1).then(|| {
        (rows.number(0, "GENERATION").expect("a number"), rows.number(0, "EPOCH").expect("a number"))
    })
}

fn snowflake_crash(server: &Fakesnow, kind: Kind, point: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // The first passing is in the snapshot.
    let passings: &[u64] = if kind == Kind::Keyed { &[1, 3] } else { &[2] };
    crash_at(
        passings,
        |passing| {
            let table = format!("T_{}_{}_{passing}", kind.name(), point.replace('.', "_")).to_uppercase();
            snowflake_task(server, &root.path().join(passing.to_string()), table, kind, passing)
        },
        point,
        |task, finished| {
            let (generation, epoch) = snowflake_progress(server, &task.table).unwrap_or((0, 0));
            if finished && epoch != END {
                return Err(format!("ended at tick {epoch}").into());
            }
            if generation > 0 {
                same(snowflake_rows(server, &task.table), &task.history().model(epoch), "rows")?;
            }
            Ok(())
        },
    )
}

fn snowflake_warehouse(server: &Fakesnow, table: &str) -> Snowflake {
    let config = Config::new(server.connection()).expect("a connection");
    let shape = Shape::new(History::schema(), &[0], false);
    let sink = SinkTag { name: "s".to_string(), uuid: uuid::Uuid::from_u128(1) };
    let names = Names::new(table, sink.uuid).expect("names");
    Snowflake::new(config, names, shape, sink, true).expect("a warehouse")
}

fn snowflake_stale_writer(server: &Fakesnow) -> Result<(), Failed> {
    stale_writer(|| Box::new(snowflake_warehouse(server, "STALE")))?;
    same(snowflake_rows(server, "STALE"), &[row_text(Some(1), 3)], "after all")
}

/// Without VARIANT columns and without a key, on a relation that only grows, the table of changes is not used.
fn snowflake_straight(server: &Fakesnow) -> Result<(), Failed> {
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
        let mut batch = Batch { effect, from, to, directory, files: Vec::new(), counts: net.counts() };
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

fn snowflake_existing_targets(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // Columns in another order and one more: what the sink needs is there.
    server.query(
        "CREATE TABLE \"FITS\" (\"V\" NUMBER(38,0), \"DOC\" VARIANT, \"NOTE\" VARCHAR, \"K\" NUMBER(38,0), \
         \"NAME\" VARCHAR, \"AT\" TIMESTAMP_LTZ, \"FLAG\" BOOLEAN, \"AMOUNT\" NUMBER(20,4))",
    );
    let task = snowflake_task(server, &root.path().join("a"), "FITS".to_string(), Kind::Keyed, 31);
    task.run_here()?;
    let count = server
        .query("SELECT COUNT(*) AS N FROM \"FITS\" WHERE \"AMOUNT\" = \"V\" * 0.07 AND \"NOTE\" IS NULL");
    if count.number(0, "N")? as usize != task.history().model(END).len() {
        return Err("rows are missing".into());
    }

    server.query("CREATE TABLE \"MISFIT\" (\"K\" VARCHAR, \"V\" NUMBER(4,0), \"NAME\" VARCHAR)");
    let task = snowflake_task(server, &root.path().join("b"), "misfit".to_string(), Kind::Keyed, 32);
    let error = task.run_here().err().ok_or("a table with other columns was taken")?;
    let detail = error.detail.unwrap_or_default();
    for part in ["K is VARCHAR", "V is NUMBER(4,0)", "AMOUNT is missing"] {
        if !detail.contains(part) {
            return Err(format!("{part} is not in: {detail}").into());
        }
    }
    Ok(())
}

fn snowflake_duplicate_key(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // A history without a key, followed as if column k were one.
    let task = snowflake_task(server, root.path(), "DUPLICATES".to_string(), Kind::Bag, 2);
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
    if status.get().error.is_none() || snowflake_progress(server, "DUPLICATES").is_none_or(|(g, _)| g > 0) {
        return Err("something was written".into());
    }
    Ok(())
}

/// Somebody drops the progress: the sink says so and begins again with a snapshot.
fn snowflake_lost_progress(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let task = snowflake_task(server, root.path(), "LOST".to_string(), Kind::Keyed, 4);
    task.run_here()?;
    task.sink()?.clean_up()?;
    if snowflake_progress(server, "LOST").is_some() {
        return Err("the progress was not removed".into());
    }
    let error = task.run_here().err().ok_or("the sink went on from nowhere")?;
    if error.sqlstate != tidemill::SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE {
        return Err(format!("{error:?}").into());
    }
    task.run_here()?;
    same(snowflake_rows(server, "LOST"), &task.history().model(END), "again")?;
    match snowflake_progress(server, "LOST") {
        Some((1, END)) if END > SNAPSHOT => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}

/// What an old sink left is removed only when another one, of the same name, keeps the same table.
fn snowflake_late_clean_up(server: &Fakesnow) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let task = |seed: u64| {
        let root = root.path().join(seed.to_string());
        snowflake_task(server, &root, "LATE".to_string(), Kind::Keyed, seed)
    };
    let (old, new) = (task(41), task(42));
    old.run_here()?;
    new.run_here()?;
    old.sink()?.clean_up()?;
    if snowflake_progress(server, "LATE") != Some((1, END)) {
        return Err("the new sink's progress is gone".into());
    }
    new.run_here()?;
    same(snowflake_rows(server, "LATE"), &new.history().model(END), "of the new sink")
}

fn snowflake_connection(server: &Fakesnow) -> Result<(), Failed> {
    snowflake::validate_connection(server.connection())?;
    let mut nowhere = server.connection();
    nowhere.retain(|(name, _)| name != "url");
    nowhere.push(("url".to_string(), "ftp://x".to_string()));
    match snowflake::validate_connection(nowhere) {
        Err(e) if e.sqlstate == tidemill::SqlState::INVALID_PARAMETER_VALUE => Ok(()),
        other => Err(format!("{other:?}").into()),
    }
}
