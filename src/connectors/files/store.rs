//! Where files are: a url of a directory, a bucket or a server, with a pattern for the names below it.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use object_store::aws::AmazonS3ConfigKey;
use object_store::azure::AzureConfigKey;
use object_store::gcp::GoogleConfigKey;
use object_store::path::Path;
use object_store::{
    ClientConfigKey, ObjectMeta, ObjectStore, ObjectStoreExt, ObjectStoreScheme, parse_url_opts,
};
use regex::Regex;

use crate::error::{Error, Result, SqlState};

/// Files of one store that a url names.
#[derive(Clone, Debug)]
pub struct Place {
    /// The store.
    pub store: Arc<dyn ObjectStore>,
    /// Whether it is this machine's file system.
    pub local: bool,
    /// What comes before a location in a file's url.
    base: String,
    /// Everything there is lies below it.
    prefix: Path,
    /// What a location must be; `None`: the prefix is the one file.
    pattern: Option<Regex>,
}

/// A file that is there.
#[derive(Clone, Debug)]
pub struct File {
    /// Its url.
    pub path: String,
    /// Where it is in its store.
    pub location: Path,
    /// Its length.
    pub size: u64,
    /// When it was written.
    pub modified: DateTime<Utc>,
    /// What the store calls its contents.
    pub e_tag: Option<String>,
    /// Another one when it has been written again.
    pub version: String,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// An error of a store, as ours.
pub fn store_error(error: &object_store::Error) -> Error {
    let state = match error {
        object_store::Error::NotFound { .. } => SqlState("58P01"),
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            SqlState::INVALID_AUTHORIZATION
        }
        _ => SqlState::IO_ERROR,
    };
    Error::new(state, format!("the files cannot be read: {error}"))
}

/// The byte at which the first part of a path that is a pattern begins.
fn pattern_start(url: &str) -> Option<usize> {
    let special = url.find(['*', '?', '[', '{'])?;
    Some(url[..special].rfind('/').map_or(0, |slash| slash + 1))
}

/// A pattern of names as a regular expression: `*` and `?` within a name, `**` over directories, `[…]`, `{a,b}`.
///
/// # Errors
/// 22023 for brackets and braces that are not closed.
pub fn glob(pattern: &str) -> Result<String> {
    let mut out = String::new();
    let mut chars = pattern.chars().peekable();
    let mut braces = 0u32;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => match chars.next_if_eq(&'/') {
                Some(_) => out.push_str("(?:.*/)?"),
                None => out.push_str(".*"),
            },
            '*' => out.push_str("[^/]*"),
            '?' => out.push_str("[^/]"),
            '[' => {
                out.push('[');
                if chars.next_if(|c| matches!(c, '!' | '^')).is_some() {
                    out.push('^');
                }
                loop {
                    match chars.next() {
                        Some(']') => break out.push(']'),
                        Some('-') => out.push('-'),
                        Some(c) => out.push_str(&regex::escape(&c.to_string())),
                        None => return Err(invalid(format!("\"[\" without \"]\" in \"{pattern}\""))),
                    }
                }
            }
            '{' => {
                braces += 1;
                out.push_str("(?:");
            }
            '}' if braces > 0 => {
                braces -= 1;
                out.push(')');
            }
            ',' if braces > 0 => out.push('|'),
            c => out.push_str(&regex::escape(&c.to_string())),
        }
    }
    match braces {
        0 => Ok(out),
        _ => Err(invalid(format!("\"{{\" without \"}}\" in \"{pattern}\""))),
    }
}

/// Refuses options that the store does not know, which it would pass over.
fn check_options(scheme: &ObjectStoreScheme, options: &[(String, String)]) -> Result<()> {
    let (is_known, some): (fn(&str) -> bool, &str) = match scheme {
        ObjectStoreScheme::AmazonS3 => (
            |name| name.parse::<AmazonS3ConfigKey>().is_ok(),
            "region, endpoint, access_key_id, secret_access_key, token, skip_signature, virtual_hosted_style_request, allow_http",
        ),
        ObjectStoreScheme::GoogleCloudStorage => (
            |name| name.parse::<GoogleConfigKey>().is_ok(),
            "service_account_path, service_account_key, skip_signature",
        ),
        ObjectStoreScheme::MicrosoftAzure => (
            |name| name.parse::<AzureConfigKey>().is_ok(),
            "account_name, access_key, sas_token, client_id, client_secret, tenant_id, endpoint",
        ),
        ObjectStoreScheme::Http => {
            (|name| name.parse::<ClientConfigKey>().is_ok(), "allow_http, timeout, user_agent")
        }
        _ => (|_| false, "none"),
    };
    match options.iter().find(|(name, _)| !is_known(name)) {
        None => Ok(()),
        Some((name, _)) => Err(invalid(format!("unknown option \"{name}\" of this kind of store"))
            .with_hint(format!("Known options: {some}."))),
    }
}

