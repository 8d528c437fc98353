//! Snowpipe Streaming and Snowpipe in this process: one table and its channel as a model, the documented REST service around them, the
//! few statements of the driver protocol that a start needs, and faults where a test wants them.
//!
//! It holds to what Snowflake documents: an open shuts out other writers and discards what was not committed; a
//! continuation token is good for one request; an answer of 200 means taken, not committed; rows and offset token are
//! committed together; rows that are refused are counted and kept in an error table; user tokens are signed by the key,
//! for this account, and no older than a minute by its clock. What it does not have: more than one table and channel,
//! limits of rate and size, a type check of rows, time (what was taken is committed when it is asked for).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use serde_json::{Value, json};

#[path = "mock_snowpipe.rs"]
mod files;

pub const KEY: &str = include_str!("../support/snowflake_key.pem");
/// The database, schema and table that it has.
const PLACE: &str = "/databases/DB/schemas/PUBLIC/pipes/ROWS-STREAMING";

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Refused by whatever stands before the service; not done.
    Unavailable,
    /// Refused because there are too many requests; not done.
    TooMany,
    /// The connection breaks before it is done.
    LostBefore,
    /// It is done, then the connection breaks.
    LostAfter,
    /// The token for the service has expired.
    TokenExpired,
    /// Another writer opens the channel just before.
    TakenOver,
    /// Fails with this status and code.
    Fails(u16, &'static str),
}

/// What is being taken and committed.
#[derive(Default)]
struct Channel {
    /// How often it was opened.
    opened: u64,
    /// How many requests were taken since.
    taken: u64,
    buffer: Vec<(String, Vec<Value>)>,
    committed: Option<String>,
    refused: u64,
    refused_at: Option<String>,
}

#[derive(Default)]
struct Model {
    host: String,
    faults: Vec<(String, Fault)>,
    seen: Vec<String>,
    /// Columns as they were declared; `None`: there is no table.
    columns: Option<String>,
    rows: Vec<Value>,
    errors: Vec<(String, String)>,
    channel: Channel,
    pipe: files::Pipe,
    scoped: u64,
    /// Nothing is answered.
    down: bool,
    /// By how many seconds the server's clock is ahead.
    ahead: i64,
    /// Rows with these values of `V` are refused.
    refuses: Vec<i64>,
    /// Tokens that were committed, in order.
    tokens: Vec<String>,
}

/// The server; it lives as long as the process.
pub struct MockStreaming {
    pub url: String,
    model: Arc<Mutex<Model>>,
    _runtime: tokio::runtime::Runtime,
}

impl MockStreaming {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let host = listener.local_addr().expect("an address").to_string();
        let url = format!("http://{host}");
        let model = Arc::new(Mutex::new(Model { host, ..Model::default() }));
        let app = Router::new().fallback(handle).with_state(model.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        MockStreaming { url, model, _runtime: runtime }
    }

    /// Lets the next request of this kind fail. Several of the same are used up in order. The kinds: `hostname`, `token`,
    /// `open`, `append`, `status`, `drop`, `upload`, `insertFiles`, `insertReport`, `loadHistoryScan`, and the first words
    /// of statements.
    pub fn fault(&self, kind: &str, fault: Fault) {
        self.model.lock().faults.push((kind.to_string(), fault));
    }

    /// Faults that did not happen.
    pub fn faults_left(&self) -> usize {
        self.model.lock().faults.len()
    }

    /// How many requests of a kind came.
    pub fn seen(&self, kind: &str) -> usize {
        self.model.lock().seen.iter().filter(|k| k.starts_with(kind)).count()
    }

    /// Cuts the server off, or back in.
    pub fn down(&self, down: bool) {
        self.model.lock().down = down;
    }

    /// Sets the server's clock.
    pub fn ahead(&self, seconds: i64) {
        self.model.lock().ahead = seconds;
    }

