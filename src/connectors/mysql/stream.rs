//! The source: the first copy, then transaction after transaction from the binary log.
//!
//! Whole transactions are gathered until the log pauses or a batch is full, and handed over with the place behind the
//! last one. When the connection drops, the source goes on behind the last transaction that it handed over. Where the log
//! cannot tell what became of the rows (it is purged, or a followed table was redefined), all tables are copied again.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use hashbrown::{HashMap, HashSet};
use mysql_async::binlog::events::{
    Event, EventData, QueryEvent, RotateEvent, RowsEventData, TableMapEvent, TransactionPayloadEvent,
};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn};
use serde::{Deserialize, Serialize};

use super::layout::Layout;
use super::position::{Gtid, Position};
use super::settings::{self, Flavour, SourceSettings, said};
use super::statements::{Meaning, meaning};
use super::values::{Charsets, RowText};
use super::{snapshot, tables};
use crate::connectors::gathered::Gathered;
use crate::connectors::replicated::Effect;
use crate::connectors::shapes::{self, Noted, Settled, UpstreamTable};
use crate::connectors::{OnSchemaChange, Source, SourceBatch, SourceContext};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often the stop flag is looked at while nothing comes.
const POLL: Duration = Duration::from_millis(100);
/// How often the server says that it is there, and how long it may be silent.
const HEARTBEAT_NANOS: u64 = 5_000_000_000;
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// After so long what had failed is behind us, and transactions are gathered again.
const STEADY: Duration = Duration::from_secs(10);
/// Pause before connecting again.
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// The server's error when the log that is asked for is not there (any more).
const LOG_GONE: u16 = 1236;

/// Numbers of the log's events.
mod event {
    pub const QUERY: u8 = 2;
    pub const ROTATE: u8 = 4;
    pub const FORMAT: u8 = 15;
    pub const XID: u8 = 16;
    pub const TABLE_MAP: u8 = 19;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const MARIADB_GTID: u8 = 162;
    /// MariaDB's compressed statements and rows.
    pub const COMPRESSED: std::ops::RangeInclusive<u8> = 165..=171;
}

/// A server's tables, followed through its binary log.
pub struct MysqlSource {
    settings: SourceSettings,
}

impl MysqlSource {
    /// Not connected yet.
    pub fn new(settings: SourceSettings) -> Self {
        MysqlSource { settings }
    }
}

/// What is remembered durably.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Progress {
    at: Position,
    /// The tables that the copy held, by our numbers: one that is not among them must be copied first.
    tables: Vec<u64>,
    /// With which columns the rows were read.
    #[serde(default)]
    noted: Noted,
}

impl Source for MysqlSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let runtime = settings::runtime()?;
        let progress = match &cx.resume {
            Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|e| {
                Error::new(
                    SqlState::DATA_CORRUPTED,
                    format!("the source's stored position is unreadable: {e}"),
                )
            })?),
            None => None,
        };
        let mut follower = Follower {
            settings: self.settings,
            progress,
            gathered: Gathered::new(&cx.outputs)?,
            upstream: Vec::new(),
            passed_over: HashSet::new(),
            noted: Noted::default(),
            waiting: None,
            copy_again: false,
            one_by_one: false,
            cx,
        };
        runtime.block_on(follower.run())
    }
}

struct Follower {
    settings: SourceSettings,
    /// Behind the last transaction that was handed over.
    progress: Option<Progress>,
    gathered: Gathered,
    /// The tables of our outputs when they were last looked at.
    upstream: Vec<UpstreamTable>,
    /// Columns of the log that no table has any more, by table.
    passed_over: HashSet<(String, String)>,
    /// What positions from now on note of the columns that rows are read with.
    noted: Noted,
    /// Behind the last gathered transaction that was not handed over, and its time.
    waiting: Option<(Position, i64)>,
    /// The log cannot tell how to go on.
    copy_again: bool,
    /// Every transaction is handed over by itself: before one that cannot be, all others were.
    one_by_one: bool,
    cx: SourceContext,
}

