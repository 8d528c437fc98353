//! HTTP sources against a server whose answers a test decides: polls, pages, snapshots, XML, events; what is asked
//! again after failures, and what a kill leaves behind.

mod common;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use common::process::Tidemill;
use common::until;

/// A request as it came.
#[derive(Clone, Debug)]
struct Asked {
    at: Instant,
    method: Method,
    uri: String,
    headers: HeaderMap,
    body: String,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }
}

type Answerer = dyn Fn(&Asked) -> Response + Send + Sync;

struct Shared {
    answer: Mutex<Box<Answerer>>,
    asked: Mutex<Vec<Asked>>,
}

/// A server; gone when dropped.
struct Upstream {
    shared: Arc<Shared>,
    url: String,
    _runtime: tokio::runtime::Runtime,
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        let name = axum::http::HeaderName::from_bytes(name.as_bytes()).expect("a name");
        response.headers_mut().append(name, value.parse().expect("a value"));
    }
    response
}

async fn take(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let body = String::from_utf8(body.to_vec()).expect("text");
    let asked = Asked { at: Instant::now(), method, uri: uri.to_string(), headers, body };
    let response = (shared.answer.lock().expect("no panic"))(&asked);
    shared.asked.lock().expect("no panic").push(asked);
    response
}

impl Upstream {
    fn start(answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { answer: Mutex::new(Box::new(answer)), asked: Mutex::default() });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(take).with_state(Arc::clone(&shared));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Upstream { shared, url, _runtime: runtime }
    }

    /// Changes what it answers.
    fn answers(&self, answer: impl Fn(&Asked) -> Response + Send + Sync + 'static) {
        *self.shared.answer.lock().expect("no panic") = Box::new(answer);
    }

    fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no panic").clone()
    }

    /// Waits until it was asked `n` times more.
    fn wait_asked(&self, n: usize) {
        let (before, start) = (self.asked().len(), Instant::now());
        while self.asked().len() < before + n {
            assert!(start.elapsed() < Duration::from_secs(30), "nobody asks");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn every_poll_brings_its_records() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let upstream = Upstream::start(|asked| {
        let page = match asked.uri.as_str() {
            "/orders?limit=2" => {
                r#"{"data": [{"id": 1, "total": "9.99"}, {"id": 2}], "next": "/orders?page=2"}"#
            }
            "/orders?page=2" => r#"{"data": [{"id": "x"}, {"id": 3}], "next": null}"#,
            _ => return answer(404, &[], ""),
        };
        answer(200, &[("x-served-by", "a"), ("content-type", "application/json")], page)
    });
    server.sql(&format!(
        "CREATE SECRET token AS 'not-printed-again';
         CREATE SOURCE o (id int NOT NULL, total numeric(12,2))
           FROM HTTP (url = '{url}/orders?limit=2', poll = '100 ms', json_pointer = '/data', bearer_token = SECRET token,
                      headers.'x-tenant' = 'shop', paging = 'next', paging.pointer = '/next')
           FORMAT JSON INCLUDE header 'x-served-by' AS served, timestamp AS at;
         CREATE SOURCE k (id int PRIMARY KEY, total numeric(12,2))
           FROM HTTP (url = '{url}/orders?limit=2', poll = '100 ms', json_pointer = '/data', paging = 'next', paging.pointer = '/next')
           FORMAT JSON;
         CREATE SOURCE once (id int)
           FROM HTTP (url = '{url}/orders?page=2', poll = once, json_pointer = '/data') FORMAT JSON;
         CREATE MATERIALIZED VIEW per_poll AS SELECT id, count(*) AS n, min(served) AS served FROM o GROUP BY id",
        url = upstream.url
    ));
    // All pages of a poll are there, or none: counts never differ.
    until(&server, "SELECT count(*) > 1 FROM per_poll WHERE n >= 3", &[&["t"]]);
    assert_eq!(
        server.rows("SELECT count(DISTINCT n), min(served), count(*) FROM per_poll"),
        [["1", "a", "3"]]
    );
    // By key the newest wins, and a record that is bad each time is told once.
    until(&server, "SELECT * FROM k", &[&["1", "9.99"], &["2", "NULL"], &["3", "NULL"]]);
    let at = format!("url={}/orders?page=2 record=1", upstream.url);
    let errors =
        "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors WHERE object = 'k'";
    assert_eq!(server.rows(errors), [[at.as_str(), "22P02", "{\"id\": \"x\"}"]]);
    until(&server, "SELECT status, rows FROM tidemill.sources WHERE name = 'once'", &[&["finished", "1"]]);
    let asked = upstream.asked();
    assert!(asked.iter().any(|a| a.header("authorization") == Some("Bearer not-printed-again")
        && a.header("x-tenant") == Some("shop")
        && a.header("accept") == Some("application/json")));
    let shown = server.rows("SHOW CREATE SOURCE o").concat().concat();
    assert!(shown.contains("headers.'x-tenant' = 'shop'") && shown.contains("SECRET token"), "{shown}");
    server.sql(&format!("DROP SOURCE o CASCADE; {}", shown.trim_start_matches('o')));
}

#[test]
fn a_snapshot_is_all_there_is() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    let csv = |body: &'static str| move |_: &Asked| answer(200, &[], body);
    let upstream = Upstream::start(csv("id,name\n1,a\n2,b\n2,bb\n,none\n3,c\n"));
    server.sql(&format!(
        "CREATE SOURCE s (id int PRIMARY KEY, name text) FROM HTTP (url = '{}', poll = '50 ms', mode = 'snapshot') FORMAT CSV (header);
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(id) AS ids FROM s",
        upstream.url
    ));
    until(&server, "SELECT * FROM s", &[&["1", "a"], &["2", "bb"], &["3", "c"]]);
    upstream.wait_asked(3);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.errors"), [["1"]]);
    // What is the same makes no tick.
    let tick = server.rows("SELECT value FROM tidemill.status WHERE name = 'tick'");
    upstream.wait_asked(3);
    assert_eq!(server.rows("SELECT value FROM tidemill.status WHERE name = 'tick'"), tick);
    upstream.answers(csv("name,id\nc,3\nd,4\n"));
    until(&server, "SELECT * FROM s", &[&["3", "c"], &["4", "d"]]);
    until(&server, "SELECT * FROM total", &[&["2", "7"]]);
    // What is no answer changes nothing; then all of it is gone.
    upstream.answers(|_| answer(200, &[], "id,name\n\"1"));
    upstream.wait_asked(2);
    server.kill_and_restart();
    upstream.answers(csv("id,name\n"));
    until(&server, "SELECT count(*) FROM s", &[&["0"]]);
    until(&server, "SELECT n FROM total", &[&["0"]]);
}

