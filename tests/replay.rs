//! REPLAY ERRORS: what a source did not understand becomes rows once it does, exactly once; and `tidemill.errors` keeps
//! no more than it is told to.

mod common;

use std::io::Write;
use std::process::{Command, Stdio};

use common::process::Tidemill;
use common::until;

fn post(server: &Tidemill, source: &str, body: &str) {
    let url = format!("http://{}/webhook/{source}", server.http());
    let mut curl = Command::new("curl")
        .args(["-s", "-f", "-o", "/dev/null", "-H", "X-From: a", "--data-binary", "@-", &url])
        .stdin(Stdio::piped())
        .spawn()
        .expect("curl");
    curl.stdin.take().expect("piped").write_all(body.as_bytes()).expect("it reads");
    assert!(curl.wait().expect("it ends").success(), "POST {url}");
}

#[test]
fn records_are_decoded_again() {
    let home = tempfile::tempdir().expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    let create = |id: &str| {
        format!(
            "CREATE SOURCE e (id {id}, name text) FROM WEBHOOK FORMAT CSV (header) INCLUDE header 'x-from' AS sender, timestamp AS at;
             CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, count(sender) AS s FROM e"
        )
    };
    server.sql(&create("int"));
    post(&server, "e", "name,id\nx,1\ny,3000000000\nz,many\n");
    post(&server, "e", "id\n4000000000\n");
    assert_eq!(server.rows("SELECT object, sqlstate FROM tidemill.errors").len(), 3);
    assert_eq!(server.rows("REPLAY ERRORS FROM e"), [["0", "3"]]);
    let metadata =
        server.rows("SELECT metadata->>'columns', metadata->'headers'->>'x-from' FROM tidemill.errors");
    assert_eq!(metadata, [["id\n", "a"], ["name,id\n", "a"], ["name,id\n", "a"]]);
    // The definition is mended.
    server.sql("DROP SOURCE e CASCADE");
    server.sql(&create("bigint"));
    server.kill_and_restart();
    assert_eq!(server.rows("REPLAY ERRORS FROM e WHERE metadata->>'columns' = e'id\\n'"), [["1", "0"]]);
    assert_eq!(server.rows("SELECT id, name, sender FROM e"), [["4000000000", "NULL", "a"]]);
    assert_eq!(server.rows("REPLAY ERRORS FROM e"), [["1", "1"]]);
    assert_eq!(server.rows("REPLAY ERRORS FROM e"), [["0", "1"]]);
    let expected = [["3000000000", "y"], ["4000000000", "NULL"]];
    for _ in 0..2 {
        assert_eq!(server.rows("SELECT id, name FROM e WHERE at < now()"), expected);
        assert_eq!(server.rows("SELECT n, s FROM total"), [["2", "2"]]);
        let left = server.rows("SELECT convert_from(raw, 'UTF8') FROM tidemill.errors");
        assert_eq!(left, [["z,many\n"]]);
        server.sql("CHECK MATERIALIZED VIEW total");
        server.kill_and_restart();
    }
}

#[test]
fn what_cannot_be_replayed_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    server.sql(
        "CREATE SOURCE k (id int PRIMARY KEY) FROM WEBHOOK FORMAT JSON WITH (on_error = 'skip');
         CREATE SOURCE g (id int) FROM DATAGEN (rows = 1);
         CREATE SOURCE e (id int) FROM WEBHOOK FORMAT JSON;
         CREATE TABLE t (id int)",
    );
    let refused = |sql: &str| server.try_sql(sql).expect_err("refused");
    let keyed = refused("REPLAY ERRORS FROM k");
    assert_eq!(keyed.sqlstate, "0A000");
    assert!(keyed.to_string().contains("a source with a key"), "{keyed}");
    assert_eq!(refused("REPLAY ERRORS FROM g").sqlstate, "0A000");
    assert_eq!(refused("REPLAY ERRORS FROM t").sqlstate, "42809");
    assert_eq!(refused("REPLAY ERRORS FROM nothing").sqlstate, "42P01");
    assert_eq!(refused("REPLAY ERRORS FROM e WHERE nosuch = 1").sqlstate, "42703");
    assert_eq!(refused("BEGIN; REPLAY ERRORS FROM e").sqlstate, "25001");
    assert_eq!(server.rows("REPLAY ERRORS FROM e WHERE at > now() OR true"), [["0", "0"]]);
    let modes = server.rows("SELECT name, on_error FROM tidemill.sources");
    assert_eq!(modes, [["e", "store"], ["g", "store"], ["k", "skip"]]);
}

#[test]
fn the_oldest_errors_go_first() {
    let home = tempfile::tempdir().expect("a directory");
    let data = home.path().join("data");
    let mut server = Tidemill::start_with(&data, &[("TIDEMILL_ERRORS_ROWS", "10")]);
    server.sql("CREATE SOURCE e (id int) FROM WEBHOOK FORMAT JSON");
    for n in 0..25 {
        post(&server, "e", &format!("{{\"id\": \"bad {n}\"}}"));
    }
    let kept = "SELECT count(*), min(convert_from(raw, 'UTF8')) FROM tidemill.errors";
    until(&server, kept, &[&["10", "{\"id\": \"bad 15\"}"]]);
    server.kill();
    server = Tidemill::start_with(&data, &[("TIDEMILL_ERRORS_BYTES", "500")]);
    until(&server, "SELECT count(*) BETWEEN 1 AND 9 FROM tidemill.errors", &[&["t"]]);
    let newest = server.rows("SELECT max(convert_from(raw, 'UTF8')) FROM tidemill.errors");
    assert_eq!(newest, [["{\"id\": \"bad 24\"}"]]);
}
