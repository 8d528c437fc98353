//! A real PostgreSQL server of one's own, from Debian's package, in a temporary directory.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A running server with `wal_level = logical`, superuser `postgres`, no password; gone when dropped.
pub struct Postgres {
    dir: tempfile::TempDir,
    bin: PathBuf,
    pub port: u16,
}

impl Postgres {
    /// Makes a cluster and starts it.
    pub fn start() -> Self {
        let bin = bin_dir();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let server = Postgres { dir, bin, port };
        if is_root() {
            // initdb refuses to run as root; Debian's package brings the user.
            run(Command::new("chown").arg("postgres").arg(server.dir.path()));
        }
        let data = server.data();
        let mut initdb = server.command("initdb");
        initdb.arg("-D").arg(&data).args(["-U", "postgres", "--auth=trust", "--no-sync"]);
        // Text in the order of its bytes, letters of every language.
        run(initdb.args(["-E", "UTF8", "--locale=C.UTF-8"]));
        let settings = format!(
            "port={port}\nlisten_addresses='127.0.0.1'\nunix_socket_directories=''\nwal_level=logical\n\
             max_wal_senders=10\nmax_replication_slots=10\nfsync=off\nshared_buffers=32MB\n\
             timezone='UTC'\n"
        );
        let path = data.join("postgresql.auto.conf");
        std::fs::write(&path, settings).expect("writing postgresql.auto.conf");
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&path));
        }
        server.restart();
        server
    }

    /// Starts it, or stops it at once and starts it again.
    pub fn restart(&self) {
        self.stop();
        let log = self.dir.path().join("log");
        let mut start = self.command("pg_ctl");
        run(start.arg("-D").arg(self.data()).args(["-w", "-t", "30", "-l"]).arg(log).arg("start"));
    }

    /// A standby of it that has become a server of its own, with everything that was there.
    pub fn promoted_standby(&self) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let standby = Postgres { dir, bin: self.bin.clone(), port: free_port() };
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(standby.dir.path()));
        }
        let mut backup = standby.command("pg_basebackup");
        backup.args(["-h", "127.0.0.1", "-U", "postgres", "-R", "-X", "stream", "-c", "fast"]);
        run(backup.args(["-p", &self.port.to_string(), "-D"]).arg(standby.data()));
        let path = standby.data().join("postgresql.auto.conf");
        let settings = std::fs::read_to_string(&path).expect("its settings");
        let port = format!("{settings}\nport={}\n", standby.port);
        std::fs::write(&path, port).expect("writing postgresql.auto.conf");
        standby.restart();
        let mut promote = standby.command("pg_ctl");
        run(promote.arg("-D").arg(standby.data()).args(["-w", "promote"]));
        standby
    }

    /// Lets nobody in without TLS from now on. The certificate is for 127.0.0.1 and nothing else; answers with the path of
    /// the authority's that has signed it.
    pub fn require_tls(&self) -> PathBuf {
        let dir = self.dir.path();
        let authority = certificate(dir, "server");
        let data = self.data();
        for file in ["server.key", "server.crt"] {
            std::fs::rename(dir.join(file), data.join(file)).expect("renaming");
            run(Command::new("chmod").arg("600").arg(data.join(file)));
            if is_root() {
                run(Command::new("chown").arg("postgres").arg(data.join(file)));
            }
        }
        self.psql("postgres", "ALTER SYSTEM SET ssl = on");
        std::fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n")
            .expect("pg_hba.conf");
        self.restart();
        authority
    }

    /// Stops it as a crash would.
    pub fn stop(&self) {
        let mut stop = self.command("pg_ctl");
        stop.arg("-D").arg(self.data()).args(["-w", "-m", "immediate", "stop"]);
        // It may not run: that is what is wanted.
        let _ = stop.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }

    /// Runs statements in a database by psql; the answer is unaligned text without headings.
    pub fn psql(&self, database: &str, sql: &str) -> String {
        let mut psql = Command::new("psql");
        psql.args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]);
        psql.args(["-p", &self.port.to_string(), "-d", database, "-c", sql]);
        let output = psql.output().expect("psql runs");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "psql: {error}\n{sql}");
        String::from_utf8_lossy(&output.stdout).trim_end().to_string()
    }

    /// A program of the server's package, as the user that may run it.
    pub fn command(&self, program: &str) -> Command {
        let path = self.bin.join(program);
        if is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|o| o.stdout.starts_with(b"0\n"))
}

fn bin_dir() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .expect("PostgreSQL is installed (scripts/test-deps packages)")
        .filter_map(|e| Some(e.ok()?.path().join("bin")))
        .filter(|p| Path::exists(&p.join("initdb")))
        .collect();
    versions.sort();
    versions.pop().expect("a PostgreSQL server is installed (scripts/test-deps packages)")
}

/// Makes `name.key` and `name.crt`, a certificate for 127.0.0.1 and nothing else, in a directory; answers with the path of
/// the authority's that has signed it.
pub fn certificate(dir: &Path, name: &str) -> PathBuf {
    let openssl = |arguments: &str| run(Command::new("openssl").args(arguments.split(' ')).current_dir(dir));
    openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.crt");
    openssl(&format!("req -newkey rsa:2048 -nodes -subj /CN=db -keyout {name}.key -out {name}.csr"));
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1\n").expect("writing names");
    openssl(&format!(
        "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile names -out {name}.crt"
    ));
    dir.join("ca.crt")
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
