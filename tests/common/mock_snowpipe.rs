//! The file side of the mock: a stage, a pipe that loads each file of a name once, and its reports.
//!
//! What it does not have: the ten minutes after which reports are forgotten (a test lets that happen), the 14 days after
//! which names are, files in no order, limits of rate.

use std::collections::BTreeMap;
use std::path::PathBuf;

use axum::body::Bytes;
use serde_json::{Value, json};

/// A stage and a pipe.
#[derive(Default)]
pub struct Pipe {
    pub stage: BTreeMap<String, Bytes>,
    /// How the pipe was made; `None`: there is none.
    pub definition: Option<String>,
    /// Files that were named, and whether a part of each was loaded.
    queue: Vec<(String, bool)>,
    /// Every file that was named ever.
    known: Vec<String>,
    events: Vec<Value>,
    /// Events before this one are forgotten.
    forgotten: usize,
    history: Vec<Value>,
    /// So many of the next files are refused whole.
    pub fails: usize,
    /// The directory whose files the pipe is told of without being asked.
    pub watched: Option<PathBuf>,
    /// How many files were named that were known already.
    pub known_again: usize,
}

impl Pipe {
    /// Reports of what happened so far are not to be had any more; the history is.
    pub fn forget_events(&mut self) {
        self.forgotten = self.events.len();
    }

    pub fn insert(&mut self, body: &Bytes) -> Value {
        let told: Value = serde_json::from_slice(body).expect("JSON");
        for file in told["files"].as_array().expect("files") {
            let path = file["path"].as_str().expect("a path").to_string();
            assert_eq!(self.stage[&path].len() as u64, file["size"].as_u64().expect("a size"));
            self.name(path);
        }
        json!({ "requestId": "r", "status": "success" })
    }

    fn name(&mut self, path: String) {
        if self.known.contains(&path) {
            self.known_again += 1;
        } else {
            self.known.push(path.clone());
            self.queue.push((path, false));
        }
    }

    fn watch(&mut self) {
        let Some(root) = self.watched.clone() else { return };
        let mut directories = vec![root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.to_string_lossy().ends_with(".json.zst") {
                    let name = path.strip_prefix(&root).expect("below").to_string_lossy().to_string();
                    self.stage.insert(name.clone(), std::fs::read(&path).expect("a file").into());
                    if !self.known.contains(&name) {
                        self.name(name);
                    }
                }
            }
        }
    }

    /// Loads a half of every file that is new, and the rest of the others. Answers with the rows that are to be added.
    fn load(&mut self, refuses: &[i64]) -> Vec<Value> {
        self.watch();
        let mut added = Vec::new();
        let mut left = Vec::new();
        for (path, begun) in std::mem::take(&mut self.queue) {
            let text = zstd::bulk::decompress(&self.stage[&path], 32 << 20).expect("zstd");
            let lines = text.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            let rows: Vec<Value> =
                lines.map(|l| serde_json::from_slice(l).expect("a line of JSON")).collect();
            let half = rows.len() / 2;
            let good = |row: &&Value| !row["V"].as_i64().is_some_and(|v| refuses.contains(&v));
            let mut report = json!({ "path": path, "stageLocation": "stages/1/", "errorLimit": rows.len() });
            if !begun && self.fails > 0 {
                self.fails -= 1;
                report["status"] = json!("LOAD_FAILED");
                report["systemError"] = json!("the file is refused");
                self.history.push(report.clone());
            } else if !begun {
                added.extend(rows[..half].iter().filter(good).cloned());
                report["status"] = json!("LOAD_IN_PROGRESS");
                report["rowsInserted"] = json!(rows[..half].iter().filter(good).count());
                left.push((path, true));
            } else {
                added.extend(rows[half..].iter().filter(good).cloned());
                let inserted = rows.iter().filter(good).count();
                report["rowsInserted"] = json!(inserted);
                report["rowsParsed"] = json!(rows.len());
                report["errorsSeen"] = json!(rows.len() - inserted);
                report["complete"] = json!(inserted == rows.len());
                report["status"] = json!(if inserted == rows.len() { "LOADED" } else { "PARTIALLY_LOADED" });
                if inserted < rows.len() {
                    report["firstError"] = json!("value is refused");
                    report["firstErrorLineNum"] = json!(1);
                }
                self.history.push(report.clone());
            }
            self.events.push(report);
        }
        self.queue = left;
        added
    }

    /// The rows that come into the table at this question, and its answer.
    pub fn report(&mut self, mark: Option<&String>, refuses: &[i64]) -> (Vec<Value>, Value) {
        let added = self.load(refuses);
        let from = mark.map_or(self.forgotten, |mark| mark.trim_start_matches("1_").parse().expect("a mark"));
        let files = self.events[from.max(self.forgotten)..].to_vec();
        let mark = format!("1_{}", self.events.len());
        let complete = from >= self.forgotten;
        (added, json!({ "pipe": "P", "completeResult": complete, "nextBeginMark": mark, "files": files }))
    }

    /// As [`Pipe::report`]; one file in each answer, as if there were very many.
    pub fn scan(&mut self, since: &str, refuses: &[i64]) -> (Vec<Value>, Value) {
        let page: usize = since.strip_prefix("after ").map_or(0, |n| n.parse().expect("a page"));
        if page == 0 {
            chrono::DateTime::parse_from_rfc3339(since).expect("a time");
        }
        let added = if page == 0 { self.load(refuses) } else { Vec::new() };
        let files: Vec<Value> = self.history.get(page).cloned().into_iter().collect();
        let whole = page + 1 >= self.history.len();
        let end = format!("after {}", page + 1);
        (added, json!({ "pipe": "P", "completeResult": whole, "rangeEndTime": end, "files": files }))
    }
}
