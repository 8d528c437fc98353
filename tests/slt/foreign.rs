//! Runs the suites of other systems: a process of its own for each file, so that none can stop the run.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use crate::modes::compare::cause;
use crate::modes::{Event, Mode, run_script};
use crate::slt_files;

/// Which modes are run, comma-separated; all of them when it is not set.
const MODES: &str = "TIDEMILL_SLT_MODES";
/// The modes that foreign files can run in.
const FOREIGN_MODES: [Mode; 3] = [Mode::Query, Mode::View, Mode::Live];
/// Seconds that a statement may take.
const TIMEOUT: &str = "TIDEMILL_SLT_TIMEOUT";
/// How many files run at once.
const JOBS: &str = "TIDEMILL_SLT_JOBS";
/// For the process that runs one file: the file.
const FILE: &str = "TIDEMILL_SLT_FILE";
/// How many causes are listed at the end.
const CAUSES: usize = 60;

/// What a file's process tells, one line each, before its record or after it.
mod told {
    pub const BEGINS: char = '>';
    pub const PASSED: char = '+';
    pub const FAILED: char = '-';
    pub const REFUSED: char = 'r';
    pub const UNKNOWN: char = '?';
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// The modes of [`MODES`].
fn modes() -> Vec<Mode> {
    let wanted = std::env::var(MODES).unwrap_or_default();
    let named: Vec<Mode> =
        FOREIGN_MODES.into_iter().filter(|m| wanted.split(',').any(|w| w.trim() == m.to_string())).collect();
    if named.is_empty() { FOREIGN_MODES.to_vec() } else { named }
}

fn timeout() -> Duration {
    Duration::from_secs(number(TIMEOUT).unwrap_or(30))
}

/// Tells the parent; when that is gone there is nobody left to tell.
fn tell(kind: char, text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{kind}{}", text.replace('\\', "\\\\").replace('\n', "\\n")).ok();
    out.flush().ok();
}

/// Runs one file in this process, when it was started for that. Says whether it was.
pub fn child() -> bool {
    let Some(file) = std::env::var_os(FILE) else { return false };
    let mode = modes().into_iter().next().unwrap_or(Mode::Query);
    let events = |event: Event<'_>| match event {
        Event::Begins(place) => tell(told::BEGINS, place),
        Event::Passed => tell(told::PASSED, ""),
        Event::Failed(failure) => tell(told::FAILED, failure),
        Event::Refused => tell(told::REFUSED, ""),
        Event::Unknown(line) => tell(told::UNKNOWN, line),
    };
    if let Err(e) = run_script(Path::new(&file), mode, timeout(), &events) {
        tell(told::FAILED, &e);
    }
    true
}

/// What became of a file in one mode.
#[derive(Default)]
struct Outcome {
    passed: usize,
    refused: usize,
    unknown: usize,
    panics: usize,
    failures: Vec<String>,
    /// How the process ended, unless well.
    ended: Option<String>,
}

impl Outcome {
    fn add(&mut self, other: &Outcome) {
        self.passed += other.passed;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.panics += other.panics;
        self.failures.extend(other.failures.iter().cloned());
    }

    fn line(&self, mode: Mode, what: &str) -> String {
        let mut line =
            format!("{:>6} of {:>6}  {mode:<5}  {what}", self.passed, self.passed + self.failures.len());
        for (count, noun) in [
            (self.refused, "refused as views"),
            (self.unknown, "unknown directives"),
            (self.panics, "panics"),
        ] {
            if count > 0 {
                line.push_str(&format!("; {count} {noun}"));
            }
        }
        if let Some(ended) = &self.ended {
            line.push_str(&format!("; {ended}"));
        }
        line
    }
}