    /// Rows with these values of `V` are refused.
    pub fn refuse(&self, values: &[i64]) {
        self.model.lock().refuses = values.to_vec();
    }

    /// Somebody's rows stand in the table already.
    pub fn fill(&self, columns: &str, rows: Vec<Value>) {
        let mut model = self.model.lock();
        (model.columns, model.rows) = (Some(columns.to_string()), rows);
    }

    /// The rows that are committed.
    pub fn rows(&self) -> Vec<Value> {
        self.model.lock().rows.clone()
    }

    /// How the table was declared.
    pub fn columns(&self) -> Option<String> {
        self.model.lock().columns.clone()
    }

    /// Tokens that were committed, in order.
    pub fn tokens(&self) -> Vec<String> {
        self.model.lock().tokens.clone()
    }

    /// Looks at, or changes, the stage and the pipe.
    pub fn pipe<T>(&self, look: impl FnOnce(&mut files::Pipe) -> T) -> T {
        look(&mut self.model.lock().pipe)
    }

    /// The channel is forgotten, as after 30 days without a row.
    pub fn forget_channel(&self) {
        self.model.lock().channel = Channel::default();
    }
}

fn now() -> i64 {
    std::time::SystemTime::UNIX_EPOCH.elapsed().expect("a time after 1970").as_secs() as i64
}

async fn handle(
    State(model): State<Arc<Mutex<Model>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut model = model.lock();
    let date = chrono::DateTime::from_timestamp(now() + model.ahead, 0).expect("a time");
    let mut response = model.answer(&method, &uri, &headers, &body);
    let date = date.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    response.headers_mut().insert("date", date.parse().expect("a header"));
    response
}

fn status(code: u16, body: Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status");
    response
}

fn ok(body: Value) -> Response {
    status(200, body)
}

/// An answer that breaks off.
fn broken() -> Response {
    let stream = futures::stream::iter([
        Ok(Bytes::from_static(b"{\"data\":")),
        Err(std::io::Error::other("the connection breaks")),
    ]);
    Response::new(Body::from_stream(stream))
}

/// Why a user's token is not good.
fn wrong_token(token: &str, now: i64) -> Option<&'static str> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, signature] = parts[..] else { return Some("no token") };
    let der: String = KEY.split("-----").nth(2).expect("a body").split_whitespace().collect();
    let pair = ring::rsa::KeyPair::from_pkcs8(&STANDARD.decode(der).expect("base64")).expect("a key");
    let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key().as_ref());
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap_or_default();
    if key.verify(format!("{header}.{claims}").as_bytes(), &signature).is_err() {
        return Some("394306");
    }
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
    let (made, ends) = (claims["iat"].as_i64()?, claims["exp"].as_i64()?);
    if claims["sub"] != "ORG-TEST.LOADER" {
        return Some("394300");
    }
    // As documented: it must arrive within a minute of being made, and before it ends.
    if (now - made).abs() > 60 || now > ends { Some("394302") } else { None }
}

