//! The real `tidemill` binary as a process that can be killed, on a data directory that outlives it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::pgclient::{Answer, PgClient, PgError, Protocol};

/// A server process; killed when dropped.
pub struct Tidemill {
    child: Child,
    data_dir: PathBuf,
    address: SocketAddr,
    http: SocketAddr,
}

impl Tidemill {
    /// Starts `tidemill serve` on `data_dir` and a free port, and waits until it is ready.
    pub fn start(data_dir: &Path) -> Self {
        Tidemill::start_with(data_dir, &[])
    }

    /// The same with more environment, as `TIDEMILL_CRASH_AT`.
    pub fn start_with(data_dir: &Path, environment: &[(&str, &str)]) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data_dir.with_extension("log"))
            .expect("a log file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["serve", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            // So that every restart has checkpoints to begin with, of any age.
            .env("TIDEMILL_CHECKPOINT_BYTES", "4096")
            .envs(environment.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let address = loop {
            let line = lines.next().unwrap_or_else(|| {
                let log = std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
                panic!("the server ended before it was ready:\n{log}")
            });
            if let Some(address) = ready(&line.expect("text")) {
                break address;
            }
        };
        let line = lines.next().and_then(Result::ok).unwrap_or_default();
        let http = line.trim().strip_prefix("http://").and_then(|l| l.strip_suffix('/')?.parse().ok());
        let http = http.expect("where HTTP listens");
        // Whatever else it prints must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Tidemill { child, data_dir: data_dir.to_path_buf(), address, http }
    }

    /// Kills it as `kill -9` does and starts it again.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let again = Tidemill::start(&self.data_dir);
        *self = again;
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        self.child.wait().expect("a child's end");
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Where HTTP listens.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Runs statements on a connection of their own.
    pub fn try_sql(&self, sql: &str) -> Result<Vec<Answer>, PgError> {
        PgClient::connect(self.address)?.run(Protocol::Simple, sql)
    }

    /// Runs statements that must succeed.
    pub fn sql(&self, sql: &str) -> Vec<Answer> {
        self.try_sql(sql).unwrap_or_else(|e| panic!("{e}\n{sql}"))
    }

    /// The last statement's rows as text, sorted; NULL is `NULL`.
    pub fn rows(&self, sql: &str) -> Vec<Vec<String>> {
        let answer = self.sql(sql).pop().unwrap_or_default();
        let text = |v: Option<String>| v.unwrap_or_else(|| "NULL".into());
        let mut rows: Vec<Vec<String>> =
            answer.rows.into_iter().map(|r| r.into_iter().map(text).collect()).collect();
        rows.sort();
        rows
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data_dir.with_extension("log")).unwrap_or_default()
    }
}

impl Drop for Tidemill {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address in `tidemill is ready: psql -h 127.0.0.1 -p 7432 …`.
fn ready(line: &str) -> Option<SocketAddr> {
    let words: Vec<&str> = line.strip_prefix("tidemill is ready: psql -h ")?.split(' ').collect();
    format!("{}:{}", words.first()?, words.get(2)?).parse().ok()
}
