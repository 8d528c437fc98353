//! Options of Kafka connections, sources and sinks, understood and checked.

use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use regex::Regex;

use crate::connectors::format::{CsvOptions, Format, datetime};
use crate::connectors::schema_registry::RegistrySettings;
use crate::connectors::schema_registry::client::SchemaKind;
use crate::connectors::schema_registry::subject::Subjects;
use crate::connectors::{Envelope, Options, SinkDefinition, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// Options of librdkafka that are Tidemill's to set.
const OWN_PROPERTIES: [&str; 12] = [
    "acks",
    "auto.offset.reset",
    "bootstrap.servers",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "enable.idempotence",
    "enable.partition.eof",
    "group.id",
    "isolation.level",
    "metadata.broker.list",
    "statistics.interval.ms",
    "transactional.id",
];

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// How brokers are reached.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// `host:port`, several by comma.
    pub brokers: String,
    properties: Vec<(String, String)>,
}

impl ClientSettings {
    /// From the options of a CONNECTION.
    pub fn of_connection(options: Vec<(String, String)>) -> Result<Self> {
        let mut options = Options::new("a KAFKA connection", options);
        let settings = Self::take(&mut options)?;
        options.finish()?;
        Ok(settings)
    }

    /// Takes the options about brokers: `brokers`, `security.protocol`, `sasl.…`, `ssl.…`, `client.id`, and any of
    /// librdkafka's own as `properties.NAME`.
    fn take(options: &mut Options) -> Result<Self> {
        let mut properties = options.take_prefixed("properties.");
        let mut named = |name: &str| {
            let i = properties.iter().position(|(n, _)| n == name)?;
            Some(properties.remove(i).1)
        };
        let bootstrap = named("bootstrap.servers").or_else(|| named("bootstrap.server"));
        let protocol = options.take("security.protocol").or_else(|| named("security.protocol"));
        for prefix in ["sasl.", "ssl."] {
            let taken = options.take_prefixed(prefix);
            properties.extend(taken.into_iter().map(|(name, value)| (format!("{prefix}{name}"), value)));
        }
        let brokers = match options.take("brokers").or(bootstrap) {
            Some(brokers) if !brokers.trim().is_empty() => brokers,
            _ => {
                return Err(invalid(
                    "a KAFKA connection needs the option \"brokers\" ('host:port', several by comma)",
                ));
            }
        };
        let protocol = protocol.unwrap_or_else(|| "plaintext".to_string()).to_ascii_lowercase();
        if !["plaintext", "sasl_plaintext", "ssl", "sasl_ssl"].contains(&protocol.as_str()) {
            return Err(invalid(format!(
                "option \"security.protocol\" must be PLAINTEXT, SASL_PLAINTEXT, SSL or SASL_SSL, not \"{protocol}\""
            )));
        }
        let mechanism = properties.iter().find(|(n, _)| n == "sasl.mechanism" || n == "sasl.mechanisms");
        let mechanism = mechanism.map(|(_, m)| m.to_ascii_uppercase());
        match mechanism.as_deref() {
            None | Some("PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" | "OAUTHBEARER") => (),
            Some("GSSAPI") => return Err(Error::unsupported("sasl.mechanism = 'GSSAPI'")),
            Some(other) => {
                return Err(invalid(format!(
                    "option \"sasl.mechanism\" must be PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER, not \"{other}\""
                )));
            }
        }
        let needs_tls = protocol.ends_with("ssl") || mechanism.is_some_and(|m| m != "PLAIN");
        if needs_tls && !cfg!(feature = "kafka-tls") {
            return Err(Error::unsupported("Kafka with TLS, SCRAM or OAUTHBEARER by this build of Tidemill")
                .with_hint(
                    "Build it with --features kafka-tls, which needs OpenSSL's headers (libssl-dev).",
                ));
        }
        if protocol.starts_with("sasl") && !properties.iter().any(|(n, _)| n.starts_with("sasl.mechanism")) {
            return Err(invalid("security.protocol = 'SASL_…' needs the option \"sasl.mechanism\""));
        }
        properties.push(("security.protocol".to_string(), protocol));
        if let Some((name, _)) = properties.iter().find(|(n, _)| OWN_PROPERTIES.contains(&n.as_str())) {
            return Err(invalid(format!("\"properties.{name}\" is set by Tidemill itself")));
        }
        if let Some(id) = options.take("client.id") {
            properties.push(("client.id".to_string(), id));
        }
        let settings = ClientSettings { brokers, properties };
        // Names and values are librdkafka's to check.
        settings.config().create_native_config().map_err(|e| settings.error("connect to", &e))?;
        Ok(settings)
    }

