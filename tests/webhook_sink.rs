//! The WEBHOOK sink, the whole way: statements in, posts to a real server out, over its faults and our kills.

mod common;

use std::time::{Duration, Instant};

use common::process::Tidemill;
use common::receiver::{Fault, Receiver};
use serde_json::{Value, json};

fn wait(tidemill: &Tidemill) {
    tidemill.sql("WAIT FOR SINK s CURRENT TIMEOUT '60 s'");
}

/// The receiver's rows are the relation's.
fn check(tidemill: &Tidemill, receiver: &Receiver) {
    let ours = tidemill.rows("SELECT id::text, (v * 100)::bigint::text, name FROM kept");
    let mut theirs: Vec<Vec<String>> = receiver
        .rows()
        .into_values()
        .map(|row| {
            let cents = row["v"].as_f64().map_or("NULL".to_string(), |v| format!("{:.0}", v * 100.0));
            vec![row["id"].to_string(), cents, row["name"].as_str().unwrap_or("NULL").to_string()]
        })
        .collect();
    theirs.sort();
    assert_eq!(theirs, ours);
}

const VIEW: &str = "CREATE TABLE t (id int PRIMARY KEY, v numeric(12,2), name text);
    CREATE MATERIALIZED VIEW kept AS SELECT id, v, name FROM t WHERE name <> 'hidden'";

fn create(receiver: &Receiver, options: &str) -> String {
    format!(
        "CREATE SECRET hook_key AS 'hunter2'; \
         CREATE SINK s FROM kept INTO WEBHOOK (url = '{}', secret = SECRET hook_key, header.authorization = 'Bearer x'{options}) \
         KEY (id) FORMAT JSON WITH (commit_interval = '20 ms', retry = '20 ms')",
        receiver.url
    )
}

#[test]
fn batches_are_signed_named_and_in_order() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(VIEW);
    tidemill.sql("INSERT INTO t SELECT n, n * 0.5, 'n' || n FROM generate_series(1, 25) AS s(n)");
    tidemill.sql(&create(&receiver, ", body.rows = 10"));
    wait(&tidemill);
    tidemill.sql("UPDATE t SET v = 7 WHERE id = 3; DELETE FROM t WHERE id = 4; INSERT INTO t VALUES (26, NULL, 'q\"uote')");
    wait(&tidemill);
    check(&tidemill, &receiver);
    let posted = receiver.posted();
    let (first, later) = posted.split_at(3);
    for (part, post) in first.iter().enumerate() {
        assert_eq!((&post.body["part"], &post.body["parts"]), (&json!(part), &json!(3)));
        assert_eq!((&post.body["from_tick"], &post.body["sink"]), (&Value::Null, &json!("s")));
    }
    let mut changes: Vec<Value> =
        later.iter().flat_map(|p| p.body["changes"].as_array().expect("changes").clone()).collect();
    changes.sort_by_key(|c| c["row"]["id"].as_i64());
    assert_eq!(
        changes,
        [
            json!({ "op": "update", "row": { "id": 3, "v": 7.00, "name": "n3" } }),
            json!({ "op": "delete", "row": { "id": 4, "v": 2.00, "name": "n4" } }),
            json!({ "op": "insert", "row": { "id": 26, "v": null, "name": "q\"uote" } }),
        ]
    );
    for post in &posted {
        let header = |name: &str| post.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"hunter2");
        let signature = hex::encode(ring::hmac::sign(&key, &post.raw).as_ref());
        assert_eq!(header("x-tidemill-signature"), format!("sha256={signature}"));
        assert_eq!((header("content-type"), header("authorization")), ("application/json", "Bearer x"));
        let (from, to) = (post.body["from_tick"].as_u64().unwrap_or(0), post.body["to_tick"].as_u64());
        let id = post.body["sink_id"].as_str().expect("an id");
        let (to, part) = (to.expect("a tick"), &post.body["part"]);
        assert_eq!(post.key, format!("{id}/1/{from}-{to}/{part}"));
    }
    assert_eq!(receiver.repeated(), 0);
    assert_eq!(
        tidemill
            .rows("SELECT count(*) FILTER (WHERE tick_from IS NULL), sum(files) FROM tidemill.sink_commits"),
        [["1".to_string(), posted.len().to_string()]]
    );
    let shown = tidemill.rows("SHOW CREATE SINK s")[0][1].clone();
    assert!(shown.contains("SECRET hook_key") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn what_a_receiver_does_not_answer_is_posted_again_as_it_was() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(VIEW);
    tidemill.sql("INSERT INTO t SELECT n, n, 'a' FROM generate_series(1, 30) AS s(n)");
    receiver.faults([Fault::Status(500), Fault::AnswerLost, Fault::Status(503), Fault::AnswerLost]);
    tidemill.sql(&create(&receiver, ", body.rows = 7"));
    wait(&tidemill);
    check(&tidemill, &receiver);
    assert_eq!((receiver.faults_left(), receiver.repeated(), receiver.posted().len()), (0, 2, 5));

    // As long as it asks for, and not sooner.
    receiver.faults([Fault::Busy(1)]);
    let began = Instant::now();
    tidemill.sql("UPDATE t SET v = v + 1 WHERE id < 5");
    wait(&tidemill);
    check(&tidemill, &receiver);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(receiver.posted().len(), 6);

    // What it refuses is shown until it takes it.
    receiver.faults([Fault::Status(422)]);
    tidemill.sql("UPDATE t SET v = v + 1 WHERE id = 9");
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let shown = tidemill.rows("SELECT coalesce(error, '') FROM tidemill.sinks")[0][0].clone();
        if shown.contains("422") {
            break;
        }
        assert!(Instant::now() < until, "{shown}");
        std::thread::sleep(Duration::from_millis(20));
    }
    wait(&tidemill);
    check(&tidemill, &receiver);
}

