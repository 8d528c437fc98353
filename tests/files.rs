//! FILES sources: on this machine and in an object store, packed and not, with kills on the way.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::process::Tidemill;
use common::s3::S3;
use common::until;

/// Writes a file beside its place and moves it there.
fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let hidden = dir.join(format!(".{name}"));
    std::fs::write(&hidden, text).expect("written");
    std::fs::rename(&hidden, dir.join(name)).expect("renamed");
}

fn gzipped(dir: &Path, text: &str) -> Vec<u8> {
    let plain = dir.join("plain");
    std::fs::write(&plain, text).expect("written");
    let output = Command::new("gzip").arg("-c").arg(&plain).output().expect("gzip");
    std::fs::remove_file(&plain).expect("removed");
    output.stdout
}

#[test]
fn each_file_is_read_once() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir_all(dir.join("deep")).expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    write(&dir, "a.csv", "name,id\nx,1\n\"y\nz\",2\nbad,q\n\nw,3,4\nlast,4");
    write(&dir, "b.csv.gz", gzipped(home.path(), "id,name\n5,gz\n"));
    write(&dir, "c.csv.zst", zstd::encode_all(&b"id\n6\n"[..], 3).expect("packed"));
    write(&dir, "d.txt", "not this one");
    write(&dir.join("deep"), "e.csv", "id\n7\n");
    let url = dir.display();
    server.sql(&format!(
        "CREATE SOURCE f (id int NOT NULL, name text) FROM FILES (url = '{url}/*.csv*', poll = '100ms', min_age = '0 s')
           FORMAT CSV (header) INCLUDE path, line;
         CREATE MATERIALIZED VIEW total AS SELECT count(*), sum(id) FROM f",
    ));
    let name = |n: &str| format!("file://{url}/{n}");
    let (a, b, c, z) = (name("a.csv"), name("b.csv.gz"), name("c.csv.zst"), name("z.csv"));
    until(&server, "SELECT * FROM total", &[&["5", "18"]]);
    let expected: [&[&str]; 5] = [
        &["1", "x", &a, "2"],
        &["2", "y\nz", &a, "3"],
        &["4", "last", &a, "8"],
        &["5", "gz", &b, "2"],
        &["6", "NULL", &c, "2"],
    ];
    until(&server, "SELECT * FROM f", &expected);
    let errors =
        "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors WHERE object = 'f'";
    let (at5, at7) = (format!("file={a} line=5"), format!("file={a} line=7"));
    until(&server, errors, &[&[&at5, "22P02", "bad,q\n"], &[&at7, "22P04", "w,3,4\n"]]);

    // New files are found, and those before are not read again.
    write(&dir, "z.csv", "id,name\n8,new\n");
    until(&server, "SELECT * FROM total", &[&["6", "26"]]);
    let files = "SELECT path, rows, bad_records FROM tidemill.files WHERE source = 'f'";
    let read: [&[&str]; 4] = [&[&a, "3", "2"], &[&b, "1", "0"], &[&c, "1", "0"], &[&z, "1", "0"]];
    until(&server, files, &read);
    server.kill_and_restart();
    write(&dir, "aa.csv", "id\n9\n");
    until(&server, "SELECT * FROM total", &[&["7", "35"]]);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.errors"), [["2"]]);

    // A file that is written again is not read again, but told of.
    std::fs::write(dir.join("z.csv"), "id,name\n8,new\n10,newer\n").expect("written");
    let told = format!("SELECT sqlstate FROM tidemill.errors WHERE position LIKE 'file={z} %'");
    until(&server, &told, &[&["55000"]]);
    // A file that is no gzip is given up where it breaks, and those after it are read.
    write(&dir, "n.csv.gz", "no gzip");
    write(&dir, "o.csv", "id\n11\n");
    until(&server, "SELECT * FROM total", &[&["8", "46"]]);
    let n = name("n.csv.gz");
    let told = format!("SELECT sqlstate FROM tidemill.errors WHERE position LIKE 'file={n} %'");
    until(&server, &told, &[&["22000"]]);

    // A source of the same name begins anew.
    server.sql(&format!(
        "DROP SOURCE f CASCADE;
         CREATE SOURCE f (id int) FROM FILES (url = '{url}/**/*.csv', poll = once, min_age = 0) FORMAT CSV (header)"
    ));
    until(&server, "SELECT status FROM tidemill.sources", &[&["finished"]]);
    until(&server, "SELECT count(*), sum(id) FROM f", &[&["8", "52"]]);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.files"), [["5"]]);
}

