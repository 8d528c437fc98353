//! WEBHOOK sources, asked by curl and signed by openssl: what is answered when, and that nothing that was
//! acknowledged is lost when the server is killed.

mod common;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::process::Tidemill;

/// A program's output when it is given `input`.
fn pipe(program: &str, args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    child.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    String::from_utf8(output.stdout).expect("text")
}

/// Posts a body; the status and the answer's body.
fn post(server: &Tidemill, path: &str, headers: &[&str], body: &str) -> (u16, String) {
    let url = format!("http://{}{path}", server.http());
    let mut args = vec!["-s", "-X", "POST", "--data-binary", "@-", "-w", "\n%{http_code}"];
    headers.iter().for_each(|h| args.extend(["-H", h]));
    args.push(&url);
    let output = pipe("curl", &args, body.as_bytes());
    let (answer, status) = output.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), answer.to_string())
}

fn taken(rows: u64, errors: u64) -> (u16, String) {
    (200, format!("{{\"errors\":{errors},\"rows\":{rows}}}"))
}

#[test]
fn bodies_become_rows() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&dir.path().join("data"));
    server.sql(
        "CREATE SOURCE events (id bigint NOT NULL, name text) FROM WEBHOOK FORMAT JSON
           INCLUDE header 'x-from' AS sender, timestamp AS at;
         CREATE SOURCE documents FROM WEBHOOK FORMAT JSON;
         CREATE SOURCE lines (id int, name text) FROM WEBHOOK FORMAT CSV (header);
         CREATE SOURCE notes FROM WEBHOOK FORMAT TEXT;
         CREATE SOURCE keyed (id int PRIMARY KEY, name text) FROM WEBHOOK FORMAT JSON;
         CREATE MATERIALIZED VIEW names AS SELECT name, count(*) FROM events GROUP BY name",
    );
    // Each body is durable, and so visible, when it is answered.
    assert_eq!(post(&server, "/webhook/events", &["X-From: a"], "{\"id\": 1, \"name\": \"x\"}"), taken(1, 0));
    let batch = "[{\"id\": 2, \"name\": \"x\"}, {\"name\": \"no id\"}, {\"id\": 3}]";
    assert_eq!(post(&server, "/webhook/events", &[], batch), taken(2, 1));
    assert_eq!(post(&server, "/webhook/events", &[], "{\"id\": 4}\nnot JSON\n{\"id\": 5}\n"), taken(2, 1));
    assert_eq!(post(&server, "/webhook/events", &[], "[]"), taken(0, 0));
    let rows = server.rows("SELECT id, name, sender, at > now() - interval '1 hour' FROM events");
    let expected = [
        ["1", "x", "a", "t"],
        ["2", "x", "NULL", "t"],
        ["3", "NULL", "NULL", "t"],
        ["4", "NULL", "NULL", "t"],
        ["5", "NULL", "NULL", "t"],
    ];
    assert_eq!(rows, expected.map(|r| r.map(str::to_string).to_vec()).to_vec());
    assert_eq!(server.rows("SELECT * FROM names WHERE name = 'x'"), [["x", "2"]]);
    let errors = server.rows(
        "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors WHERE object = 'events'",
    );
    assert_eq!(errors, [["record=2", "22P02", "not JSON\n"], ["record=2", "23502", "{\"name\": \"no id\"}"]]);

    assert_eq!(post(&server, "/webhook/documents", &[], "{\"a\": [1]}"), taken(1, 0));
    assert_eq!(server.rows("SELECT body FROM documents"), [["{\"a\": [1]}"]]);
    assert_eq!(post(&server, "/webhook/lines", &[], "name,id\nx,1\n\"y\nz\",2\nw,q\n"), taken(2, 1));
    assert_eq!(server.rows("SELECT * FROM lines"), [["1", "x"], ["2", "y\nz"]]);
    assert_eq!(post(&server, "/webhook/notes", &[], "as it\nis"), taken(1, 0));
    assert_eq!(server.rows("SELECT * FROM notes"), [["as it\nis"]]);
    for name in ["first", "second"] {
        let body = format!("{{\"id\": 1, \"name\": \"{name}\"}}");
        assert_eq!(post(&server, "/webhook/keyed", &[], &body), taken(1, 0));
    }
    assert_eq!(server.rows("SELECT * FROM keyed"), [["1", "second"]]);
    assert_eq!(
        server.rows("SELECT status, rows, bad_records FROM tidemill.sources WHERE name = 'events'"),
        [["running", "5", "2"]]
    );
}

