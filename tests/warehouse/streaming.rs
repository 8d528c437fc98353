//! Snowpipe Streaming, against a service in this process.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::Failed;
use tidemill::SqlState;
use tidemill::connectors::Status;

use super::history::{History, Kind, REFUSED, follow};
use super::streaming_server::{Fault, KEY, MockStreaming, texts};
use super::{END, Task, crash_at, same};

/// Every place between two durable steps.
pub const CRASH_POINTS: [&str; 8] = [
    "sink.before_put",
    "sink.put",
    "sink.begin",
    "streaming.appended",
    "streaming.committed",
    "streaming.told",
    "sink.committed",
    "sink.recorded",
];

fn task(server: &MockStreaming, memory: &Path, seed: u64) -> Task {
    Task {
        sink: "streaming",
        url: server.url.clone(),
        table: "rows".to_string(),
        memory: memory.to_path_buf(),
        kind: Kind::Append,
        seed,
        format: "",
    }
}

/// The options of the connection.
pub fn connection(url: &str) -> Vec<(String, String)> {
    [
        ("account", "org-test"),
        ("user", "loader"),
        ("private_key", KEY),
        ("database", "db"),
        ("schema", "public"),
        ("url", url),
    ]
    .map(|(n, v)| (n.to_string(), v.to_string()))
    .to_vec()
}

/// Every row of `found` is one of `all`.
pub fn within(found: &[String], all: &[String]) -> Result<(), Failed> {
    let mut left = BTreeMap::<&String, usize>::new();
    all.iter().for_each(|row| *left.entry(row).or_default() += 1);
    for row in found {
        match left.get_mut(row) {
            Some(n) if *n > 0 => *n -= 1,
            _ => return Err(format!("{row} is there too often").into()),
        }
    }
    Ok(())
}

pub fn crash(point: &str) -> Result<(), Failed> {
    // The first passings are in the snapshot, which has several parts.
    for passing in [1, 2, 4] {
        let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
        let check = |task: &Task, finished: bool| {
            let (found, all) = (texts(&server.rows()), task.history().model(END));
            within(&found, &all)?;
            if finished { same(found, &all, "rows") } else { Ok(()) }
        };
        crash_at(&[passing], |_| task(&server, root.path(), passing), point, check)?;
    }
    Ok(())
}

/// Runs a sink to the history's end, whatever fails on the way.
fn run(server: &MockStreaming, memory: &Path, seed: u64) -> Result<Arc<Status>, Failed> {
    let task = task(server, memory, seed);
    let status = task.run_here()?;
    same(texts(&server.rows()), &task.history().model(END), "rows")?;
    Ok(status)
}

pub fn faults() -> Result<(), Failed> {
    use Fault::*;
    for kind in ["hostname", "token", "open", "append", "status"] {
        let reopen = Fails(409, "ERR_CHANNEL_MUST_BE_REOPENED");
        for fault in [Unavailable, TooMany, LostBefore, LostAfter, Fails(408, ""), TokenExpired, reopen] {
            let of_channel = ["open", "append", "status"].contains(&kind);
            if !of_channel && matches!(fault, Fails(409, _) | TokenExpired) {
                continue;
            }
            let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
            server.fault(kind, fault.clone());
            // A token that expires at once is a refusal.
            if fault != TokenExpired {
                server.fault(kind, fault.clone());
            }
            let status = run(&server, root.path(), 7).map_err(|e| format!("{kind} {fault:?}: {e:?}"))?.get();
            if server.faults_left() > 0 || (status.state, &status.error) != ("running", &None) {
                return Err(format!("{kind} {fault:?}: {} left, {status:?}", server.faults_left()).into());
            }
        }
    }
    Ok(())
}

pub fn tokens() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let status = run(&server, root.path(), 3)?;
    let tokens = server.tokens();
    let (first, last) = (&tokens[0], &tokens[tokens.len() - 1]);
    if !first.starts_with("t1.1.0.3.1.")
        || !last.contains(&format!(".{END}."))
        || tokens.len() <= status.commits().len()
    {
        return Err(format!("{tokens:?}").into());
    }
    let commits = status.commits();
    let whole =
        commits.iter().all(|c| c.freshness_micros > 0 && c.bytes > 0 && c.files > 0 && c.attempts == 1);
    if !whole || commits.last().is_none_or(|c| c.to != END) {
        return Err(format!("{commits:?}").into());
    }
    // The table was made with an error table beside it, by statements that need no warehouse.
    let columns = server.columns().unwrap_or_default();
    if !columns.contains("\"K\" NUMBER(19,0), \"V\" NUMBER(19,0) NOT NULL, \"NAME\" VARCHAR") {
        return Err(columns.into());
    }
    // A start that has nothing to do sends nothing.
    let (opened, appended) = (server.seen("open"), server.seen("append"));
    let status = task(&server, root.path(), 3);
    drop(status.sink()?);
    if (server.seen("open"), server.seen("append")) != (opened, appended) {
        return Err("a sink that is only made has sent something".into());
    }
    // What is dropped leaves its channel, and no more.
    status.sink()?.clean_up()?;
    if server.seen("drop") != 1 || server.rows().is_empty() {
        return Err("the channel was not dropped, or rows were".into());
    }
    Ok(())
}

