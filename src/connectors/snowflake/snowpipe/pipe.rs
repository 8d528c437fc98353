//! Snowpipe's REST service: files are named to a pipe, which loads them in its own time and reports what became of them.

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use serde_json::json;

use crate::connectors::StopFlag;
use crate::connectors::snowflake::appending::Place;
use crate::connectors::snowflake::config::Config;
use crate::connectors::snowflake::rest::{Reply, Request, Rest};
use crate::connectors::warehouse::{Remedy, Step};
use crate::error::{Error, SqlState};

/// So many files are named in one request at most.
const FILES_MAX: usize = 5_000;

/// What became of a file so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Report {
    /// Its path in the stage.
    pub path: String,
    /// `LOAD_IN_PROGRESS`, `LOADED`, `LOAD_FAILED` or `PARTIALLY_LOADED`.
    pub status: String,
    /// Rows that are in the table.
    pub rows_inserted: u64,
    /// Rows that were read.
    pub rows_parsed: u64,
    /// Rows that were refused.
    pub errors_seen: u64,
    /// Why the first of them was.
    pub first_error: Option<String>,
    /// Where it stands.
    pub first_error_line_num: Option<u64>,
    /// Why the file was not read.
    pub system_error: Option<String>,
}

impl Report {
    /// Whether nothing more becomes of the file.
    pub fn is_final(&self) -> bool {
        self.status != "LOAD_IN_PROGRESS" && !self.status.is_empty()
    }

    /// Whether it is about the file at this path in the stage. How much of a path reports say is not documented.
    pub fn is_of(&self, path: &str) -> bool {
        !self.path.is_empty() && (self.path.ends_with(path) || path.ends_with(&format!("/{}", self.path)))
    }

    /// Why rows are missing; `None`: nobody has said so.
    pub fn reason(&self) -> Option<String> {
        let reason = self.system_error.as_ref().or(self.first_error.as_ref())?;
        Some(match self.first_error_line_num {
            Some(line) => format!("{reason} (line {line})"),
            None => reason.clone(),
        })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reports {
    /// Whether no event is missing before these.
    #[serde(default)]
    complete_result: bool,
    next_begin_mark: Option<String>,
    range_end_time: Option<String>,
    #[serde(default)]
    files: Vec<Report>,
}

/// A pipe.
pub struct Pipe {
    rest: Rest,
    /// Its whole name.
    name: String,
    /// Whether it was just made: it is a while before the service knows it.
    own: bool,
    /// Where the last report ended.
    mark: Option<String>,
}

impl Pipe {
    /// The pipe of this name. Nothing is sent yet.
    pub fn new(config: &Config, pipe: &Place, own: bool, stop: &StopFlag) -> Step<Pipe> {
        let Place { database, schema, table } = pipe;
        let name = format!("{database}.{schema}.{table}");
        Ok(Pipe { rest: Rest::new(config, stop)?, name, own, mark: None })
    }

    fn send(&mut self, request: Request, what: &str) -> Step<Reply> {
        let reply = self.rest.send(&request)?;
        if reply.status.is_success() {
            return Ok(reply);
        }
        let mut failure = reply.failure(&format!("{what} of pipe {}", self.name));
        if reply.status == StatusCode::NOT_FOUND && self.own {
            failure.remedy = Remedy::Retry;
        }
        Err(failure)
    }

    fn request(&self, method: Method, endpoint: &str) -> Request {
        Request::new(method, self.rest.url(["v1", "data", "pipes", &self.name, endpoint]))
    }

    /// Names files, by path and size, that are to be loaded. Those that were before, by their names, are not again.
    pub fn insert(&mut self, files: &[(String, u64)]) -> Step<()> {
        for files in files.chunks(FILES_MAX) {
            let files: Vec<_> =
                files.iter().map(|(path, size)| json!({ "path": path, "size": size })).collect();
            let mut request = self.request(Method::POST, "insertFiles");
            request.body = Some(("application/json", Bytes::from(json!({ "files": files }).to_string())));
            let reply = self.send(request, "insertFiles")?;
            let told: serde_json::Value = reply.read("insertFiles")?;
            let unmatched = told["unmatchedPatternFiles"].as_array().map_or(0, Vec::len);
            if unmatched > 0 {
                let text = format!("pipe {} does not take {unmatched} of the sink's files", self.name);
                let error = Error::new(SqlState::INVALID_PARAMETER_VALUE, text);
                return Err(error
                    .with_hint("Its COPY must have no PATTERN, or one that *.json.zst matches.")
                    .into());
            }
        }
        Ok(())
    }

    /// What has become of files since the last question, and whether nothing was missed in between.
    pub fn report(&mut self) -> Step<(Vec<Report>, bool)> {
        let mut request = self.request(Method::GET, "insertReport");
        request.query = self.mark.iter().map(|mark| ("beginMark", mark.clone())).collect();
        let reports: Reports = self.send(request, "insertReport")?.read("insertReport")?;
        self.mark = reports.next_begin_mark.or(self.mark.take());
        Ok((reports.files, reports.complete_result))
    }

    /// What has become of files since a time, µs since 1970. Not to be asked often.
    pub fn history(&mut self, since: i64) -> Step<Vec<Report>> {
        let since = chrono::DateTime::from_timestamp_micros(since).unwrap_or_default();
        let mut since = since.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        let mut files = Vec::new();
        loop {
            let mut request = self.request(Method::GET, "loadHistoryScan");
            request.query = vec![("startTimeInclusive", since.clone())];
            let reports: Reports = self.send(request, "loadHistoryScan")?.read("loadHistoryScan")?;
            files.extend(reports.files);
            match reports.range_end_time {
                Some(end) if !reports.complete_result && end != since => since = end,
                _ => return Ok(files),
            }
        }
    }

    /// Waits; `false`: the sink was told to stop.
    pub fn wait(&self, time: std::time::Duration) -> bool {
        self.rest.wait(time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read_and_known_by_their_paths() {
        let reports: Reports = serde_json::from_str(
            r#"{"pipe":"D.S.P","completeResult":true,"nextBeginMark":"1_39","files":[
                {"path":"a/b-1.json.zst","stageLocation":"s3://x/","fileSize":57,"rowsInserted":1,"rowsParsed":2,
                 "errorsSeen":1,"errorLimit":1,"complete":true,"status":"PARTIALLY_LOADED","firstError":"bad",
                 "firstErrorLineNum":2},
                {"path":"c","status":"LOAD_IN_PROGRESS"}]}"#,
        )
        .unwrap();
        assert_eq!((reports.complete_result, reports.next_begin_mark.as_deref()), (true, Some("1_39")));
        let [file, going] = &reports.files[..] else { panic!("two files") };
        assert!(file.is_final() && !going.is_final() && !Report::default().is_final());
        assert_eq!(file.reason().as_deref(), Some("bad (line 2)"));
        assert_eq!((file.rows_inserted, file.rows_parsed, file.errors_seen), (1, 2, 1));
        assert!(file.is_of("a/b-1.json.zst") && file.is_of("b-1.json.zst") && file.is_of("x/a/b-1.json.zst"));
        assert!(
            !file.is_of("a/b-11.json.zst") && !file.is_of("xa/b-1.json.zst") && !Report::default().is_of("a")
        );
    }
}
