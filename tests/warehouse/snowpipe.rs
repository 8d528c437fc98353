//! Snowpipe, against a service in this process.

use std::path::Path;

use libtest_mimic::Failed;
use tidemill::SqlState;
use tidemill::connectors::registry;

use super::history::{History, Kind, REFUSED};
use super::streaming::within;
use super::streaming_server::{Fault, MockStreaming, texts};
use super::{END, Task, crash_at, same};

/// Every place between two durable steps.
pub const CRASH_POINTS: [&str; 9] = [
    "sink.before_put",
    "snowpipe.put",
    "sink.put",
    "sink.begin",
    "snowpipe.inserted",
    "snowpipe.loaded",
    "snowpipe.told",
    "sink.committed",
    "sink.recorded",
];

fn task(server: &MockStreaming, memory: &Path, seed: u64) -> Task {
    Task {
        sink: "snowpipe",
        url: server.url.clone(),
        table: "rows".to_string(),
        memory: memory.to_path_buf(),
        kind: Kind::Append,
        seed,
        format: "",
    }
}

pub fn crash(point: &str) -> Result<(), Failed> {
    // The first passings are in the snapshot, which has several files.
    for passing in [1, 2, 4] {
        let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
        let check = |task: &Task, finished: bool| {
            let (found, all) = (texts(&server.rows()), task.history().model(END));
            within(&found, &all)?;
            if finished {
                return same(found, &all, "rows");
            }
            if passing != 2 {
                // As when the next start is more than ten minutes later.
                server.pipe(|pipe| pipe.forget_events());
            }
            Ok(())
        };
        crash_at(&[passing], |_| task(&server, root.path(), passing), point, check)?;
    }
    Ok(())
}

fn run(server: &MockStreaming, memory: &Path, seed: u64) -> Result<(), Failed> {
    let task = task(server, memory, seed);
    let status = task.run_here()?.get();
    same(texts(&server.rows()), &task.history().model(END), "rows")?;
    if server.faults_left() > 0 || (status.state, &status.error) != ("running", &None) {
        return Err(format!("{} faults left, {status:?}", server.faults_left()).into());
    }
    Ok(())
}

pub fn faults() -> Result<(), Failed> {
    use Fault::*;
    for kind in ["upload", "insertFiles", "insertReport", "PUT", "CREATE PIPE", "REMOVE"] {
        for fault in [Unavailable, TooMany, LostBefore, LostAfter] {
            if kind == "PUT" && fault == LostAfter {
                continue; // the same as before: it changes nothing
            }
            let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
            server.fault(kind, fault.clone());
            run(&server, root.path(), 7).map_err(|e| format!("{kind} {fault:?}: {e:?}"))?;
            let again = server.pipe(|pipe| pipe.known_again);
            if (kind, &fault) == ("insertFiles", &LostAfter) && again == 0 {
                return Err("files were not named again".into());
            }
        }
    }
    // A pipe that the service does not know yet; the history where reports were missed.
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    server.fault("insertFiles", Fails(404, "390404"));
    server.fault("loadHistoryScan", TooMany);
    run(&server, root.path(), 8)
}

pub fn names() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = task(&server, root.path(), 3);
    let status = task.run_here()?;
    // What is loaded is removed from the stage.
    if !server.pipe(|pipe| pipe.stage.is_empty()) {
        return Err(
            format!("{:?} stay", server.pipe(|pipe| pipe.stage.keys().cloned().collect::<Vec<_>>())).into()
        );
    }
    let uploads = server.seen("PUT 'file:///g1-0-3-1-of-");
    let definition = server.pipe(|pipe| pipe.definition.clone()).unwrap_or_default();
    let made = "AS COPY INTO \"ROWS\" FROM @\"ROWS__TIDEMILL_";
    if uploads != 1 || !definition.contains(made) || !definition.contains("ON_ERROR = CONTINUE") {
        return Err(format!("{uploads} {definition}").into());
    }
    let commits = status.commits();
    if commits.is_empty() || !commits.iter().all(|c| c.files > 0 && c.bytes > 0 && c.attempts == 1) {
        return Err(format!("{commits:?}").into());
    }
    task.sink()?.clean_up()?;
    if server.seen("DROP PIPE") != 1 || server.seen("DROP STAGE") != 1 || server.rows().is_empty() {
        return Err("stage and pipe were not dropped, or rows were".into());
    }
    Ok(())
}