    /// librdkafka's configuration of a client.
    pub fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "tidemill");
        // A broker that comes back is found again quickly.
        config.set("reconnect.backoff.max.ms", "2000");
        // New partitions show up after this long.
        config.set("topic.metadata.refresh.interval.ms", "30000");
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }

    /// The error of brokers that cannot be reached, and why.
    pub fn unreachable(&self, why: &str) -> Error {
        let message = format!("could not reach Kafka at {}: {why}", self.brokers);
        Error::new(SqlState::CONNECTION_FAILURE, message)
    }

    /// An error of a client of these brokers.
    pub fn error(&self, what: &str, e: &KafkaError) -> Error {
        let state = match e {
            // A file of certificates that is none, for instance: no broker was asked yet.
            KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => SqlState::INVALID_PARAMETER_VALUE,
            _ => SqlState::CONNECTION_FAILURE,
        };
        Error::new(state, format!("could not {what} Kafka at {}: {}", self.brokers, reason(e)))
    }
}

/// What went wrong, in librdkafka's words, without the wrapper's.
pub fn reason(e: &KafkaError) -> String {
    match e {
        KafkaError::ClientConfig(_, description, key, value) => format!("{description} ({key} = {value})"),
        KafkaError::Transaction(e) => e.to_string(),
        e => match e.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => e.to_string(),
        },
    }
}

/// Where a source begins that has read nothing yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the oldest records that the brokers have.
    Earliest,
    /// At records that come from now on.
    Latest,
    /// At offsets by partition; at the oldest records of others.
    Offsets(Vec<(i32, i64)>),
    /// At the first records of this time or later, ms since 1970.
    Time(i64),
}

impl Start {
    fn parse(text: &str) -> Result<Start> {
        let error = || {
            invalid(format!(
                "option \"start\" must be 'earliest', 'latest', offsets by partition as '0:120,1:300', or a time, not \"{text}\""
            ))
        };
        match text.trim() {
            t if t.eq_ignore_ascii_case("earliest") => return Ok(Start::Earliest),
            t if t.eq_ignore_ascii_case("latest") => return Ok(Start::Latest),
            _ => (),
        }
        if let Some((local, offset)) = datetime::parse_timestamp(text) {
            return Ok(Start::Time(local.saturating_sub(offset.unwrap_or(0)).div_euclid(1000)));
        }
        let mut offsets = Vec::new();
        for part in text.split(',') {
            let (partition, offset) = part.split_once(':').ok_or_else(error)?;
            let partition: i32 = partition.trim().parse().map_err(|_| error())?;
            let offset: i64 = offset.trim().parse().map_err(|_| error())?;
            if partition < 0 || offset < 0 || offsets.iter().any(|(p, _)| *p == partition) {
                return Err(error());
            }
            offsets.push((partition, offset));
        }
        Ok(Start::Offsets(offsets))
    }
}

/// Everything about a Kafka source besides what its records mean.
#[derive(Clone, Debug)]
pub struct SourceSettings {
    /// Where.
    pub client: ClientSettings,
    /// Which topics.
    pub topics: Topics,
    /// How often it is looked whether there are new topics.
    pub refresh: Duration,
    /// From where on.
    pub start: Start,
    /// Whether records of open and aborted transactions are read too.
    pub read_uncommitted: bool,
    /// The group that brokers see; it decides nothing.
    pub group: String,
    /// See [`crate::connectors::envelope::Declaration::full_before_images`].
    pub full_before_images: bool,
}