/// How one connection's life ended.
enum End {
    Stopped,
    /// The tables must be copied again, because of this.
    CopyAgain(String),
    /// The tables have other columns: everything begins anew from the last transaction that was handed over.
    OtherColumns,
}

impl Follower {
    async fn run(&mut self) -> Result<()> {
        let mut pause = RECONNECT_MIN;
        while !self.cx.stop.is_set() {
            let before = self.progress.clone();
            let mut at_once = false;
            match self.follow().await {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::OtherColumns) => at_once = true,
                Ok(End::CopyAgain(why)) => {
                    tracing::warn!(source = %self.cx.name, why, "the tables are copied again from MySQL");
                    self.copy_again = true;
                }
                Err(e) if e.sqlstate == SqlState::QUERY_CANCELED && self.cx.stop.is_set() => return Ok(()),
                Err(e) if e.sqlstate != SqlState::CONNECTION_FAILURE && self.one_by_one => return Err(e),
                Err(e) if e.sqlstate != SqlState::CONNECTION_FAILURE => {
                    // What came before it must not be lost with it.
                    tracing::debug!(source = %self.cx.name, error = %e, "transactions are taken one by one");
                    (self.one_by_one, at_once) = (true, true);
                }
                Err(e) => {
                    tracing::warn!(source = %self.cx.name, error = %e, "mysql source lost its server, trying again");
                    self.cx.status.update(|s| {
                        s.state = "stalled";
                        s.error = Some(e.to_string());
                    });
                }
            }
            self.gathered.discard()?;
            self.waiting = None;
            if at_once {
                continue;
            }
            pause = if self.progress == before { (pause * 2).min(RECONNECT_MAX) } else { RECONNECT_MIN };
            let until = world::instant() + pause.mul_f64(0.5 + world::jitter() / 2.0);
            while world::instant() < until && !self.cx.stop.is_set() {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// One connection's life.
    async fn follow(&mut self) -> Result<End> {
        let mut session = self.settings.server.connect().await?;
        let flavour = settings::check_log(&mut session).await?;
        let charsets = charsets(&mut session).await?;
        let Settled { copy, .. } = self.look(&mut session).await?;
        let moved = self.is_elsewhere(&mut session, flavour).await?;
        if let Some(why) = copy.or(moved) {
            tracing::warn!(source = %self.cx.name, why, "the tables are copied again from MySQL");
            self.copy_again = true;
        }
        let all_copied = |p: &Progress| self.cx.outputs.iter().all(|o| p.tables.contains(&o.collection.0));
        if self.copy_again || !self.progress.as_ref().is_some_and(all_copied) {
            self.copy(&mut session, flavour).await?;
        }
        let Some(Progress { at, .. }) = self.progress.clone() else {
            return Err(Error::internal("a copy without a position"));
        };
        let lost = |e: mysql_async::Error| settings::failed("following the binary log", &e);
        session
            .query_drop(format!("SET @master_heartbeat_period = {HEARTBEAT_NANOS}"))
            .await
            .map_err(lost)?;
        if let Some(gtid) = &at.gtid {
            // MariaDB looks at these when the log is asked for, and then not at the file and offset.
            session
                .query_drop(format!(
                    "SET @mariadb_slave_capability = 4, @slave_connect_state = '{}', @slave_gtid_strict_mode = 0",
                    gtid.text()
                ))
                .await
                .map_err(lost)?;
        } else if flavour == Flavour::Mariadb {
            session.query_drop("SET @mariadb_slave_capability = 4").await.map_err(lost)?;
        }
        let request = BinlogStreamRequest::new(self.settings.server_id)
            .with_filename(at.file.as_bytes())
            .with_pos(at.offset);
        let mut stream = match session.get_binlog_stream(request).await {
            Ok(stream) => stream,
            Err(e) => return gone(e).map_or_else(|e| Err(lost(e)), Ok),
        };
        self.cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        let end = self.read(&mut stream, Reading::new(at, charsets)).await;
        if end.is_ok()
            && let Err(e) = stream.close().await
        {
            tracing::debug!(error = %e, "ending the binlog session");
        }
        end
    }

    /// Copies all tables, and hands the copy over.
    async fn copy(&mut self, session: &mut Conn, flavour: Flavour) -> Result<()> {
        let policy = self.cx.feed.on_schema_change();
        for output in &self.cx.outputs {
            if let Some(table) = self.upstream.iter().find(|t| t.name == output.upstream) {
                shapes::check_taken(output, &table.schema, policy)?;
            }
        }
        let (status, stop) = (&self.cx.status, &self.cx.stop);
        let copied = snapshot::copy(session, flavour, &self.upstream, &mut self.gathered, status, stop);
        let at = copied.await?;
        // A statement that redefined a table meanwhile is in the log behind the snapshot, or the copy failed.
        world::crash_point("mysql.copied");
        self.hand_over(at, None)?;
        self.copy_again = false;
        Ok(())
    }

    /// Why the place that is known is not one in this server's log, if it is not.
    async fn is_elsewhere(&self, session: &mut Conn, flavour: Flavour) -> Result<Option<String>> {
        let Some(at) = self.progress.as_ref().map(|p| &p.at).filter(|at| at.gtid.is_none()) else {
            return Ok(None);
        };
        let identity = settings::identity(session, flavour).await?;
        let other = at.server.as_ref().is_some_and(|server| *server != identity);
        Ok(other.then(|| format!("another server answers ({identity}), whose log has other places")))
    }

    /// Looks at the tables, and lets ours follow them as far as the source's policy says.
    async fn look(&mut self, session: &mut Conn) -> Result<Settled> {
        self.upstream = tables::of_outputs(session, &self.cx.outputs).await?;
        let progress = self.progress.clone();
        let note = |cx: &SourceContext, noted: &Noted| {
            let progress = progress.as_ref().map(|p| Progress { noted: noted.clone(), ..p.clone() });
            let Some(progress) = progress else { return Ok(()) };
            let batch = SourceBatch { position: Some(encoded(&progress)?), ..SourceBatch::default() };
            cx.feed.wait_durable(cx.feed.submit(batch)?)
        };
        let noted = self.progress.as_ref().map(|p| &p.noted);
        let settled = shapes::settle(&mut self.cx, &mut self.gathered, &self.upstream, noted, note)?;
        self.noted = settled.noted.clone();
        Ok(settled)
    }

    async fn read(&mut self, stream: &mut BinlogStream, mut reading: Reading) -> Result<End> {
        let mut heard = world::instant();
        let began = heard;
        loop {
            let event = match stream.next().now_or_never() {
                Some(event) => event,
                None => {
                    if !reading.in_transaction {
                        self.flush()?;
                    }
                    if self.cx.stop.is_set() {
                        return Ok(End::Stopped);
                    }
                    match tokio::time::timeout(POLL, stream.next()).await {
                        Ok(event) => event,
                        Err(_) if world::instant() - heard > SILENCE_MAX => {
                            return Err(Error::new(
                                SqlState::CONNECTION_FAILURE,
                                "nothing was heard of the MySQL server for 30 s",
                            ));
                        }
                        Err(_) => continue,
                    }
                }
            };
            heard = world::instant();
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(e)) => {
                    return gone(e)
                        .map_or_else(|e| Err(settings::failed("following the binary log", &e)), Ok);
                }
                None => {
                    return Err(Error::new(SqlState::CONNECTION_FAILURE, "the server ended the binary log"));
                }
            };
            let size = u64::from(event.header().event_size());
            self.cx.status.update(|s| s.bytes += size);
            if let Some(end) = self.event(&event, stream, &mut reading)? {
                return Ok(end);
            }
            self.one_by_one &= heard - began < STEADY;
            let full = self.gathered.is_full() || self.one_by_one;
            if !reading.in_transaction && (full || self.cx.stop.is_set()) {
                self.flush()?;
                if self.cx.stop.is_set() {
                    return Ok(End::Stopped);
                }
            }
        }
    }