pub fn fenced() -> Result<(), Failed> {
    for (kind, fault) in [
        ("append", Fault::TakenOver),
        ("status", Fault::Fails(409, "ERR_CHANNEL_HAS_INVALID_CLIENT_SEQUENCER")),
    ] {
        let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
        server.fault(kind, fault);
        let task = task(&server, root.path(), 5);
        std::fs::create_dir_all(&task.memory)?;
        let status = Arc::new(Status::default());
        let error = follow(task.sink()?, task.history(), task.uuid(), task.memory.clone(), status.clone())
            .err()
            .ok_or("a writer that was shut out went on")?;
        let shown = status.get();
        if error.sqlstate != SqlState::SERIALIZATION_FAILURE
            || shown.state != "failed"
            || !shown.error.as_ref().is_some_and(|e| e.contains("another writer has taken the sink over"))
        {
            return Err(format!("{error:?} {shown:?}").into());
        }
        // When it is started again, it takes over in its turn, and no row comes twice.
        run(&server, root.path(), 5)?;
    }
    Ok(())
}

pub fn refused() -> Result<(), Failed> {
    for warehouse in [true, false] {
        let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
        let mut task = task(&server, root.path(), 11);
        task.format = if warehouse { "warehouse" } else { "" };
        let all = task.history().model(END);
        // Of several ticks, one of them in the snapshot.
        let value = |row: &String| row.split('|').nth(1).and_then(|v| v.parse::<i64>().ok());
        let refuse: Vec<i64> =
            [0, all.len() / 2, all.len() - 1].iter().filter_map(|&i| value(&all[i])).collect();
        server.refuse(&refuse);
        task.run_here()?;
        let kept = |row: &&String| !value(row).is_some_and(|v| refuse.contains(&v));
        let expected: Vec<String> = all.iter().filter(kept).cloned().collect();
        same(texts(&server.rows()), &expected, "rows")?;
        let told = std::fs::read_to_string(task.memory.join(REFUSED))?;
        let missing = all.len() - expected.len();
        if warehouse {
            let lines: Vec<&str> = told.lines().collect();
            let right = |l: &&str| {
                l.starts_with("22000|value is refused|tick ")
                    && l.contains("offset token t1.1.")
                    && l.contains("\"V\":")
            };
            if lines.len() != missing || !lines.iter().all(right) {
                return Err(format!("{missing} rows were refused, and this was told: {told}").into());
            }
        } else {
            let count =
                |l: &str| l.split("refused ").nth(1).and_then(|l| l.split(' ').next()?.parse::<usize>().ok());
            if told.lines().filter_map(count).sum::<usize>() != missing {
                return Err(format!("{missing} rows were refused, and this was told: {told}").into());
            }
        }
    }
    Ok(())
}

pub fn existing_rows() -> Result<(), Failed> {
    let columns = "\"K\" NUMBER(38,0), \"V\" NUMBER(38,0), \"NAME\" VARCHAR, \"AMOUNT\" NUMBER(20,4), \
                   \"FLAG\" BOOLEAN, \"AT\" TIMESTAMP_LTZ(9), \"DOC\" VARIANT";
    let row = serde_json::json!({ "K": 1, "V": 2, "NAME": "old", "AMOUNT": "0.14", "FLAG": true,
        "AT": "2023-11-14T22:13:20+00:00", "DOC": { "v": 2 } });
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    server.fill(columns, vec![row]);
    let mut task = task(&server, root.path(), 13);
    let error = task.run_here().err().ok_or("rows were added to others")?;
    if error.sqlstate != SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE || server.seen("append") > 0 {
        return Err(format!("{error:?}").into());
    }
    task.format = "keep";
    task.run_here()?;
    if server.rows().len() != task.history().model(END).len() + 1 {
        return Err(format!("{} rows", server.rows().len()).into());
    }
    // Its own rows are no others.
    task.format = "";
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = self::task(&server, root.path(), 13);
    crash_at(&[2], |_| self::task(&server, root.path(), 13), "streaming.committed", |_, _| Ok(()))?;
    same(texts(&server.rows()), &task.history().model(END), "rows")?;

    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    server.fill("\"K\" VARCHAR, \"V\" NUMBER(4,0)", Vec::new());
    let error = self::task(&server, root.path(), 13)
        .run_here()
        .err()
        .ok_or("a table with other columns was taken")?;
    if error.sqlstate != SqlState::DATATYPE_MISMATCH
        || !error.detail.is_some_and(|d| d.contains("AMOUNT is missing"))
    {
        return Err("a table with other columns was not told apart".into());
    }
    Ok(())
}