#[test]
fn failures_are_waited_out() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    let upstream = Upstream::start(|_| answer(429, &[("retry-after", "2")], "slow down"));
    server.sql(&format!(
        "CREATE SOURCE s (id int) FROM HTTP (url = '{}/x?key=hidden', poll = '100 ms') FORMAT JSON",
        upstream.url
    ));
    upstream.wait_asked(2);
    let times: Vec<Instant> = upstream.asked().iter().map(|a| a.at).collect();
    assert!(times[1] - times[0] >= Duration::from_millis(1900), "{times:?}");
    let status = server.rows("SELECT status, error FROM tidemill.sources").concat();
    assert_eq!(status[0], "stalled");
    assert!(
        status[1].contains("429") && status[1].contains("slow down") && !status[1].contains("hidden"),
        "{status:?}"
    );
    // It answers again; then it says that nothing is new, also to a server that was killed.
    upstream.answers(|asked| match asked.header("if-none-match") {
        Some("\"v1\"") => answer(304, &[], ""),
        _ => answer(200, &[("etag", "\"v1\"")], "[{\"id\": 1}]"),
    });
    until(&server, "SELECT status, rows FROM tidemill.sources", &[&["running", "1"]]);
    upstream.wait_asked(3);
    server.kill_and_restart();
    upstream.wait_asked(3);
    assert_eq!(server.rows("SELECT id FROM s"), [["1"]]);
    // It goes away, and comes back with something else.
    drop(upstream);
    until(&server, "SELECT status FROM tidemill.sources", &[&["stalled"]]);
    let error = server.rows("SELECT error FROM tidemill.sources").concat().concat();
    assert!(error.contains("has not answered"), "{error}");
}

#[test]
fn a_cursor_is_resumed_after_a_kill() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    // Changes without end: each page has two numbers and says where it ends.
    let upstream = Upstream::start(|asked| {
        let since = asked.uri.split_once("since=").map_or(0, |(_, c)| c.parse::<u64>().expect("a number"));
        let to = (since + 2).min(41);
        let rows: Vec<String> = (since + 1..=to).map(|id| format!("{{\"id\": {id}}}")).collect();
        answer(200, &[], format!("{{\"rows\": [{}], \"end\": {to}}}", rows.join(",")))
    });
    let mut server = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "http.handed_over:5")]);
    server.sql(&format!(
        "CREATE SOURCE c (id int) FROM HTTP (url = '{}/changes', poll = '20 ms', json_pointer = '/rows', paging = 'cursor',
           paging.pointer = '/end', paging.parameter = 'since', paging.resume = true, paging.limit = 3) FORMAT JSON",
        upstream.url
    ));
    let start = Instant::now();
    while server.try_sql("SELECT 1").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "it does not crash");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.kill_and_restart();
    until(&server, "SELECT count(*), sum(id) FROM c", &[&["41", "861"]]);
    server.kill_and_restart();
    upstream.wait_asked(2);
    assert_eq!(server.rows("SELECT count(*), sum(id) FROM c"), [["41", "861"]]);
}