#[test]
fn requests_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&dir.path().join("data"));
    server.sql(
        "CREATE TABLE t (id int);
         CREATE SOURCE small (id int) FROM WEBHOOK (body.limit = 100, queue.limit = 3000) FORMAT JSON",
    );
    let status =
        |server: &Tidemill, path: &str, headers: &[&str], body: &str| post(server, path, headers, body).0;
    assert_eq!(status(&server, "/webhook/nothing", &[], "{}"), 404);
    assert_eq!(status(&server, "/webhook/t", &[], "{}"), 404);
    assert_eq!(status(&server, "/webhook/small", &["Content-Encoding: gzip"], "{}"), 415);
    let long = format!("{{\"id\": 1}}{}", " ".repeat(100));
    assert_eq!(status(&server, "/webhook/small", &[], &long), 413);
    assert_eq!(status(&server, "/webhook/small", &["Transfer-Encoding: chunked"], &long), 413);
    assert_eq!(status(&server, "/webhook/small", &["Transfer-Encoding: chunked"], "{\"id\": 1}"), 200);
    let got = pipe(
        "curl",
        &["-s", "-o", "/dev/null", "-w", "%{http_code}", &format!("http://{}/webhook/small", server.http())],
        b"",
    );
    assert_eq!(got, "405");

    // A sender that is slow has its room; there is none for a second one until it is done.
    let mut slow = TcpStream::connect(server.http()).expect("a connection");
    slow.write_all(
        b"POST /webhook/small HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nConnection: close\r\n\r\n{\"id\"",
    )
    .expect("sent");
    let mut seen = 0;
    for _ in 0..100 {
        seen = status(&server, "/webhook/small", &[], "{\"id\": 2}");
        if seen == 429 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(seen, 429);
    slow.write_all(b": 3}").expect("sent");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(status(&server, "/webhook/small", &[], "{\"id\": 4}"), 200);

    server.sql("ALTER SOURCE small PAUSE");
    assert_eq!(status(&server, "/webhook/small", &[], "{\"id\": 5}"), 503);
    server.kill_and_restart();
    assert_eq!(status(&server, "/webhook/small", &[], "{\"id\": 5}"), 503);
    server.sql("ALTER SOURCE small RESUME");
    let mut seen = 503;
    for _ in 0..100 {
        seen = status(&server, "/webhook/small", &[], "{\"id\": 6}");
        if seen == 200 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(seen, 200);
    assert_eq!(server.rows("SELECT count(*) FROM small WHERE id IN (1, 3, 4, 6)"), [["4"]]);
    assert_eq!(server.rows("SELECT count(*) FROM small WHERE id = 5"), [["0"]]);
    server.sql("DROP SOURCE small");
    assert_eq!(status(&server, "/webhook/small", &[], "{}"), 404);
}

#[test]
fn a_check_lets_in_what_is_signed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&dir.path().join("data"));
    server.sql(
        "CREATE SECRET hook AS 'it is Jefe';
         CREATE SOURCE plain (id int) FROM WEBHOOK FORMAT JSON
           CHECK (constant_time_eq(headers->>'x-signature', hmac(body, SECRET hook, 'sha256')));
         CREATE SOURCE github (id int) FROM WEBHOOK FORMAT JSON
           CHECK (constant_time_eq(headers->>'x-hub-signature-256', 'sha256=' || encode(hmac(body, SECRET hook, 'sha256'), 'hex')));
         CREATE SOURCE base64 (id int) FROM WEBHOOK FORMAT JSON
           CHECK (constant_time_eq(decode(headers->>'x-signature', 'base64'), hmac(body, SECRET hook, 'sha512')));
         CREATE SOURCE token (id int) FROM WEBHOOK FORMAT JSON
           CHECK (headers->>'authorization' = 'Bearer ' || SECRET hook)",
    );
    let body = "{\"id\": 1}";
    let hmac = |algorithm: &str, body: &str| {
        let out = pipe("openssl", &["dgst", algorithm, "-hmac", "it is Jefe"], body.as_bytes());
        out.trim().rsplit_once(' ').expect("a digest").1.to_string()
    };
    let hex = hmac("-sha256", body);
    for _ in 0..2 {
        let status = |path: &str, header: &str| post(&server, path, &[header], body).0;
        assert_eq!(status("/webhook/plain", &format!("X-Signature: {hex}")), 200);
        assert_eq!(status("/webhook/plain", &format!("X-Signature: {}", hex.to_uppercase())), 200);
        assert_eq!(status("/webhook/plain", &format!("X-Signature: {}", &hex[1..])), 403);
        assert_eq!(status("/webhook/plain", "X-Other: 1"), 403);
        assert_eq!(status("/webhook/github", &format!("X-Hub-Signature-256: sha256={hex}")), 200);
        assert_eq!(status("/webhook/github", &format!("X-Hub-Signature-256: {hex}")), 403);
        let base64 = pipe("openssl", &["base64", "-A"], &hex::decode(hmac("-sha512", body)).expect("hex"));
        assert_eq!(status("/webhook/base64", &format!("X-Signature: {base64}")), 200);
        assert_eq!(status("/webhook/base64", "X-Signature: no base64!"), 403);
        assert_eq!(status("/webhook/token", "Authorization: Bearer it is Jefe"), 200);
        assert_eq!(status("/webhook/token", "Authorization: Bearer secret hook"), 403);
        server.kill_and_restart();
    }
    assert_eq!(server.rows("SELECT count(*) FROM plain"), [["4"]]);
    let shown = server.rows("SHOW CREATE SOURCE plain").concat().concat();
    assert!(
        shown
            .contains("CHECK (constant_time_eq(headers->>'x-signature', hmac(body, SECRET hook, 'sha256')))"),
        "{shown}"
    );
    assert!(!shown.contains("Jefe"), "{shown}");

    let refused = |sql: &str| server.try_sql(sql).expect_err("refused").sqlstate;
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON CHECK (SECRET nothing = 'a')"), "42704");
    assert_eq!(
        refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON CHECK (hmac(body, 'a', 'sha256'))"),
        "42804"
    );
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON CHECK (id = 1)"), "42703");
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON CHECK (EXISTS (SELECT 1))"), "0A000");
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT CSV"), "42601");
    assert_eq!(refused("CREATE SOURCE x (id int) FROM WEBHOOK FORMAT JSON ENVELOPE DEBEZIUM"), "0A000");
    assert_eq!(refused("CREATE SOURCE x (id int) FROM WEBHOOK FORMAT JSON INCLUDE offset"), "22023");
    assert_eq!(refused("CREATE SOURCE x (id int) FROM WEBHOOK (size = 1) FORMAT JSON"), "22023");
    assert_eq!(refused("CREATE SOURCE x (id int) FROM DATAGEN CHECK (true)"), "0A000");
    // RFC 4231, test case 2.
    let digest = server.rows("SELECT encode(hmac('what do ya want for nothing?', 'Jefe', 'sha256'), 'hex')");
    assert_eq!(digest, [["5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"]]);
    assert_eq!(refused("SELECT hmac('a', 'b', 'md5')"), "22023");
}