impl SourceSettings {
    /// Understands a definition's options.
    pub fn new(definition: &SourceDefinition) -> Result<Self> {
        let all = definition.connection.iter().chain(&definition.options).cloned().collect();
        let mut options = Options::new("a KAFKA source", all);
        let client = ClientSettings::take(&mut options)?;
        let topics = Topics::take(&mut options)?;
        let start = options.take("start").map_or(Ok(Start::Earliest), |s| Start::parse(&s))?;
        if matches!(start, Start::Offsets(_)) && topics.only().is_none() {
            return Err(invalid("offsets in option \"start\" need a single topic"));
        }
        let read_uncommitted = match options.take("isolation.level").as_deref() {
            None | Some("read_committed") => false,
            Some("read_uncommitted") => true,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"isolation.level\" must be 'read_committed' or 'read_uncommitted', not \"{other}\""
                )));
            }
        };
        let full_before_images = match options.take("replica.identity").as_deref() {
            None | Some("default") => false,
            Some("full") => true,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"replica.identity\" must be 'default' or 'full', not \"{other}\""
                )));
            }
        };
        let group = options.take("group.id").unwrap_or_else(|| format!("tidemill-{}", definition.name));
        options.finish()?;
        let keyless_changes = definition.envelope == Envelope::Debezium && definition.key.is_empty();
        if keyless_changes && full_before_images && start != Start::Earliest {
            return Err(invalid("ENVELOPE DEBEZIUM without a PRIMARY KEY needs start = 'earliest'")
                .with_detail(
                    "Rows are taken back by their values, so every row must have been read when it came.",
                ));
        }
        let refresh =
            client.config().get("topic.metadata.refresh.interval.ms").and_then(|ms| ms.parse().ok());
        let refresh = Duration::from_millis(refresh.unwrap_or(30_000));
        Ok(SourceSettings { client, topics, refresh, start, read_uncommitted, group, full_before_images })
    }
}

/// The topics of a source.
#[derive(Clone, Debug)]
pub enum Topics {
    /// These, at least one.
    Named(Vec<String>),
    /// All whose whole names match, those to come included.
    Pattern(Regex),
}

impl Topics {
    fn take(options: &mut Options) -> Result<Self> {
        let Some(pattern) = options.take("topic.pattern") else {
            let names = options.require("topic")?;
            let names: Vec<String> = names.split(',').map(|t| t.trim().to_string()).collect();
            if names.iter().any(|t| !is_topic_name(t)) {
                return Err(invalid("option \"topic\" must be the name of a topic, or several by comma"));
            }
            return Ok(Topics::Named(names));
        };
        if options.take("topic").is_some() {
            return Err(invalid("a KAFKA source takes the option \"topic\" or \"topic.pattern\", not both"));
        }
        match Regex::new(&format!("^(?:{pattern})$")) {
            Ok(pattern) => Ok(Topics::Pattern(pattern)),
            Err(e) => {
                Err(invalid("option \"topic.pattern\" is no regular expression").with_detail(e.to_string()))
            }
        }
    }

    /// The topic, where it is one of a name.
    pub fn only(&self) -> Option<&str> {
        match self {
            Topics::Named(names) if names.len() == 1 => names.first().map(String::as_str),
            _ => None,
        }
    }

    /// Whether a topic is one of them.
    pub fn contains(&self, topic: &str) -> bool {
        match self {
            Topics::Named(names) => names.iter().any(|n| n == topic),
            // Those that begin so are the brokers' and clients' own.
            Topics::Pattern(pattern) => !topic.starts_with("__") && pattern.is_match(topic),
        }
    }
}

fn is_topic_name(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(valid) && name != "." && name != ".."
}

/// Everything about a Kafka sink.
#[derive(Clone, Debug)]
pub struct SinkSettings {
    /// Where.
    pub client: ClientSettings,
    /// Into which topic.
    pub topic: String,
    /// What a change is written as.
    pub envelope: Envelope,
    /// How keys and values are written.
    pub format: SinkFormat,
    /// What the topic is like, where the sink makes it.
    pub new_topic: NewTopicSettings,
    /// Positions of the key's columns; empty: records have no key.
    pub key: Vec<usize>,
    /// Changes of this long go into one transaction.
    pub commit_interval: Duration,
}

/// How a sink's records are written.
#[derive(Clone, Debug)]
pub enum SinkFormat {
    /// As JSON objects.
    Json,
    /// Values as CSV lines, keys as JSON.
    Csv(CsvOptions),
    /// In binary, by schemas that a registry has.
    Schema(SchemaKind, Box<SchemaSettings>),
}

