//! A real PostgreSQL server.

use std::path::Path;

use libtest_mimic::Failed;
use tidemill::SqlState;
use tidemill::connectors::postgres::settings::Server;
use tidemill::connectors::postgres::sink::apply::PostgresTable;
use tidemill::connectors::postgres::sink::statements::Names;
use tidemill::connectors::warehouse::Shape;

use super::history::{History, Kind, row_text};
use super::server::Postgres;
use super::{END, Task, crash_at, same};

fn task(server: &Postgres, root: &Path, table: String, kind: Kind, seed: u64) -> Task {
    Task {
        sink: "postgres",
        url: server.port.to_string(),
        table,
        memory: root.join("memory"),
        kind,
        seed,
        format: "",
    }
}

fn rows(server: &Postgres, table: &str) -> Vec<String> {
    let text = server.psql(
        "postgres",
        &format!(
            "SELECT concat_ws('|', coalesce(k::text, 'NULL'), v, coalesce(name, 'NULL'), amount, flag::text, \
             (extract(epoch FROM at) * 1000000)::bigint, doc->>'v') FROM {table}"
        ),
    );
    let mut rows: Vec<String> = text.lines().map(str::to_string).collect();
    rows.sort();
    rows
}

/// Generation and tick of a sink's progress row.
fn progress(server: &Postgres, task: &Task) -> Option<(u64, u64)> {
    if server.psql("postgres", "SELECT to_regclass('tidemill_progress')").is_empty() {
        return None;
    }
    let query = format!("SELECT generation, tick FROM tidemill_progress WHERE sink_id = '{}'", task.uuid());
    let text = server.psql("postgres", &query);
    let (generation, tick) = text.split_once('|')?;
    Some((generation.parse().ok()?, tick.parse().ok()?))
}

pub fn crash(server: &Postgres, kind: Kind, point: &str) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    crash_at(
        &[1, 2, 3],
        |passing| {
            let table = format!("t_{}_{}_{passing}", kind.name(), point.replace('.', "_"));
            task(server, &root.path().join(passing.to_string()), table, kind, passing)
        },
        point,
        |task, finished| {
            let (generation, epoch) = progress(server, task).unwrap_or((0, 0));
            if finished && epoch != END {
                return Err(format!("ended at tick {epoch}").into());
            }
            if generation > 0 {
                same(rows(server, &task.table), &task.history().model(epoch), "rows")?;
            }
            Ok(())
        },
    )
}

pub fn histories(server: &Postgres, kind: Kind) -> Result<(), Failed> {
    for seed in 100..110 {
        let root = tempfile::tempdir()?;
        let table = format!("h_{}_{seed}", kind.name());
        let task = task(server, root.path(), table, kind, seed);
        let status = task.run_here()?;
        same(rows(server, &task.table), &task.history().model(END), "at the end")?;
        let commits = status.commits();
        if commits.is_empty() || commits.iter().any(|c| c.attempts != 1 || c.phases.commit.is_zero()) {
            return Err(format!("{commits:?}").into());
        }
        task.sink()?.clean_up()?;
    }
    Ok(())
}

fn table(server: &Postgres, table: &str) -> PostgresTable {
    let options = [("host", "127.0.0.1"), ("port", &server.port.to_string()), ("user", "postgres")];
    let mut options: Vec<_> = options.map(|(n, v)| (n.to_string(), v.to_string())).to_vec();
    options.push(("database".to_string(), "postgres".to_string()));
    let server = Server::from_options(options).expect("a connection");
    let shape = Shape::new(History::schema(), &[0], false);
    let names = Names::new(table).expect("names");
    let uuid = uuid::Uuid::from_u128(1);
    PostgresTable::new(server, names, shape, "s".to_string(), uuid, true).expect("a table")
}

pub fn stale_writer(server: &Postgres) -> Result<(), Failed> {
    super::stale_writer(|| Box::new(table(server, "stale")))?;
    same(rows(server, "stale"), &[row_text(Some(1), 3)], "after all")
}

/// A writer whose machine is gone holds the progress row; the next one does not wait for it for ever.
pub fn held_progress(server: &Postgres) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    let task = task(server, root.path(), "held".to_string(), Kind::Keyed, 501);
    task.run_here()?;
    let mut holder = std::process::Command::new("psql")
        .args(["-h", "127.0.0.1", "-U", "postgres", "-X", "-q", "-p", &server.port.to_string(), "-c"])
        .arg(format!(
            "SET application_name = 'tidemill sink {id}'; BEGIN; \
             UPDATE tidemill_progress SET tick = 0 WHERE sink_id = '{id}'; SELECT pg_sleep(600)",
            id = task.uuid()
        ))
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    let held = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%{}' AND wait_event = 'PgSleep'",
        task.uuid()
    );
    while server.psql("postgres", &held) != "1" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let again = task.run_here();
    // It is gone already if the sink has ended it.
    let _ = holder.kill();
    if holder.wait()?.success() {
        return Err("the transaction that held the progress came to its end".into());
    }
    again?;
    same(rows(server, "held"), &task.history().model(END), "after all")
}

