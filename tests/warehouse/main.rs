//! Sinks that are killed between any two steps of a commit: whatever the moment, the target ends up with every
//! change once. The same tests run against a directory, a Snowflake emulator and a PostgreSQL server.
//!
//! The sink runs in a process of its own, this same program told so by its environment, and dies where
//! `TIDEMILL_CRASH_AT` says.

#[path = "../common/fakesnow.rs"]
mod fakesnow;
#[path = "../common/history.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod history;
mod local;
mod postgres;
#[path = "../common/postgres.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod server;
mod snowflake;
mod snowpipe;
mod streaming;
#[path = "../common/mock_streaming.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod streaming_server;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use libtest_mimic::{Arguments, Failed, Trial};
use tidemill::connectors::warehouse::staging::staged_rows;
use tidemill::connectors::warehouse::{Batch, Effect, Net, Op, Progress, Remedy, Shape, Warehouse};
use tidemill::connectors::{Envelope, FormatSpec, Sink, SinkDefinition, Status, StopFlag, registry};

use fakesnow::Fakesnow;
use history::{History, Kind, batch, follow};
use server::Postgres;

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
                    local::crash(kind, point)
                }));
            }
        }
        trials.push(Trial::test(format!("local_{}_many_histories", kind.name()), move || {
            local::histories(kind)
        }));
    }
    trials.push(Trial::test("local_formats", local::formats));
    trials.push(Trial::test("local_stale_writer_changes_nothing", local::stale_writer));
    trials.push(Trial::test("local_damage_is_noticed", local::damage));

    let server = Arc::new(Lazy::new(Fakesnow::start));
    for kind in [Kind::Keyed, Kind::Bag, Kind::Append] {
        for point in CRASH_POINTS {
            let server = server.clone();
            let test = move || snowflake::crash(&server.get(), kind, point);
            trials.push(Trial::test(format!("snowflake_{}_{point}", kind.name()), test));
        }
    }
    for (name, test) in [
        (
            "snowflake_stale_writer_changes_nothing",
            snowflake::stale_writer as fn(&Fakesnow) -> Result<(), Failed>,
        ),
        ("snowflake_rows_that_only_grow_are_copied_straight", snowflake::straight),
        ("snowflake_existing_targets", snowflake::existing_targets),
        ("snowflake_duplicate_key_writes_nothing", snowflake::duplicate_key),
        ("snowflake_lost_progress_starts_over", snowflake::lost_progress),
        ("snowflake_late_clean_up_spares_a_new_sink", snowflake::late_clean_up),
        ("snowflake_connection", snowflake::connection),
    ] {
        let server = server.clone();
        trials.push(Trial::test(name, move || test(&server.get())));
    }
    for point in streaming::CRASH_POINTS {
        trials.push(Trial::test(format!("streaming_{point}"), move || streaming::crash(point)));
    }
    for point in snowpipe::CRASH_POINTS {
        trials.push(Trial::test(format!("snowpipe_{point}"), move || snowpipe::crash(point)));
    }
    for (name, test) in [
        ("snowpipe_faults_lose_and_double_nothing", snowpipe::faults as fn() -> Result<(), Failed>),
        ("snowpipe_names_and_objects", snowpipe::names),
        ("snowpipe_refused_rows_are_told", snowpipe::refused),
        ("snowpipe_auto_ingest", snowpipe::auto_ingest),
        ("snowpipe_what_cannot_be_is_refused", snowpipe::refusals),
    ] {
        trials.push(Trial::test(name, test));
    }
    for (name, test) in [
        ("streaming_faults_lose_and_double_nothing", streaming::faults as fn() -> Result<(), Failed>),
        ("streaming_tokens_and_commits", streaming::tokens),
        ("streaming_writer_that_is_shut_out_says_so", streaming::fenced),
        ("streaming_refused_rows_are_told", streaming::refused),
        ("streaming_existing_targets", streaming::existing_rows),
        ("streaming_forgotten_channel", streaming::forgotten_channel),
        ("streaming_clock_that_is_wrong", streaming::wrong_clock),
        ("streaming_what_cannot_be_is_refused", streaming::refusals),
    ] {
        trials.push(Trial::test(name, test));
    }
    let database = Arc::new(Lazy::new(Postgres::start));
    for kind in [Kind::Keyed, Kind::Bag, Kind::Append] {
        // What is copied is staged; there is nothing to load in the transaction.
        for point in CRASH_POINTS.into_iter().filter(|p| *p != "sink.copied") {
            let database = database.clone();
            let test = move || postgres::crash(&database.get(), kind, point);
            trials.push(Trial::test(format!("postgres_{}_{point}", kind.name()), test));
        }
        let database = database.clone();
        let test = move || postgres::histories(&database.get(), kind);
        trials.push(Trial::test(format!("postgres_{}_many_histories", kind.name()), test));
    }
    for (name, test) in [
        (
            "postgres_stale_writer_changes_nothing",
            postgres::stale_writer as fn(&Postgres) -> Result<(), Failed>,
        ),
        ("postgres_session_that_holds_the_progress_is_ended", postgres::held_progress),
        ("postgres_existing_targets", postgres::existing_targets),
        ("postgres_rows_that_somebody_else_changed_are_noticed", postgres::parted),
        ("postgres_clean_up", postgres::clean_up),
    ] {
        let database = database.clone();
        trials.push(Trial::test(name, move || test(&database.get())));
    }
    let arguments = Arguments::from_args();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // `exit` would leave them running.
    drop(server);
    drop(database);
    conclusion.exit();
}

