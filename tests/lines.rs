//! LINES sources: logs that grow, are renamed, cut off and removed while they are read, with kills on the way.

mod common;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use common::process::Tidemill;
use common::until;

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn lines_are_followed_through_rotation() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("log");
    std::fs::create_dir_all(dir.join("deep")).expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    let log = dir.join("app.log");
    append(&log, "one\r\ntwo\n\nunfin");
    append(&dir.join("deep/b.log"), "deep\n");
    append(&dir.join("other.txt"), "not this one\n");
    let path = dir.display();
    server.sql(&format!(
        "CREATE SOURCE l FROM LINES (path = '{path}/**/*.log', poll = '20 ms', rotate_wait = '300 ms') FORMAT TEXT INCLUDE path, line AS n;
         CREATE SOURCE tail FROM LINES (path = '{path}/app.log', poll = '20 ms', start = 'end') FORMAT TEXT;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, max(line) AS last FROM l"
    ));
    let (a, b) = (log.display().to_string(), dir.join("deep/b.log").display().to_string());
    let expected: [&[&str]; 4] = [&["", &a, "3"], &["deep", &b, "1"], &["one", &a, "1"], &["two", &a, "2"]];
    until(&server, "SELECT line, path, n FROM l", &expected);
    until(&server, "SELECT status, rows FROM tidemill.sources WHERE name = 'tail'", &[&["running", "0"]]);
    append(&log, "ished\nfour\n");
    until(&server, "SELECT line FROM l WHERE n > 3", &[&["four"], &["unfinished"]]);
    // The line that was begun before the source was is read whole.
    until(&server, "SELECT line FROM tail", &[&["four"], &["unfinished"]]);

    // Renamed; the writer goes on for a moment, and its last line has no end.
    std::fs::rename(&log, dir.join("app.log.1")).expect("renamed");
    append(&dir.join("app.log.1"), "late\nlast");
    append(&log, "new one\n");
    until(&server, "SELECT count(*) FROM l WHERE line IN ('late', 'last', 'new one')", &[&["3"]]);
    until(&server, "SELECT n FROM total", &[&["9"]]);

    // Copied and cut off.
    std::fs::copy(&log, dir.join("app.log.2")).expect("copied");
    OpenOptions::new().write(true).truncate(true).open(&log).expect("cut off");
    append(&log, "after the cut, longer than before\n");
    until(
        &server,
        "SELECT line, n FROM l WHERE line LIKE 'after%'",
        &[&["after the cut, longer than before", "1"]],
    );

    // Renamed and written to while nobody looks.
    server.kill();
    append(&log, "while it was down\n");
    std::fs::rename(&log, dir.join("app.log.3")).expect("renamed");
    append(&log, "started meanwhile\n");
    server.kill_and_restart();
    until(&server, "SELECT n FROM total", &[&["12"]]);
    until(
        &server,
        "SELECT line FROM tail WHERE line LIKE '%w%'",
        &[&["new one"], &["started meanwhile"], &["while it was down"]],
    );
    // A file of the same name and, often, the same number is another one.
    std::fs::remove_file(&log).expect("removed");
    append(&log, "yet another\n");
    until(&server, "SELECT n, last FROM total", &[&["13", "yet another"]]);
    assert_eq!(server.rows("SELECT count(*) FROM tidemill.errors"), [["0"]]);
}

#[test]
fn lines_are_records_of_a_format() {
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("log");
    std::fs::create_dir(&dir).expect("a directory");
    let mut server = Tidemill::start(&home.path().join("data"));
    append(&dir.join("a.csv"), "name,id\nx,1\n\"y\nz\",2\n");
    append(&dir.join("b.csv"), "id\n3\nno\n");
    append(&dir.join("a.json"), "{\"id\": 1, \"tags\": [\"x\"]}\n\n{broken\n{\"id\": 2}");
    let path = dir.display();
    server.sql(&format!(
        "CREATE SOURCE c (id int NOT NULL, name text) FROM LINES (path = '{path}/*.csv', poll = '20 ms') FORMAT CSV (header) INCLUDE line AS n;
         CREATE SOURCE j (id int, tags text[]) FROM LINES (path = '{path}/*.json', follow = false) FORMAT JSON;
         CREATE SOURCE docs FROM LINES (path = '{path}/*.json', follow = false) FORMAT JSON"
    ));
    until(&server, "SELECT * FROM c", &[&["1", "x", "2"], &["2", "y\nz", "3"], &["3", "NULL", "2"]]);
    until(&server, "SELECT * FROM j", &[&["1", "{x}"], &["2", "NULL"]]);
    until(&server, "SELECT status FROM tidemill.sources WHERE name <> 'c'", &[&["finished"], &["finished"]]);
    assert_eq!(server.rows("SELECT line FROM docs"), [["{\"id\": 1, \"tags\": [\"x\"]}"], ["{\"id\": 2}"]]);
    let at = format!("file={} line=3", dir.join("a.json").display());
    let errors =
        "SELECT position, sqlstate, convert_from(raw, 'UTF8') FROM tidemill.errors WHERE object = 'j'";
    assert_eq!(server.rows(errors), [[at.as_str(), "22P02", "{broken\n"]]);
    // Each file's own header counts, also for lines that come after a kill.
    server.kill_and_restart();
    append(&dir.join("a.csv"), "w,4\n");
    append(&dir.join("b.csv"), "5\n");
    until(&server, "SELECT * FROM c WHERE id > 3", &[&["4", "w", "5"], &["5", "NULL", "4"]]);
    assert_eq!(server.rows("SELECT count(*) FROM j"), [["2"]]);
}

#[test]
fn nothing_is_lost_or_repeated_by_kills() {
    let home = tempfile::tempdir().expect("a directory");
    let (dir, data) = (home.path().join("log"), home.path().join("data"));
    std::fs::create_dir(&dir).expect("a directory");
    let log = dir.join("n.log");
    let mut server = Tidemill::start_with(&data, &[("TIDEMILL_CRASH_AT", "lines.handed_over:3")]);
    server.sql(&format!(
        "CREATE SOURCE n (id int) FROM LINES (path = '{}/n.log*', poll = '5 ms', rotate_wait = '100 ms') FORMAT CSV;
         CREATE MATERIALIZED VIEW total AS SELECT count(*) AS n, count(DISTINCT id) AS d, sum(id) AS s FROM n",
        dir.display()
    ));
    let mut next = 0;
    for round in 0..6u32 {
        let until = Instant::now() + Duration::from_millis(400);
        while Instant::now() < until {
            let lines: String = (next + 1..=next + 50).map(|id| format!("{id}\n")).collect();
            next += 50;
            // In two writes, so that a line is there in part.
            let (first, second) = lines.split_at(lines.len() / 2);
            append(&log, first);
            append(&log, second);
            if next % 300 == 0 {
                std::fs::rename(&log, dir.join(format!("n.log.{next}"))).expect("renamed");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if round < 5 {
            server.kill_and_restart();
        }
    }
    let expected = [next.to_string(), next.to_string(), (next * (next + 1) / 2).to_string()];
    until(&server, "SELECT n, d, s FROM total", &[&expected.each_ref().map(String::as_str)]);
}
