//! What the options of a MQTT source say.

use std::time::Duration;

use reqwest::Url;
use rumqttc::{ConnectionError, MqttOptions, QoS, TlsConfiguration, Transport, valid_filter};

use crate::connectors::warehouse::duration;
use crate::connectors::{Options, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// How often to give a sign of life unless the option `keep_alive` says otherwise.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The longest message, in bytes, unless the option `message.limit` says otherwise.
const MESSAGE_BYTES: usize = 16 << 20;
/// Where systems keep the certificates that they trust.
const CERTIFICATES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// What a source was told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    host: String,
    port: u16,
    tls: bool,
    /// A file of certificates to trust, instead of the system's.
    certificates: Option<String>,
    credentials: Option<(String, String)>,
    client_id: String,
    keep_alive: Duration,
    message_limit: usize,
    /// What is subscribed to.
    pub topics: Vec<String>,
    pub qos: QoS,
    /// Whether messages that the broker had kept for later subscribers are records, too.
    pub retained: bool,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl Settings {
    /// Understands a definition's options.
    ///
    /// # Errors
    /// 22023.
    pub(super) fn new(definition: &SourceDefinition) -> Result<Settings> {
        let mut options = Options::new("a MQTT source", definition.options.clone());
        let text = options.require("url")?;
        let wrong = |why: &dyn std::fmt::Display| {
            invalid(format!(
                "option \"url\" of a MQTT source must be like mqtt://localhost:1883 or mqtts://broker.example.com, not \"{text}\": {why}"
            ))
        };
        let url = Url::parse(&text).map_err(|e| wrong(&e))?;
        let (tls, port) = match url.scheme() {
            "mqtt" | "tcp" => (false, 1883),
            "mqtts" | "ssl" => (true, 8883),
            _ => return Err(wrong(&"it is neither mqtt nor mqtts")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("option \"url\" of a MQTT source must not have a password in it")
                .with_hint("Use the options user and password; a secret: password = SECRET p."));
        }
        if !matches!(url.path(), "" | "/") {
            return Err(wrong(&"it has a path").with_hint("What is subscribed to is the option topic."));
        }
        let host = url.host_str().ok_or_else(|| wrong(&"it has no host"))?.to_string();
        let topics: Vec<String> =
            options.require("topic")?.split(',').map(|t| t.trim().to_string()).collect();
        if let Some(topic) = topics.iter().find(|topic| !valid_filter(topic)) {
            let message =
                format!("option \"topic\" of a MQTT source has \"{topic}\", which is no filter of topics");
            return Err(invalid(message).with_hint(
                "+ stands for one level, # for all levels at the end: sensors/+/temperature, sensors/#.",
            ));
        }
        let qos = match options.take("qos").as_deref() {
            Some("0") => QoS::AtMostOnce,
            None | Some("1") => QoS::AtLeastOnce,
            Some("2") => {
                return Err(Error::unsupported("qos = 2 of a MQTT source")
                    .with_hint("Use 1: what the broker sends again is recognised, see the documentation."));
            }
            Some(other) => {
                return Err(invalid(format!(
                    "option \"qos\" of a MQTT source must be 0 or 1, not \"{other}\""
                )));
            }
        };
        let credentials = match (options.take("user"), options.take("password")) {
            (Some(user), password) => Some((user, password.unwrap_or_default())),
            (None, None) => None,
            (None, Some(_)) => return Err(invalid("a MQTT source with a password needs a user")),
        };
        let keep_alive = options.take("keep_alive").map(|t| duration("keep_alive", &t)).transpose()?;
        let keep_alive = keep_alive.unwrap_or(KEEP_ALIVE);
        if !(Duration::from_secs(1)..=Duration::from_secs(65_535)).contains(&keep_alive) {
            return Err(invalid("option \"keep_alive\" of a MQTT source must be 1 to 65535 seconds"));
        }
        let certificates = options.take("certificates");
        if certificates.is_some() && !tls {
            return Err(invalid("option \"certificates\" of a MQTT source needs a url mqtts://…"));
        }
        let client_id = options.take("client_id").unwrap_or_else(|| format!("tidemill-{}", definition.name));
        if client_id.is_empty() || client_id.starts_with(' ') {
            return Err(invalid(
                "option \"client_id\" of a MQTT source must be a name: the broker keeps its session by it",
            ));
        }
        let message_limit = options.parse("message.limit", "a number of bytes")?.unwrap_or(MESSAGE_BYTES);
        let retained = options.parse("retained", "true or false")?.unwrap_or(true);
        options.finish()?;
        Ok(Settings {
            host,
            port: url.port().unwrap_or(port),
            tls,
            certificates,
            credentials,
            client_id,
            keep_alive,
            message_limit,
            topics,
            qos,
            retained,
        })
    }

    /// The broker, for errors.
    pub(super) fn shown(&self) -> String {
        format!("the broker at {}:{}", self.host, self.port)
    }

    /// What the client is told.
    ///
    /// # Errors
    /// 22023 when certificates cannot be read.
    pub(super) fn options(&self) -> Result<MqttOptions> {
        let mut options = MqttOptions::new(&self.client_id, &self.host, self.port);
        options
            .set_keep_alive(self.keep_alive)
            .set_clean_session(false)
            .set_manual_acks(true)
            .set_max_packet_size(self.message_limit, self.message_limit);
        if let Some((user, password)) = &self.credentials {
            options.set_credentials(user, password);
        }
        if self.tls {
            let ca = match &self.certificates {
                Some(path) => std::fs::read(path)
                    .map_err(|e| invalid(format!("the certificates at \"{path}\" cannot be read: {e}")))?,
                None => CERTIFICATES.iter().find_map(|path| std::fs::read(path).ok()).ok_or_else(|| {
                    invalid("there are no certificates to know the broker by")
                        .with_hint("Name a file of them by the option certificates.")
                })?,
            };
            // Whoever embeds the database may not have chosen one; a second choice changes nothing.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let tls = TlsConfiguration::Simple { ca, alpn: None, client_auth: None };
            options.set_transport(Transport::tls_with_config(tls));
        }
        Ok(options)
    }

    /// What went wrong with the connection.
    pub(super) fn lost(&self, error: &ConnectionError) -> Error {
        let sqlstate = match error {
            ConnectionError::ConnectionRefused(
                rumqttc::ConnectReturnCode::BadUserNamePassword | rumqttc::ConnectReturnCode::NotAuthorized,
            ) => SqlState::INVALID_AUTHORIZATION,
            _ => SqlState::CONNECTION_FAILURE,
        };
        Error::new(sqlstate, format!("{}: {error}", self.shown()))
    }
}