#[test]
fn lines_are_documents_or_text() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    write(&dir, "a.json", "{\"id\": 1, \"tags\": [\"x\"]}\n\n{\"id\":\n{\"id\": 2}\n");
    write(&dir, "a.log", "first\r\n\nthird");
    let url = dir.display();
    server.sql(&format!(
        "CREATE CONNECTION here TO OBJECT STORE (url = 'file://{url}');
         CREATE SOURCE j (id int, tags text[]) FROM FILES CONNECTION here (path = '*.json', min_age = 0) FORMAT JSON INCLUDE timestamp AS at;
         CREATE SOURCE l FROM FILES CONNECTION here (path = 'a.log', min_age = 0) FORMAT TEXT INCLUDE line AS n",
    ));
    let recent = "SELECT id, tags, at > now() - interval '1 hour' FROM j";
    until(&server, recent, &[&["1", "{x}", "t"], &["2", "NULL", "t"]]);
    until(&server, "SELECT n, line FROM l", &[&["1", "first"], &["2", ""], &["3", "third"]]);
    until(&server, "SELECT sqlstate FROM tidemill.errors", &[&["22P02"]]);

    let refused = |sql: &str| server.try_sql(sql).expect_err("refused").sqlstate;
    assert_eq!(refused("CREATE SOURCE x (id int) FROM FILES FORMAT JSON"), "22023");
    assert_eq!(refused("CREATE SOURCE x FROM FILES (url = '/x/*') FORMAT JSON"), "58P01");
    assert_eq!(refused("CREATE SOURCE x (id int) FROM FILES (url = '/x/*', size = 1) FORMAT JSON"), "22023");
    assert_eq!(
        refused("CREATE SOURCE x (id int) FROM FILES (url = '/x/*') FORMAT JSON ENVELOPE DEBEZIUM"),
        "0A000"
    );
    assert_eq!(
        refused("CREATE SOURCE x (id int) FROM FILES (url = '/x/*') FORMAT JSON INCLUDE offset"),
        "22023"
    );
    assert_eq!(
        refused("CREATE SOURCE x (id int) FROM FILES (url = '/x/*', compression = 'lzh') FORMAT JSON"),
        "22023"
    );
    assert_eq!(refused("CREATE SOURCE x (a bytea) FROM FILES (url = '/x/*') FORMAT BYTES"), "0A000");
}

#[test]
fn objects_of_a_store_are_read() {
    let home = tempfile::tempdir().expect("a directory");
    let s3 = S3::start();
    s3.put("lake", b"");
    s3.put("lake/in/2024/a.csv", b"1,x\n2,y\n");
    s3.put("lake/in/2024/b.csv.gz", &gzipped(home.path(), "3,z\n"));
    s3.put("lake/out/c.csv", b"4,no\n");
    let server = Tidemill::start(&home.path().join("data"));
    let options = s3.options();
    let missing = format!("CREATE CONNECTION no TO OBJECT STORE (url = 's3://nothing/', {options})");
    let e = server.try_sql(&missing).expect_err("refused");
    assert_eq!(e.sqlstate, "58030");
    assert!(e.message.contains("NoSuchBucket"), "{e}");
    let unknown =
        format!("CREATE CONNECTION no TO OBJECT STORE (url = 's3://lake/', colour = 'red', {options})");
    assert_eq!(server.try_sql(&unknown).expect_err("refused").sqlstate, "22023");
    server.sql(&format!(
        "CREATE CONNECTION lake TO OBJECT STORE (url = 's3://lake/in', {options});
         CREATE SOURCE f (id int, name text) FROM FILES CONNECTION lake (path = '**/*.csv*', poll = '200 ms') FORMAT CSV INCLUDE path",
    ));
    let (a, b, d) = ("s3://lake/in/2024/a.csv", "s3://lake/in/2024/b.csv.gz", "s3://lake/in/2025/d.csv");
    until(&server, "SELECT * FROM f", &[&["1", "x", a], &["2", "y", a], &["3", "z", b]]);
    s3.put("lake/in/2025/d.csv", b"5,new\n");
    until(&server, "SELECT * FROM f WHERE id > 3", &[&["5", "new", d]]);
}

