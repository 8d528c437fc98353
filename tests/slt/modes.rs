//! One .slt file in one mode: what is done around each of its records.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqllogictest::{
    Condition, DBOutput, DefaultColumnType, Normalizer, QueryExpect, Record, Runner, StatementExpect,
    Validator, default_validator, parse_file,
};

use crate::common::pgclient::{Answer, PgClient, PgError, Protocol};
use crate::common::postgres::Postgres;
use crate::common::server::Server;
#[path = "compare.rs"]
pub mod compare;
#[path = "noise.rs"]
mod noise;
#[path = "script.rs"]
mod script;
use noise::Tables;
use script::Script;

type SltRecord = Record<DefaultColumnType>;

/// The label of the mode that asks a real PostgreSQL.
const POSTGRES: &str = "postgres";

/// What a file's statements are sent to: nobody else uses it.
pub enum Target<'a> {
    Tidemill(Server),
    /// A database of its own on a shared server.
    Postgres(&'a Postgres, String),
}

/// Where a target's connections go.
#[derive(Clone)]
struct Place {
    address: SocketAddr,
    database: String,
    /// How long a statement may take: the server stops it then, or it is given up soon after.
    timeout: Option<Duration>,
}

impl Target<'_> {
    fn place(&self, timeout: Option<Duration>) -> Place {
        let (address, database) = match self {
            Target::Tidemill(server) => (server.addr(), "tidemill"),
            Target::Postgres(server, database) => {
                (SocketAddr::from(([127, 0, 0, 1], server.port)), database.as_str())
            }
        };
        Place { address, database: database.to_string(), timeout }
    }
}

