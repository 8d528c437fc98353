//! A Snowflake emulator of one's own.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidemill::connectors::StopFlag;
use tidemill::connectors::snowflake::client::{Repeat, Session};
use tidemill::connectors::snowflake::config::Config;
use tidemill::connectors::snowflake::wire::Rows;

/// A running server, empty; gone when dropped.
pub struct Fakesnow {
    child: Child,
    pub url: String,
}

impl Fakesnow {
    /// Starts it. `scripts/test-deps fakesnow` brings it.
    pub fn start() -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let child = Command::new(format!("{deps}/fakesnow/bin/python"))
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/fakesnow_run.py"))
            .args(["-s", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting fakesnow: run scripts/test-deps fakesnow first");
        let server = Fakesnow { child, url: format!("http://127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "fakesnow did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Options of a connection to it.
    pub fn connection(&self) -> Vec<(String, String)> {
        [
            ("account", "org-test"),
            ("user", "LOADER"),
            ("password", "pw"),
            ("database", "DB"),
            ("schema", "PUBLIC"),
        ]
        .into_iter()
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .chain([("url".to_string(), self.url.clone())])
        .collect()
    }

    /// Runs a statement in a session of its own.
    pub fn query(&self, sql: &str) -> Rows {
        let config = Config::new(self.connection()).expect("a connection");
        let mut session = Session::open(&config, "test", &StopFlag::default()).expect("a session");
        session.query(sql, Repeat::Harmless).unwrap_or_else(|f| panic!("{sql}: {}", f.error))
    }
}

impl Drop for Fakesnow {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
