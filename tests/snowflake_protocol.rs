//! The Snowflake client against everything that can go wrong between two machines, with a server in this process.

#[path = "common/history.rs"]
#[allow(dead_code)] // each test program uses a part of it
mod history;
#[path = "common/mock_snowflake.rs"]
mod mock_snowflake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidemill::connectors::snowflake::client::{Repeat, Session};
use tidemill::connectors::snowflake::config::Config;
use tidemill::connectors::{Envelope, SinkDefinition, Status, StopFlag, snowflake};
use tidemill::{Error, SqlState};

use history::{History, Kind, SNAPSHOT, follow, row_text};
use mock_snowflake::{Cloud, Fault, MockSnowflake};

const END: u64 = 6;

fn connection(server: &MockSnowflake) -> Vec<(String, String)> {
    [("account", "org-test"), ("user", "loader"), ("password", "hunter2"), ("url", &server.url)]
        .map(|(n, v)| (n.to_string(), v.to_string()))
        .to_vec()
}

/// Follows a history into the server, to its end.
fn sync(server: &MockSnowflake) -> Result<Arc<Status>, Error> {
    let status = Arc::new(Status::default());
    sync_as(server, "10 ms", status.clone())?;
    Ok(status)
}

/// The same; `retry` is the first pause after a failure.
fn sync_as(server: &MockSnowflake, retry: &str, status: Arc<Status>) -> Result<(), Error> {
    let definition = SinkDefinition {
        name: "s".to_string(),
        uuid: uuid::Uuid::from_u128(9),
        kind: "snowflake".to_string(),
        connection: connection(server),
        options: [("table", "t"), ("commit_interval", "0 s"), ("retry", retry)]
            .map(|(n, v)| (n.to_string(), v.to_string()))
            .to_vec(),
        format: None,
        envelope: Envelope::None,
        append_only: false,
    };
    let memory = tempfile::tempdir().unwrap();
    let sink = snowflake::sink(&definition, &History::schema(), &[0])?;
    let history = History::new(Kind::Keyed, 7, END);
    follow(sink, history, uuid::Uuid::from_u128(9), memory.path().to_path_buf(), status)
}

/// The target is the history's, and no tick was committed twice.
fn check(server: &MockSnowflake) {
    assert_eq!(server.faults_left(), 0, "a fault did not happen");
    let mut rows: Vec<String> = server.target().into_iter().map(|(k, v)| row_text(k, v)).collect();
    rows.sort();
    assert_eq!(rows, History::new(Kind::Keyed, 7, END).model(END));
    let commits = server.commits();
    assert!(commits.windows(2).all(|w| w[0] < w[1]), "{commits:?}");
    assert_eq!((commits.first(), commits.last()), (Some(&SNAPSHOT), Some(&END)));
}

#[test]
fn an_answer_that_breaks_off_before_or_after_a_statement_ran_loses_and_doubles_nothing() {
    for statement in [
        "BEGIN",
        "UPDATE \"T__TIDEMILL_00000000000000000000000000000009_PROGRESS\" SET GENERATION =",
        "COPY",
        "INSERT",
        "MERGE INTO \"T\"",
        "COMMIT",
    ] {
        for fault in
            [Fault::LostBefore, Fault::LostAfter, Fault::Unavailable, Fault::TooMany, Fault::SessionGone]
        {
            let server = MockSnowflake::start(Cloud::Azure);
            server.fault(statement, fault.clone());
            let status = sync(&server).unwrap_or_else(|e| panic!("{statement} {fault:?}: {e}")).get();
            check(&server);
            assert_eq!((status.state, status.error), ("running", None));
            // The session of a transaction that went wrong is never used again.
            assert_eq!(server.seen("/session/v1/login-request").len(), 2, "{statement} {fault:?}");
        }
    }
}

