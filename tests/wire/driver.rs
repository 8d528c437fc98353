//! tokio-postgres: the extended protocol in binary, COPY, cancelling, and streams that do not end.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use futures::{SinkExt, StreamExt, TryStreamExt};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::raw::{Raw, message};
use super::server::Server;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_go_both_ways_in_binary() {
    let server = Server::start().await;
    let client = server.client().await;
    client
        .batch_execute(
            "CREATE TABLE t (id bigint PRIMARY KEY, b boolean, i2 smallint, i4 integer, f4 real, f8 double precision,
             t text, vc varchar(10), by bytea, d date, tm time, ts timestamp, tz timestamptz, u uuid, j jsonb,
             ai integer[], at text[])",
        )
        .await
        .unwrap();
    let date = NaiveDate::from_ymd_opt(1815, 6, 18).unwrap();
    let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap();
    let stamp: NaiveDateTime = date.and_time(time);
    let zoned: DateTime<Utc> = DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap();
    let uuid = Uuid::from_u128(0x1234_5678_9abc_def0_1234_5678_9abc_def0);
    let json = serde_json::json!({"a": [1, null, "x"], "b": {"c": 1.5}});
    let ints = vec![Some(1), None, Some(-3)];
    let texts = vec![Some("".to_string()), Some("a,b\"c\\".to_string()), None];
    let n = client
        .execute(
            "INSERT INTO t VALUES ($1,$2,$3,$4,$5,$6,$7,$8,$9,$10,$11,$12,$13,$14,$15,$16,$17)",
            &[
                &1i64,
                &true,
                &-7i16,
                &i32::MIN,
                &1.25f32,
                &f64::MIN_POSITIVE,
                &"tëxt",
                &"short",
                &&[0u8, 255][..],
                &date,
                &time,
                &stamp,
                &zoned,
                &uuid,
                &json,
                &ints,
                &texts,
            ],
        )
        .await
        .unwrap();
    assert_eq!(n, 1);
    client.execute("INSERT INTO t (id) VALUES ($1)", &[&2i64]).await.unwrap();
    let row = client.query_one("SELECT * FROM t WHERE id = $1", &[&1i64]).await.unwrap();
    assert_eq!((row.get(0), row.get(1), row.get(2), row.get(3)), (1i64, true, -7i16, i32::MIN));
    assert_eq!((row.get(4), row.get(5)), (1.25f32, f64::MIN_POSITIVE));
    assert_eq!(
        (row.get::<_, &str>(6), row.get::<_, &str>(7), row.get::<_, &[u8]>(8)),
        ("tëxt", "short", &[0, 255][..])
    );
    assert_eq!((row.get::<_, NaiveDate>(9), row.get::<_, NaiveTime>(10)), (date, time));
    assert_eq!((row.get::<_, NaiveDateTime>(11), row.get::<_, DateTime<Utc>>(12)), (stamp, zoned));
    assert_eq!((row.get::<_, Uuid>(13), row.get::<_, serde_json::Value>(14)), (uuid, json));
    assert_eq!(row.get::<_, Vec<Option<i32>>>(15), ints);
    assert_eq!(row.get::<_, Vec<Option<String>>>(16), texts);
    let row = client.query_one("SELECT * FROM t WHERE id = 2", &[]).await.unwrap();
    assert_eq!((row.get::<_, Option<Uuid>>(13), row.get::<_, Option<Vec<i32>>>(15)), (None, None));
    // What the driver cannot read in binary is seen as PostgreSQL prints it.
    let row = client
        .query_one("SELECT (12345.6789::numeric(12,4))::text, '1 day 2 hours'::interval::text", &[])
        .await
        .unwrap();
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("12345.6789", "1 day 02:00:00"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_knows_its_parameters_and_columns() {
    let server = Server::start().await;
    let client = server.client().await;
    client
        .batch_execute("CREATE TABLE t (k integer PRIMARY KEY, n numeric(9,2), tags text[])")
        .await
        .unwrap();
    let statement = client.prepare("SELECT n, tags, k AS key FROM t WHERE k = $1 AND n > $2").await.unwrap();
    assert_eq!(statement.params(), [Type::INT4, Type::NUMERIC]);
    let columns: Vec<_> = statement.columns().iter().map(|c| (c.name(), c.type_().clone())).collect();
    assert_eq!(columns, [("n", Type::NUMERIC), ("tags", Type::TEXT_ARRAY), ("key", Type::INT4)]);
    let statement = client.prepare("INSERT INTO t VALUES ($1, $2, $3)").await.unwrap();
    assert_eq!(statement.params(), [Type::INT4, Type::NUMERIC, Type::TEXT_ARRAY]);
    assert!(statement.columns().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_sqlstate_and_position() {
    let server = Server::start().await;
    let client = server.client().await;
    for (sql, state, position) in [
        ("SELECT * FROM nowhere", SqlState::UNDEFINED_TABLE, Some(15)),
        ("SELECT 1 +", SqlState::SYNTAX_ERROR, Some(11)),
        ("SELECT 1 / 0", SqlState::DIVISION_BY_ZERO, None),
        ("SELECT 'x'::int", SqlState::INVALID_TEXT_REPRESENTATION, None),
    ] {
        let error = client.query(sql, &[]).await.unwrap_err();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{sql}: {error}"));
        assert_eq!(*error.code(), state, "{sql}: {}", error.message());
        if let Some(position) = position {
            let expected = tokio_postgres::error::ErrorPosition::Original(position);
            assert_eq!(error.position(), Some(&expected), "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_portal_gives_rows_in_portions() {
    let server = Server::start().await;
    let mut client = server.client().await;
    let transaction = client.transaction().await.unwrap();
    let portal =
        transaction.bind("SELECT * FROM generate_series(1, 1000) AS s(i) ORDER BY i", &[]).await.unwrap();
    let mut seen = 0;
    loop {
        let rows = transaction.query_portal(&portal, 300).await.unwrap();
        seen += rows.len();
        if rows.len() < 300 {
            break;
        }
    }
    assert_eq!(seen, 1000);
    transaction.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_goes_in_and_out() {
    let server = Server::start().await;
    let client = server.client().await;
    client.batch_execute("CREATE TABLE t (k integer PRIMARY KEY, v text)").await.unwrap();
    let mut sink = Box::pin(client.copy_in("COPY t FROM STDIN").await.unwrap());
    for k in 0..10_000 {
        sink.send(Bytes::from(format!("{k}\tvalue {k}\n"))).await.unwrap();
    }
    assert_eq!(sink.as_mut().finish().await.unwrap(), 10_000);
    let out: Vec<Bytes> = client.copy_out("COPY t (v) TO STDOUT").await.unwrap().try_collect().await.unwrap();
    let mut lines: Vec<String> = out.iter().map(|l| String::from_utf8(l.to_vec()).unwrap()).collect();
    lines.sort();
    assert_eq!((lines.len(), lines[0].as_str()), (10_000, "value 0\n"));
    // A COPY that is given up leaves nothing behind.
    let mut sink = Box::pin(client.copy_in::<_, Bytes>("COPY t FROM STDIN").await.unwrap());
    sink.send(Bytes::from_static(b"20000\tlost\n")).await.unwrap();
    drop(sink);
    let row = client.query_one("SELECT count(*) FROM t", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_streams_until_it_is_cancelled() {
    let server = Server::start().await;
    let (reader, writer) = (server.client().await, server.client().await);
    writer.batch_execute("CREATE TABLE t (k integer PRIMARY KEY); INSERT INTO t VALUES (1)").await.unwrap();
    let mut changes = Box::pin(reader.copy_out("COPY (SUBSCRIBE t) TO STDOUT").await.unwrap());
    let line = async |changes: &mut std::pin::Pin<Box<tokio_postgres::CopyOutStream>>| {
        let line = tokio::time::timeout(PATIENCE, changes.next()).await.expect("a change").unwrap();
        line.map(|l| String::from_utf8(l.to_vec()).unwrap())
    };
    assert!(line(&mut changes).await.unwrap().ends_with("\t1\t1\n"), "first what is there");
    writer.batch_execute("INSERT INTO t VALUES (2)").await.unwrap();
    assert!(line(&mut changes).await.unwrap().ends_with("\t1\t2\n"), "then what comes");
    writer.batch_execute("DELETE FROM t WHERE k = 1").await.unwrap();
    assert!(line(&mut changes).await.unwrap().ends_with("\t-1\t1\n"), "and what goes");
    reader.cancel_token().cancel_query(NoTls).await.unwrap();
    let error = line(&mut changes).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::QUERY_CANCELED));
    drop(changes);
    assert_eq!(reader.query_one("SELECT 1", &[]).await.unwrap().get::<_, i32>(0), 1, "the session goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_statement_is_cancelled_by_pid_and_key() {
    let server = Server::start().await;
    let client = server.client().await;
    let cancel = client.cancel_token();
    let query = tokio::spawn(async move {
        let sql = "SELECT count(*) FROM generate_series(1, 100000) a(x), generate_series(1, 100000) b(y) WHERE x % 7 = y % 11";
        (client.query(sql, &[]).await.map(|_| ()), client)
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    cancel.cancel_query(NoTls).await.unwrap();
    let (result, client) = tokio::time::timeout(PATIENCE, query).await.expect("it stops").unwrap();
    assert_eq!(result.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
    client.query_one("SELECT 1", &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_left_behind_ends_with_it() {
    let server = Server::start().await;
    let witness = server.client().await;
    witness.batch_execute("CREATE TABLE t (k integer PRIMARY KEY)").await.unwrap();
    let subscriptions = async || {
        let row = witness.query_one("SELECT count(*) FROM tidemill.subscriptions", &[]).await.unwrap();
        row.get::<_, i64>(0)
    };
    let mut reader = Raw::session(server.addr).await;
    reader.send(&message(b'Q', b"COPY (SUBSCRIBE t) TO STDOUT\0")).await;
    assert_eq!(reader.reply().await.map(|r| r.0), Some(b'H'));
    assert_eq!(subscriptions().await, 1);
    drop(reader);
    let gone = async {
        while subscriptions().await != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the subscription of a client that is gone ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_result_can_be_read_and_left() {
    let server = Server::start().await;
    let client = server.client().await;
    let none: [i32; 0] = [];
    let sql = "SELECT i, 'some text of a row' FROM generate_series(1, 500000) AS s(i)";
    let mut rows = Box::pin(client.query_raw(sql, none).await.unwrap());
    let mut n = 0;
    while let Some(row) = rows.next().await {
        row.unwrap();
        n += 1;
    }
    assert_eq!(n, 500_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_answers_health_readiness_and_metrics() {
    let server = Server::start().await;
    server
        .client()
        .await
        .batch_execute("CREATE TABLE orders (k integer PRIMARY KEY); INSERT INTO orders VALUES (1), (2)")
        .await
        .unwrap();
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{}{path}", server.http)).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(get("/health").await, (200, "ok\n".into()));
    assert_eq!(get("/ready").await, (200, "ready\n".into()));
    assert_eq!(get("/nothing").await.0, 404);
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("tidemill_table_rows{name=\"orders\"} 2"), "{metrics}");
    assert!(metrics.contains("# TYPE tidemill_durable_tick gauge"), "{metrics}");
}
