//! One .slt file in one mode: what is done around each of its records.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use sqllogictest::{
    Condition, DBOutput, DefaultColumnType, Normalizer, QueryExpect, Record, Runner, StatementExpect,
    default_validator, parse_file,
};

use crate::common::pgclient::{Answer, PgClient, PgError, Protocol};
use crate::common::postgres::Postgres;
use crate::common::server::Server;
#[path = "noise.rs"]
mod noise;
use noise::Tables;

type SltRecord = Record<DefaultColumnType>;

/// The label of the mode that asks a real PostgreSQL.
const POSTGRES: &str = "postgres";

/// What a file's statements are sent to: nobody else uses it.
pub enum Target<'a> {
    Tidemill(Server),
    /// A database of its own on a shared server.
    Postgres(&'a Postgres, String),
}

impl Target<'_> {
    fn connect(&self) -> Result<PgClient, PgError> {
        match self {
            Target::Tidemill(server) => PgClient::connect(server.addr()),
            Target::Postgres(server, database) => {
                let address = SocketAddr::from(([127, 0, 0, 1], server.port));
                PgClient::connect_to(address, "tidemill", database)
            }
        }
    }
}

/// How a file's queries are asked; see the head of `slt.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Query,
    View,
    Live,
    Postgres,
}

impl Mode {
    /// Whether queries also become views.
    fn has_views(self) -> bool {
        matches!(self, Mode::View | Mode::Live)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Mode::Query => "query",
            Mode::View => "view",
            Mode::Live => "live",
            Mode::Postgres => POSTGRES,
        })
    }
}

/// What became of a file's records.
#[derive(Clone, Debug, Default)]
pub struct Score {
    pub passed: usize,
    /// Queries that cannot be kept up to date by their nature (volatile, over system relations) and were refused as views.
    pub refused_as_view: usize,
    pub failures: Vec<String>,
}

impl Score {
    pub fn total(&self) -> usize {
        self.passed + self.failures.len()
    }

    pub fn add(&mut self, other: Score) {
        self.passed += other.passed;
        self.refused_as_view += other.refused_as_view;
        self.failures.extend(other.failures);
    }
}

/// The connection that the runner drives.
struct Wire {
    client: PgClient,
    protocol: Protocol,
}

impl sqllogictest::DB for Wire {
    type Error = PgError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, PgError> {
        let answers = self.client.run(self.protocol, sql)?;
        let last = answers.into_iter().next_back().unwrap_or_default();
        Ok(match last.columns {
            Some(columns) => DBOutput::Rows {
                types: vec![DefaultColumnType::Any; columns.len()],
                rows: last.rows.into_iter().map(|r| r.into_iter().map(shown).collect()).collect(),
            },
            None => DBOutput::StatementComplete(affected(&last.tag)),
        })
    }

    fn engine_name(&self) -> &str {
        "tidemill"
    }

    fn error_sql_state(e: &PgError) -> Option<String> {
        Some(e.sqlstate.clone())
    }
}

fn shown(value: Option<String>) -> String {
    match value {
        None => "NULL".into(),
        Some(v) if v.is_empty() => "(empty)".into(),
        Some(v) => v,
    }
}

