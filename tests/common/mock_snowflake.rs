//! A small Snowflake in this process: one sink's tables as a model, the driver protocol around them, and
//! faults where a test wants them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Value, json};

/// What happens to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// Refused by whatever stands before the service; not run.
    Unavailable,
    /// Refused because there are too many requests; not run.
    TooMany,
    /// The connection breaks before the statement runs.
    LostBefore,
    /// The statement runs, then the connection breaks.
    LostAfter,
    /// Answered only at the n-th question.
    Running(u32),
    /// It never comes to an end.
    Forever,
    /// The session's token has expired.
    TokenExpired,
    /// The session is gone, and its transaction with it.
    SessionGone,
    /// Fails with this code and SQLSTATE.
    Fails(&'static str, &'static str),
    /// For an upload: the credentials have expired.
    CredentialsExpired,
    /// Another writer raises the fence before it runs.
    TakenOver,
    /// For COPY: it says that it has loaded a row less.
    LoadsFewer,
}

/// Which of the clouds the stage is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cloud {
    S3,
    Azure,
    GcsToken,
    GcsPresigned,
    LocalFs,
    Encrypted,
}

/// A request that came.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HeaderMap,
    /// The statement, or the body's JSON.
    pub text: String,
    /// The statement's QUERY_TAG.
    pub tag: Option<String>,
}

/// Progress (generation, fence, epoch) and rows by key, as a rollback restores them.
type Saved = (Option<(u64, u64, u64)>, BTreeMap<Option<i64>, i64>);

#[derive(Default)]
struct Model {
    base: String,
    cloud: Option<Cloud>,
    faults: Vec<(String, Fault)>,
    seen: Vec<Seen>,
    tokens: u32,
    /// Tokens that were replaced.
    expired: Vec<String>,
    /// Results that are still to be asked for, with the number of questions left.
    running: HashMap<String, (u32, Value)>,
    uploads: BTreeMap<String, Bytes>,
    /// generation, fence, epoch.
    progress: Option<(u64, u64, u64)>,
    target: BTreeMap<Option<i64>, i64>,
    changes: Vec<(char, Option<i64>, i64)>,
    /// What the open transaction began with.
    before: Option<Saved>,
    commits: Vec<u64>,
    /// Name and type of the target's columns, once it is made.
    columns: Vec<Vec<String>>,
}

/// The server; it lives as long as the process.
pub struct MockSnowflake {
    pub url: String,
    model: Arc<Mutex<Model>>,
    _runtime: tokio::runtime::Runtime,
}

impl MockSnowflake {
    pub fn start(cloud: Cloud) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let model = Arc::new(Mutex::new(Model { base: url.clone(), cloud: Some(cloud), ..Model::default() }));
        let app = Router::new().fallback(handle).with_state(model.clone());
        runtime.spawn(async move { axum::serve(listener, app).await });
        MockSnowflake { url, model, _runtime: runtime }
    }

    /// Lets the next request whose statement or path begins like this fail. Several of the same are used up in order.
    pub fn fault(&self, beginning: &str, fault: Fault) {
        self.model.lock().faults.push((beginning.to_string(), fault));
    }

    /// Faults that did not happen.
    pub fn faults_left(&self) -> usize {
        self.model.lock().faults.len()
    }

    pub fn seen(&self, beginning: &str) -> Vec<Seen> {
        let model = self.model.lock();
        model
            .seen
            .iter()
            .filter(|s| s.text.starts_with(beginning) || s.path.starts_with(beginning))
            .cloned()
            .collect()
    }

    /// Rows of the target, key and value.
    pub fn target(&self) -> BTreeMap<Option<i64>, i64> {
        self.model.lock().target.clone()
    }

    /// The ticks that were committed, in order.
    pub fn commits(&self) -> Vec<u64> {
        self.model.lock().commits.clone()
    }

    pub fn uploads(&self) -> Vec<String> {
        self.model.lock().uploads.keys().cloned().collect()
    }
}