#[test]
fn the_statements_of_a_commit_are_known_by_their_ids_and_say_its_sink_and_tick() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("MERGE INTO \"T\"", Fault::Running(1));
    let status = sync(&server).unwrap();
    check(&server);
    let tag = |tick: Option<u64>| {
        let id = uuid::Uuid::from_u128(9).to_string();
        serde_json::json!({ "app": "tidemill", "sink": "s", "sink_id": id, "tick": tick })
    };
    let seen = server.seen("");
    let tag_of = |i: usize| serde_json::from_str(seen[i].tag.as_deref()?).ok();
    let commits = status.commits();
    assert_eq!(commits.iter().map(|c| c.to).collect::<Vec<_>>(), server.commits());
    assert_eq!(commits[0].from, None);
    assert!(commits.windows(2).all(|w| w[1].from == Some(w[0].to)), "{commits:?}");
    for commit in commits {
        let of_tick: Vec<usize> =
            (0..seen.len()).filter(|&i| tag_of(i) == Some(tag(Some(commit.to)))).collect();
        let ids: Vec<String> = of_tick.iter().map(|i| format!("q{}", i + 1)).collect();
        assert_eq!(commit.queries, ids);
        let texts: Vec<&str> = of_tick.iter().map(|&i| seen[i].text.split(' ').next().unwrap()).collect();
        assert_eq!((texts[0], texts[1], texts.last()), ("PUT", "BEGIN", Some(&"COMMIT")), "{texts:?}");
        let counts = commit.counts.unwrap();
        assert_eq!(commit.rows, counts.inserts + counts.updates + counts.deletes);
        assert!(commit.bytes > 0 && commit.files == 1 && commit.attempts == 1, "{commit:?}");
        assert!(commit.freshness_micros > 0 && !commit.phases.commit.is_zero(), "{commit:?}");
    }
    let opening = (0..seen.len()).find(|&i| seen[i].text.starts_with("CREATE STAGE")).unwrap();
    assert_eq!(tag_of(opening), Some(tag(None)));
}

#[test]
fn harmless_statements_are_sent_again_under_the_same_request_id() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("CREATE STAGE", Fault::Unavailable);
    server.fault("CREATE STAGE", Fault::LostAfter);
    sync(&server).unwrap();
    check(&server);
    let sent = server.seen("CREATE STAGE");
    assert_eq!(sent.len(), 3);
    assert!(sent.iter().all(|s| s.query["requestId"] == sent[0].query["requestId"]));
    assert!(sent.windows(2).all(|w| w[0].query["request_guid"] != w[1].query["request_guid"]));
    let retries: Vec<_> = sent.iter().map(|s| s.query.get("retryCount").cloned()).collect();
    assert_eq!(retries, [None, Some("1".to_string()), Some("2".to_string())]);
    assert_eq!(server.seen("/session/v1/login-request").len(), 1);
}

#[test]
fn long_statements_are_asked_for_until_they_are_done() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("COPY", Fault::Running(2));
    server.fault("COMMIT", Fault::Running(1));
    server.fault("/queries/", Fault::LostBefore);
    // The first of these is used by the first statement of all, which is harmless and sent again.
    sync(&server).unwrap();
    check(&server);
    assert_eq!(server.seen("/session/v1/login-request").len(), 1);
    let polls = server.seen("/queries/").iter().filter(|s| s.path.ends_with("/result")).count();
    assert!(polls >= 3, "{polls}");
}

#[test]
fn an_expired_token_is_renewed_in_the_middle_of_a_transaction() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("MERGE INTO \"T\"", Fault::TokenExpired);
    server.fault("COMMIT", Fault::Running(2));
    sync(&server).unwrap();
    check(&server);
    assert_eq!(server.seen("/session/v1/login-request").len(), 1);
    let renewals = server.seen("/session/token-request");
    assert_eq!(renewals.len(), 1);
    assert_eq!(renewals[0].headers["authorization"], "Snowflake Token=\"master\"");
    assert!(renewals[0].text.contains("\"oldSessionToken\":\"token1\""), "{}", renewals[0].text);
    let merges = server.seen("MERGE INTO \"T\"");
    assert_eq!(merges[0].query["requestId"], merges[1].query["requestId"]);
    assert_eq!(merges[1].headers["authorization"], "Snowflake Token=\"token2\"");
}

#[test]
fn a_transaction_left_by_a_dead_writer_is_ended() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault(
        "UPDATE \"T__TIDEMILL_00000000000000000000000000000009_PROGRESS\" SET FENCE",
        Fault::Fails("000625", "57014"),
    );
    sync(&server).unwrap();
    check(&server);
    assert_eq!(server.seen("SELECT SYSTEM$ABORT_TRANSACTION(4711)").len(), 1);
}

