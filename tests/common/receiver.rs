//! A small HTTP server that webhooks are posted to, with faults where a test wants them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::Value;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not looked at; answered with this.
    Status(u16),
    /// Not looked at; to be sent again after this many seconds.
    Busy(u64),
    /// Taken, but the answer breaks off.
    AnswerLost,
}

/// A request that was taken.
#[derive(Clone, Debug)]
pub struct Posted {
    pub key: String,
    pub headers: HeaderMap,
    pub raw: Bytes,
    pub body: Value,
    pub at: Instant,
}

#[derive(Default)]
struct Model {
    faults: VecDeque<Fault>,
    posted: Vec<Posted>,
    /// The raw body of each key.
    keys: HashMap<String, Bytes>,
    /// How often a key came again.
    repeated: u64,
    /// Rows by the member `id`.
    rows: BTreeMap<i64, Value>,
    /// The tick that the rows are at.
    tick: Option<u64>,
    /// What a receiver must not see.
    complaints: Vec<String>,
}

/// The server; it lives as long as it is held.
pub struct Receiver {
    pub url: String,
    model: Arc<Mutex<Model>>,
    _runtime: tokio::runtime::Runtime,
}

impl Receiver {
    pub fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let url = format!("http://{}/hook", listener.local_addr().expect("an address"));
        let model = Arc::new(Mutex::new(Model::default()));
        let app = Router::new().fallback(take).with_state(Arc::clone(&model));
        runtime.spawn(async move { axum::serve(listener, app).await });
        Receiver { url, model, _runtime: runtime }
    }

    /// Lets the next requests fail, in order.
    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.model.lock().faults.extend(faults);
    }

    pub fn faults_left(&self) -> usize {
        self.model.lock().faults.len()
    }

    /// Requests whose key was new, in order.
    pub fn posted(&self) -> Vec<Posted> {
        self.model.lock().posted.clone()
    }

    /// How many requests were told to be repetitions by their key.
    pub fn repeated(&self) -> u64 {
        self.model.lock().repeated
    }

    /// The rows that the changes have led to, by `id`.
    pub fn rows(&self) -> BTreeMap<i64, Value> {
        let model = self.model.lock();
        assert!(model.complaints.is_empty(), "{:#?}", model.complaints);
        model.rows.clone()
    }
}

async fn take(State(model): State<Arc<Mutex<Model>>>, headers: HeaderMap, raw: Bytes) -> Response {
    let mut model = model.lock();
    let fault = model.faults.pop_front();
    match fault {
        Some(Fault::Status(status)) => return answer(status, "told to fail"),
        Some(Fault::Busy(seconds)) => {
            let mut response = answer(429, "busy");
            response.headers_mut().insert("retry-after", seconds.into());
            return response;
        }
        Some(Fault::AnswerLost) | None => {}
    }
    let key = headers.get("idempotency-key").and_then(|v| v.to_str().ok()).unwrap_or_default().to_string();
    match model.keys.get(&key) {
        Some(before) if *before == raw => model.repeated += 1,
        Some(_) => model.complaints.push(format!("{key} came again with another body")),
        None => {
            model.keys.insert(key.clone(), raw.clone());
            let body: Value = serde_json::from_slice(&raw).expect("JSON");
            model.apply(&body);
            model.posted.push(Posted { key, headers, raw, body, at: Instant::now() });
        }
    }
    if fault == Some(Fault::AnswerLost) {
        let stream = futures::stream::iter([
            Ok(Bytes::from_static(b"o")),
            Err(std::io::Error::other("the connection breaks")),
        ]);
        // Announced as longer than it is, so that it is seen to be broken off.
        let mut response = Response::new(Body::from_stream(stream));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        return response;
    }
    answer(200, "")
}

fn answer(status: u16, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

impl Model {
    fn apply(&mut self, body: &Value) {
        let (from, to) = (body["from_tick"].as_u64(), body["to_tick"].as_u64().expect("a tick"));
        if from.is_none() && body["part"] == 0 {
            self.rows.clear();
        }
        if body["part"] == 0 {
            // Ticks that changed nothing are not posted, so that a batch may begin later than the last one ended.
            if from.is_some_and(|from| self.tick.is_none_or(|tick| from < tick)) {
                self.complaints.push(format!("from tick {from:?} after tick {:?}", self.tick));
            }
            self.tick = Some(to);
        }
        for change in body["changes"].as_array().expect("changes") {
            let (op, row) = (change["op"].as_str().expect("an operation"), &change["row"]);
            let id = row["id"].as_i64().expect("an id");
            let before = match op {
                "delete" => self.rows.remove(&id),
                _ => self.rows.insert(id, row.clone()),
            };
            if before.is_some() != (op != "insert") {
                self.complaints.push(format!("{op} of {row} where there is {before:?}"));
            }
        }
    }
}