async fn handle(
    State(model): State<Arc<Mutex<Model>>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let query: HashMap<String, String> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .collect();
    let path = uri.path().to_string();
    let json: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let text = match json["sqlText"].as_str() {
        Some(sql) => sql.to_string(),
        None if method == Method::PUT => String::new(),
        None => json.to_string(),
    };
    let mut model = model.lock();
    model.seen.push(Seen {
        path: path.clone(),
        query: query.clone(),
        headers: headers.clone(),
        text: text.clone(),
        tag: json["parameters"]["QUERY_TAG"].as_str().map(str::to_string),
    });
    let place =
        model.faults.iter().position(|(b, _)| text.starts_with(b.as_str()) || path.starts_with(b.as_str()));
    let fault = place.map(|i| model.faults.remove(i).1);
    match &fault {
        Some(Fault::Unavailable) => return status(StatusCode::SERVICE_UNAVAILABLE, "<html>busy</html>"),
        Some(Fault::TooMany) => {
            let mut response = status(StatusCode::TOO_MANY_REQUESTS, "slow down");
            response.headers_mut().insert("retry-after", 1.into());
            return response;
        }
        Some(Fault::LostBefore) => return broken(),
        _ => {}
    }
    if method == Method::PUT {
        if fault == Some(Fault::CredentialsExpired) {
            let code = match model.cloud {
                Some(Cloud::S3) => {
                    return status(StatusCode::BAD_REQUEST, "<Error><Code>ExpiredToken</Code></Error>");
                }
                Some(Cloud::GcsToken) => StatusCode::UNAUTHORIZED,
                Some(Cloud::GcsPresigned) => StatusCode::BAD_REQUEST,
                _ => StatusCode::FORBIDDEN,
            };
            return status(code, "expired");
        }
        model.uploads.insert(path, body);
        if fault == Some(Fault::LostAfter) {
            return broken();
        }
        let mut response = Response::new(Body::empty());
        response.headers_mut().insert("etag", "\"1\"".parse().expect("a header"));
        return response;
    }
    let token = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = token.trim_start_matches("Snowflake Token=").trim_matches('"').to_string();
    let answer = match path.as_str() {
        "/session/v1/login-request" => {
            if let Some(Fault::Fails(code, _)) = fault {
                return answer(
                    json!({ "success": false, "code": code, "message": "Incorrect username or password." }),
                );
            }
            model.tokens += 1;
            let data = json!({ "token": format!("token{}", model.tokens), "masterToken": "master" });
            json!({ "success": true, "data": data })
        }
        "/session/token-request" => {
            if token != "master" {
                return answer(
                    json!({ "success": false, "code": "390114", "message": "not a master token" }),
                );
            }
            model.tokens += 1;
            let data = json!({ "sessionToken": format!("token{}", model.tokens), "masterToken": "master" });
            json!({ "success": true, "data": data })
        }
        "/queries/v1/query-request" => {
            match &fault {
                Some(Fault::TokenExpired) => model.expired.push(token.clone()),
                Some(Fault::TakenOver) => {
                    // In a transaction of its own, which the end of this one does not undo.
                    let saved = model.before.as_mut().and_then(|(progress, _)| progress.as_mut());
                    saved.into_iter().for_each(|(_, fence, _)| *fence += 1);
                    model.run("UPDATE P SET FENCE = FENCE + 1");
                }
                Some(Fault::SessionGone) => {
                    model.roll_back();
                    return answer(
                        json!({ "success": false, "code": "390111", "message": "Session no longer exists" }),
                    );
                }
                Some(Fault::Fails(code, state)) => {
                    let data = json!({ "sqlState": state, "queryId": "q" });
                    return answer(
                        json!({ "success": false, "code": code, "message": "told to fail", "data": data }),
                    );
                }
                _ => {}
            }
            if model.expired.contains(&token) {
                return answer(json!({ "success": false, "code": "390112", "message": "token expired" }));
            }
            let mut result = model.run(&text);
            if fault == Some(Fault::LoadsFewer) {
                let loaded = &mut result["data"]["rowset"][0][2];
                let rows: u64 = loaded.as_str().and_then(|n| n.parse().ok()).expect("a number");
                *loaded = json!((rows - 1).to_string());
            }
            // The number of the request is the statement's id.
            result["data"]["queryId"] = json!(format!("q{}", model.seen.len()));
            match &fault {
                Some(Fault::Running(questions)) => model.keep_asking(*questions, result),
                Some(Fault::Forever) => model.keep_asking(u32::MAX, result),
                _ => result,
            }
        }
        "/queries/v1/abort-request" | "/session/heartbeat" => json!({ "success": true }),
        "/session" => {
            model.roll_back();
            json!({ "success": true })
        }
        result if result.starts_with("/queries/") => {
            if fault == Some(Fault::TokenExpired) {
                model.expired.push(token.clone());
            }
            if model.expired.contains(&token) {
                return answer(json!({ "success": false, "code": "390112", "message": "token expired" }));
            }
            match model.running.remove(result) {
                Some((0, done)) => done,
                Some((left, done)) => {
                    model.running.insert(result.to_string(), (left - 1, done));
                    still_running(result)
                }
                None => return status(StatusCode::NOT_FOUND, "no such result"),
            }
        }
        _ => return status(StatusCode::NOT_FOUND, "no such endpoint"),
    };
    if fault == Some(Fault::LostAfter) {
        return broken();
    }
    self::answer(answer)
}