#[test]
fn soap_answers_are_rows() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    let upstream = Upstream::start(|asked| {
        assert_eq!((&asked.method, asked.header("soapaction")), (&Method::POST, Some("GetOrders")));
        assert_eq!(asked.header("content-type"), Some("text/xml; charset=utf-8"));
        assert!(asked.body.contains("<GetOrders/>"));
        answer(
            200,
            &[],
            "<?xml version=\"1.0\"?><soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body>
             <GetOrdersResponse xmlns=\"urn:shop\"><orders>
               <order id=\"1\"><customer><name>A &amp; B</name></customer><total> 9.99 </total><tag>x</tag><tag>y</tag></order>
               <order id=\"two\"/>
               <order id=\"3\"><total/><shipped>2024-05-01T10:00:00+02:00</shipped></order>
             </orders></GetOrdersResponse></soap:Body></soap:Envelope>",
        )
    });
    server.sql(&format!(
        "CREATE SOURCE orders (id int, customer text, total numeric(12,2), tags text[], shipped timestamptz)
           FROM HTTP (url = '{}', poll = once, headers.soapaction = 'GetOrders',
             body = '<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\"><soap:Body><GetOrders/></soap:Body></soap:Envelope>')
           FORMAT XML (rows = '/soap:Envelope/soap:Body/GetOrdersResponse/orders/order',
                       columns.customer = 'customer/name', columns.tags = 'tag');
         SET TIME ZONE 'UTC'",
        upstream.url
    ));
    until(
        &server,
        "SELECT id, customer, total, tags, shipped AT TIME ZONE 'UTC' FROM orders",
        &[&["1", "A & B", "9.99", "{x,y}", "NULL"], &["3", "NULL", "NULL", "NULL", "2024-05-01 08:00:00"]],
    );
    let errors = server.rows("SELECT sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors");
    assert_eq!(errors, [["22P02", "<order id=\"two\"/>"]]);
}

#[test]
fn events_go_on_after_the_last_one() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    // Each stream has three events and is closed.
    let upstream = Upstream::start(|asked| {
        let last = asked.header("last-event-id").map_or(0, |id| id.parse::<u64>().expect("a number"));
        let mut pieces: VecDeque<String> = (last + 1..=(last + 3).min(30))
            .map(|id| {
                format!(
                    "id: {id}\nevent: {}\ndata: {{\"id\": {id}}}\n\n",
                    ["odd", "even"][(id % 2 == 0) as usize]
                )
            })
            .collect();
        pieces.push_front(": welcome\nretry: 10\n\n".into());
        pieces.push_back("data: {\"id\": 0}\n".into());
        let pieces = pieces.into_iter().map(|p| Ok::<_, std::io::Error>(Bytes::from(p)));
        answer(
            200,
            &[("content-type", "text/event-stream")],
            Body::from_stream(futures::stream::iter(pieces)),
        )
    });
    server.sql(&format!(
        "CREATE SOURCE e (id int) FROM HTTP (url = '{url}', stream = 'sse') FORMAT JSON INCLUDE key AS event_id, topic AS event;
         CREATE SOURCE even (id int) FROM HTTP (url = '{url}', stream = 'sse', events = 'even') FORMAT JSON",
        url = upstream.url
    ));
    until(&server, "SELECT count(*) > 5 FROM e", &[&["t"]]);
    server.kill_and_restart();
    until(&server, "SELECT count(*), sum(id), count(DISTINCT event_id) FROM e", &[&["30", "465", "30"]]);
    until(&server, "SELECT count(*), sum(id) FROM even", &[&["15", "240"]]);
    assert_eq!(server.rows("SELECT event, count(*) FROM e GROUP BY 1"), [["even", "15"], ["odd", "15"]]);
    upstream.answers(|_| answer(204, &[], ""));
    until(&server, "SELECT DISTINCT status FROM tidemill.sources", &[&["finished"]]);
}
