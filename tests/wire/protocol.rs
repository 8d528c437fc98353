//! The conversation, message by message: what is answered, in which order, and with which transaction status.

use super::raw::{Raw, bind, execute, field, message, parse, startup, summary, sync};
use super::server::Server;

/// An error may come before or after the columns of its rows were told.
fn error_only(summary: &str) -> String {
    summary.replace("T E:", "E:")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_status_follows_the_transaction() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    assert_eq!(raw.query("").await, "I Z:I");
    assert_eq!(raw.query("SELECT 1; SELECT 2").await, "T D C:SELECT 1 T D C:SELECT 1 Z:I");
    assert_eq!(raw.query("BEGIN").await, "C:BEGIN Z:T");
    assert_eq!(error_only(&raw.query("SELECT 1 / 0").await), "E:22012 Z:E");
    assert_eq!(raw.query("SELECT 1").await, "E:25P02 Z:E");
    assert_eq!(raw.query("COMMIT").await, "C:ROLLBACK Z:I", "a failed block cannot be committed");
    assert_eq!(raw.query("SELECT 1; SELEKT; SELECT 2").await, "E:42601 Z:I", "a string is parsed as a whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_in_a_pipeline_is_followed_by_silence_up_to_sync() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    let one = |sql: &str| [parse(sql), bind(), message(b'D', b"P\0"), execute(0)].concat();
    raw.send(
        &[one("SELECT 1"), one("SELECT * FROM nowhere"), one("SELECT 2"), sync(), one("SELECT 3"), sync()]
            .concat(),
    )
    .await;
    assert_eq!(summary(&raw.until_ready().await), "1 2 T D C:SELECT 1 E:42P01 Z:I");
    assert_eq!(summary(&raw.until_ready().await), "1 2 T D C:SELECT 1 Z:I");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_is_suspended_and_goes_on() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    assert_eq!(raw.query("BEGIN").await, "C:BEGIN Z:T");
    let values = "SELECT * FROM (VALUES (1), (2), (3), (4), (5)) AS v(x)";
    raw.send(&[parse(values), bind(), execute(2), execute(2), execute(2), execute(2), sync()].concat()).await;
    assert_eq!(
        summary(&raw.until_ready().await),
        "1 2 D D s D D s D C:SELECT 1 C:SELECT 0 Z:T",
        "two, two, the last one, nothing more"
    );
    assert_eq!(raw.query("COMMIT").await, "C:COMMIT Z:I");
    raw.send(&[execute(0), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "E:34000 Z:I", "portals end with their transaction");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_and_portals_have_names_once() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    let named = message(b'P', b"s\0SELECT 1\0\0\0");
    raw.send(&[named.clone(), sync(), named.clone(), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "1 Z:I");
    assert_eq!(summary(&raw.until_ready().await), "E:42P05 Z:I");
    raw.send(&[message(b'C', b"Ss\0"), named, message(b'D', b"Ss\0"), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "3 1 t T Z:I");
    raw.send(&[message(b'B', b"\0nobody\0\0\0\0\0\0\0"), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "E:26000 Z:I");
    raw.send(&[parse(""), message(b'D', b"S\0"), bind(), execute(0), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "1 t n 2 I Z:I", "an empty statement");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_parameters_are_refused() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    raw.send(&[parse("SELECT $1::int"), bind(), sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "1 E:08P01 Z:I", "none where one is needed");
    let text = message(b'B', b"\0\0\0\0\0\x01\0\0\0\x01x\0\0");
    raw.send(&[parse("SELECT $1::int"), text, sync()].concat()).await;
    let replies = raw.until_ready().await;
    assert_eq!(summary(&replies), "1 E:22P02 Z:I");
    let short = message(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\x02\0\x05\0\0");
    raw.send(&[parse("SELECT $1::int"), short, sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "1 E:22P03 Z:I", "an int4 of two bytes");
    let formats = message(b'B', b"\0\0\0\0\0\0\0\x02\0\0\0\0");
    raw.send(&[parse("SELECT 1"), formats, sync()].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "1 E:08P01 Z:I", "two formats for one column");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_can_fail_on_both_sides_and_the_session_goes_on() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    assert_eq!(raw.query("CREATE TABLE t (k int PRIMARY KEY, v text)").await, "C:CREATE TABLE Z:I");
    let begin = message(b'Q', b"COPY t FROM STDIN\0");
    raw.send(&begin).await;
    assert_eq!(raw.reply().await.map(|r| r.0), Some(b'G'));
    // Cut in the middle of a line, which is nobody's business but the network's.
    raw.send(&[message(b'd', b"1\ton"), message(b'd', b"e\n2\t\\N\n"), message(b'c', b"")].concat()).await;
    assert_eq!(summary(&raw.until_ready().await), "C:COPY 2 Z:I");
    raw.send(&begin).await;
    assert_eq!(raw.reply().await.map(|r| r.0), Some(b'G'));
    raw.send(&[message(b'd', b"3\tthree\n"), message(b'f', b"changed my mind\0")].concat()).await;
    let replies = raw.until_ready().await;
    assert_eq!(summary(&replies), "E:57014 Z:I");
    assert_eq!(field(&replies[0].1, b'M').unwrap(), "COPY from stdin failed: changed my mind");
    raw.send(&begin).await;
    assert_eq!(raw.reply().await.map(|r| r.0), Some(b'G'));
    raw.send(&[message(b'd', b"not a number\tx\n"), message(b'd', b"4\ty\n"), message(b'c', b"")].concat())
        .await;
    assert_eq!(summary(&raw.until_ready().await), "E:22P02 Z:I");
    raw.send(&message(b'Q', b"COPY (SELECT k, v FROM t ORDER BY k) TO STDOUT\0")).await;
    let replies = raw.until_ready().await;
    assert_eq!(summary(&replies), "H d d c C:COPY 2 Z:I", "nothing of the failed ones is there");
    assert_eq!((replies[1].1.as_slice(), replies[2].1.as_slice()), (&b"1\tone\n"[..], &b"2\t\\N\n"[..]));
    raw.send(&message(b'Q', b"COPY (SELECT k, v FROM t ORDER BY k) TO STDOUT (FORMAT csv, HEADER)\0")).await;
    let replies = raw.until_ready().await;
    let lines: Vec<u8> = replies.iter().filter(|r| r.0 == b'd').flat_map(|r| r.1.clone()).collect();
    assert_eq!(String::from_utf8(lines).unwrap(), "k,v\n1,one\n2,\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_a_place_and_newer_protocols_are_talked_down() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.addr).await;
    let mut hello = startup(&[("user", "tidemill"), ("_pq_.unheard_of", "1")]);
    hello[7] = 2; // protocol 3.2
    raw.send(&hello).await;
    let (kind, body) = raw.reply().await.unwrap();
    assert_eq!((kind, &body[..8]), (b'v', &[0, 3, 0, 0, 0, 0, 0, 1][..]), "3.0, and one option unknown");
    raw.until_ready().await;
    raw.send(&message(b'Q', b"SELECT 1;  SELECT nothing FROM nowhere\0")).await;
    let replies = raw.until_ready().await;
    let error = &replies.iter().find(|r| r.0 == b'E').unwrap().1;
    assert_eq!(field(error, b'C').as_deref(), Some("42P01"));
    assert_eq!(field(error, b'S').as_deref(), Some("ERROR"));
    assert_eq!(field(error, b'P').as_deref(), Some("32"), "where the name stands in the whole string");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_clients_follow_are_reported_when_they_change() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    raw.send(&message(b'Q', b"SET application_name = 'me'\0")).await;
    let replies = raw.until_ready().await;
    assert_eq!(summary(&replies), "S C:SET Z:I");
    assert_eq!(replies[0].1, b"application_name\0me\0");
}
