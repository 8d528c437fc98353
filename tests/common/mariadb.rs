//! A real MariaDB server of one's own, from Debian's package, in a temporary directory.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::free_port;

/// A running server that writes a log which can be followed, user `root`, no password; gone when dropped.
pub struct MariaDb {
    dir: tempfile::TempDir,
    server: Option<Child>,
    /// Settings besides those that all have.
    settings: Vec<String>,
    pub port: u16,
}

impl MariaDb {
    /// Makes a data directory and starts a server on it.
    pub fn start() -> Self {
        MariaDb::start_with(vec!["--server-id=1".into()])
    }

    /// A server that replicates another one, and writes what it does to its own log.
    pub fn replica_of(other: &MariaDb) -> Self {
        let replica = MariaDb::start_with(vec!["--server-id=2".into(), "--log-slave-updates=ON".into()]);
        replica.sql(&format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {}, MASTER_USER = 'root',
             MASTER_CONNECT_RETRY = 1, MASTER_USE_GTID = slave_pos; START SLAVE",
            other.port
        ));
        replica
    }

    /// Lets the user `secure` in by TLS only. The certificate is for 127.0.0.1; answers with the path of the authority's
    /// that has signed it.
    pub fn require_tls(&mut self) -> std::path::PathBuf {
        let dir = self.dir.path().to_path_buf();
        let authority = super::postgres::certificate(&dir, "server");
        self.settings.extend([
            format!("--ssl-cert={}", dir.join("server.crt").display()),
            format!("--ssl-key={}", dir.join("server.key").display()),
            format!("--ssl-ca={}", authority.display()),
        ]);
        self.kill();
        self.run();
        self.sql(
            "CREATE USER secure REQUIRE SSL; CREATE USER secure@localhost REQUIRE SSL;
             GRANT ALL ON *.* TO secure; GRANT ALL ON *.* TO secure@localhost",
        );
        authority
    }

    fn start_with(settings: Vec<String>) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg(format!("--datadir={}", dir.path().join("data").display()));
        // Servers that are made at once would use each other's temporary files.
        install.env("TMPDIR", dir.path()).arg(format!("--tmpdir={}", dir.path().display()));
        let output = install.output().expect("MariaDB is installed (scripts/test-deps packages)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut mariadb = MariaDb { dir, server: None, settings, port: free_port() };
        mariadb.run();
        mariadb
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // It may be dead already.
            let _ = server.kill();
            server.wait().expect("a child's end");
        }
    }

    /// Starts it again after [`MariaDb::kill`].
    pub fn run(&mut self) {
        let log = std::fs::File::create(self.dir.path().join("log")).expect("a log file");
        let mut command = Command::new("mariadbd");
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--log-bin=log"]);
        command.args(["--binlog-format=ROW", "--binlog-row-metadata=FULL", "--sync-binlog=1"]);
        command.args([
            "--innodb-buffer-pool-size=32M",
            "--default-time-zone=+02:00",
            "--user=root",
            "--sql-mode=",
        ]);
        command.args(&self.settings);
        command.arg(format!("--tmpdir={}", self.dir.path().display()));
        command.arg(format!("--port={}", self.port));
        command.arg(format!("--datadir={}", self.dir.path().join("data").display()));
        command.arg(format!("--socket={}", self.dir.path().join("socket").display()));
        let server = command.stdout(Stdio::null()).stderr(log).spawn().expect("the server starts");
        self.server = Some(server);
        let start = Instant::now();
        while self.client("SELECT 1").is_err() {
            let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(60), "the server does not answer:\n{log}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Runs statements; the answer has a row a line, with tabs between values.
    pub fn client(&self, sql: &str) -> Result<String, String> {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-h", "127.0.0.1", "-u", "root", "-N", "-B", "-e", sql]);
        let output = client.args(["-P", &self.port.to_string()]).output().expect("the client runs");
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_string());
        }
        Err(String::from_utf8_lossy(&output.stderr).to_string())
    }

    /// Runs statements that must succeed.
    pub fn sql(&self, sql: &str) -> String {
        self.client(sql).unwrap_or_else(|e| panic!("{e}\n{sql}"))
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        self.kill();
    }
}
