//! `tidemill fuzz`: random schemas, queries and histories; every view compared with its query after every tick.
//!
//! Each database is a function of its seed ([`life`]). What is wrong is shrunk ([`shrink`]) and printed as an .slt.
//! With `--postgres`, a PostgreSQL server gets the same statements, and its answers are compared, too: what is wrong
//! in batch and in views alike shows only there.

mod aggregate;
mod bench;
mod dice;
mod expr;
mod finding;
mod from;
mod history;
mod life;
mod on_close;
mod postgres;
mod query;
mod reduce;
mod schema;
mod scope;
mod script;
mod shrink;
mod totals;
mod types;
mod window;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::Args;
use tokio::runtime::Runtime;

use tidemill::{Error, Result, SqlState, world};

use finding::{Finding, Kind};
use life::{Life, Watch};
use postgres::Postgres;
use script::{Step, as_slt};
use shrink::Shrinker;
use totals::Totals;

/// How long a step may take until it counts as hanging.
const STEP_MAX: Duration = Duration::from_secs(120);
/// How often a life is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// How long and on what.
#[derive(Args)]
pub struct FuzzArguments {
    /// How long to go on
    #[arg(long, value_name = "N", required_unless_present = "databases")]
    seconds: Option<u64>,
    /// How many databases to go through at most
    #[arg(long, value_name = "N")]
    databases: Option<u64>,
    /// The first database's seed; the next has the next number
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// A directory for scripts of what is wrong
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A PostgreSQL server to compare with, as postgresql://user@host/database
    #[arg(long, value_name = "URL")]
    postgres: Option<String>,
}

/// Fuzzes until the time is over.
///
/// # Errors
/// XX001 when anything was wrong.
pub fn run(arguments: &FuzzArguments) -> Result<()> {
    // A panic is a finding: its place is kept, its lines are not printed among the others.
    std::panic::set_hook(Box::new(|info| *LAST_PANIC.lock() = Some(info.to_string())));
    let fuzzer = Arc::new(Fuzzer::new(arguments)?);
    if let Some(out) = &arguments.out {
        std::fs::create_dir_all(out)?;
    }
    let deadline = arguments.seconds.map(|s| world::instant() + Duration::from_secs(s));
    let mut totals = Totals::default();
    let mut seed = arguments.seed;
    while arguments.databases.is_none_or(|n| seed - arguments.seed < n)
        && deadline.is_none_or(|d| world::instant() < d)
    {
        let known: Vec<String> = totals.found.keys().cloned().collect();
        totals.add(Fuzzer::one(&fuzzer, seed, known, arguments.out.as_ref())?);
        eprintln!("seed {seed}: {} query-ticks, {} wrong so far", totals.compared, totals.wrong());
        seed += 1;
    }
    fuzzer.close();
    println!("{totals}");
    match totals.wrong() {
        0 => Ok(()),
        n => Err(Error::new(SqlState::DATA_CORRUPTED, format!("{n} things are wrong"))),
    }
}

/// Something wrong, with the steps that lead to it.
type Told = (Finding, Vec<Step>);

/// What the last panic of any thread said.
static LAST_PANIC: parking_lot::Mutex<Option<String>> = parking_lot::Mutex::new(None);

/// What all databases share.
struct Fuzzer {
    runtime: Runtime,
    postgres: Option<Postgres>,
}