pub fn refused() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = task(&server, root.path(), 11);
    let all = task.history().model(END);
    let value = |row: &String| row.split('|').nth(1).and_then(|v| v.parse::<i64>().ok());
    let refuse: Vec<i64> = value(&all[all.len() - 1]).into_iter().collect();
    server.refuse(&refuse);
    server.pipe(|pipe| pipe.fails = 1);
    task.run_here()?;
    let found = texts(&server.rows());
    within(&found, &all)?;
    let told = std::fs::read_to_string(task.memory.join(REFUSED))?;
    let missing = |line: &str| {
        let mut numbers = line.split(' ').filter_map(|w| w.parse::<usize>().ok());
        let (loaded, rows) = (numbers.next()?, numbers.next()?);
        Some(rows - loaded)
    };
    let told_missing: usize = told.lines().filter_map(missing).sum();
    let whole = told.contains("(LOAD_FAILED): the file is refused");
    let part = told.contains("(PARTIALLY_LOADED): value is refused (line 1)");
    if told_missing != all.len() - found.len()
        || !whole
        || !part
        || !told.starts_with("22000|Snowpipe has loaded 0 of ")
    {
        return Err(format!("{} rows are missing, and this was told: {told}", all.len() - found.len()).into());
    }
    // The files keep the rows that are missing, and only they stay.
    let stay = server.pipe(|pipe| pipe.stage.keys().cloned().collect::<Vec<_>>());
    if stay.len() != told.lines().count() || !stay.iter().all(|path| told.contains(path.as_str())) {
        return Err(format!("{stay:?} stay, and this was told: {told}").into());
    }
    Ok(())
}

/// The cloud tells a pipe of the user's own of files in a stage of the user's own.
pub fn auto_ingest() -> Result<(), Failed> {
    let (server, root, bucket) = (MockStreaming::start(), tempfile::tempdir()?, tempfile::tempdir()?);
    server.pipe(|pipe| {
        pipe.definition = Some("the user's".to_string());
        pipe.watched = Some(bucket.path().to_path_buf());
    });
    let task = task(&server, root.path(), 13);
    let mut definition = task.definition();
    let url = format!("file://{}", bucket.path().display());
    for (name, value) in
        [("stage", "loads"), ("stage.url", url.as_str()), ("pipe", "loads_pipe"), ("auto_ingest", "true")]
    {
        definition.options.push((name.to_string(), value.to_string()));
    }
    std::fs::create_dir_all(&task.memory)?;
    // Two batches: each waits a quarter of a minute for the history.
    let mut history = History::new(Kind::Append, 13, END);
    history.end =
        (4..END).find(|&t| history.model(t) != history.model(t - 1)).ok_or("a history without changes")?;
    let end = history.end;
    let sink = registry::sink(&definition, &History::schema(), &[])?;
    super::history::follow(sink, history, task.uuid(), task.memory.clone(), Default::default())?;
    same(texts(&server.rows()), &task.history().model(end), "rows")?;
    if server.seen("insertFiles") + server.seen("insertReport") + server.seen("CREATE PIPE") > 0 {
        return Err("the pipe was told of files".into());
    }
    registry::sink(&definition, &History::schema(), &[])?.clean_up()?;
    if server.seen("DROP PIPE") > 0 {
        return Err("the user's pipe was dropped".into());
    }
    Ok(())
}

pub fn refusals() -> Result<(), Failed> {
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let error = |options: &[(&str, &str)], append_only: bool| {
        let mut definition = task(&server, root.path(), 1).definition();
        definition.append_only = append_only;
        definition.options.extend(options.iter().map(|(n, v)| (n.to_string(), v.to_string())));
        registry::sink(&definition, &History::schema(), &[]).err().ok_or("taken")
    };
    if error(&[], false)?.sqlstate != SqlState::FEATURE_NOT_SUPPORTED {
        return Err("rows that come and go were taken".into());
    }
    for options in
        [&[("pipe", "p")][..], &[("auto_ingest", "true")], &[("stage", "s")], &[("auto_ingest", "perhaps")]]
    {
        let e = error(options, true)?;
        if e.sqlstate != SqlState::INVALID_PARAMETER_VALUE {
            return Err(format!("{options:?}: {e:?}").into());
        }
    }
    // What a pipe does not remember any more is not sent again.
    let (server, root) = (MockStreaming::start(), tempfile::tempdir()?);
    let task = task(&server, root.path(), 17);
    if task.run_apart(Some("snowpipe.inserted:2".to_string()))? {
        return Err("not killed".into());
    }
    let memory = task.memory.join("snowpipe");
    let mut known: serde_json::Value = serde_json::from_slice(&std::fs::read(&memory)?)?;
    let at = known["under_way"]["at_micros"].as_i64().ok_or("nothing is under way")?;
    known["under_way"]["at_micros"] = (at - 14 * 86_400_000_000).into();
    std::fs::write(&memory, known.to_string())?;
    let error = task.run_here().err().ok_or("files were sent again")?;
    if error.sqlstate != SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE
        || !error.message.contains("not known any more")
    {
        return Err(format!("{error:?}").into());
    }
    Ok(())
}