#[test]
fn errors_that_cannot_pass_stop_the_sink_and_say_why() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("COPY", Fault::Fails("100038", "22018"));
    let e = sync(&server).unwrap_err();
    assert_eq!(e.sqlstate, SqlState::DATA_EXCEPTION);
    assert!(e.message.contains("told to fail"), "{e}");
    assert!(e.detail.unwrap().contains("Code 100038, query q, in: COPY INTO"));
    assert!(server.commits().is_empty());
    assert_eq!(server.seen("ROLLBACK").len(), 1);

    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("/session/v1/login-request", Fault::Fails("390100", ""));
    let e = sync(&server).unwrap_err();
    assert_eq!(e.sqlstate, SqlState::INVALID_AUTHORIZATION);
    assert!(e.message.contains("Incorrect username or password"), "{e}");
    assert!(!format!("{e:?}").contains("hunter2"));
    assert_eq!(server.seen("/session/v1/login-request").len(), 1);
}

#[test]
fn errors_that_can_pass_are_tried_again() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("MERGE INTO \"T\"", Fault::Fails("000625", "57014"));
    server.fault("COPY", Fault::Fails("000630", "57014"));
    server.fault("/session/v1/login-request", Fault::Unavailable);
    sync(&server).unwrap();
    check(&server);
}

#[test]
fn files_that_are_not_loaded_whole_are_staged_again() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("COPY", Fault::LoadsFewer);
    sync(&server).unwrap();
    check(&server);
    assert_eq!(server.seen("ROLLBACK").len(), 1);
    let directory = |i: usize| server.seen("PUT ")[i].text.split(" @").nth(1).unwrap().to_string();
    assert_ne!(directory(0), directory(1));
}

#[test]
fn a_suspended_warehouse_is_waited_for() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("COPY", Fault::Fails("000606", "57P03"));
    server.fault("UPDATE", Fault::Fails("000606", "57P03"));
    sync(&server).unwrap();
    check(&server);
}

#[test]
fn a_writer_that_is_shut_out_says_so() {
    let server = MockSnowflake::start(Cloud::Azure);
    let progress = "UPDATE \"T__TIDEMILL_00000000000000000000000000000009_PROGRESS\" SET GENERATION =";
    server.fault(progress, Fault::TakenOver);
    let status = Arc::new(Status::default());
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| sync_as(&server, "2 s", status.clone()));
        let said = |s: &str| s.contains("another writer has taken the sink over");
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while !status.get().error.as_deref().is_some_and(said) {
            assert!(std::time::Instant::now() < until, "{:?}", status.get());
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(server.commits().is_empty());
        writer.join().unwrap().unwrap();
    });
    check(&server);
}

#[test]
fn every_cloud_takes_the_files_and_gives_new_credentials_when_they_expire() {
    for (cloud, path, header, value) in [
        (Cloud::S3, "/bucket/stage/00000.parquet", "x-amz-security-token", "aws-token"),
        (Cloud::Azure, "/bucket/stage/00000.parquet", "x-ms-blob-type", "BlockBlob"),
        (Cloud::GcsToken, "/bucket/stage/00000.parquet", "authorization", "Bearer gcs-token"),
        (Cloud::GcsPresigned, "/bucket/stage/presigned-", "x-goog-meta-sfc-digest", ""),
    ] {
        let server = MockSnowflake::start(cloud);
        server.fault("/bucket/", Fault::CredentialsExpired);
        sync(&server).unwrap_or_else(|e| panic!("{cloud:?}: {e}"));
        check(&server);
        let uploads = server.seen("/bucket/");
        assert!(uploads.iter().all(|u| u.path.starts_with(path)), "{:?}", server.uploads());
        assert!(uploads.iter().all(|u| u.headers[header].to_str().unwrap().contains(value)), "{cloud:?}");
        assert_eq!(
            server.seen("PUT ").len(),
            uploads.len(),
            "{cloud:?}: each upload has credentials of its own"
        );
        let digests = ["x-amz-meta-sfc-digest", "x-ms-meta-sfcdigest", "x-goog-meta-sfc-digest"];
        assert!(uploads.iter().all(|u| digests.iter().any(|d| u.headers.contains_key(*d))), "{cloud:?}");
        // The staged files' statement names the attempt's own directory.
        assert!(
            server.seen("PUT ")[0].text.contains("/g1/00000000000000000003/f1a1/ "),
            "{:?}",
            server.seen("PUT ")[0]
        );
    }
}