impl Fuzzer {
    fn new(arguments: &FuzzArguments) -> Result<Fuzzer> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_stack_size(world::PLANNING_STACK)
            .enable_all()
            .build()?;
        let postgres = match &arguments.postgres {
            Some(url) => Some(runtime.block_on(Postgres::connect(url))?),
            None => None,
        };
        Ok(Fuzzer { runtime, postgres })
    }

    fn close(&self) {
        if let Some(postgres) = &self.postgres {
            self.runtime.block_on(postgres.close());
        }
    }

    /// One database, on a thread that is left behind when it hangs.
    fn one(fuzzer: &Arc<Fuzzer>, seed: u64, known: Vec<String>, out: Option<&PathBuf>) -> Result<Totals> {
        let watch = Watch::new();
        let (send, receive) = channel();
        let (shared, watched) = (Arc::clone(fuzzer), Arc::clone(&watch));
        let living = move || {
            // Nobody listens any more when it has taken too long.
            let _ = send.send(shared.live(seed, &known, &watched));
        };
        std::thread::Builder::new().stack_size(world::PLANNING_STACK).spawn(living)?;
        let (mut totals, scripts) = loop {
            match receive.recv_timeout(LOOK) {
                Ok(lived) => break lived?,
                Err(RecvTimeoutError::Disconnected) => {
                    let steps = watch.at.lock().0.clone();
                    let text = LAST_PANIC.lock().take().unwrap_or_default();
                    break (Totals::default(), vec![(Finding::new(Kind::Panic, text), steps)]);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let (steps, since) = watch.at.lock().clone();
                    if since.elapsed() > STEP_MAX {
                        let text = format!("the last step takes longer than {} s", STEP_MAX.as_secs());
                        break (Totals::default(), vec![(Finding::new(Kind::Hang, text), steps)]);
                    }
                }
            }
        };
        for (n, (finding, steps)) in scripts.into_iter().enumerate() {
            *totals.found.entry(finding.signature()).or_default() += 1;
            let text = told(seed, &finding, &steps);
            println!("{text}");
            if let Some(out) = out {
                std::fs::write(out.join(format!("seed_{seed}_{n}.slt")), text)?;
            }
        }
        Ok(totals)
    }

    /// Lives one life and shrinks what was found; `known` findings are only counted.
    fn live(&self, seed: u64, known: &[String], watch: &Watch) -> Result<(Totals, Vec<Told>)> {
        let Life { mut totals, found } = life::live(seed, &self.runtime, self.postgres.as_ref(), watch)?;
        let mut scripts: Vec<Told> = Vec::new();
        for (mut finding, steps) in found {
            let signature = finding.signature();
            if finding.is_error()
                && (known.contains(&signature) || scripts.iter().any(|s| s.0.signature() == signature))
            {
                *totals.found.entry(signature).or_default() += 1;
                continue;
            }
            if finding.kind == Kind::Panic || finding.text.contains("panicked") {
                finding.text.push_str(&LAST_PANIC.lock().take().map_or(String::new(), |p| format!("\n{p}")));
            }
            let (steps, finding) =
                Shrinker::new(&self.runtime, self.postgres.as_ref(), finding, watch).shrink(steps);
            scripts.push((finding, steps));
        }
        Ok((totals, scripts))
    }
}

/// A finding as an .slt that fails.
fn told(seed: u64, finding: &Finding, steps: &[Step]) -> String {
    let title = format!("seed {seed}: {:?}: {}", finding.kind, finding.text);
    let last = match (&finding.kind, &finding.view) {
        (Kind::Differs | Kind::Internal, Some(view)) => {
            format!("\nstatement ok\nCHECK MATERIALIZED VIEW {view}\n")
        }
        (Kind::DiffersFromPostgres, Some(view)) => {
            let rows = finding.expected.as_deref().unwrap_or_default();
            let types = "T".repeat(rows.first().map_or(1, |r| r.len().max(1)));
            let shown = |cell: &Option<String>| match cell.as_deref() {
                None => "NULL".to_string(),
                Some("") => "(empty)".to_string(),
                Some(text) => text.to_string(),
            };
            let rows: String = rows
                .iter()
                .map(|row| format!("{}\n", row.iter().map(shown).collect::<Vec<_>>().join("  ")))
                .collect();
            format!("\nquery {types} rowsort\nSELECT * FROM {view}\n----\n{rows}")
        }
        _ => String::new(),
    };
    as_slt(&title, steps, &last)
}
