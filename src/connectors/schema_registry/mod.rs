//! A schema registry, by the protocol that Confluent's speaks (and Apicurio, Karapace, Redpanda): schemas by id, by
//! subject and version, and their registration.

pub mod client;
pub mod frame;
pub mod subject;

use crate::connectors::Options;
use crate::error::{Error, Result, SqlState};
use client::SchemaRegistry;

/// How a registry is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Its addresses, tried in turn, each without a slash at its end.
    pub urls: Vec<String>,
    /// The user of basic authentication.
    pub username: Option<String>,
    /// The user's password.
    password: Option<String>,
    /// A file of PEM certificates that are trusted besides the usual ones.
    pub certificates: Option<String>,
}

impl std::fmt::Debug for RegistrySettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistrySettings")
            .field("urls", &self.urls)
            .field("username", &self.username)
            .finish()
    }
}

/// The names of a connection's options, and of those of a FORMAT that stand for one.
#[derive(Clone, Copy)]
struct Names {
    url: &'static str,
    username: &'static str,
    password: &'static str,
    certificates: &'static str,
}

const CONNECTION: Names =
    Names { url: "url", username: "username", password: "password", certificates: "ssl.ca.location" };
const FORMAT: Names = Names {
    url: "schema.registry.url",
    username: "schema.registry.username",
    password: "schema.registry.password",
    certificates: "schema.registry.ssl.ca.location",
};

/// What a connection's option is called where FORMAT itself names the registry.
pub fn format_option(connection_option: &str) -> String {
    format!("schema.registry.{connection_option}")
}

impl RegistrySettings {
    /// From the options of a CONNECTION.
    ///
    /// # Errors
    /// 22023 for an option that is unknown, missing or wrong.
    pub fn of_connection(options: Vec<(String, String)>) -> Result<Self> {
        let mut options = Options::new("a SCHEMA REGISTRY connection", options);
        let settings = Self::take(&mut options, CONNECTION)?;
        options.finish()?;
        settings.ok_or_else(|| {
            invalid("a SCHEMA REGISTRY connection needs the option \"url\" ('http://host:8081')")
        })
    }

    /// From the options of a FORMAT; `None`: it names no registry.
    ///
    /// # Errors
    /// 22023 for an option that is wrong.
    pub fn of_format(options: &mut Options) -> Result<Option<Self>> {
        Self::take(options, FORMAT)
    }

    fn take(options: &mut Options, names: Names) -> Result<Option<Self>> {
        let (username, password) = (options.take(names.username), options.take(names.password));
        let certificates = options.take(names.certificates);
        let Some(urls) = options.take(names.url) else { return Ok(None) };
        let urls: Vec<String> = urls.split(',').map(|u| u.trim().trim_end_matches('/').to_string()).collect();
        if let Some(url) = urls.iter().find(|u| !u.starts_with("http://") && !u.starts_with("https://")) {
            return Err(invalid(format!(
                "option \"{}\" must be an address such as 'http://host:8081', or several by comma, not \"{url}\"",
                names.url
            )));
        }
        if password.is_some() && username.is_none() {
            return Err(invalid(format!("option \"{}\" needs \"{}\"", names.password, names.username)));
        }
        Ok(Some(RegistrySettings { urls, username, password, certificates }))
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// Asks a registry for its subjects.
///
/// # Errors
/// 08006 when it does not answer, 28000 when it refuses the user, 22023 for options.
pub fn validate_connection(options: Vec<(String, String)>) -> Result<()> {
    SchemaRegistry::new(RegistrySettings::of_connection(options)?)?.ping()
}