    /// Takes one event; the answer says why this connection cannot go on, if it cannot.
    fn event(&mut self, event: &Event, stream: &BinlogStream, reading: &mut Reading) -> Result<Option<End>> {
        let header = event.header();
        match header.event_type_raw() {
            event::FORMAT => reading.tables.clear(),
            event::ROTATE => {
                let rotate = readable(event.read_event::<RotateEvent<'_>>())?;
                reading.at.file = rotate.name().into_owned();
                reading.at.offset = rotate.position();
            }
            event::MARIADB_GTID => {
                let gtid = Gtid::read(event.data(), header.server_id()).ok_or_else(|| unreadable("GTID"))?;
                reading.gtid = Some(gtid);
                reading.in_transaction = !gtid.standalone;
            }
            event::QUERY => {
                let query = readable(event.read_event::<QueryEvent<'_>>())?;
                return self.statement(&query, event, reading);
            }
            event::XID => self.commit(event, reading),
            event::TABLE_MAP => {
                let map = readable(event.read_event::<TableMapEvent<'_>>())?;
                if !reading.tables.contains_key(&map.table_id()) {
                    match self.followed(&map, &reading.charsets)? {
                        Described::As(followed) => drop(reading.tables.insert(map.table_id(), followed)),
                        Described::News => return Ok(Some(End::OtherColumns)),
                    }
                }
            }
            event::TRANSACTION_PAYLOAD => {
                // What is in it comes as events of its own, unless it could not be unpacked.
                readable(event.read_event::<TransactionPayloadEvent<'_>>())?;
            }
            event::XA_PREPARE if self.anything_pending() => return Err(distributed()),
            event::XA_PREPARE => self.commit(event, reading),
            event::PARTIAL_UPDATE => {
                return Err(setting("binlog_row_value_options", "''"));
            }
            kind if event::COMPRESSED.contains(&kind) => return Err(setting("log_bin_compress", "OFF")),
            _ => {
                let Ok(Some(data)) = event.read_data() else { return Ok(None) };
                if let EventData::RowsEvent(rows) = data {
                    self.rows(&rows, stream, reading)?;
                }
            }
        }
        Ok(None)
    }

    fn anything_pending(&self) -> bool {
        self.gathered.pending() > 0
    }

    fn statement(
        &mut self,
        query: &QueryEvent<'_>,
        event: &Event,
        reading: &mut Reading,
    ) -> Result<Option<End>> {
        let text = query.query();
        let followed: Vec<&str> = self.cx.outputs.iter().map(|o| o.upstream.as_str()).collect();
        match meaning(&text, &query.schema(), &followed) {
            Meaning::Begin => {
                reading.in_transaction = true;
                return Ok(None);
            }
            Meaning::Commit => self.commit(event, reading),
            Meaning::Rollback if self.anything_pending() => {
                let why = "a transaction was rolled back that the binary log holds";
                return Ok(Some(End::CopyAgain(why.to_string())));
            }
            Meaning::Rollback => self.commit(event, reading),
            Meaning::Distributed => {
                if self.anything_pending() {
                    return Err(distributed());
                }
                reading.in_transaction = false;
            }
            Meaning::Truncate(table) => {
                if let Some(place) = self.gathered.place_of(&table) {
                    self.gathered.builders[place].truncate()?;
                }
                self.commit(event, reading);
            }
            // Such a statement is in no transaction: those before it are whole.
            Meaning::Extended(_) => {
                self.commit(event, reading);
                if self.cx.feed.on_schema_change() == OnSchemaChange::Evolve {
                    self.flush()?;
                    return Ok(Some(End::OtherColumns));
                }
            }
            Meaning::Redefined(table) => {
                self.flush()?;
                return Ok(Some(End::CopyAgain(format!("{table} was redefined upstream: {text}"))));
            }
            Meaning::RowsAsStatement(_) => return Err(setting("binlog_format", "ROW")),
            Meaning::Nothing if reading.gtid.is_some_and(|g| g.standalone) || !reading.in_transaction => {
                self.commit(event, reading);
            }
            Meaning::Nothing => {}
        }
        Ok(None)
    }

    /// A transaction has ended.
    fn commit(&mut self, event: &Event, reading: &mut Reading) {
        reading.in_transaction = false;
        reading.at.offset = u64::from(event.header().log_pos());
        if let (Some(state), Some(gtid)) = (&mut reading.at.gtid, reading.gtid.take()) {
            state.advance(gtid);
        }
        let time = i64::from(event.header().timestamp()) * 1_000_000;
        self.waiting = Some((reading.at.clone(), time));
    }

    fn rows(&mut self, rows: &RowsEventData<'_>, stream: &BinlogStream, reading: &mut Reading) -> Result<()> {
        let Reading { tables, text, at, .. } = reading;
        let (Some(map), Some(followed)) = (stream.get_tme(rows.table_id()), tables.get(&rows.table_id()))
        else {
            return Err(unreadable("rows of a table that was not described"));
        };
        let Some(Followed { builder, layout, places }) = followed else { return Ok(()) };
        let Gathered { builders, bad } = &mut self.gathered;
        let builder = &mut builders[*builder];
        let partial = |columns: Option<usize>| columns.is_some_and(|n| n != layout.names.len());
        if partial(rows.columns_before_image().map(|c| c.count_ones()))
            || partial(rows.columns_after_image().map(|c| c.count_ones()))
        {
            return Err(setting("binlog_row_image", "FULL"));
        }
        let keyed = builder.keyed();
        // A key's columns are always among those of the log.
        let never_null: Vec<usize> = builder.output().key.iter().map(|k| places[*k]).collect();
        let position = at.text();
        for row in rows.rows(map) {
            let (before, after) = row.map_err(|e| unreadable(&format!("row: {e}")))?;
            let fill = |row: &mysql_async::binlog::row::BinlogRow, text: &mut RowText| {
                text.clear();
                for (i, shape) in layout.shapes.iter().enumerate() {
                    text.push_logged(row.as_ref(i), shape);
                }
            };
            if let Some(before) = &before {
                // By key: the old row goes only if no row takes its place.
                let stays = keyed
                    && after
                        .as_ref()
                        .is_some_and(|a| never_null.iter().all(|k| a.as_ref(*k) == before.as_ref(*k)));
                if !stays {
                    fill(before, text);
                    bad.extend(builder.push(Effect::Remove, &text.tuple(&never_null), places, &position)?);
                }
            }
            if let Some(after) = &after {
                fill(after, text);
                bad.extend(builder.push(Effect::Put, &text.tuple(&never_null), places, &position)?);
            }
        }
        Ok(())
    }

    fn followed(&mut self, map: &TableMapEvent<'_>, charsets: &Charsets) -> Result<Described> {
        let name = format!("{}.{}", map.database_name(), map.table_name());
        let Some(place) = self.gathered.place_of(&name) else { return Ok(Described::As(None)) };
        let layout = Layout::of(map, charsets)?;
        let output = self.gathered.builders[place].output();
        let policy = self.cx.feed.on_schema_change();
        let table = self.upstream.iter().find(|t| t.name == name);
        let ours = |name: &String| output.schema.field_with_name(name).is_ok();
        if policy != OnSchemaChange::Ignore {
            let known = |column: &String| {
                table.is_some_and(|t| t.schema.field_with_name(column).is_ok())
                    || self.passed_over.contains(&(name.clone(), column.clone()))
            };
            if let Some(news) = layout.names.iter().find(|column| !ours(column) && !known(column)) {
                // If it is not there when the tables are looked at, it has come and gone.
                self.passed_over.insert((name, news.clone()));
                return Ok(Described::News);
            }
        }
        if policy == OnSchemaChange::Pause
            && !layout.names.iter().all(ours)
            && let Some(table) = table
        {
            shapes::check_taken(output, &table.schema, policy)?;
        }
        let places = shapes::places(output, layout.names.iter().map(String::as_str), policy)?;
        Ok(Described::As(Some(Followed { builder: place, layout, places })))
    }

    /// Hands over what was gathered.
    fn flush(&mut self) -> Result<()> {
        let Some((at, time)) = self.waiting.take() else { return Ok(()) };
        self.hand_over(at, Some(time))
    }

    fn hand_over(&mut self, at: Position, event_time_micros: Option<i64>) -> Result<()> {
        let tables = self.cx.outputs.iter().map(|o| o.collection.0).collect();
        let progress = Progress { at, tables, noted: self.noted.clone() };
        // Only tables that are not ours were changed: the place is remembered with the next rows of ours.
        if !self.gathered.is_empty() || self.progress.is_none() {
            self.gathered.hand_over(&self.cx, Some(encoded(&progress)?), event_time_micros)?;
        }
        self.progress = Some(progress);
        Ok(())
    }
}

fn encoded(progress: &Progress) -> Result<Vec<u8>> {
    serde_json::to_vec(progress).map_err(|e| Error::internal(e.to_string()))
}

/// Where in the log one connection is.
struct Reading {
    /// Behind the last transaction.
    at: Position,
    /// The transaction that is under way.
    gtid: Option<Gtid>,
    in_transaction: bool,
    charsets: Charsets,
    /// By the server's numbers; `None`: not one of our outputs.
    tables: HashMap<u64, Option<Followed>>,
    text: RowText,
}

impl Reading {
    fn new(at: Position, charsets: Charsets) -> Self {
        let (tables, text) = (HashMap::new(), RowText::default());
        Reading { at, gtid: None, in_transaction: false, charsets, tables, text }
    }
}

/// A table of the log, as one of our outputs.
struct Followed {
    builder: usize,
    layout: Layout,
    /// Where each of the output's columns stands in a row.
    places: Vec<usize>,
}

/// What the log's description of a table says.
enum Described {
    /// How its rows are read; `None`: it is not one of our outputs.
    As(Option<Followed>),
    /// It has columns that are not known yet.
    News,
}

async fn charsets(session: &mut Conn) -> Result<Charsets> {
    // MariaDB has more collations than the first of these tells; MySQL's second has no numbers.
    let all = "SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL";
    let rows: Vec<(u16, String)> = match session.query(all).await {
        Ok(rows) => rows,
        Err(_) => session
            .query("SELECT ID, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL")
            .await
            .map_err(|e| settings::failed("reading the server's collations", &e))?,
    };
    Ok(Charsets::new(rows))
}

/// Whether the server no longer has the log that was asked for; other errors come back.
fn gone(e: mysql_async::Error) -> std::result::Result<End, mysql_async::Error> {
    match &e {
        mysql_async::Error::Server(s) if s.code == LOG_GONE => Ok(End::CopyAgain(format!(
            "the server does not have the binary log that is needed: {}; upstream, binlog_expire_logs_seconds or \
                 expire_logs_days must be longer than the source may be away",
            said(&e)
        ))),
        _ => Err(e),
    }
}

fn readable<T>(event: std::io::Result<T>) -> Result<T> {
    event.map_err(|e| unreadable(&format!("event: {e}")))
}

fn unreadable(what: &str) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, format!("the binary log holds an unreadable {what}"))
}

fn distributed() -> Error {
    Error::unsupported("an XA transaction that changes followed tables")
        .with_hint("Use plain transactions upstream; drop the source here and create it anew to go on.")
}

fn setting(name: &str, wanted: &str) -> Error {
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the binary log was written with another {name} than {wanted}"),
    )
    .with_hint(format!(
        "Upstream: {name} = {wanted}, for all sessions; then drop the source here and create it anew."
    ))
}
