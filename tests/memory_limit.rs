//! `memory_limit`: state of several times the limit is kept up to date within it, and what cannot live on disk stops alone.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use common::process::Tidemill;

/// Looks at how much memory a process takes, until it is asked for the most that it saw.
struct Watch {
    most: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn of(process: u32) -> Watch {
        let (most, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (Arc::clone(&most), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
                let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
                let kib: Option<u64> = line.and_then(|l| l.split_whitespace().next()?.parse().ok());
                seen.fetch_max(kib.unwrap_or(0) << 10, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Watch { most, stop, thread: Some(thread) }
    }

    /// The most bytes that the process had in memory.
    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("not ended").join().expect("it ends");
        self.most.load(Ordering::Relaxed)
    }
}

fn number(server: &Tidemill, sql: &str) -> i64 {
    server.rows(sql)[0][0].parse().unwrap_or_else(|e| panic!("{sql}: {e}"))
}

fn status(server: &Tidemill, name: &str) -> i64 {
    number(server, &format!("SELECT value FROM tidemill.status WHERE name = '{name}'"))
}

const MIB: i64 = 1 << 20;

#[test]
fn state_of_several_times_the_limit_is_kept_within_it() {
    const LIMIT: i64 = 384 * MIB;
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let settings = [("TIDEMILL_MEMORY_LIMIT", "384MB"), ("TIDEMILL_CHECKPOINT_BYTES", "1000000000")];
    let server = Tidemill::start_with(&data, &settings);
    let watch = Watch::of(server.pid());
    server.sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, k bigint, note text);
         CREATE TABLE u (k bigint PRIMARY KEY, name text);
         INSERT INTO u SELECT k, 'name ' || k FROM generate_series(0, 99999) AS g(k);
         CREATE MATERIALIZED VIEW joined AS SELECT t.id, u.name, t.note FROM t JOIN u ON t.k = u.k;
         CREATE MATERIALIZED VIEW groups AS SELECT k, count(*) AS n, sum(id) AS ids FROM t GROUP BY k",
    );
    let (mut rows, step) = (0, 50_000);
    while status(&server, "state_bytes") < 3 * LIMIT {
        // A fifth of the rows before these change.
        let (from, to) = ((rows - step / 5).max(0), rows + step - 1);
        server.sql(&format!(
            "INSERT INTO t SELECT i, (i * 7919 + {rows}) % 100000, repeat(md5(i::text), 8)
               FROM generate_series({from}, {to}) AS g(i) ON CONFLICT (id) DO UPDATE SET k = excluded.k",
        ));
        rows += step;
    }
    assert_eq!(number(&server, "SELECT count(*) FROM joined"), rows);
    assert_eq!(number(&server, "SELECT sum(n)::bigint FROM groups"), rows);
    assert_eq!(number(&server, "SELECT sum(ids)::bigint FROM groups"), rows * (rows - 1) / 2);
    // Rows of the first ticks, which have been on disk for long, change and go.
    server.sql("UPDATE t SET k = 5 WHERE id = 12; DELETE FROM t WHERE id = 13");
    assert_eq!(server.rows("SELECT name FROM joined WHERE id IN (12, 13)"), [["name 5"]]);
    let paged = status(&server, "memory_paged_bytes");
    let most = watch.end() as i64;
    println!(
        "{rows} rows; state {} MB, {} MB of it paged; at most {} MB in memory",
        status(&server, "state_bytes") / MIB,
        paged / MIB,
        most / MIB
    );
    assert!(paged > LIMIT, "{paged} bytes are paged");
    assert!(most <= LIMIT, "{most} bytes were in memory");
}

#[test]
fn what_cannot_live_on_disk_stops_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let server = Tidemill::start_with(&dir.path().join("data"), &[("TIDEMILL_MEMORY_LIMIT", "256MB")]);
    let watch = Watch::of(server.pid());
    // The values of a group whose largest may go are a tree of small pieces.
    server.sql(
        "CREATE TABLE t (id bigint PRIMARY KEY, k int);
         CREATE MATERIALIZED VIEW modest AS SELECT k, count(*) AS n FROM t GROUP BY k;
         CREATE MATERIALIZED VIEW greedy AS SELECT k, max(id) AS m FROM t GROUP BY k;
         CREATE MATERIALIZED VIEW reader AS SELECT count(m) AS n FROM greedy",
    );
    let (mut rows, step) = (0, 100_000);
    while number(&server, "SELECT count(*) FROM tidemill.materialized_views WHERE status = 'failed'") == 0 {
        assert!(rows < 20_000_000, "nothing was stopped");
        let to = rows + step - 1;
        server.sql(&format!(
            "INSERT INTO t SELECT i, i % 7 FROM generate_series({rows}, {to}) AS g(i);
             DELETE FROM t WHERE id = {rows}"
        ));
        rows += step;
    }
    let error = server.try_sql("SELECT * FROM greedy").expect_err("the view has stopped");
    assert!(error.to_string().contains("want of memory"), "{error}");
    server.try_sql("SELECT * FROM reader").expect_err("what reads it has stopped, too");
    // The others go on, with what it had.
    server.sql(&format!("INSERT INTO t VALUES ({rows}, 3)"));
    assert_eq!(number(&server, "SELECT sum(n)::bigint FROM modest"), rows - rows / step + 1);
    println!("{rows} rows; at most {} MB in memory", watch.end() as i64 / MIB);
    server.sql("DROP MATERIALIZED VIEW greedy CASCADE");
}

#[test]
fn limits_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    for wrong in ["1MB", "much", "1.5GB", "64 XB"] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tidemill"))
            .args(["serve", "--memory-limit", wrong, "--data-dir"])
            .arg(dir.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("64MB or more"), "{wrong}: {said}");
    }
}