/// Where a sink's schemas are registered, and under which names.
#[derive(Clone, Debug)]
pub struct SchemaSettings {
    /// The registry.
    pub registry: RegistrySettings,
    /// The subjects.
    pub subjects: Subjects,
}

/// What a topic is made with.
#[derive(Clone, Debug)]
pub struct NewTopicSettings {
    /// Partitions; -1: the brokers' default.
    pub partitions: i32,
    /// Replicas of each; -1: the brokers' default.
    pub replication: i32,
    /// The topic's own settings, by Kafka's names.
    pub config: Vec<(String, String)>,
}

impl NewTopicSettings {
    fn take(options: &mut Options) -> Result<Self> {
        let mut count = |name: &'static str| match options.parse::<i32>(name, "a whole number")? {
            None => Ok(-1),
            Some(n) if n >= 1 => Ok(n),
            Some(n) => Err(invalid(format!("option \"{name}\" of a KAFKA sink must be at least 1, not {n}"))),
        };
        let (partitions, replication) = (count("partitions")?, count("replication.factor")?);
        let mut config = options.take_prefixed("topic.config.");
        if let Some(policy) = options.take("cleanup.policy") {
            config.push(("cleanup.policy".to_string(), policy));
        }
        Ok(NewTopicSettings { partitions, replication, config })
    }
}

impl SinkSettings {
    const COMMIT_INTERVAL: Duration = Duration::from_millis(200);

    /// Understands a definition's options.
    pub fn new(definition: &SinkDefinition, key: &[usize]) -> Result<Self> {
        let all = definition.connection.iter().chain(&definition.options).cloned().collect();
        let mut options = Options::new("a KAFKA sink", all);
        let client = ClientSettings::take(&mut options)?;
        let topic = options.require("topic")?;
        if !is_topic_name(&topic) {
            return Err(invalid(format!("\"{topic}\" is no name of a Kafka topic")));
        }
        let commit_interval = match options.take("commit_interval") {
            Some(text) => parse_duration(&text).ok_or_else(|| {
                invalid(format!(
                    "option \"commit_interval\" must be a duration such as '500 ms' or '5 s', not \"{text}\""
                ))
            })?,
            None => Self::COMMIT_INTERVAL,
        };
        let new_topic = NewTopicSettings::take(&mut options)?;
        options.finish()?;
        let mut format = Format::new(definition.format.as_ref())?;
        format.set_topic(&topic);
        let schema = |kind: SchemaKind, registry: Option<RegistrySettings>, subjects: Subjects| match registry
        {
            Some(registry) => Ok(SinkFormat::Schema(kind, Box::new(SchemaSettings { registry, subjects }))),
            None => Err(invalid("a KAFKA sink of FORMAT AVRO or PROTOBUF needs a schema registry")
                .with_hint(
                    "FORMAT AVRO USING SCHEMA REGISTRY CONNECTION name: its schema is made from the columns.",
                )),
        };
        let format = match format {
            Format::Json(_) => SinkFormat::Json,
            Format::Csv(csv) if definition.envelope == Envelope::Debezium || csv.header => {
                return Err(Error::unsupported("a KAFKA sink of CSV with a header or ENVELOPE DEBEZIUM"));
            }
            Format::Csv(csv) => SinkFormat::Csv(csv),
            Format::Avro(avro) => schema(SchemaKind::Avro, avro.registry, avro.subjects)?,
            Format::Protobuf(protobuf) => schema(SchemaKind::Protobuf, protobuf.registry, protobuf.subjects)?,
            Format::Xml(_) => return Err(Error::unsupported("FORMAT XML of a KAFKA sink")),
            Format::Text | Format::Bytes => {
                return Err(Error::unsupported("a KAFKA sink of FORMAT TEXT or BYTES"));
            }
        };
        if key.is_empty() && definition.envelope != Envelope::None {
            return Err(Error::new(
                SqlState::INVALID_TABLE_DEFINITION,
                "a KAFKA sink needs a KEY unless its ENVELOPE is NONE",
            )
            .with_hint("Name the columns that tell rows apart: … INTO KAFKA … KEY (id) …"));
        }
        Ok(SinkSettings {
            client,
            topic,
            envelope: definition.envelope,
            format,
            new_topic,
            key: key.to_vec(),
            commit_interval,
        })
    }
}