/// One server for all tests, started by the first that needs it.
struct Lazy<T>(std::sync::Mutex<Option<Arc<T>>>, fn() -> T);

impl<T> Lazy<T> {
    fn new(start: fn() -> T) -> Self {
        Lazy(std::sync::Mutex::default(), start)
    }

    fn get(&self) -> Arc<T> {
        let mut server = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        server.get_or_insert_with(|| Arc::new((self.1)())).clone()
    }
}

/// What a child process is to do, as one line of text.
struct Task {
    /// `files`, `snowflake`, `postgres`, `streaming` or `snowpipe`.
    sink: &'static str,
    /// The url, or a server's port.
    url: String,
    table: String,
    memory: PathBuf,
    kind: Kind,
    seed: u64,
    /// FORMAT of files; how a streaming sink differs from the others.
    format: &'static str,
}

impl Task {
    fn definition(&self) -> SinkDefinition {
        let pairs =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        let connection = match self.sink {
            "files" => pairs(&[("url", &self.url)]),
            "postgres" => pairs(&[
                ("host", "127.0.0.1"),
                ("port", &self.url),
                ("user", "postgres"),
                ("database", "postgres"),
            ]),
            "streaming" | "snowpipe" => streaming::connection(&self.url),
            _ => pairs(&[
                ("account", "org-test"),
                ("user", "LOADER"),
                ("password", "pw"),
                ("database", "DB"),
                ("schema", "PUBLIC"),
                ("url", &self.url),
            ]),
        };
        let mut connection: Vec<(String, String)> = connection;
        let mut options: Vec<(String, String)> = pairs(&[
            ("table", &self.table),
            ("commit_interval", "0 s"),
            ("retry", "100 ms"),
            // Small files, so that a batch has several.
            ("file_size", "1024"),
        ]);
        let kind = match self.sink {
            "streaming" => {
                options.extend(pairs(&[("mode", "snowpipe_streaming")]));
                match self.format {
                    "keep" => options.extend(pairs(&[("existing_rows", "keep")])),
                    "warehouse" => connection.extend(pairs(&[("warehouse", "W")])),
                    _ => {}
                }
                "snowflake"
            }
            "snowpipe" => {
                options.extend(pairs(&[("mode", "snowpipe")]));
                "snowflake"
            }
            other => other,
        };
        SinkDefinition {
            name: "s".to_string(),
            uuid: self.uuid(),
            kind: kind.to_string(),
            connection,
            options,
            format: (self.sink == "files")
                .then(|| FormatSpec { name: self.format.to_string(), options: Vec::new() }),
            envelope: Envelope::None,
            append_only: self.kind == Kind::Append,
        }
    }

    fn sink(&self) -> tidemill::Result<Box<dyn Sink>> {
        registry::sink(&self.definition(), &History::schema(), &self.kind.key())
    }

    fn history(&self) -> History {
        History::new(self.kind, self.seed, END)
    }

    fn uuid(&self) -> uuid::Uuid {
        let table = self.table.bytes().fold(0_u64, |h, b| h.wrapping_mul(31).wrapping_add(b.into()));
        uuid::Uuid::from_u64_pair(table, self.seed + 1)
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
        sink: ["files", "snowflake", "postgres", "streaming", "snowpipe"]
            .into_iter()
            .find(|s| *s == sink)
            .expect("a sink"),
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
        let mut batch = Batch {
            effect,
            from,
            to,
            directory,
            files: Vec::new(),
            ranges: Vec::new(),
            counts: net.counts(),
        };
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
