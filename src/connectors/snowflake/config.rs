//! A connection to Snowflake, as its options say.

use super::auth::{Credentials, PrivateKey, Secret, account_host};
use crate::connectors::Options;
use crate::error::{Error, Result, SqlState};

/// What is needed to open a session.
#[derive(Debug)]
pub struct Config {
    /// `org-account`, or a locator with its region.
    pub account: String,
    /// The login name.
    pub user: String,
    /// Password or key.
    pub credentials: Credentials,
    /// Replaces the account's usual address: for private links, proxies and tests.
    pub url: Option<String>,
    /// The role to act in.
    pub role: Option<String>,
    /// The virtual warehouse that runs the statements.
    pub warehouse: Option<String>,
    /// Where unqualified names are looked up.
    pub database: Option<String>,
    /// Where unqualified names are looked up.
    pub schema: Option<String>,
    /// Lets an emulator name a directory of this machine as its stage.
    pub local_stage: bool,
}

impl Config {
    /// Reads the options of a connection. A secret never stands in an error.
    pub fn new(options: Vec<(String, String)>) -> Result<Config> {
        let mut options = Options::new("SNOWFLAKE connection", options);
        let wrong = |text: String| Error::new(SqlState::INVALID_PARAMETER_VALUE, text);
        let account = options.require("account")?;
        let user = options.require("user")?;
        let pem = match (options.take("private_key"), options.take("private_key_file")) {
            (Some(_), Some(_)) => {
                return Err(wrong("private_key and private_key_file exclude each other".to_string()));
            }
            (Some(pem), None) => Some(pem),
            (None, Some(path)) => Some(
                std::fs::read_to_string(&path)
                    .map_err(|e| wrong(format!("private_key_file {path} cannot be read: {e}")))?,
            ),
            (None, None) => None,
        };
        let credentials = match (pem, options.take("password")) {
            (Some(pem), None) => Credentials::KeyPair(Box::new(PrivateKey::from_pem(&pem)?)),
            (None, Some(password)) => Credentials::Password(Secret::new(password)),
            (Some(_), Some(_)) => {
                return Err(wrong(
                    "a SNOWFLAKE connection has either a password or a private key".to_string(),
                ));
            }
            (None, None) => {
                return Err(wrong("a SNOWFLAKE connection needs a password or a private_key".to_string()));
            }
        };
        let url = options.take("url").map(|url| url.trim_end_matches('/').to_string());
        if let Some(url) = &url
            && !(url.starts_with("https://") || url.starts_with("http://"))
        {
            return Err(wrong(format!("option \"url\" must begin with https:// or http://, not \"{url}\"")));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
        if account.is_empty() || !account.chars().all(plain) {
            return Err(wrong(format!("option \"account\" must be like myorg-myaccount, not \"{account}\"")));
        }
        let config = Config {
            account,
            user,
            credentials,
            url,
            role: options.take("role"),
            warehouse: options.take("warehouse"),
            database: options.take("database"),
            schema: options.take("schema"),
            local_stage: options.parse("allow_local_stage", "true or false")?.unwrap_or(false),
        };
        options.finish()?;
        Ok(config)
    }

    /// Scheme and host of every request.
    pub fn base_url(&self) -> String {
        self.url.clone().unwrap_or_else(|| format!("https://{}", account_host(&self.account)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(options: &[(&str, &str)]) -> Result<Config> {
        Config::new(options.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
    }

    #[test]
    fn the_host_is_the_accounts_unless_told() {
        let base = [("account", "org-acct"), ("user", "u"), ("password", "hunter2")];
        let plain = config(&base).unwrap();
        assert_eq!(plain.base_url(), "https://org-acct.snowflakecomputing.com");
        assert!(!format!("{plain:?}").contains("hunter2"));
        let mut told = base.to_vec();
        told.push(("url", "http://127.0.0.1:8084/"));
        assert_eq!(config(&told).unwrap().base_url(), "http://127.0.0.1:8084");
    }

    #[test]
    fn wrong_options_are_errors_that_tell_no_secret() {
        for options in [
            vec![("account", "a"), ("user", "u")],
            vec![("account", "a"), ("user", "u"), ("password", "hunter2"), ("private_key", "hunter2")],
            vec![("account", "a"), ("user", "u"), ("private_key", "hunter2")],
            vec![("account", "evil/host"), ("user", "u"), ("password", "hunter2")],
            vec![("account", "a"), ("user", "u"), ("password", "hunter2"), ("url", "ftp://x")],
            vec![("account", "a"), ("user", "u"), ("password", "hunter2"), ("pasword", "x")],
            vec![("user", "u"), ("password", "hunter2")],
        ] {
            let e = config(&options).unwrap_err();
            assert_eq!(e.sqlstate, SqlState::INVALID_PARAMETER_VALUE);
            assert!(!format!("{e:?}").contains("hunter2"), "{e:?}");
        }
    }
}
