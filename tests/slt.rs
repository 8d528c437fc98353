//! The sqllogictest suite, over the wire: every file in every mode and by both protocols.
//!
//! Modes:
//! * `query`: as written;
//! * `view`: each query also as a materialized view that is created after the data;
//! * `live`: each query as a materialized view that is created before the data; the data then comes in several
//!   ticks, mixed with rows that are updated, deleted and inserted again;
//! * `postgres`: as written, by a real PostgreSQL server instead of Tidemill: the expected answers are PostgreSQL's.
//!
//! A record can be for one mode or protocol only: `onlyif live`, `onlyif simple`. `skipif postgres` is for what differs
//! on purpose; a comment says which of the differences in `docs/semantics.md` it is.
//!
//! In the modes `view` and `live` every view is compared with its query in batch (`CHECK MATERIALIZED VIEW`)
//! after each statement that may have changed it.
//!
//! The modes have servers with 1, 2 and 4 workers; `TIDEMILL_SLT_WORKERS=n` gives all of them the same number.
//!
//! `TIDEMILL_SLT_DIR=some/dir cargo test --test slt` runs the files of that directory instead and prints, per file
//! and mode, how many records passed, and the causes of the failures by their number: so foreign suites can be run,
//! which are not expected to pass whole.

mod common;
#[path = "slt/foreign.rs"]
mod foreign;
#[path = "slt/modes.rs"]
mod modes;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use common::pgclient::Protocol;
use common::postgres::Postgres;
use common::server::Server;
use libtest_mimic::{Arguments, Failed, Trial};
use modes::{Mode, Score, Target, run_file};

const MODES: [Mode; 4] = [Mode::Query, Mode::View, Mode::Live, Mode::Postgres];

const COMBINATIONS: [(Mode, Protocol); 8] = [
    (Mode::Query, Protocol::Simple),
    (Mode::Query, Protocol::Extended),
    (Mode::View, Protocol::Simple),
    (Mode::View, Protocol::Extended),
    (Mode::Live, Protocol::Simple),
    (Mode::Live, Protocol::Extended),
    (Mode::Postgres, Protocol::Simple),
    (Mode::Postgres, Protocol::Extended),
];

/// Directories and files about what PostgreSQL does not have (views that are kept, connectors, the system's own
/// relations), and about what it has and Tidemill refuses.
const NOT_POSTGRES: [&str; 12] = [
    "errors/unsupported_queries.slt",
    "errors/unsupported_statements.slt",
    "explain",
    "materialized",
    "objects",
    "show",
    "sinks",
    "sources",
    "subscribe",
    "system",
    "temporal",
    "windows",
];

fn main() {
    if foreign::child() {
        return;
    }
    if let Some(dir) = std::env::var_os("TIDEMILL_SLT_DIR") {
        std::process::exit(foreign::run(Path::new(&dir)));
    }
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sqllogictest");
    let mut trials = Vec::new();
    let totals = Arc::new(Mutex::new(Vec::<(Mode, Score)>::new()));
    let postgres = Arc::new(OnceLock::new());
    for file in slt_files(&root) {
        for (mode, protocol) in COMBINATIONS {
            let short = file.strip_prefix(&root).unwrap_or(&file);
            if mode == Mode::Postgres && NOT_POSTGRES.iter().any(|path| short.starts_with(path)) {
                continue;
            }
            let (totals, postgres) = (Arc::clone(&totals), Arc::clone(&postgres));
            let short = short.display().to_string();
            let name = format!("{mode}/{}/{short}", protocol_name(protocol));
            let file = file.clone();
            trials.push(Trial::test(name, move || {
                let target = match mode {
                    Mode::Postgres => new_database(postgres.get_or_init(start_postgres)),
                    _ => Target::Tidemill(Server::start(workers(mode, protocol))),
                };
                let score = run_file(&file, mode, protocol, &target).map_err(Failed::from)?;
                let failures = score.failures.join("\n\n");
                totals.lock().expect("no other trial has panicked here").push((mode, score));
                if failures.is_empty() { Ok(()) } else { Err(Failed::from(failures)) }
            }));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    // The exit below would leave it running.
    drop(postgres);
    for wanted in MODES {
        let mut of_mode = Score::default();
        let mut totals = totals.lock().expect("all trials are over");
        totals.extract_if(.., |(mode, _)| *mode == wanted).for_each(|(_, score)| of_mode.add(score));
        print_total(wanted, &of_mode);
    }
    conclusion.exit();
}

/// With how many threads the server computes: the answers may not depend on it.
fn workers(mode: Mode, protocol: Protocol) -> usize {
    let chosen = std::env::var("TIDEMILL_SLT_WORKERS").ok().and_then(|n| n.parse().ok());
    chosen.unwrap_or(match (mode, protocol) {
        (Mode::View, Protocol::Extended) => 2,
        (Mode::Live, Protocol::Extended) => 4,
        _ => 1,
    })
}

/// The server that all files of the mode `postgres` share.
fn start_postgres() -> Postgres {
    let postgres = Postgres::start();
    postgres.psql("postgres", "CREATE ROLE tidemill LOGIN SUPERUSER");
    postgres
}

/// A database that no other file uses.
fn new_database(postgres: &Postgres) -> Target<'_> {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("slt_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    postgres.psql("postgres", &format!("CREATE DATABASE {name} OWNER tidemill TEMPLATE template0"));
    Target::Postgres(postgres, name)
}

fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Simple => "simple",
        Protocol::Extended => "extended",
    }
}

/// All `.slt` files under `dir`, sorted; names that start with `_` are included by others.
fn slt_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        let entries = std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        for entry in entries {
            let path = entry.expect("a directory entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                dirs.push(path);
            } else if !name.starts_with('_') && (name.ends_with(".slt") || name.ends_with(".test")) {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn print_total(mode: Mode, score: &Score) {
    println!("{:>6} of {:>6}  {mode:<8}  all files", score.passed, score.total());
}
