//! A real schema registry of one's own, Apicurio's, and Confluent's Python clients writing records with it: what
//! `scripts/test-deps registry` brings.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidemill::connectors::schema_registry::RegistrySettings;
use tidemill::connectors::schema_registry::client::{SchemaKind, SchemaRegistry};

use super::postgres::free_port;

/// A registry in memory; gone when dropped.
pub struct Registry {
    child: Child,
    port: u16,
    log: tempfile::NamedTempFile,
    deps: PathBuf,
}

impl Registry {
    /// Starts it and waits until it answers.
    pub fn start() -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let deps = PathBuf::from(deps);
        let jar = deps.join("registry").join("apicurio-registry-app-3.0.9-runner.jar");
        assert!(jar.exists(), "no registry at {}: run scripts/test-deps registry first", jar.display());
        let port = free_port();
        let log = tempfile::NamedTempFile::new().expect("a log file");
        let child = Command::new("java")
            .args(["-Xmx400m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
            .args(["-Dquarkus.http.host=127.0.0.1", &format!("-Dquarkus.http.port={port}"), "-jar"])
            .arg(&jar)
            .stdout(log.reopen().expect("the log file"))
            .stderr(Stdio::null())
            .spawn()
            .expect("java runs");
        let registry = Registry { child, port, log, deps };
        let deadline = Instant::now() + Duration::from_secs(90);
        while !registry.answers() {
            let log = std::fs::read_to_string(registry.log.path()).unwrap_or_default();
            assert!(Instant::now() < deadline, "the registry did not start:\n{log}");
            std::thread::sleep(Duration::from_millis(200));
        }
        registry
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/apis/ccompat/v7", self.port)
    }

    fn answers(&self) -> bool {
        let url = format!("{}/subjects", self.url());
        let asked = Command::new("curl").args(["-sf", "-m", "2", "-o", "/dev/null", &url]).status();
        asked.is_ok_and(|status| status.success())
    }

    /// Registers a schema; its number.
    pub fn register(&self, subject: &str, kind: SchemaKind, text: &str) -> i32 {
        let url = ("url".to_string(), self.url());
        let settings = RegistrySettings::of_connection(vec![url]).expect("settings");
        let registry = SchemaRegistry::new(settings).expect("a client");
        registry.register(subject, kind, text).expect("a schema")
    }

    /// Sets the rule by which a subject's new schemas must go with its others.
    pub fn set_compatibility(&self, subject: &str, level: &str) {
        let (url, body) =
            (format!("{}/config/{subject}", self.url()), format!("{{\"compatibility\": \"{level}\"}}"));
        let header = "content-type: application/json";
        let set = Command::new("curl").args(["-sf", "-X", "PUT", "-H", header, "-d", &body, &url]).output();
        assert!(set.expect("curl runs").status.success(), "no compatibility set");
    }

    /// Runs a Python program that has Confluent's clients, with these arguments; what it prints.
    pub fn python(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(self.deps.join("registry-client/bin/python"))
            .args(["-c", program])
            .args(arguments)
            .output()
            .expect("python runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