fn run_file(file: &Path, mode: Mode) -> std::io::Result<Outcome> {
    let mut outcome = Outcome::default();
    let errors = tempfile::NamedTempFile::new()?;
    let mut child = Command::new(std::env::current_exe()?)
        .env(FILE, file)
        .env(MODES, mode.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors.reopen()?)
        .spawn()?;
    let (send, receive) = channel();
    let out = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let lines = out.into_iter().flat_map(|out| BufReader::new(out).lines());
        for line in lines.map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    let mut place = String::new();
    // The process stops a statement by itself; this is for one that cannot.
    let patience = timeout() * 3 + Duration::from_secs(60);
    loop {
        match receive.recv_timeout(patience) {
            Ok(line) => {
                let mut chars = line.chars();
                let kind = chars.next();
                let text = chars.as_str().replace("\\n", "\n").replace("\\\\", "\\");
                match kind {
                    Some(told::BEGINS) => place = text,
                    Some(told::PASSED) => outcome.passed += 1,
                    Some(told::FAILED) => outcome.failures.push(text),
                    Some(told::REFUSED) => outcome.refused += 1,
                    Some(told::UNKNOWN) => outcome.unknown += 1,
                    _ => {}
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                outcome.ended = Some(format!("stopped, it hung at {place}"));
                outcome.failures.push(format!("the process hung\nat {place}"));
                break;
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    if !status.success() && outcome.ended.is_none() {
        outcome.ended = Some(format!("the process ended with {status} at {place}"));
        outcome.failures.push(format!("the process ended with {status}\nat {place}"));
    }
    // It ends once the process is gone, whose end of the pipe is closed then.
    reader.join().ok();
    for line in std::fs::read_to_string(errors.path()).unwrap_or_default().lines() {
        if line.contains("panicked at") {
            outcome.panics += 1;
            outcome.failures.push(format!("{line}\nin {}", file.display()));
        }
    }
    Ok(outcome)
}

/// Runs all files of a directory, several at once; the exit code.
pub fn run(dir: &Path) -> i32 {
    let jobs: Vec<(PathBuf, Mode)> =
        modes().into_iter().flat_map(|mode| slt_files(dir).into_iter().map(move |f| (f, mode))).collect();
    let verbose = std::env::var_os("TIDEMILL_SLT_VERBOSE").is_some();
    let parallel = number(JOBS).map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        |n| usize::try_from(n).unwrap_or(1).max(1),
    );
    let waiting = Mutex::new(jobs.into_iter());
    let totals = Mutex::new(BTreeMap::<String, (Mode, Outcome)>::new());
    std::thread::scope(|scope| {
        for _ in 0..parallel {
            scope.spawn(|| {
                loop {
                    let Some((file, mode)) = waiting.lock().ok().and_then(|mut w| w.next()) else { return };
                    let outcome = run_file(&file, mode).unwrap_or_else(|e| Outcome {
                        failures: vec![format!("{}: {e}", file.display())],
                        ..Outcome::default()
                    });
                    println!("{}", outcome.line(mode, &file.display().to_string()));
                    if verbose {
                        outcome.failures.iter().for_each(|f| println!("{f}\n"));
                    }
                    let mut totals = totals.lock().expect("no other worker panics");
                    totals.entry(mode.to_string()).or_insert((mode, Outcome::default())).1.add(&outcome);
                }
            });
        }
    });
    let totals = totals.into_inner().expect("the workers are through");
    let mut causes: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    for failure in totals.values().flat_map(|(_, outcome)| &outcome.failures) {
        causes.entry(cause(failure)).or_insert((0, failure)).0 += 1;
    }
    let mut causes: Vec<_> = causes.into_iter().collect();
    causes.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
    println!("\ncauses, most frequent first:");
    for (cause, (count, example)) in causes.iter().take(CAUSES) {
        println!("{count:>6}  {cause}\n        e.g. {}", example.lines().last().unwrap_or_default());
    }
    println!();
    totals.values().for_each(|(mode, outcome)| println!("{}", outcome.line(*mode, "all files")));
    i32::from(totals.values().any(|(_, outcome)| !outcome.failures.is_empty()))
}
