//! The drivers that PostgreSQL's users have, each against the real server: psycopg, asyncpg, node-postgres, JDBC.
//!
//! `scripts/test-deps` brings them; where they are missing the test fails and says so.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen, a debug build on a busy machine included.
const START_MAX: Duration = Duration::from_secs(60);

/// How long a driver's script may take: a protocol that has come to a standstill must not hold up the tests.
const SCRIPT_MAX: Duration = Duration::from_secs(180);

/// `tidemill serve` in a directory of its own; killed when dropped.
struct Server {
    child: Child,
    port: u16,
    dir: tempfile::TempDir,
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr()).expect("a free port").port()
}

impl Server {
    fn start() -> Server {
        let dir = tempfile::tempdir().expect("a directory");
        let (port, http) = (free_port(), free_port());
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .arg("serve")
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .args(["--listen", &format!("127.0.0.1:{port}"), "--http", &format!("127.0.0.1:{http}")])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the server starts");
        // Its log is read so that it never has to wait, and shown beside a failing test.
        let stderr = child.stderr.take().expect("it was asked for");
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).for_each(|l| eprintln!("{l}"))
        });
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            assert!(child.try_wait().expect("its state").is_none(), "the server has ended");
            assert!(begin.elapsed() < START_MAX, "the server does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
        Server { child, port, dir }
    }

    /// Runs a driver's script to its end; it says at last that all was well.
    fn run(&self, command: &mut Command, says: &str) {
        let printed = self.dir.path().join("printed");
        let file = std::fs::File::create(&printed).expect("a file");
        let mut child = command
            .env("PGHOST", "127.0.0.1")
            .env("PGPORT", self.port.to_string())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers"))
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}; run scripts/test-deps"));
        let begin = Instant::now();
        let status = loop {
            match child.try_wait().expect("its state") {
                Some(status) => break Some(status),
                None if begin.elapsed() > SCRIPT_MAX => break None,
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        };
        if status.is_none() {
            child.kill().and_then(|()| child.wait()).expect("it is ours to end");
        }
        let printed = std::fs::read_to_string(&printed).expect("what it printed");
        let well = status.is_some_and(|s| s.success()) && printed.contains(says);
        assert!(well, "{command:?}: {status:?} (none: it did not end)\n{printed}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file or directory that `scripts/test-deps` makes.
fn dependency(name: &str) -> PathBuf {
    let root = match std::env::var_os("TEST_DEPS") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").expect("a home")).join(".cache/tidemill/test-deps"),
    };
    let path = root.join(name);
    assert!(path.exists(), "{} is missing: run scripts/test-deps", path.display());
    path
}

#[test]
fn psycopg() {
    let python = dependency("venv/bin/python");
    Server::start().run(Command::new(python).arg("psycopg_smoke.py"), "psycopg: ok");
}

#[test]
fn asyncpg() {
    let python = dependency("venv/bin/python");
    Server::start().run(Command::new(python).arg("asyncpg_smoke.py"), "asyncpg: ok");
}

#[test]
fn node_postgres() {
    let modules = dependency("node/node_modules");
    Server::start().run(Command::new("node").arg("node_pg.cjs").env("NODE_PATH", modules), "node-pg: ok");
}

#[test]
fn jdbc() {
    let jars = dependency("java").join("*");
    Server::start().run(Command::new("java").arg("-cp").arg(jars).arg("JdbcSmoke.java"), "jdbc: ok");
}
