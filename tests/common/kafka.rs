//! A real Apache Kafka broker of one's own, from the jars that `scripts/test-deps kafka` brings.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use super::postgres::free_port;

/// A single node in KRaft mode; gone with its data when dropped.
pub struct Kafka {
    child: Child,
    brokers: String,
    directory: tempfile::TempDir,
    jars: String,
}

impl Kafka {
    /// Formats a data directory, starts the broker and waits until it answers.
    pub fn start() -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let jars = PathBuf::from(deps).join("kafka");
        assert!(jars.exists(), "no Kafka at {}: run scripts/test-deps kafka first", jars.display());
        let jars = format!("{}/*", jars.display());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, controller) = (free_port(), free_port());
        let brokers = format!("127.0.0.1:{port}");
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://{brokers},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{brokers}\ninter.broker.listener.name=PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={}/logs\n\
             num.partitions=2\noffsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n",
            directory.path().display()
        );
        let path = directory.path().join("server.properties");
        std::fs::write(&path, settings).expect("writing server.properties");
        let format = Command::new("java")
            .args(["-cp", &jars, "kafka.tools.StorageTool", "format", "-t", "dGlkZW1pbGwtdGVzdC1pZA", "-c"])
            .arg(&path)
            .output()
            .expect("java runs");
        assert!(format.status.success(), "formatting: {}", String::from_utf8_lossy(&format.stderr));
        let child = launch(&jars, &directory);
        let kafka = Kafka { child, brokers, directory, jars };
        kafka.wait();
        kafka
    }

    /// Kills the broker as a crash would, and starts it again on the same data.
    pub fn restart(&mut self) {
        self.kill();
        self.child = launch(&self.jars, &self.directory);
        self.wait();
    }

    /// Kills the broker as a crash would.
    pub fn kill(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// `host:port`, as clients want it.
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    fn wait(&self) {
        let client: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("log_level", "0")
            .create()
            .expect("a client");
        let deadline = Instant::now() + Duration::from_secs(60);
        while client.fetch_metadata(None, Duration::from_secs(1)).is_err() {
            let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "Kafka did not start:\n{log}");
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(jars: &str, directory: &tempfile::TempDir) -> Child {
    let log = std::fs::File::create(directory.path().join("log")).expect("a log file");
    Command::new("java")
        .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", jars, "kafka.Kafka"])
        .arg(directory.path().join("server.properties"))
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .expect("java runs")
}