/// `250 ms`, `5 s`, `1 min`; a bare number is seconds. At most an hour.
fn parse_duration(text: &str) -> Option<Duration> {
    const MAX: Duration = Duration::from_secs(3600);
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: f64 = number.parse().ok()?;
    let seconds = match unit.trim() {
        "ms" | "millisecond" | "milliseconds" => number / 1000.0,
        "" | "s" | "second" | "seconds" => number,
        "min" | "minute" | "minutes" => number * 60.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(seconds).ok().filter(|d| *d <= MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect()
    }

    fn source(pairs: &[(&str, &str)]) -> Result<SourceSettings> {
        SourceSettings::new(&SourceDefinition {
            name: "s".into(),
            kind: "kafka".into(),
            connection: options(&[("brokers", "b:9092")]),
            options: options(pairs),
            format: None,
            envelope: Envelope::None,
            includes: vec![],
            key: vec![],
        })
    }

    #[test]
    fn starts() {
        for (text, expected) in [
            ("Earliest", Start::Earliest),
            ("latest", Start::Latest),
            ("0:5, 2:7", Start::Offsets(vec![(0, 5), (2, 7)])),
            ("1970-01-01 00:00:01.5+00", Start::Time(1500)),
        ] {
            assert_eq!(source(&[("topic", "t"), ("start", text)]).unwrap().start, expected, "{text}");
        }
        for bad in ["", "0", "0:x", "0:1,0:2", "-1:2", "0:-2"] {
            assert!(source(&[("topic", "t"), ("start", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let message = |pairs: &[(&str, &str)]| source(pairs).unwrap_err().message;
        assert_eq!(message(&[]), "a KAFKA source needs the option \"topic\"");
        assert_eq!(
            message(&[("topic", "a b")]),
            "option \"topic\" must be the name of a topic, or several by comma"
        );
        assert_eq!(message(&[("topic", "t"), ("x", "1")]), "unknown option \"x\" of a KAFKA source");
        assert_eq!(
            message(&[("topic", "t"), ("security.protocol", "tls")]),
            "option \"security.protocol\" must be PLAINTEXT, SASL_PLAINTEXT, SSL or SASL_SSL, not \"tls\""
        );
        assert!(message(&[("topic", "t"), ("sasl.nosuch", "x")]).contains("sasl.nosuch"));
        assert!(
            message(&[("topic", "t"), ("security.protocol", "SASL_PLAINTEXT")])
                .contains("\"sasl.mechanism\"")
        );
        assert_eq!(
            message(&[("topic", "t"), ("sasl.mechanism", "GSSAPI")]),
            "sasl.mechanism = 'GSSAPI' is not supported yet"
        );
        let secured = source(&[("topic", "t"), ("security.protocol", "SSL")]);
        assert_eq!(secured.is_ok(), cfg!(feature = "kafka-tls"));
        assert_eq!(
            message(&[("topic", "t"), ("properties.group.id", "x")]),
            "\"properties.group.id\" is set by Tidemill itself"
        );
        assert_eq!(
            ClientSettings::of_connection(options(&[("brokers", " ")])).unwrap_err().sqlstate,
            SqlState::INVALID_PARAMETER_VALUE
        );
    }

    #[test]
    fn a_pattern_is_of_whole_names() {
        let topics = source(&[("topic.pattern", "shop\\.(a|b)")]).unwrap().topics;
        assert!(topics.contains("shop.a") && topics.contains("shop.b"));
        assert!(!topics.contains("shop.ab") && !topics.contains("a.shop.a"));
        assert!(!source(&[("topic.pattern", ".*")]).unwrap().topics.contains("__consumer_offsets"));
    }

    #[test]
    fn properties_reach_librdkafka() {
        let s = source(&[("topic", "a, b"), ("properties.fetch.min.bytes", "7")]).unwrap();
        assert!(["a", "b"].iter().all(|t| s.topics.contains(t)) && !s.topics.contains("c"));
        assert_eq!(s.client.config().get("fetch.min.bytes"), Some("7"));
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("250 ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse_duration("5 s"), Some(Duration::from_secs(5)));
        assert_eq!(parse_duration("1.5"), Some(Duration::from_millis(1500)));
        for bad in ["", "s", "-1 s", "5 h", "1e9 s", "9999999 min"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