#[test]
fn rows_agree_after_kills_and_no_key_ever_means_two_things() {
    let receiver = Receiver::start();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut tidemill = Tidemill::start(&directory.path().join("data"));
    tidemill.sql(VIEW);
    tidemill.sql("INSERT INTO t SELECT n, n, 'a' FROM generate_series(1, 40) AS s(n)");
    tidemill.sql(&create(&receiver, ", body.rows = 3"));
    wait(&tidemill);
    let mut random = 7_u64;
    let mut next = move |n: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % n
    };
    for round in 0..6 {
        let until = Instant::now() + Duration::from_millis(400 + 170 * round);
        while Instant::now() < until {
            let (id, v) = (next(60), next(1000));
            let sql = match next(3) {
                0 => format!("DELETE FROM t WHERE id IN ({id}, {})", next(60)),
                _ => format!(
                    "INSERT INTO t VALUES ({id}, {v}, 'n{v}') ON CONFLICT (id) DO UPDATE SET v = excluded.v, name = excluded.name"
                ),
            };
            tidemill.sql(&sql);
            if next(40) == 0 {
                receiver.faults([Fault::AnswerLost]);
            }
        }
        tidemill.kill_and_restart();
    }
    wait(&tidemill);
    check(&tidemill, &receiver);
    let snapshots =
        receiver.posted().iter().filter(|p| p.body["from_tick"].is_null() && p.body["part"] == 0).count();
    assert_eq!(snapshots, 1, "the sink had to start over\n{}", tidemill.log());
    // Between a post and the note of it.
    let data = directory.path().join("data");
    tidemill.kill();
    let dying = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "sink.posted:2")]);
    dying.sql("DELETE FROM t; INSERT INTO t SELECT n, n, 'z' FROM generate_series(1, 40) AS s(n)");
    let before = receiver.repeated();
    std::thread::sleep(Duration::from_millis(500));
    drop(dying);
    let tidemill = Tidemill::start(&data);
    wait(&tidemill);
    check(&tidemill, &receiver);
    assert!(receiver.repeated() > before, "nothing was posted again");
}