/// A channel that nobody has written to for long is forgotten by Snowflake, with its token.
pub fn forgotten_channel() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = task(&server, root.path(), 17);
    std::fs::create_dir_all(&task.memory)?;
    let follow = |end: u64| {
        let mut history = History::new(Kind::Append, 17, END);
        history.end = end;
        follow(task.sink()?, history, task.uuid(), task.memory.clone(), Arc::default())
    };
    let model = task.history();
    let half = (5..END).find(|&t| model.model(t) != model.model(t - 1)).ok_or("a history without changes")?;
    follow(half)?;
    same(texts(&server.rows()), &model.model(half), "half the rows")?;
    server.forget_channel();
    follow(END)?;
    same(texts(&server.rows()), &model.model(END), "all rows")?;

    // Where it is not known what had arrived, nothing is sent.
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = self::task(&server, root.path(), 17);
    if task.run_apart(Some("streaming.committed:4".to_string()))? {
        return Err("not killed".into());
    }
    server.forget_channel();
    let rows = server.rows().len();
    let error = task.run_here().err().ok_or("it went on from nowhere")?;
    let unknown =
        error.detail.as_ref().is_some_and(|d| d.contains("whether the last batch had arrived is not known"));
    if error.sqlstate != SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE || !unknown || server.rows().len() != rows
    {
        return Err(format!("{error:?}").into());
    }
    Ok(())
}

pub fn wrong_clock() -> Result<(), Failed> {
    for ahead in [3_600, -86_400] {
        let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
        server.ahead(ahead);
        run(&server, root.path(), 19)?;
        // Of the driver protocol's login, and of the first question of the service.
        if (server.seen("login"), server.seen("hostname"), server.seen("token")) != (2, 2, 1) {
            return Err("more tokens than needed were refused".into());
        }
    }
    Ok(())
}

pub fn refusals() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let error = |change: &dyn Fn(&mut tidemill::connectors::SinkDefinition), key: &[usize]| {
        let mut definition = task(&server, root.path(), 1).definition();
        change(&mut definition);
        tidemill::connectors::registry::sink(&definition, &History::schema(), key).err().ok_or("taken")
    };
    let retracting = error(&|d| d.append_only = false, &[])?;
    let keyed = error(&|_| (), &[0])?;
    for e in [retracting, keyed] {
        if e.sqlstate != SqlState::FEATURE_NOT_SUPPORTED
            || !e.hint.as_ref().is_some_and(|h| h.contains("mode"))
        {
            return Err(format!("{e:?}").into());
        }
    }
    let password = error(
        &|d| {
            d.connection.retain(|(n, _)| n != "private_key");
            d.connection.push(("password".to_string(), "hunter2".to_string()));
        },
        &[],
    )?;
    let nowhere = error(&|d| d.connection.retain(|(n, _)| n != "schema"), &[])?;
    for e in [password, nowhere] {
        if e.sqlstate != SqlState::INVALID_PARAMETER_VALUE || format!("{e:?}").contains("hunter2") {
            return Err(format!("{e:?}").into());
        }
    }
    let quoted = error(&|d| d.options[0].1 = "\"lower\"".to_string(), &[])?;
    if quoted.sqlstate != SqlState::FEATURE_NOT_SUPPORTED {
        return Err(format!("{quoted:?}").into());
    }
    // Rights do not mend themselves: the sink stops and says why.
    server.fault("open", Fault::Fails(403, "390144"));
    let error = task(&server, root.path(), 1).run_here().err().ok_or("it ran without rights")?;
    if error.sqlstate != SqlState::INVALID_AUTHORIZATION || server.seen("open") != 1 {
        return Err(format!("{error:?}").into());
    }
    Ok(())
}
