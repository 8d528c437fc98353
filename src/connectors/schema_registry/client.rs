//! Questions to a registry, and what it has answered: a schema of one number never changes, so it is asked for once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ahash::AHashMap;
use parking_lot::Mutex;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::RegistrySettings;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How long an answer may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a number that the registry does not know is not asked for again.
const UNKNOWN_FOR: Duration = Duration::from_secs(5);
/// References of references of references …
const REFERENCES_DEPTH_MAX: usize = 32;

/// What language a schema is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaKind {
    /// Avro.
    Avro,
    /// Protobuf.
    Protobuf,
    /// JSON Schema, or one that is not known here.
    Other,
}

impl SchemaKind {
    fn name(self) -> &'static str {
        match self {
            SchemaKind::Avro => "AVRO",
            SchemaKind::Protobuf => "PROTOBUF",
            SchemaKind::Other => "JSON",
        }
    }
}

/// A schema as the registry has it, with all that it refers to.
#[derive(Debug)]
pub struct Registered {
    /// Its number.
    pub id: i32,
    /// Its language.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// What it refers to, by the name that it does so by; each stands after what it refers to itself.
    pub references: Vec<(String, String)>,
}

/// A registry.
pub struct SchemaRegistry {
    settings: RegistrySettings,
    runtime: tokio::runtime::Runtime,
    http: reqwest::Client,
    by_id: Mutex<AHashMap<i32, Arc<Registered>>>,
    unknown: Mutex<AHashMap<i32, Instant>>,
}

impl std::fmt::Debug for SchemaRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SchemaRegistry").field(&self.settings).finish()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i32,
}

#[derive(Debug, Deserialize)]
struct SchemaAnswer {
    id: Option<i32>,
    schema: String,
    #[serde(rename = "schemaType")]
    kind: Option<String>,
    #[serde(default)]
    references: Option<Vec<Reference>>,
}

#[derive(Debug, Deserialize)]
struct IdAnswer {
    id: i32,
}

#[derive(Debug, Default, Deserialize)]
struct ErrorAnswer {
    #[serde(default)]
    message: String,
}