impl Place {
    fn connect(&self) -> Result<PgClient, PgError> {
        let mut client = PgClient::connect_to(self.address, "tidemill", &self.database)?;
        if let Some(timeout) = self.timeout {
            client.set_timeout(timeout + Duration::from_secs(10))?;
            client.run(Protocol::Simple, &format!("SET statement_timeout = {}", timeout.as_millis()))?;
        }
        Ok(client)
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

/// A foreign file is given up after so many statements that never came back.
const HANGS_MAX: usize = 3;

/// A foreign file's queries stand as views for this many queries after them at most: the check of all views after each
/// change would take the square of their number.
const FOREIGN_VIEWS_MAX: usize = 30;

/// What happens while a foreign file is run.
pub enum Event<'a> {
    /// The record at this place is run.
    Begins(&'a str),
    Passed,
    Failed(&'a str),
    /// A query was refused as a view.
    Refused,
    /// A directive that nobody understands.
    Unknown(&'a str),
}

/// How values are shown for the record that is run: SQLite's way, by the types that the record declares.
type Shape = Arc<Mutex<Option<Vec<DefaultColumnType>>>>;

/// The connection that the runner drives.
struct Wire {
    client: PgClient,
    protocol: Protocol,
    place: Place,
    shape: Shape,
}

impl sqllogictest::DB for Wire {
    type Error = PgError;
    type ColumnType = DefaultColumnType;

    fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, PgError> {
        let answers = self.client.run(self.protocol, sql);
        if answers.as_ref().is_err_and(|e| e.sqlstate == "08006") {
            // Nothing more comes by this connection, but the next statement may go by another.
            self.client = self.place.connect()?;
        }
        let last = answers?.into_iter().next_back().unwrap_or_default();
        let shape = self.shape.lock().map(|s| s.clone()).unwrap_or_default();
        let show = |row: Vec<Option<String>>| -> Vec<String> {
            let row = row.into_iter().map(shown);
            match &shape {
                Some(types) => row.enumerate().map(|(i, v)| compare::as_sqlite(&v, types.get(i))).collect(),
                None => row.collect(),
            }
        };
        Ok(match last.columns {
            Some(columns) => DBOutput::Rows {
                types: vec![DefaultColumnType::Any; columns.len()],
                rows: last.rows.into_iter().map(show).collect(),
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
    let mut run = FileRun::new(target, mode, None)?;
    let mut runner = run.runner(protocol);
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
        let result = run.record(i, record, &records, &mut runner);
        let counted = matches!(record, Record::Statement { .. } | Record::Query { .. });
        match result {
            Ok(()) if counted => run.score.passed += 1,
            Ok(()) => {}
            Err(e) => run.score.failures.push(e),
        }
    }
    runner.shutdown();
    Ok(run.score)
}

/// Runs a file of another system on a server of its own, by the simple protocol, and tells what happens.
pub fn run_script(
    file: &Path,
    mode: Mode,
    timeout: Duration,
    tell: &dyn Fn(Event<'_>),
) -> Result<(), String> {
    let script = Script::read(file)?;
    script.unknown.iter().for_each(|line| tell(Event::Unknown(line)));
    let target = Target::Tidemill(Server::start(super::workers(mode, Protocol::Simple)));
    let mut run = FileRun::new(&target, mode, Some(timeout))?;
    let mut runner = run.runner(Protocol::Simple);
    // What is written for PostgreSQL is meant for us.
    ["postgres", "postgresql"].into_iter().for_each(|label| runner.add_label(label));
    runner.with_validator(run.validator);
    let records: Vec<SltRecord> = script.records.iter().map(|(_, record)| record.clone()).collect();
    let mut hangs = 0;
    for (i, (place, record)) in script.records.iter().enumerate() {
        tell(Event::Begins(place));
        if let Ok(mut shape) = run.shape.lock() {
            *shape = match record {
                Record::Query { expected: QueryExpect::Results { types, .. }, .. } if script.sqlite => {
                    Some(types.clone())
                }
                _ => None,
            };
        }
        let refused = run.score.refused_as_view;
        match run.record(i, record, &records, &mut runner) {
            Ok(()) if matches!(record, Record::Statement { .. } | Record::Query { .. }) => {
                tell(Event::Passed)
            }
            Ok(()) => {}
            Err(e) => {
                tell(Event::Failed(&e));
                hangs += usize::from(e.contains("08006"));
            }
        }
        if run.score.refused_as_view > refused {
            tell(Event::Refused);
        }
        if hangs >= HANGS_MAX {
            return Err(format!("given up after {HANGS_MAX} statements that never came back\nat {place}"));
        }
        run.forget_views(FOREIGN_VIEWS_MAX);
    }
    runner.shutdown();
    Ok(())
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
    /// The file's own views that give windows when they close: what one of them is, is told by every tick before.
    closing: Vec<String>,
    tables: Tables,
    in_transaction: bool,
    score: Score,
    place: Place,
    shape: Shape,
    /// Compares what has an order.
    validator: Validator,
    /// Compares what has none.
    unordered: Validator,
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

    /// `timeout` is that of foreign files' statements.
    fn new(target: &Target<'_>, mode: Mode, timeout: Option<Duration>) -> Result<Self, String> {
        let (validator, unordered): (Validator, Validator) = match timeout {
            None => (default_validator, unordered_validator),
            Some(_) => (compare::foreign_validator, compare::foreign_unordered_validator),
        };
        let place = target.place(timeout);
        Ok(FileRun {
            mode,
            admin: place.connect().map_err(|e| e.to_string())?,
            views: Vec::new(),
            closing: Vec::new(),
            tables: Tables::default(),
            in_transaction: false,
            score: Score::default(),
            place,
            shape: Shape::default(),
            validator,
            unordered,
        })
    }

    fn runner(
        &self,
        protocol: Protocol,
    ) -> Runner<Wire, impl sqllogictest::MakeConnection<Conn = Wire> + use<>> {
        let (place, shape) = (self.place.clone(), Arc::clone(&self.shape));
        let mut runner = Runner::new(move || {
            let (place, shape) = (place.clone(), Arc::clone(&shape));
            async move { place.connect().map(|client| Wire { client, protocol, place, shape }) }
        });
        runner.add_label(&self.mode.to_string());
        runner.add_label(super::protocol_name(protocol));
        runner
    }

    /// Runs a record, and does what the mode does around it.
    fn record<M>(
        &mut self,
        i: usize,
        record: &SltRecord,
        records: &[SltRecord],
        runner: &mut Runner<Wire, M>,
    ) -> Result<(), String>
    where
        M: sqllogictest::MakeConnection<Conn = Wire>,
    {
        self.before(record);
        runner.run(record.clone()).map_err(|e| e.display(false).to_string())?;
        self.after(i, record, records, runner).map_err(|e| at(record, &e))
    }

    /// Drops the oldest views beyond `kept`.
    fn forget_views(&mut self, kept: usize) {
        let beyond = self.views.len().saturating_sub(kept);
        for view in self.views.drain(..beyond) {
            // One that cannot be dropped is in the way of nothing but its own relations.
            self.admin.run(Protocol::Simple, &format!("DROP MATERIALIZED VIEW IF EXISTS {}", view.name)).ok();
        }
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
                } else if ["COMMIT", "ROLLBACK", "END", "ABORT"].iter().any(|k| starts_with(sql, k))
                    && !starts_with(sql, "ROLLBACK TO")
                {
                    self.in_transaction = false;
                }
                let succeeds = matches!(expected, StatementExpect::Ok | StatementExpect::Count(_));
                if self.in_transaction || !succeeds || is_conditional(conditions) {
                    return Ok(());
                }
                // Views must mean what the queries mean.
                if sets_path(sql) {
                    self.admin.run(Protocol::Simple, sql).map_err(|e| e.to_string())?;
                }
                if starts_with(sql, "CREATE MATERIALIZED VIEW")
                    && sql.trim_end().ends_with("EMIT ON WINDOW CLOSE")
                {
                    self.closing.extend(sql.split_whitespace().nth(3).map(str::to_string));
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
                runner.with_validator(self.unordered);
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
                runner.with_validator(self.validator);
                compared.map(|_| ()).map_err(|e| format!("as a view: {}", e.display(false)))?;
                self.check_view(&name, sql)
            }
            _ => Ok(()),
        }
    }

    /// Creates the views of all queries after record `from` that can be created now.
    fn create_views_ahead(&mut self, from: usize, records: &[SltRecord]) {
        for (i, record) in records.iter().enumerate().skip(from + 1) {
            if matches!(record, Record::Statement { sql, .. } if sets_path(sql)) {
                return;
            }
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
        let name = format!("public.slt_view_{record}");
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
        for name in self.closing.clone() {
            self.check_view(&name, after)?;
        }
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

/// Whether a statement changes what names without a schema mean.
fn sets_path(sql: &str) -> bool {
    ["SET search_path", "SET SCHEMA", "RESET search_path"].iter().any(|k| starts_with(sql, k))
}

fn is_select(sql: &str) -> bool {
    ["SELECT", "WITH", "VALUES", "("].iter().any(|k| starts_with(sql, k))
}
