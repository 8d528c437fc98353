//! Debezium as it is run in earnest: a Kafka Connect worker with its connector for PostgreSQL, from the jars that
//! `scripts/test-deps debezium` brings.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::kafka::Kafka;
use super::postgres::{Postgres, free_port};

/// A standalone worker, writing to a broker what changes in a PostgreSQL; gone when dropped.
pub struct Debezium {
    child: Child,
    directory: tempfile::TempDir,
    jars: String,
    settings: Vec<PathBuf>,
}

impl Debezium {
    /// Starts a worker with connectors that each capture all tables of `database` that the publication `pub` has. A
    /// connector has a name, which its topics' names begin with and which its replication slot has too, and settings.
    pub fn start(
        kafka: &Kafka,
        postgres: &Postgres,
        database: &str,
        connectors: &[(&str, &[(&str, &str)])],
    ) -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let [jars, avro] = ["debezium", "debezium-avro"].map(|part| PathBuf::from(&deps).join(part));
        assert!(avro.exists(), "no Debezium at {}: run scripts/test-deps debezium first", avro.display());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let json = "org.apache.kafka.connect.json.JsonConverter";
        let worker = format!(
            "bootstrap.servers={}\nlisteners=http://127.0.0.1:{}\nkey.converter={json}\nvalue.converter={json}\n\
             offset.storage.file.filename={}\noffset.flush.interval.ms=1000\nplugin.discovery=service_load\n",
            kafka.brokers(),
            free_port(),
            directory.path().join("offsets").display(),
        );
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("writing a worker's settings");
            path
        };
        let mut files = vec![file("worker.properties", worker)];
        for (name, settings) in connectors {
            let mut text = format!(
                "name={name}\nconnector.class=io.debezium.connector.postgresql.PostgresConnector\n\
                 plugin.name=pgoutput\npublication.name=pub\npublication.autocreate.mode=disabled\n\
                 slot.name={name}\ntopic.prefix={name}\ndatabase.hostname=127.0.0.1\ndatabase.port={}\n\
                 database.user=postgres\ndatabase.password=unused\ndatabase.dbname={database}\n",
                postgres.port
            );
            for (setting, value) in *settings {
                text.push_str(&format!("{setting}={value}\n"));
            }
            files.push(file(&format!("{name}.properties"), text));
        }
        let jars = format!("{}/*:{}/*", jars.display(), avro.display());
        let child = launch(&jars, &directory, &files);
        Debezium { child, directory, jars, settings: files }
    }

    /// Kills the worker as `kill -9` does and starts it again: it goes on where it last noted to be, and so writes
    /// some records anew.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.child = launch(&self.jars, &self.directory, &self.settings);
    }

    fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What the worker has logged, from warnings on, without Java's stacks.
    pub fn log(&self) -> String {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        log.lines().filter(|l| !l.starts_with("\tat ")).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Debezium {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(jars: &str, directory: &tempfile::TempDir, settings: &[PathBuf]) -> Child {
    let log = File::options().create(true).append(true).open(directory.path().join("log"));
    Command::new("java")
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"])
        .args(["-Dorg.apache.logging.log4j.level=WARN", "-cp", jars])
        .arg("org.apache.kafka.connect.cli.ConnectStandalone")
        .args(settings)
        .stdout(log.expect("a log file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("java runs")
}