impl Model {
    fn answer(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
        let path = uri.path();
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            let mut parts = text.split('%');
            let mut out = parts.next().unwrap_or_default().to_string();
            for part in parts {
                let code = u8::from_str_radix(part.get(..2).expect("two digits"), 16).expect("digits");
                out.push(char::from(code));
                out.push_str(&part[2..]);
            }
            out
        };
        let query: HashMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(n, v)| (n.to_string(), decode(v)))
            .collect();
        let bodied: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let tail = path.split_once(PLACE).map(|(_, tail)| tail);
        let kind = match (method.as_str(), path, tail) {
            ("GET", "/v2/streaming/hostname", _) => "hostname".to_string(),
            ("POST", "/oauth/token", _) => "token".to_string(),
            ("PUT", _, Some(t)) if t.starts_with("/channels/") => "open".to_string(),
            ("DELETE", _, Some(t)) if t.starts_with("/channels/") => "drop".to_string(),
            ("POST", p, Some(t)) if p.starts_with("/v2/streaming/data/") && t.ends_with("/rows") => {
                "append".to_string()
            }
            ("POST", _, Some(":bulk-channel-status")) => "status".to_string(),
            (_, p, _) if p.starts_with("/v1/data/pipes/DB.PUBLIC.") => {
                p.rsplit('/').next().expect("an endpoint").to_string()
            }
            ("PUT", p, _) if p.starts_with("/bucket/stage/") => "upload".to_string(),
            ("POST", "/session/v1/login-request", _) => "login".to_string(),
            ("POST", "/queries/v1/query-request", _) => bodied["sqlText"].as_str().unwrap_or("?").to_string(),
            _ => format!("? {method} {path}"),
        };
        self.seen.push(kind.clone());
        if self.down {
            return broken();
        }
        let place = self.faults.iter().position(|(k, _)| kind.starts_with(k.as_str()));
        let fault = place.map(|i| self.faults.remove(i).1);
        match &fault {
            Some(Fault::Unavailable) => return status(503, json!("busy")),
            Some(Fault::TooMany) => {
                let mut response = status(429, json!("slow down"));
                response.headers_mut().insert("retry-after", 0.into());
                return response;
            }
            Some(Fault::LostBefore) => return broken(),
            Some(Fault::TokenExpired) => self.scoped += 1,
            Some(Fault::TakenOver) => {
                self.channel.opened += 1;
                self.channel.buffer.clear();
            }
            Some(Fault::Fails(code, name)) => {
                return status(*code, json!({ "code": name, "message": "told to fail" }));
            }
            _ => {}
        }
        let token = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let token = token.trim_start_matches("Bearer ").to_string();
        let answer = match kind.as_str() {
            "hostname" | "token" => {
                if let Some(code) = wrong_token(&token, now() + self.ahead) {
                    return status(401, json!({ "code": code, "message": "JWT token is invalid" }));
                }
                if kind == "hostname" {
                    ok(json!({ "hostname": self.host }))
                } else {
                    assert!(body.starts_with(
                        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&scope="
                    ));
                    self.scoped += 1;
                    // As text, which is how the documentation's example takes it.
                    Response::new(Body::from(format!("scoped{}", self.scoped)))
                }
            }
            "login" => {
                let jwt = bodied["data"]["TOKEN"].as_str().unwrap_or_default();
                match wrong_token(jwt, now() + self.ahead) {
                    Some(_) => ok(
                        json!({ "success": false, "code": "390144", "message": "JWT token is invalid. [0]" }),
                    ),
                    None => ok(json!({ "success": true, "data": { "token": "t", "masterToken": "m" } })),
                }
            }
            _ if path == "/session" => ok(json!({ "success": true })),
            _ if path == "/queries/v1/query-request" => ok(self.run(&kind)),
            "upload" => {
                let name = path.trim_start_matches("/bucket/stage/").to_string();
                self.pipe.stage.insert(name, body.clone());
                ok(json!({}))
            }
            "insertFiles" | "insertReport" | "loadHistoryScan" => {
                if let Some(code) = wrong_token(&token, now() + self.ahead) {
                    return status(401, json!({ "code": code, "message": "JWT token is invalid" }));
                }
                if self.pipe.definition.is_none() {
                    return status(404, json!({ "code": "390404", "message": "Pipe not found" }));
                }
                let (rows, answer) = match kind.as_str() {
                    "insertFiles" => (Vec::new(), self.pipe.insert(body)),
                    "insertReport" => self.pipe.report(query.get("beginMark"), &self.refuses),
                    _ => self.pipe.scan(&query["startTimeInclusive"], &self.refuses),
                };
                self.rows.extend(rows);
                ok(answer)
            }
            "open" | "append" | "status" | "drop" => {
                if token != format!("scoped{}", self.scoped) {
                    return status(401, json!({ "code": "390303", "message": "token has expired" }));
                }
                let name =
                    tail.expect("a channel").trim_start_matches("/channels/").trim_end_matches("/rows");
                self.channel_request(&kind, name, &query, headers, body)
            }
            _ => status(404, json!({ "code": "?", "message": kind })),
        };
        if fault == Some(Fault::LostAfter) { broken() } else { answer }
    }

    fn channel_request(
        &mut self,
        kind: &str,
        name: &str,
        query: &HashMap<String, String>,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Response {
        if self.columns.is_none() {
            let code = "ERR_TABLE_DOES_NOT_EXIST_NOT_AUTHORIZED";
            return status(404, json!({ "code": code, "message": "no table" }));
        }
        let channel = &mut self.channel;
        match kind {
            "open" => {
                (channel.opened, channel.taken) = (channel.opened + 1, 0);
                channel.buffer.clear();
                let continuation = format!("{}_{}", channel.opened, channel.taken);
                ok(
                    json!({ "next_continuation_token": continuation, "channel_status": self.status(name, "rows_error_count") }),
                )
            }
            "append" => {
                let continuation = format!("{}_{}", channel.opened, channel.taken);
                let given = &query["continuationToken"];
                if *given != continuation {
                    let own = given.split('_').next() == continuation.split('_').next();
                    let what = if own { "ROW" } else { "CLIENT" };
                    let code = format!("ERR_CHANNEL_HAS_INVALID_{what}_SEQUENCER");
                    return status(409, json!({ "code": code, "message": "reopen" }));
                }
                assert_eq!(headers["content-encoding"], "zstd");
                assert_eq!(headers["content-type"], "application/x-ndjson");
                assert_eq!(query["startOffsetToken"], query["endOffsetToken"]);
                let text = zstd::bulk::decompress(body, 32 << 20).expect("zstd");
                assert!(text.ends_with(b"\n"));
                let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
                let rows = lines.map(|l| serde_json::from_slice(l).expect("a line of JSON")).collect();
                channel.buffer.push((query["endOffsetToken"].clone(), rows));
                channel.taken += 1;
                let continuation = format!("{}_{}", channel.opened, channel.taken);
                ok(json!({ "next_continuation_token": continuation }))
            }
            "status" => {
                let told: Value = serde_json::from_slice(body).expect("JSON");
                let name = told["channel_names"][0].as_str().expect("a name").to_string();
                let answer = self.status(&name, "rows_errors");
                // One request's rows each time, so that batches are seen half committed.
                self.commit_one();
                ok(json!({ "channel_statuses": { name: answer } }))
            }
            _ => {
                *channel = Channel::default();
                ok(json!({}))
            }
        }
    }

    fn status(&self, name: &str, errors: &str) -> Value {
        let channel = &self.channel;
        let mut status = json!({
            "channel_name": name,
            "channel_status_code": "SUCCESS",
            "last_committed_offset_token": channel.committed,
            "last_error_offset_upper_bound": channel.refused_at,
            "last_error_message": channel.refused_at.as_ref().map(|_| "value is refused"),
        });
        status[errors] = json!(channel.refused);
        status
    }

    fn commit_one(&mut self) {
        if self.channel.buffer.is_empty() {
            return;
        }
        let (token, rows) = self.channel.buffer.remove(0);
        for row in rows {
            if row["V"].as_i64().is_some_and(|v| self.refuses.contains(&v)) {
                self.channel.refused += 1;
                self.channel.refused_at = Some(token.clone());
                self.errors.push((token.clone(), row.to_string()));
            } else {
                self.rows.push(row);
            }
        }
        self.tokens.push(token.clone());
        self.channel.committed = Some(token);
    }

    fn run(&mut self, sql: &str) -> Value {
        let rows = |columns: &[&str], rows: Vec<Vec<Option<String>>>| {
            let types: Vec<Value> = columns.iter().map(|c| json!({ "name": c, "type": "text" })).collect();
            json!({ "success": true, "data": { "rowtype": types, "queryResultFormat": "json", "rowset": rows } })
        };
        if sql.starts_with("DESCRIBE TABLE") {
            let Some(columns) = &self.columns else {
                let data = json!({ "sqlState": "42S02" });
                return json!({ "success": false, "code": "002003", "message": "does not exist", "data": data });
            };
            let column = |c: &str| {
                let (name, rest) = c.split_once(' ').expect("a type");
                let null = if rest.ends_with(" NOT NULL") { "N" } else { "Y" };
                let kind = rest.trim_end_matches(" NOT NULL").to_string();
                vec![Some(name.trim_matches('"').to_string()), Some(kind), Some(null.to_string())]
            };
            return rows(&["name", "type", "null?"], columns.split(", ").map(column).collect());
        }
        if let Some(rest) = sql.strip_prefix("CREATE TABLE IF NOT EXISTS \"ROWS\" (") {
            self.columns =
                Some(rest.strip_suffix(") ERROR_LOGGING = TRUE").expect("error logging").to_string());
            return rows(&["status"], Vec::new());
        }
        if sql == "SHOW TABLES LIKE 'ROWS' IN SCHEMA \"DB\".\"PUBLIC\"" {
            let row = vec![Some("ROWS".to_string()), Some(self.rows.len().to_string())];
            return rows(&["name", "rows"], vec![row]);
        }
        if sql.starts_with("CREATE STAGE IF NOT EXISTS") || sql.starts_with("DROP STAGE IF EXISTS") {
            return rows(&["status"], Vec::new());
        }
        if sql.starts_with("CREATE PIPE IF NOT EXISTS") {
            self.pipe.definition.get_or_insert(sql.to_string());
            return rows(&["status"], Vec::new());
        }
        if sql.starts_with("DROP PIPE IF EXISTS") {
            self.pipe.definition = None;
            return rows(&["status"], Vec::new());
        }
        if let Some((_, path)) = sql.split_once("_STAGE\"/") {
            if sql.starts_with("REMOVE") {
                self.pipe.stage.remove(path);
                return rows(&["status"], Vec::new());
            }
            let directory = path.split(' ').next().expect("a directory");
            let info = json!({ "locationType": "AZURE", "location": format!("bucket/stage/{directory}"), "storageAccount": "acct",
                "endPoint": format!("http://{}", self.host), "creds": { "AZURE_SAS_TOKEN": "?sig=hunter2" } });
            return json!({ "success": true, "data": { "command": "UPLOAD", "stageInfo": info } });
        }
        if sql.contains("FROM ERROR_TABLE(\"ROWS\")") {
            let prefix = sql.split('\'').nth(3).expect("a prefix");
            let found = self.errors.iter().filter(|(token, _)| token.starts_with(prefix));
            let row = |(token, row): &(String, String)| {
                vec![Some("value is refused".to_string()), Some(row.clone()), Some(token.clone())]
            };
            return rows(&["REASON", "ROW_TEXT", "TOKEN"], found.map(row).collect());
        }
        panic!("no such statement: {sql}")
    }
}

/// Rows as a table holds them, as a history's model writes them, sorted.
pub fn texts(rows: &[Value]) -> Vec<String> {
    let text = |row: &Value| {
        let null = |value: &Value| match value {
            Value::Null => "NULL".to_string(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let at = chrono::DateTime::parse_from_rfc3339(row["AT"].as_str().expect("a time")).expect("a time");
        let known: BTreeMap<&str, Value> =
            ["K", "V", "NAME", "AMOUNT", "FLAG"].map(|c| (c, row[c].clone())).into();
        format!(
            "{}|{}|{}|{}|{}|{}|{}",
            null(&known["K"]),
            null(&known["V"]),
            null(&known["NAME"]),
            null(&known["AMOUNT"]),
            null(&known["FLAG"]),
            at.timestamp_micros(),
            row["DOC"]["v"]
        )
    };
    let mut texts: Vec<String> = rows.iter().map(text).collect();
    texts.sort();
    texts
}