/// The count at the end of a command tag, as in `INSERT 0 3`.
fn affected(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// A view of a query has no order: the rows are compared as a multiset of lines.
fn unordered_validator(normalizer: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let mut actual: Vec<String> = actual.iter().map(|r| normalizer(&r.join(" "))).collect();
    let mut expected: Vec<String> = expected.iter().map(normalizer).collect();
    actual.sort_unstable();
    expected.sort_unstable();
    actual == expected
}

/// Runs a file.
pub fn run_file(file: &Path, mode: Mode, protocol: Protocol, target: &Target) -> Result<Score, String> {
    let records = parse_file::<DefaultColumnType>(file).map_err(|e| e.to_string())?;
    let mut runner = Runner::new(|| async { target.connect().map(|client| Wire { client, protocol }) });
    runner.add_label(&mode.to_string());
    runner.add_label(super::protocol_name(protocol));
    let mut run = FileRun {
        mode,
        admin: target.connect().map_err(|e| e.to_string())?,
        views: Vec::new(),
        tables: Tables::default(),
        in_transaction: false,
        score: Score::default(),
    };
    for (i, record) in records.iter().enumerate() {
        if matches!(record, Record::Halt { .. }) {
            break;
        }
        if let Some(time) = clock_set_by(record) {
            match run.set_clock(target, &time) {
                Ok(()) => run.score.passed += 1,
                Err(e) => run.score.failures.push(at(record, &e)),
            }
            continue;
        }
        run.before(record);
        let counted = matches!(record, Record::Statement { .. } | Record::Query { .. });
        let result = runner.run(record.clone()).map_err(|e| e.display(false).to_string());
        let result =
            result.and_then(|_| run.after(i, record, &records, &mut runner).map_err(|e| at(record, &e)));
        match result {
            Ok(()) if counted => run.score.passed += 1,
            Ok(()) => {}
            Err(e) => run.score.failures.push(e),
        }
    }
    runner.shutdown();
    Ok(run.score)
}

fn at(record: &SltRecord, error: &str) -> String {
    match record {
        Record::Statement { loc, sql, .. } | Record::Query { loc, sql, .. } => {
            format!("{error}\n{sql}\nat {loc}")
        }
        _ => error.to_string(),
    }
}

/// The time in `SET CLOCK '…'`, a statement of the suite itself.
fn clock_set_by(record: &SltRecord) -> Option<String> {
    let Record::Statement { sql, .. } = record else { return None };
    let time = sql.strip_prefix("SET CLOCK '")?.strip_suffix('\'')?;
    Some(time.to_string())
}

/// A view that stands for the query of record `record`.
struct QueryView {
    record: usize,
    name: String,
}

struct FileRun {
    mode: Mode,
    admin: PgClient,
    views: Vec<QueryView>,
    tables: Tables,
    in_transaction: bool,
    score: Score,
}

impl FileRun {
    fn set_clock(&mut self, target: &Target, time: &str) -> Result<(), String> {
        let Target::Tidemill(server) = target else { return Err("only Tidemill's clock can be set".into()) };
        let micros = format!("SELECT (extract(epoch FROM timestamptz '{time}') * 1000000)::bigint");
        let answer = self.admin.run(Protocol::Simple, &micros).map_err(|e| e.to_string())?.pop();
        let cell = answer.and_then(|a| a.rows.into_iter().flatten().next().flatten());
        let micros = cell.and_then(|c| c.parse().ok()).ok_or("no time came back")?;
        server.set_clock(micros)?;
        self.check_views(&format!("SET CLOCK '{time}'"))
    }

    fn before(&mut self, record: &SltRecord) {
        let Record::Statement { sql, .. } = record else { return };
        // A view would stand in the way of its relations being dropped or changed.
        if self.mode.has_views() && ["DROP", "ALTER", "CREATE OR REPLACE"].iter().any(|k| starts_with(sql, k))
        {
            for view in std::mem::take(&mut self.views) {
                // If this fails, so will what comes after it, and that is reported.
                self.admin
                    .run(Protocol::Simple, &format!("DROP MATERIALIZED VIEW IF EXISTS {}", view.name))
                    .ok();
            }
        }
    }

    fn after<M>(
        &mut self,
        i: usize,
        record: &SltRecord,
        records: &[SltRecord],
        runner: &mut Runner<Wire, M>,
    ) -> Result<(), String>
    where
        M: sqllogictest::MakeConnection<Conn = Wire>,
    {
        match record {
            _ if !self.mode.has_views() => Ok(()),
            Record::Statement { sql, expected, conditions, .. } => {
                if starts_with(sql, "BEGIN") || starts_with(sql, "START") {
                    self.in_transaction = true;
                } else if ["COMMIT", "ROLLBACK", "END", "ABORT"].iter().any(|k| starts_with(sql, k)) {
                    self.in_transaction = false;
                }
                let succeeds = matches!(expected, StatementExpect::Ok | StatementExpect::Count(_));
                if self.in_transaction || !succeeds || is_conditional(conditions) {
                    return Ok(());
                }
                if self.mode == Mode::Live {
                    self.tables.note_ddl(sql, &mut self.admin)?;
                    if ["CREATE", "ALTER", "DROP"].iter().any(|k| starts_with(sql, k)) {
                        self.create_views_ahead(i, records);
                    }
                    for step in self.tables.noise(sql) {
                        self.admin.run(Protocol::Simple, &step).map_err(|e| format!("{e}\nin: {step}"))?;
                        self.check_views(&step)?;
                    }
                }
                self.check_views(sql)
            }
            Record::Query { sql, expected, loc, conditions, connection, .. } => {
                let QueryExpect::Results { types, sort_mode, result_mode, label, results } = expected else {
                    return Ok(());
                };
                let hashed = results.iter().any(|l| l.contains("values hashing to"));
                if self.in_transaction || is_conditional(conditions) || hashed || !is_select(sql) {
                    return Ok(());
                }
                let name = match self.views.iter().find(|v| v.record == i) {
                    Some(view) => view.name.clone(),
                    None => match self.create_view(i, sql) {
                        Ok(name) => name,
                        Err(e) if ["0A000", "42P16"].contains(&e.sqlstate.as_str()) => {
                            self.score.refused_as_view += 1;
                            return Ok(());
                        }
                        Err(e) => return Err(format!("creating the view: {e}")),
                    },
                };
                runner.with_validator(unordered_validator);
                let compared = runner.run(Record::Query {
                    loc: loc.clone(),
                    conditions: Vec::new(),
                    connection: connection.clone(),
                    sql: format!("SELECT * FROM {name}"),
                    expected: QueryExpect::Results {
                        types: types.clone(),
                        sort_mode: *sort_mode,
                        result_mode: *result_mode,
                        label: label.clone(),
                        results: results.clone(),
                    },
                    retry: None,
                });
                runner.with_validator(default_validator);
                compared.map(|_| ()).map_err(|e| format!("as a view: {}", e.display(false)))?;
                self.check_view(&name, sql)
            }
            _ => Ok(()),
        }
    }

    /// Creates the views of all queries after record `from` that can be created now.
    fn create_views_ahead(&mut self, from: usize, records: &[SltRecord]) {
        for (i, record) in records.iter().enumerate().skip(from + 1) {
            let Record::Query { sql, expected: QueryExpect::Results { .. }, conditions, .. } = record else {
                continue;
            };
            if !is_conditional(conditions) && is_select(sql) && !self.views.iter().any(|v| v.record == i) {
                // Its relations may not exist yet; it is tried again after the next definition and at its own place.
                self.create_view(i, sql).ok();
            }
        }
    }

    fn create_view(&mut self, record: usize, sql: &str) -> Result<String, PgError> {
        let columns = self
            .admin
            .run(Protocol::Simple, sql)?
            .pop()
            .and_then(|a: Answer| a.columns)
            .map_or(0, |c| c.len());
        let names: Vec<String> = (1..=columns).map(|c| format!("c{c}")).collect();
        let name = format!("slt_view_{record}");
        let sql = sql.trim().trim_end_matches(';');
        self.admin.run(
            Protocol::Simple,
            &format!("CREATE MATERIALIZED VIEW {name} ({}) AS {sql}", names.join(", ")),
        )?;
        self.views.push(QueryView { record, name: name.clone() });
        Ok(name)
    }

    /// Compares every view with its query, run in batch at the same tick.
    fn check_views(&mut self, after: &str) -> Result<(), String> {
        for view in 0..self.views.len() {
            let name = self.views[view].name.clone();
            self.check_view(&name, after)?;
        }
        Ok(())
    }

    fn check_view(&mut self, name: &str, after: &str) -> Result<(), String> {
        // It fails, with the rows, if they differ.
        self.admin
            .run(Protocol::Simple, &format!("CHECK MATERIALIZED VIEW {name}"))
            .map(|_| ())
            .map_err(|e| format!("checking {name} after {after}: {e}"))
    }
}

/// Whether a record is for some of Tidemill's modes or protocols only.
fn is_conditional(conditions: &[Condition]) -> bool {
    conditions.iter().any(|c| !matches!(c, Condition::SkipIf { label } if label == POSTGRES))
}

fn starts_with(sql: &str, keyword: &str) -> bool {
    sql.trim_start().get(..keyword.len()).is_some_and(|s| s.eq_ignore_ascii_case(keyword))
}

fn is_select(sql: &str) -> bool {
    ["SELECT", "WITH", "VALUES", "("].iter().any(|k| starts_with(sql, k))
}