#[test]
fn a_body_is_durable_before_it_is_answered() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let mut server = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "webhook.durable")]);
    server.sql("CREATE SOURCE h (id int) FROM WEBHOOK FORMAT JSON");
    // The server dies between the journal and the answer.
    assert_eq!(post(&server, "/webhook/h", &[], "{\"id\": 7}").0, 0);
    server.kill_and_restart();
    assert_eq!(server.rows("SELECT id FROM h"), [["7"]]);
}

/// Senders that post numbers, each again until it is acknowledged.
async fn send(address: Arc<Mutex<SocketAddr>>, next: Arc<AtomicI64>, stop: Arc<AtomicBool>) -> Vec<i64> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().expect("a client");
    let mut acknowledged = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let id = next.fetch_add(1, Ordering::SeqCst);
        for source in ["plain", "keyed"] {
            loop {
                let url = format!("http://{}/webhook/{source}", *address.lock().expect("no panic"));
                let sent = client.post(url).body(format!("{{\"id\": {id}}}")).send().await;
                if sent.is_ok_and(|answer| answer.status() == 200) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        acknowledged.push(id);
    }
    acknowledged
}

#[test]
fn nothing_acknowledged_is_lost_when_the_server_is_killed() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&dir.path().join("data"));
    server.sql(
        "CREATE SOURCE plain (id bigint) FROM WEBHOOK FORMAT JSON;
         CREATE SOURCE keyed (id bigint PRIMARY KEY) FROM WEBHOOK FORMAT JSON",
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let address = Arc::new(Mutex::new(server.http()));
    let (next, stop) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..16)
        .map(|_| runtime.spawn(send(Arc::clone(&address), Arc::clone(&next), Arc::clone(&stop))))
        .collect();
    for round in 0..6u64 {
        std::thread::sleep(Duration::from_millis(300 + 170 * round));
        server.kill_and_restart();
        *address.lock().expect("no panic") = server.http();
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::SeqCst);
    let acknowledged: BTreeSet<i64> =
        senders.into_iter().flat_map(|s| runtime.block_on(s).expect("no panic")).collect();
    assert!(acknowledged.len() > 20, "only {}", acknowledged.len());
    let stored = |sql: &str| -> Vec<i64> {
        server.rows(sql).into_iter().map(|r| r[0].parse().expect("a number")).collect()
    };
    // Sent again when the answer was lost: there once at least, and exactly once under a key.
    let plain: BTreeSet<i64> = stored("SELECT id FROM plain").into_iter().collect();
    assert_eq!(plain, acknowledged);
    let keyed = stored("SELECT id FROM keyed");
    assert_eq!(keyed.len(), acknowledged.len());
    assert_eq!(keyed.into_iter().collect::<BTreeSet<_>>(), acknowledged);
}
