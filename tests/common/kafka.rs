//! A real Apache Kafka broker of one's own, from the jars that `scripts/test-deps kafka` brings.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::postgres::free_port;

/// How long reading a topic may take.
const PATIENCE: Duration = Duration::from_secs(90);

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
        Self::start_with(|_| String::new(), &[])
    }

    /// The same with a second listener, SASL over TLS, that knows the user `ada` with the password `secret`; the broker
    /// and the listener's address. `ca.pem` in [`Kafka::directory`] is what its certificate is to be trusted by.
    pub fn start_secured() -> (Self, String) {
        let secured = format!("localhost:{}", free_port());
        let scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"].map(|m| format!("{m}=[name=ada,password=secret]"));
        let kafka = Self::start_with(|directory| secure(directory, &secured), &scram);
        (kafka, secured)
    }

    /// Where its data are, gone with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// `more` gives further settings, which may replace those of listeners; `scram` are users.
    fn start_with(more: impl FnOnce(&Path) -> String, scram: &[String]) -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let jars = PathBuf::from(deps).join("kafka");
        assert!(jars.exists(), "no Kafka at {}: run scripts/test-deps kafka first", jars.display());
        let jars = format!("{}/*", jars.display());
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (port, controller) = (free_port(), free_port());
        let brokers = format!("127.0.0.1:{port}");
        let more = more(directory.path());
        let extra = more.lines().find_map(|l| l.strip_prefix("#listener ")).map(|l| format!(",{l}"));
        let extra = extra.unwrap_or_default();
        let settings = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners=PLAINTEXT://{brokers},CONTROLLER://127.0.0.1:{controller}{extra}\n\
             advertised.listeners=PLAINTEXT://{brokers}{extra}\ninter.broker.listener.name=PLAINTEXT\n\
             controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\nlog.dirs={}/logs\n\
             num.partitions=2\noffsets.topic.num.partitions=4\ntransaction.state.log.num.partitions=4\n\
             offsets.topic.replication.factor=1\ntransaction.state.log.replication.factor=1\n\
             transaction.state.log.min.isr=1\nshare.coordinator.state.topic.replication.factor=1\n\
             share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\n{more}",
            directory.path().display()
        );
        let path = directory.path().join("server.properties");
        std::fs::write(&path, settings).expect("writing server.properties");
        let format = Command::new("java")
            .args(["-cp", &jars, "kafka.tools.StorageTool", "format", "-t", "dGlkZW1pbGwtdGVzdC1pZA", "-c"])
            .arg(&path)
            .args(scram.iter().flat_map(|user| ["--add-scram", user]))
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

    /// The records of a topic, committed ones only, as `(key, value)`, in order by partition.
    pub fn committed(&self, topic: &str) -> Vec<(Option<String>, Option<String>)> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", self.brokers())
            .set("group.id", "check")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("metadata");
        let mut list = TopicPartitionList::new();
        let mut open = 0;
        for p in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, p.id(), Offset::Beginning).expect("a partition");
            open += 1;
        }
        consumer.assign(&list).expect("an assignment");
        let mut records = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        while open > 0 {
            assert!(Instant::now() < deadline, "reading {topic} takes too long");
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(m)) => {
                    let text = |b: Option<&[u8]>| b.map(|b| String::from_utf8_lossy(b).into_owned());
                    records.push((text(m.key()), text(m.payload())));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                _ => (),
            }
        }
        records
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

/// Makes a key with a certificate that signs itself, and says how a listener uses it.
fn secure(directory: &Path, address: &str) -> String {
    let store = directory.join("keys.p12");
    let keytool = |arguments: &[&str]| {
        let common = ["-alias", "broker", "-storetype", "PKCS12", "-storepass", "secret"];
        let made = Command::new("keytool").args(arguments).args(common).arg("-keystore").arg(&store).output();
        let made = made.expect("keytool runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stdout));
    };
    let ca = directory.join("ca.pem").display().to_string();
    keytool(&[
        "-genkeypair",
        "-keyalg",
        "EC",
        "-dname",
        "CN=localhost",
        "-ext",
        "SAN=dns:localhost",
        "-validity",
        "30",
    ]);
    keytool(&["-exportcert", "-rfc", "-file", &ca]);
    let module = "org.apache.kafka.common.security";
    format!(
        "#listener SASL_SSL://{address}\n\
         listener.name.sasl_ssl.ssl.keystore.location={}\nlistener.name.sasl_ssl.ssl.keystore.password=secret\n\
         listener.name.sasl_ssl.ssl.keystore.type=PKCS12\n\
         sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={module}.plain.PlainLoginModule required user_ada=\"secret\";\n\
         listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;\n\
         listener.name.sasl_ssl.oauthbearer.sasl.jaas.config={module}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub=\"admin\";\n",
        store.display()
    )
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