impl SchemaRegistry {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// 22023 for certificates that are none.
    pub fn new(settings: RegistrySettings) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start a runtime: {e}")))?;
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("Tidemill/", env!("CARGO_PKG_VERSION")))
            .timeout(ANSWER_TIMEOUT)
            .connect_timeout(ANSWER_TIMEOUT / 2);
        if let Some(path) = &settings.certificates {
            let wrong = |e: &dyn std::fmt::Display| {
                super::invalid(format!("the registry's certificates at \"{path}\" cannot be read: {e}"))
            };
            let pem = std::fs::read(path).map_err(|e| wrong(&e))?;
            for certificate in reqwest::Certificate::from_pem_bundle(&pem).map_err(|e| wrong(&e))? {
                http = http.add_root_certificate(certificate);
            }
        }
        let http = http.build();
        let http =
            http.map_err(|e| Error::new(SqlState::IO_ERROR, format!("cannot start an HTTP client: {e}")))?;
        Ok(SchemaRegistry { settings, runtime, http, by_id: Mutex::default(), unknown: Mutex::default() })
    }

    /// Whether it answers, and takes the user.
    ///
    /// # Errors
    /// 08006, 28000.
    pub fn ping(&self) -> Result<()> {
        self.ask::<Vec<String>>(Method::GET, &["subjects"], None).map(|_| ())
    }

    /// The schema of a number.
    ///
    /// # Errors
    /// 42704 when there is none; 08006 when the registry does not answer.
    pub fn by_id(&self, id: i32) -> Result<Arc<Registered>> {
        if let Some(known) = self.by_id.lock().get(&id) {
            return Ok(Arc::clone(known));
        }
        let not_known = || {
            let message = format!("the schema registry has no schema with the number {id}");
            Error::new(SqlState::UNDEFINED_OBJECT, message)
        };
        if self.unknown.lock().get(&id).is_some_and(|since| since.elapsed() < UNKNOWN_FOR) {
            return Err(not_known());
        }
        let answer = self.ask::<SchemaAnswer>(Method::GET, &["schemas", "ids", &id.to_string()], None);
        match answer {
            Ok(answer) => self.registered(answer, id),
            Err(e) if e.sqlstate == SqlState::UNDEFINED_OBJECT => {
                self.unknown.lock().insert(id, world::instant());
                Err(not_known())
            }
            Err(e) => Err(e),
        }
    }

    /// A subject's schema of a version, or its latest.
    ///
    /// # Errors
    /// 42704 when there is none; 08006 when the registry does not answer.
    pub fn of_subject(&self, subject: &str, version: Option<i32>) -> Result<Arc<Registered>> {
        let version = version.map_or("latest".to_string(), |v| v.to_string());
        let answer: SchemaAnswer =
            self.ask(Method::GET, &["subjects", subject, "versions", &version], None)?;
        let id = answer.id.ok_or_else(|| self.protocol("a subject's version without a number"))?;
        self.registered(answer, id)
    }

    /// Registers a schema, unless it is; its number.
    ///
    /// # Errors
    /// 22023 when the registry takes it for none, or for one that does not go with the subject's others.
    pub fn register(&self, subject: &str, kind: SchemaKind, text: &str) -> Result<i32> {
        let mut body = json!({ "schema": text });
        if kind != SchemaKind::Avro {
            body["schemaType"] = json!(kind.name());
        }
        let answer: IdAnswer = self.ask(Method::POST, &["subjects", subject, "versions"], Some(&body))?;
        Ok(answer.id)
    }

    fn registered(&self, answer: SchemaAnswer, id: i32) -> Result<Arc<Registered>> {
        let mut references = Vec::new();
        self.collect(answer.references.as_deref().unwrap_or_default(), &mut references, 0)?;
        let kind = match answer.kind.as_deref() {
            None | Some("AVRO") => SchemaKind::Avro,
            Some("PROTOBUF") => SchemaKind::Protobuf,
            Some(_) => SchemaKind::Other,
        };
        let registered = Arc::new(Registered { id, kind, text: answer.schema, references });
        self.by_id.lock().insert(id, Arc::clone(&registered));
        Ok(registered)
    }

    fn collect(&self, of: &[Reference], out: &mut Vec<(String, String)>, depth: usize) -> Result<()> {
        if depth > REFERENCES_DEPTH_MAX {
            return Err(super::invalid("a schema's references are nested too deeply"));
        }
        for Reference { name, subject, version } in of {
            if out.iter().any(|(known, _)| known == name) {
                continue;
            }
            let path = ["subjects", subject, "versions", &version.to_string()];
            let answer: SchemaAnswer = self.ask(Method::GET, &path, None)?;
            self.collect(answer.references.as_deref().unwrap_or_default(), out, depth + 1)?;
            out.push((name.clone(), answer.schema));
        }
        Ok(())
    }

    /// Asks one address after the other until one answers.
    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&serde_json::Value>,
    ) -> Result<T> {
        let mut failure = None;
        for url in &self.settings.urls {
            match self.ask_at(url, method.clone(), path, body) {
                Err(e) if e.sqlstate == SqlState::CONNECTION_FAILURE => failure = Some(e),
                answered => return answered,
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("a schema registry without an address")))
    }

    fn ask_at<T: DeserializeOwned>(
        &self,
        base: &str,
        method: Method,
        path: &[&str],
        body: Option<&serde_json::Value>,
    ) -> Result<T> {
        let unreachable = |e: &dyn std::fmt::Display| {
            let message = format!("could not reach the schema registry at {base}: {e}");
            Error::new(SqlState::CONNECTION_FAILURE, message)
        };
        let mut url = reqwest::Url::parse(base).map_err(|e| super::invalid(format!("\"{base}\": {e}")))?;
        // Subjects may have any character.
        url.path_segments_mut()
            .map_err(|()| super::invalid(format!("\"{base}\" is no address")))?
            .pop_if_empty()
            .extend(path);
        let mut request =
            self.http.request(method, url).header("accept", "application/vnd.schemaregistry.v1+json");
        if let Some(user) = &self.settings.username {
            request = request.basic_auth(user, self.settings.password.as_deref());
        }
        if let Some(body) = body {
            let text = body.to_string();
            request = request.header("content-type", "application/vnd.schemaregistry.v1+json").body(text);
        }
        let (status, bytes) = self
            .runtime
            .block_on(async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status(), response.bytes().await?))
            })
            .map_err(|e| unreachable(&innermost(&e)))?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .map_err(|e| self.protocol(&format!("an answer that is not understood: {e}")));
        }
        let said: ErrorAnswer = serde_json::from_slice(&bytes).unwrap_or_default();
        let what = if said.message.is_empty() { status.to_string() } else { said.message };
        let message = format!("the schema registry at {base} says: {what}");
        let sqlstate = match status {
            StatusCode::NOT_FOUND => SqlState::UNDEFINED_OBJECT,
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => SqlState::INVALID_AUTHORIZATION,
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::BAD_REQUEST => {
                SqlState::INVALID_PARAMETER_VALUE
            }
            _ => SqlState::CONNECTION_FAILURE,
        };
        Err(Error::new(sqlstate, message))
    }

    fn protocol(&self, what: &str) -> Error {
        let message = format!("the schema registry at {} gave {what}", self.settings.urls.join(", "));
        Error::new(SqlState::CONNECTION_FAILURE, message)
    }
}

/// The cause behind the wrappers, which says what has happened.
fn innermost(e: &dyn std::error::Error) -> String {
    let mut e = e;
    while let Some(source) = e.source() {
        e = source;
    }
    e.to_string()
}