fn answer(value: Value) -> Response {
    Response::new(Body::from(value.to_string()))
}

fn status(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response
}

/// An answer that breaks off.
fn broken() -> Response {
    let stream = futures::stream::iter([
        Ok(Bytes::from_static(b"{\"data\":")),
        Err(std::io::Error::other("the connection breaks")),
    ]);
    Response::new(Body::from_stream(stream))
}

fn still_running(url: &str) -> Value {
    json!({ "success": true, "code": "333334", "data": { "getResultUrl": url, "queryId": "q" } })
}

fn rows(columns: &[&str], rows: Vec<Vec<String>>) -> Value {
    let types: Vec<Value> = columns.iter().map(|c| json!({ "name": c, "type": "text" })).collect();
    json!({ "success": true, "data": { "rowtype": types, "queryResultFormat": "json", "rowset": rows } })
}

fn done() -> Value {
    rows(&["status"], vec![vec!["done".to_string()]])
}

impl Model {
    fn keep_asking(&mut self, questions: u32, result: Value) -> Value {
        let url = format!("/queries/{}/result", self.seen.len());
        self.running.insert(url.clone(), (questions.saturating_sub(1), result));
        still_running(&url)
    }

    fn roll_back(&mut self) {
        if let Some((progress, target)) = self.before.take() {
            self.progress = progress;
            self.target = target;
        }
    }

    fn run(&mut self, sql: &str) -> Value {
        let numbers: Vec<u64> = sql.split(['=', ',', ' ']).filter_map(|w| w.parse().ok()).collect();
        match sql.split(' ').next().unwrap_or_default() {
            "SELECT" if sql.contains("GENERATION") => {
                let (generation, fence, epoch) = self.progress.expect("a progress row");
                let row = [generation, fence, epoch].map(|n| n.to_string()).to_vec();
                rows(&["GENERATION", "FENCE", "EPOCH"], vec![row])
            }
            "SELECT" if sql.contains("ABORT_TRANSACTION") => {
                self.roll_back();
                done()
            }
            "SHOW" => rows(
                &["resource", "transaction", "status"],
                vec![vec![
                    "DB.S.T__TIDEMILL_00000000000000000000000000000009_PROGRESS".to_string(),
                    "4711".to_string(),
                    "HOLDING".to_string(),
                ]],
            ),
            "CREATE" if sql.starts_with("CREATE TABLE IF NOT EXISTS \"T\"") => {
                let columns = sql.split_once('(').expect("columns").1.trim_end_matches(')');
                self.columns = columns
                    .split(", ")
                    .map(|c| {
                        let (name, sql_type) = c.split_once(' ').expect("a type");
                        vec![name.trim_matches('"').to_string(), sql_type.replace(" NOT NULL", "")]
                    })
                    .collect();
                done()
            }
            "DESCRIBE" if !self.columns.is_empty() => rows(&["name", "type"], self.columns.clone()),
            "DESCRIBE" => {
                let data = json!({ "sqlState": "42S02" });
                json!({ "success": false, "code": "002003", "message": "does not exist", "data": data })
            }
            "MERGE" if sql.contains("SINK_ID") => {
                self.progress.get_or_insert((0, 0, 0));
                done()
            }
            "UPDATE" if sql.contains("FENCE + 1") => {
                let (_, fence, _) = self.progress.as_mut().expect("a progress row");
                *fence += 1;
                rows(&["number of rows updated"], vec![vec!["1".to_string()]])
            }
            "UPDATE" => {
                let [to_generation, to_epoch, generation, fence, epoch] = numbers[..] else {
                    panic!("{numbers:?} in {sql}")
                };
                let hit = self.progress == Some((generation, fence, epoch));
                if hit {
                    self.progress = Some((to_generation, fence, to_epoch));
                }
                rows(&["number of rows updated"], vec![vec![u8::from(hit).to_string()]])
            }
            "BEGIN" => {
                self.before = Some((self.progress, self.target.clone()));
                done()
            }
            "COMMIT" => {
                if self.before.take().is_some() {
                    self.commits.push(self.progress.expect("a progress row").2);
                }
                done()
            }
            "ROLLBACK" => {
                self.roll_back();
                done()
            }
            "DELETE" if sql.contains("CHANGES") => {
                self.changes.clear();
                done()
            }
            "DELETE" => {
                self.target.clear();
                done()
            }
            "PUT" => self.stage_info(),
            "COPY" => self.copy(sql),
            "INSERT" | "MERGE" => self.apply(),
            _ => done(),
        }
    }