pub fn existing_targets(server: &Postgres) -> Result<(), Failed> {
    let root = tempfile::tempdir()?;
    // Columns in another order, wider ones and one more: what the sink needs is there.
    server.psql(
        "postgres",
        "CREATE TABLE \"Fits\" (note text DEFAULT 'mine', v numeric, doc json, k bigint UNIQUE, name varchar(100), \
         at timestamptz, flag boolean, amount numeric(20,4)); INSERT INTO \"Fits\" (k, v) VALUES (-1, -1)",
    );
    let fits = task(server, &root.path().join("a"), "\"Fits\"".to_string(), Kind::Keyed, 531);
    fits.run_here()?;
    let right = "SELECT count(*) FROM \"Fits\" WHERE amount = v * 0.07 AND note = 'mine' AND v >= 0";
    if server.psql("postgres", right) != fits.history().model(END).len().to_string() {
        return Err("rows are missing".into());
    }

    server.psql("postgres", "CREATE TABLE misfit (k text UNIQUE, v int, name varchar(10), x int NOT NULL)");
    let misfit = task(server, &root.path().join("b"), "misfit".to_string(), Kind::Keyed, 532);
    let error = misfit.run_here().err().ok_or("a table with other columns was taken")?;
    let detail = error.detail.unwrap_or_default();
    for part in ["k is text", "v is integer", "amount is missing", "x is NOT NULL"] {
        if !detail.contains(part) {
            return Err(format!("{part} is not in: {detail}").into());
        }
    }

    server.psql("postgres", "CREATE TABLE bare (LIKE \"Fits\")");
    let bare = task(server, &root.path().join("c"), "bare".to_string(), Kind::Keyed, 533);
    let error = bare.run_here().err().ok_or("a table without an index was taken")?;
    if error.sqlstate != SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE || !error.message.contains("on (k)") {
        return Err(format!("{error:?}").into());
    }
    Ok(())
}

/// A row that somebody else has removed, or put in the way, shows in what a batch does, and a snapshot mends it.
pub fn parted(server: &Postgres) -> Result<(), Failed> {
    for (seed, table, damage) in [
        (541, "lost", "DELETE FROM lost"),
        (
            542,
            "more",
            "INSERT INTO more (k, v) SELECT k, 0 FROM generate_series(-1, 2000) k ON CONFLICT DO NOTHING",
        ),
    ] {
        let root = tempfile::tempdir()?;
        let task = task(server, root.path(), table.to_string(), Kind::Keyed, seed);
        // Dies after the snapshot and one more commit.
        if task.run_apart(Some("sink.recorded:2".to_string()))? {
            return Err("it was not killed".into());
        }
        server.psql("postgres", damage);
        let error = task.run_here().err().ok_or("nothing was noticed")?;
        if error.sqlstate != SqlState::DATA_CORRUPTED {
            return Err(format!("{error:?}").into());
        }
        // As the database does: the next start is given a snapshot.
        std::fs::remove_dir_all(&task.memory)?;
        task.run_here()?;
        same(rows(server, table), &task.history().model(END), "healed")?;
    }
    Ok(())
}

/// What the sink made goes with it, the target stays, and the progress of others does.
pub fn clean_up(server: &Postgres) -> Result<(), Failed> {
    server.psql("postgres", "CREATE SCHEMA cleaning");
    let root = tempfile::tempdir()?;
    let of = |seed: u64| {
        let root = root.path().join(seed.to_string());
        task(server, &root, format!("cleaning.t{seed}"), Kind::Bag, seed)
    };
    let (first, second) = (of(551), of(552));
    first.run_here()?;
    second.run_here()?;
    let left = "SELECT coalesce(string_agg(sink_id::text || ' ' || target, ','), '') FROM cleaning.tidemill_progress";
    first.sink()?.clean_up()?;
    let expected = format!("{} \"cleaning\".\"t552\"", second.uuid());
    if server.psql("postgres", left) != expected {
        return Err(server.psql("postgres", left).into());
    }
    second.sink()?.clean_up()?;
    second.sink()?.clean_up()?;
    if !server.psql("postgres", "SELECT to_regclass('cleaning.tidemill_progress')").is_empty() {
        return Err("the progress table stays".into());
    }
    same(rows(server, "cleaning.t551"), &first.history().model(END), "the target")
}