/// Has DuckDB write the rows of a query as a Parquet file.
fn parquet(dir: &Path, name: &str, query: &str) {
    let deps = std::env::var("TEST_DEPS")
        .unwrap_or_else(|_| format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home")));
    let hidden = dir.join(format!(".{name}"));
    let script = format!(
        "import duckdb; duckdb.sql(\"\"\"COPY ({query}) TO '{}' (FORMAT PARQUET, ROW_GROUP_SIZE 20000)\"\"\")",
        hidden.display()
    );
    let python = format!("{deps}/fakesnow/bin/python");
    let status = Command::new(python).args(["-c", &script]).status();
    assert!(status.expect("DuckDB: run scripts/test-deps fakesnow first").success());
    std::fs::rename(&hidden, dir.join(name)).expect("renamed");
}

#[test]
fn columns_of_parquet_are_converted() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    parquet(
        &dir,
        "a.parquet",
        "SELECT 1::BIGINT AS id, 'x' AS name, 1.50::DECIMAL(10,2) AS price, TIMESTAMP '2024-01-02 03:04:05.678' AS at,
                TIMESTAMPTZ '2024-01-02 03:04:05+00' AS atz, DATE '2024-02-29' AS day, [1, 2]::INT[] AS list, true AS yes,
                '{}'::VARCHAR AS doc, 2.5::DOUBLE AS ratio, 'ab'::BLOB AS bytes, 300 AS small, 'f47ac10b-58cc-4372-a567-0e02b2c3d479'::UUID AS uid
         UNION ALL
         SELECT 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'no document', NULL, NULL, 70000, NULL",
    );
    let url = dir.display();
    server.sql(&format!(
        "CREATE SOURCE inferred FROM FILES (url = '{url}/*.parquet', min_age = 0, poll = '100 ms') FORMAT PARQUET;
         CREATE SOURCE declared (\"ID\" int, name text NOT NULL, price numeric(6,1), at timestamptz, list bigint[], other text)
           FROM FILES (url = '{url}/*.parquet', min_age = 0, poll = '100 ms') FORMAT PARQUET INCLUDE path, line AS n;
         CREATE SOURCE narrow (id int PRIMARY KEY, small smallint, doc jsonb, uid uuid)
           FROM FILES (url = '{url}/*.parquet', min_age = 0, poll = '100 ms') FORMAT PARQUET;
         CREATE SOURCE impossible (list int) FROM FILES (url = '{url}/*.parquet', min_age = 0) FORMAT PARQUET",
    ));
    let uid = "f47ac10b-58cc-4372-a567-0e02b2c3d479";
    let first = [
        "1",
        "x",
        "1.50",
        "2024-01-02 03:04:05.678",
        "2024-01-02 03:04:05+00",
        "2024-02-29",
        "{1,2}",
        "t",
        "{}",
        "2.5",
        "\\x6162",
        "300",
    ];
    let second =
        ["2", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "NULL", "no document", "NULL", "NULL", "70000"];
    let columns = "SELECT id, name, price, at, atz, day, list, yes, doc, ratio, bytes, small FROM inferred";
    until(&server, columns, &[&first, &second]);
    let path = format!("file://{url}/a.parquet");
    let row: &[&str] = &["1", "x", "1.5", "2024-01-02 03:04:05.678+00", "{1,2}", "NULL", &path, "1"];
    until(&server, "SELECT * FROM declared", &[row]);
    until(&server, "SELECT * FROM narrow", &[&["1", "300", "{}", uid]]);
    let errors = |source: &str| {
        format!(
            "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors WHERE object = '{source}'"
        )
    };
    let (at1, at2) = (format!("file={path} row=1"), format!("file={path} row=2"));
    until(&server, &errors("declared"), &[&[&at2, "23502", "NULL"]]);
    until(&server, &errors("narrow"), &[&[&at2, "22003", "70000"]]);
    until(&server, &errors("impossible"), &[&[&at1, "22000", "NULL"]]);
    assert_eq!(server.rows("SELECT count(*) FROM impossible"), [["0"]]);
    let refused = |sql: &str| server.try_sql(sql).expect_err("refused").sqlstate;
    assert_eq!(refused("CREATE SOURCE x FROM FILES (url = '/nothing/*') FORMAT PARQUET"), "58P01");
    write(&dir, "b.parquet", "no Parquet");
    parquet(&dir, "c.parquet", "SELECT 3::BIGINT AS id, 7 AS small");
    until(&server, "SELECT id, small FROM narrow WHERE id > 1", &[&["3", "7"]]);
    until(&server, "SELECT count(*) FROM tidemill.errors WHERE position LIKE '%/b.parquet row=1'", &[&["4"]]);
}

#[test]
fn what_becomes_of_bad_records_is_said_by_the_source() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let server = Tidemill::start(&home.path().join("data"));
    write(&dir, "a.json", "{\"id\": 1}\nbad\n{\"id\": 2}\n");
    let url = dir.display();
    for on_error in ["store", "skip", "fail"] {
        server.sql(&format!(
            "CREATE SOURCE {on_error} (id int) FROM FILES (url = '{url}/*', min_age = 0, poll = '100 ms') FORMAT JSON
               WITH (on_error = '{on_error}')"
        ));
    }
    until(&server, "SELECT * FROM store", &[&["1"], &["2"]]);
    until(&server, "SELECT * FROM skip", &[&["1"], &["2"]]);
    until(&server, "SELECT object FROM tidemill.errors", &[&["store"]]);
    let bad = "SELECT name, status, bad_records FROM tidemill.sources WHERE name <> 'fail'";
    until(&server, bad, &[&["skip", "running", "1"], &["store", "running", "1"]]);
    let failed = "SELECT error LIKE '%a record was not understood: invalid JSON%' FROM tidemill.sources WHERE name = 'fail'";
    until(&server, failed, &[&["t"]]);
    assert_eq!(server.rows("SELECT count(*) FROM fail"), [["0"]]);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.files WHERE source = 'fail'"), [["0"]]);
    // Mended upstream, it goes on.
    write(&dir, "a.json", "{\"id\": 1}\n{\"id\": 3}\n");
    until(&server, "SELECT * FROM fail", &[&["1"], &["3"]]);
    let shown = server.rows("SHOW CREATE SOURCE skip").concat().concat();
    assert!(shown.contains("WITH (on_error = 'skip')"), "{shown}");
    let refused = |sql: &str| server.try_sql(sql).expect_err("refused").sqlstate;
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON WITH (on_error = 'fail')"), "0A000");
    assert_eq!(refused("CREATE SOURCE x FROM WEBHOOK FORMAT JSON WITH (on_error = 'cry')"), "22023");
}