impl Place {
    /// What a url with a pattern names. Touches nothing. `options` are the store's.
    ///
    /// # Errors
    /// 22023 for urls, patterns and options; 0A000 for stores that are not known.
    pub fn new(url: &str, mut options: Vec<(String, String)>) -> Result<Place> {
        let whole = if url.starts_with('/') { format!("file://{url}") } else { url.to_string() };
        let (literal, pattern) = match pattern_start(&whole) {
            Some(at) => whole.split_at(at),
            None => (whole.as_str(), ""),
        };
        let wrong = |why: &dyn std::fmt::Display| {
            invalid(format!(
                "option \"url\" must name files, like s3://bucket/in/*.csv, not \"{url}\": {why}"
            ))
        };
        let parsed = reqwest::Url::parse(literal).map_err(|e| wrong(&e))?;
        let (scheme, _) = ObjectStoreScheme::parse(&parsed).map_err(|e| wrong(&e))?;
        if scheme == ObjectStoreScheme::Memory {
            return Err(Error::unsupported("files at memory://"));
        }
        check_options(&scheme, &options)?;
        let plain = |o: &(String, String)| o.0.ends_with("endpoint") && o.1.starts_with("http://");
        if options.iter().any(plain) && !options.iter().any(|(name, _)| name == "allow_http") {
            options.push(("allow_http".into(), "true".into()));
        }
        if parsed.scheme() == "http" && scheme == ObjectStoreScheme::Http {
            options.push(("allow_http".into(), "true".into()));
        }
        let (store, prefix) = parse_url_opts(&parsed, options).map_err(|e| wrong(&e))?;
        let base = parsed.as_str().strip_suffix(parsed.path()).unwrap_or_default();
        let below = if pattern.is_empty() && whole.ends_with('/') { "**" } else { pattern };
        let pattern = match below {
            "" => None,
            _ => {
                let above = match prefix.as_ref() {
                    "" => String::new(),
                    prefix => format!("{}/", regex::escape(prefix)),
                };
                let expression = format!("^{above}{}$", glob(below)?);
                Some(Regex::new(&expression).map_err(|e| wrong(&e))?)
            }
        };
        Ok(Place {
            store: Arc::from(store),
            local: scheme == ObjectStoreScheme::Local,
            base: base.to_string(),
            prefix,
            pattern,
        })
    }

    /// Whether it is files whose names match a pattern; otherwise it is [`Place::prefix`].
    pub fn is_pattern(&self) -> bool {
        self.pattern.is_some()
    }

    /// What all locations begin with.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    fn file(&self, meta: ObjectMeta) -> File {
        let version = meta
            .e_tag
            .clone()
            .unwrap_or_else(|| format!("{}-{}", meta.size, meta.last_modified.timestamp_micros()));
        File {
            path: format!("{}/{}", self.base, meta.location),
            location: meta.location,
            size: meta.size,
            modified: meta.last_modified,
            e_tag: meta.e_tag,
            version,
        }
    }

    /// A file as it is now; `None`: it is gone.
    ///
    /// # Errors
    /// The store's.
    pub async fn look(&self, location: &Path) -> Result<Option<File>> {
        match self.store.head(location).await {
            Ok(meta) => Ok(Some(self.file(meta))),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(store_error(&e)),
        }
    }

    /// The files that are there now, by name. Names that begin with a point or an underscore are left out: those
    /// that write files use them for what is not finished.
    ///
    /// # Errors
    /// The store's.
    pub async fn list(&self) -> Result<Vec<File>> {
        let Some(pattern) = &self.pattern else {
            return Ok(self.look(&self.prefix).await?.into_iter().collect());
        };
        let found = self.store.list(Some(&self.prefix)).try_filter(|meta| {
            let hidden = meta.location.filename().is_some_and(|name| name.starts_with(['.', '_']));
            std::future::ready(!hidden && pattern.is_match(meta.location.as_ref()))
        });
        let mut files: Vec<File> =
            found.map_ok(|meta| self.file(meta)).try_collect().await.map_err(|e| store_error(&e))?;
        files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(files)
    }

    /// Asks the store for a name, whatever it is, to see whether it answers.
    ///
    /// # Errors
    /// The store's.
    pub async fn probe(&self) -> Result<()> {
        match self.store.list(Some(&self.prefix)).try_next().await {
            Ok(_) => Ok(()),
            Err(e) => Err(store_error(&e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_have_a_place_and_a_pattern() {
        let check = |url: &str, path: &str, matches: bool| {
            let options = match url.starts_with("s3:") {
                true => vec![("region".to_string(), "eu-west-1".to_string())],
                false => vec![],
            };
            let place = Place::new(url, options).unwrap();
            let found = place.pattern.as_ref().map_or(place.prefix.as_ref() == path, |p| p.is_match(path));
            assert_eq!(found, matches, "{url} {path}");
        };
        check("s3://b/in/*.csv", "in/a.csv", true);
        check("s3://b/in/*.csv", "in/x/a.csv", false);
        check("s3://b/in/**/*.csv", "in/a.csv", true);
        check("s3://b/in/**/*.csv", "in/x/y/a.csv", true);
        check("s3://b/in/", "in/x/a", true);
        check("s3://b/in/", "out/a", false);
        check("s3://b/*", "a", true);
        check("/data/x-[0-9]{a,bc}?.gz", "data/x-7bc!.gz", true);
        check("/data/x-[0-9]{a,bc}?.gz", "data/x-yaz.gz", false);
        check("file:///data/a.b", "data/a.b", true);
        check("/data/a+[!b]*", "data/a+c", true);
        check("/data/a+[!b]*", "data/a+b", false);
        for (url, options) in
            [("nothing", vec![]), ("/a/[b", vec![]), ("/a/{b", vec![]), ("/a", vec![("region", "x")])]
        {
            let options = options.into_iter().map(|(n, v): (&str, &str)| (n.into(), v.into())).collect();
            assert_eq!(Place::new(url, options).unwrap_err().sqlstate.0, "22023", "{url}");
        }
    }
}
