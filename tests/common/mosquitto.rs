//! A real MQTT broker of one's own, Mosquitto, which keeps what it has over restarts; and its client, to send with.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::postgres::free_port;

/// A running broker; gone with what it has when dropped.
pub struct Mosquitto {
    child: Option<Child>,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Mosquitto {
    /// Starts it, with these lines of configuration besides. `scripts/test-deps packages` brings it.
    pub fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let port = free_port();
        let config = format!(
            "listener {port} 127.0.0.1\nuser root\npersistence true\npersistence_location {}/\nlog_dest none\n{}",
            dir.path().display(),
            if more.is_empty() { "allow_anonymous true\n" } else { more }
        );
        std::fs::write(dir.path().join("mosquitto.conf"), config).expect("written");
        let mut broker = Mosquitto { child: None, dir, port };
        broker.restart();
        broker
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Stops it in order, so that its sessions are on disk.
    pub fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = child.id().to_string();
        let asked = Command::new("kill").arg(&pid).status().expect("kill runs");
        assert!(asked.success(), "the broker is not there");
        child.wait().expect("a child's end");
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        self.stop();
        let program = if std::path::Path::new("/usr/sbin/mosquitto").exists() {
            "/usr/sbin/mosquitto"
        } else {
            "mosquitto"
        };
        let child = Command::new(program)
            .arg("-c")
            .arg(self.path("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting mosquitto: run scripts/test-deps packages first");
        self.child = Some(child);
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "mosquitto did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends a message a line to a topic, each acknowledged by the broker; with more options of the client.
    pub fn publish(&self, topic: &str, lines: &str, more: &[&str]) {
        let port = self.port.to_string();
        let mut child = Command::new("mosquitto_pub")
            .args(["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic, "-l"])
            .args(more)
            .stdin(Stdio::piped())
            .spawn()
            .expect("starting mosquitto_pub: run scripts/test-deps packages first");
        child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("it reads");
        assert!(child.wait().expect("it ends").success(), "publishing to {topic}");
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