#[test]
fn kills_repeat_and_lose_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("in");
    std::fs::create_dir(&dir).expect("a directory");
    let mut next = 0u64;
    let mut lines = |count: u64| -> String {
        let text = (next..next + count).map(|id| format!("{id},name {id}\n")).collect();
        next += count;
        text
    };
    // Large ones take several transactions each, small ones share one.
    for n in 0..4 {
        write(&dir, &format!("large-{n}.csv"), lines(170_000));
        write(&dir, &format!("large-{n}-packed.csv.gz"), gzipped(home.path(), &lines(100_000)));
        for m in 0..20 {
            write(&dir, &format!("small-{n}-{m}.csv"), lines(7));
        }
    }
    let total = 4 * (170_000 + 100_000 + 20 * 7u64);
    let data = home.path().join("data");
    let mut server = Tidemill::start(&data);
    server.sql(&format!(
        "CREATE SOURCE f (id bigint, name text) FROM FILES (url = '{}/*', poll = '100 ms', min_age = 0) FORMAT CSV;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, sum(id) AS s FROM f",
        dir.display()
    ));
    let mut killed_on_the_way = 0;
    for round in 0..6u64 {
        server.kill();
        // At a place of its own choice, and from outside.
        let point = format!("files.handed_over:{}", 1 + round % 3);
        let environment: &[(&str, &str)] =
            if round % 2 == 0 { &[("TIDEMILL_CRASH_AT", &point)] } else { &[] };
        server = Tidemill::start_with(&data, environment);
        std::thread::sleep(Duration::from_millis(200 + 150 * round));
        let seen = server.try_sql("SELECT n FROM total");
        let all = total.to_string();
        let done = seen.is_ok_and(|a| a[0].rows[0][0].as_deref() == Some(all.as_str()));
        killed_on_the_way += u64::from(!done);
    }
    assert!(killed_on_the_way >= 3, "only {killed_on_the_way} kills met it at work");
    server.kill_and_restart();
    let sum = (total * (total - 1) / 2).to_string();
    until(&server, "SELECT n, s FROM total", &[&[&total.to_string(), &sum]]);
    until(&server, "SELECT count(*) FROM tidemill.files", &[&["88"]]);
    let all = total.to_string();
    assert_eq!(server.rows("SELECT count(DISTINCT id), min(id) FROM f"), [[all.as_str(), "0"]]);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.errors"), [["0"]]);
    let sum_of_files = server.rows("SELECT sum(rows) FROM tidemill.files");
    assert_eq!(sum_of_files, [[total.to_string()]]);
}