    fn stage_info(&self) -> Value {
        let end_point = &self.base;
        let mut info = json!({ "locationType": "S3", "location": "bucket/stage/", "region": "eu-central-1", "endPoint": end_point });
        let mut encryption = Value::Null;
        match self.cloud.expect("a cloud") {
            Cloud::S3 => {
                info["creds"] =
                    json!({ "AWS_KEY_ID": "id", "AWS_SECRET_KEY": "hunter2", "AWS_TOKEN": "aws-token" });
            }
            Cloud::Azure => {
                info["locationType"] = json!("AZURE");
                info["storageAccount"] = json!("acct");
                info["creds"] = json!({ "AZURE_SAS_TOKEN": "?sv=1&sig=hunter2" });
            }
            Cloud::GcsToken => {
                info["locationType"] = json!("GCS");
                info["creds"] = json!({ "GCS_ACCESS_TOKEN": "gcs-token" });
            }
            Cloud::GcsPresigned => {
                info["locationType"] = json!("GCS");
                info["creds"] = json!({});
                info["presignedUrl"] =
                    json!(format!("{}/bucket/stage/presigned-{}", self.base, self.seen.len()));
            }
            Cloud::LocalFs => info["locationType"] = json!("LOCAL_FS"),
            Cloud::Encrypted => {
                encryption = json!({ "queryStageMasterKey": "aHVudGVyMg==", "queryId": "q", "smkId": 1 });
            }
        }
        json!({ "success": true, "data": { "command": "UPLOAD", "stageInfo": info, "encryptionMaterial": encryption } })
    }

    /// Loads the newest upload: the tests' batches are of one file.
    fn copy(&mut self, _sql: &str) -> Value {
        let path =
            self.seen.iter().rev().find(|s| self.uploads.contains_key(&s.path)).map(|s| s.path.clone());
        let bytes = path.and_then(|p| self.uploads.get(&p)).expect("an upload").clone();
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("a reader");
        for batch in reader {
            let batch = batch.expect("rows");
            let ops = batch["_TIDEMILL_OP"].as_string::<i32>();
            let (k, v) = (batch["K"].as_primitive::<Int64Type>(), batch["V"].as_primitive::<Int64Type>());
            for i in 0..batch.num_rows() {
                let key = (!k.is_null(i)).then(|| k.value(i));
                self.changes.push((ops.value(i).chars().next().expect("an operation"), key, v.value(i)));
            }
        }
        let row = ["f", "LOADED", &self.changes.len().to_string()].map(str::to_string).to_vec();
        rows(&["file", "status", "rows_loaded"], vec![row])
    }

    fn apply(&mut self) -> Value {
        let mut counts = [0_u64; 3];
        for (op, key, value) in self.changes.clone() {
            match (op, self.target.contains_key(&key)) {
                ('I', false) => counts[0] += 1,
                ('U', true) => counts[1] += 1,
                ('D', true) => counts[2] += 1,
                _ => continue,
            }
            if op == 'D' {
                self.target.remove(&key);
            } else {
                self.target.insert(key, value);
            }
        }
        let columns = ["number of rows inserted", "number of rows updated", "number of rows deleted"];
        rows(&columns, vec![counts.map(|n| n.to_string()).to_vec()])
    }
}