#[test]
fn an_upload_that_fails_is_made_again_under_another_name() {
    for cloud in [Cloud::Azure, Cloud::GcsToken, Cloud::GcsPresigned] {
        let server = MockSnowflake::start(cloud);
        for fault in [Fault::Unavailable, Fault::TooMany, Fault::LostBefore, Fault::LostAfter] {
            server.fault("/bucket/", fault);
        }
        sync(&server).unwrap_or_else(|e| panic!("{cloud:?}: {e}"));
        check(&server);
        let attempts: Vec<String> = server.seen("PUT ").into_iter().take(5).map(|s| s.text).collect();
        let mut apart = attempts.clone();
        apart.sort();
        apart.dedup();
        assert_eq!(apart.len(), 5, "{attempts:?}");
    }
}

#[test]
fn credentials_that_expire_at_once_are_given_up_and_asked_for_again() {
    let server = MockSnowflake::start(Cloud::Azure);
    (0..4).for_each(|_| server.fault("/bucket/", Fault::CredentialsExpired));
    sync(&server).unwrap();
    check(&server);
    // Three in the first attempt; a session of its own for the second.
    assert_eq!(server.seen("/session/v1/login-request").len(), 2);
}

#[test]
fn a_session_that_cannot_be_renewed_is_replaced() {
    let server = MockSnowflake::start(Cloud::Azure);
    server.fault("MERGE INTO \"T\"", Fault::TokenExpired);
    server.fault("/session/token-request", Fault::Unavailable);
    sync(&server).unwrap();
    check(&server);
    assert_eq!(server.seen("/session/v1/login-request").len(), 2);
}

#[test]
fn stages_that_we_cannot_or_must_not_write_to_are_refused() {
    for (cloud, what) in
        [(Cloud::LocalFs, "a stage on this machine"), (Cloud::Encrypted, "client-side encryption")]
    {
        let server = MockSnowflake::start(cloud);
        let e = sync(&server).unwrap_err();
        assert_eq!(e.sqlstate, SqlState::FEATURE_NOT_SUPPORTED);
        assert!(e.message.contains(what), "{e}");
        assert!(!format!("{e:?}").contains("aHVudGVyMg"));
        assert!(server.uploads().is_empty() && server.commits().is_empty());
    }
}

#[test]
fn a_key_pair_logs_in_with_a_token_that_lives_for_a_minute() {
    let server = MockSnowflake::start(Cloud::Azure);
    let mut options = connection(&server);
    options.retain(|(name, _)| name != "password");
    options.push(("private_key".to_string(), include_str!("support/snowflake_key.pem").to_string()));
    server.fault("/session/v1/login-request", Fault::LostAfter);
    let config = Config::new(options).unwrap();
    Session::open(&config, "test", &StopFlag::default()).unwrap();
    let logins = server.seen("/session/v1/login-request");
    assert_eq!(logins.len(), 2);
    for login in logins {
        let body: serde_json::Value = serde_json::from_str(&login.text).unwrap();
        let data = &body["data"];
        assert_eq!(data["AUTHENTICATOR"], "SNOWFLAKE_JWT");
        assert_eq!(data["TOKEN"].as_str().unwrap().split('.').count(), 3);
        assert_eq!(data["PASSWORD"], serde_json::Value::Null);
        assert_eq!(data["SESSION_PARAMETERS"]["TRANSACTION_ABORT_ON_ERROR"], true);
    }
}

#[test]
fn stopping_cancels_the_statement_that_runs() {
    let server = MockSnowflake::start(Cloud::Azure);
    let stop = StopFlag::default();
    let config = Config::new(connection(&server)).unwrap();
    let mut session = Session::open(&config, "test", &stop).unwrap();
    server.fault("CALL", Fault::Forever);
    let stopper = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            stop.stop();
        })
    };
    let failure = session.query("CALL FOREVER()", Repeat::Never).unwrap_err();
    stopper.join().unwrap();
    assert_eq!(failure.error.sqlstate, SqlState::QUERY_CANCELED);
    let cancelled: BTreeMap<String, String> =
        serde_json::from_str(&server.seen("/queries/v1/abort-request")[0].text).unwrap();
    assert_eq!(cancelled["requestId"], server.seen("CALL")[0].query["requestId"]);
}

#[test]
fn a_session_says_that_it_lives_and_ends_when_dropped() {
    let server = MockSnowflake::start(Cloud::Azure);
    let config = Config::new(connection(&server)).unwrap();
    let mut session = Session::open(&config, "test", &StopFlag::default()).unwrap();
    session.heartbeat();
    assert_eq!(server.seen("/session/heartbeat").len(), 1);
    drop(session);
    let ended = server.seen("/session").into_iter().filter(|s| s.query.contains_key("delete")).count();
    assert_eq!(ended, 1);
}
