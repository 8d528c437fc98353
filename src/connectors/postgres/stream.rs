//! The source: the first copy, then transaction after transaction from the slot.
//!
//! Whole transactions are gathered until the stream pauses or a batch is full, and handed over with the place of the
//! last commit. The server is told to forget only what the engine has on disk. When the connection drops, the
//! source goes on from the last transaction that it handed over.

use std::time::Duration;

use futures::FutureExt;
use hashbrown::HashMap;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};
use tokio_postgres::Client;

use super::pgoutput::{self, Message, Old, Relation};
use super::settings::{SourceSettings, check_wal_level, runtime};
use super::snapshot::{self, Identities, Position, Slot};
use super::tables::{self, PublishedTable};
use crate::connectors::gathered::Gathered;
use crate::connectors::replicated::{Effect, RowBuilder, Tuple, Value, untold};
use crate::connectors::shapes::{self, Noted, Settled, UpstreamTable};
use crate::connectors::{OnSchemaChange, Source, SourceBatch, SourceContext, SourceOutput};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often the stop flag and the durable position are looked at while nothing comes.
const POLL: Duration = Duration::from_millis(100);
/// How often it is looked whether the publication and its tables are what they were.
const LOOK: Duration = Duration::from_secs(10);
/// Pause before connecting again.
const RECONNECT_MIN: Duration = Duration::from_millis(500);
const RECONNECT_MAX: Duration = Duration::from_secs(15);
/// Microseconds from 1970 to 2000, where PostgreSQL's clock starts.
const POSTGRES_EPOCH_MICROS: i64 = 946_684_800_000_000;

/// A publication, followed through a slot.
pub struct PostgresSource {
    settings: SourceSettings,
}

impl PostgresSource {
    /// Not connected yet.
    pub fn new(settings: SourceSettings) -> Self {
        PostgresSource { settings }
    }
}

impl Source for PostgresSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let runtime = runtime()?;
        let position = match &cx.resume {
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
            position,
            gathered: Gathered::new(&cx.outputs)?,
            relations: HashMap::new(),
            published: Vec::new(),
            noted: Noted::default(),
            identities: Identities::new(),
            waiting: None,
            submitted_lsn: 0,
            acknowledged: 0,
            one_by_one: false,
            cx,
        };
        runtime.block_on(follower.run())
    }
}

/// A relation of the stream, as one of our outputs.
struct Followed {
    builder: usize,
    /// Where each of the output's columns stands in a tuple.
    places: Vec<usize>,
}

struct Follower {
    settings: SourceSettings,
    /// The last transaction that was handed over.
    position: Option<Position>,
    gathered: Gathered,
    /// By the session's relation numbers; `None`: not one of our outputs.
    relations: HashMap<u32, Option<Followed>>,
    /// The publication's tables when they were last looked at.
    published: Vec<PublishedTable>,
    /// What positions from now on note of the columns that rows are read with.
    noted: Noted,
    /// Which tables upstream they note.
    identities: Identities,
    /// End of the last gathered commit that was not handed over, and its time.
    waiting: Option<(Lsn, i64)>,
    /// Where the last batch ends that the engine was given by this run.
    submitted_lsn: u64,
    /// The newest log position that the server was told to be safe.
    acknowledged: u64,
    /// Every transaction is handed over by itself: before one that cannot be, all others were.
    one_by_one: bool,
    cx: SourceContext,
}

/// How one connection's life ended.
enum End {
    Stopped,
    /// The tables have other columns: everything begins anew from the last transaction that was handed over.
    OtherColumns,
}

impl Follower {
    async fn run(&mut self) -> Result<()> {
        let mut pause = RECONNECT_MIN;
        while !self.cx.stop.is_set() {
            let before = self.position.clone();
            let mut at_once = false;
            match self.follow().await {
                Ok(End::Stopped) => return Ok(()),
                Ok(End::OtherColumns) => at_once = true,
                Err(e) if e.sqlstate == SqlState::QUERY_CANCELED && self.cx.stop.is_set() => return Ok(()),
                Err(e) if e.sqlstate != SqlState::CONNECTION_FAILURE && self.one_by_one => return Err(e),
                Err(e) if e.sqlstate != SqlState::CONNECTION_FAILURE => {
                    // What came before it must not be lost with it.
                    tracing::debug!(source = %self.cx.name, error = %e, "transactions are taken one by one");
                    (self.one_by_one, at_once) = (true, true);
                }
                Err(e) => {
                    tracing::warn!(source = %self.cx.name, error = %e, "postgres source lost its server, trying again");
                    self.cx.status.update(|s| {
                        s.state = "stalled";
                        s.error = Some(e.to_string());
                    });
                }
            }
            self.gathered.discard()?;
            self.waiting = None;
            self.relations.clear();
            if at_once {
                continue;
            }
            pause = if self.position == before { (pause * 2).min(RECONNECT_MAX) } else { RECONNECT_MIN };
            let until = world::instant() + pause.mul_f64(0.5 + world::jitter() / 2.0);
            while world::instant() < until && !self.cx.stop.is_set() {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// One connection's life.
    async fn follow(&mut self) -> Result<End> {
        let mut client = self.settings.server.connect().await?;
        check_wal_level(&client).await?;
        let Settled { copy, .. } = self.look(&client).await?;
        let slot = snapshot::slot(&client, &self.settings.slot).await?;
        let copied = |p: &Position| self.cx.outputs.iter().all(|o| p.tables.contains(&o.collection.0));
        let again = match (&self.position, slot, copy) {
            (None, ..) => Some(None),
            (Some(_), Slot::Missing, _) => Some(Some("the replication slot is gone upstream".to_string())),
            (Some(_), _, Some(why)) => Some(Some(why)),
            (Some(p), ..) if !copied(p) => Some(None),
            (Some(_), Slot::Usable, None) => None,
        };
        if let Some(why) = again {
            if let Some(why) = why {
                tracing::warn!(source = %self.cx.name, slot = %self.settings.slot, why, "the tables are copied again");
            }
            self.copy(&mut client).await?;
        }
        let Some(position) = self.position.clone() else {
            return Err(Error::internal("a copy without a position"));
        };
        let durable = self.durable_lsn().unwrap_or(0);
        let mut stream =
            ReplicationClient::connect(self.settings.replication(Lsn(position.lsn), Lsn(durable)))
                .await
                .map_err(|e| lost(&e))?;
        stream.wait_started().await.map_err(|e| lost(&e))?;
        self.cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        let followed = self.read(&mut stream, &client, &position.copied).await;
        if followed.is_ok() {
            self.acknowledge(&stream, None);
            if let Err(e) = stream.shutdown().await {
                tracing::debug!(error = %e, "ending the replication session");
            }
        }
        followed
    }

    /// Copies all tables and hands the copy over.
    async fn copy(&mut self, client: &mut Client) -> Result<()> {
        let policy = self.cx.feed.on_schema_change();
        for output in &self.cx.outputs {
            if let Some(table) = self.published.iter().find(|t| t.upstream.name == output.upstream) {
                shapes::check_taken(output, &table.upstream.schema, policy)?;
            }
        }
        let (status, stop) = (&self.cx.status, &self.cx.stop);
        let copied =
            snapshot::copy(client, &self.settings, &self.published, &mut self.gathered, status, stop);
        let (lsn, copied) = copied.await?;
        world::crash_point("postgres.copied");
        self.hand_over(self.position_at(lsn, copied), None)
    }

    /// Looks at the publication's tables, and lets ours follow them as far as the source's policy says.
    async fn look(&mut self, client: &Client) -> Result<Settled> {
        self.published = tables::of_publication(client, &self.settings.publication).await?;
        let upstream: Vec<UpstreamTable> = self.published.iter().map(|t| t.upstream.clone()).collect();
        for output in &self.cx.outputs {
            if !upstream.iter().any(|t| t.name == output.upstream) {
                return Err(Error::new(
                    SqlState::UNDEFINED_TABLE,
                    format!(
                        "table {} is no longer in publication \"{}\"",
                        output.upstream, self.settings.publication
                    ),
                )
                .with_hint("Add it to the publication again, or drop the table here."));
            }
        }
        let position = self.position.clone();
        let note = |cx: &SourceContext, noted: &Noted| {
            let position = position.as_ref().map(|p| Position { noted: noted.clone(), ..p.clone() });
            let Some(position) = position else { return Ok(()) };
            let batch = SourceBatch { position: Some(encoded(&position)?), ..SourceBatch::default() };
            cx.feed.wait_durable(cx.feed.submit(batch)?)
        };
        let noted = self.position.as_ref().map(|p| &p.noted);
        let mut settled = shapes::settle(&mut self.cx, &mut self.gathered, &upstream, noted, note)?;
        self.noted = settled.noted.clone();
        let identity = |o: &SourceOutput| {
            let table = self.published.iter().find(|t| t.upstream.name == o.upstream)?;
            Some((o.collection.0, table.identity.clone()))
        };
        self.identities = self.cx.outputs.iter().filter_map(identity).collect();
        let before = self.position.as_ref().map(|p| &p.identities);
        let is_other = |o: &&SourceOutput| {
            let number = o.collection.0;
            before.and_then(|b| b.get(&number)).is_some_and(|id| self.identities.get(&number) != Some(id))
        };
        if let Some(other) = self.cx.outputs.iter().find(is_other) {
            // What happened to it meanwhile is not in the log for us.
            settled.copy = Some(format!("{} was made anew, or published anew", other.upstream));
        }
        Ok(settled)
    }

    async fn read(
        &mut self,
        stream: &mut ReplicationClient,
        client: &Client,
        copied: &snapshot::Copied,
    ) -> Result<End> {
        let mut looked = world::instant();
        // Whether the transaction at hand is to be passed over, being in the copy already.
        let mut skip = false;
        let mut in_transaction = false;
        let mut commit = Lsn::ZERO;
        loop {
            let event = match stream.recv().now_or_never() {
                Some(event) => Some(event),
                None => {
                    if !in_transaction {
                        self.flush(copied)?;
                    }
                    if self.cx.stop.is_set() {
                        return Ok(End::Stopped);
                    }
                    self.acknowledge(stream, None);
                    tokio::time::timeout(POLL, stream.recv()).await.ok()
                }
            };
            if !in_transaction && world::instant() - looked > LOOK {
                looked = world::instant();
                self.one_by_one = false;
                self.flush(copied)?;
                let Settled { grown, copy, .. } = self.look(client).await?;
                if grown || copy.is_some() {
                    return Ok(End::OtherColumns);
                }
            }
            let Some(event) = event else { continue };
            let Some(event) = event.map_err(|e| lost(&e))? else {
                return Err(Error::new(
                    SqlState::CONNECTION_FAILURE,
                    "the server ended the replication stream",
                ));
            };
            match event {
                ReplicationEvent::Begin { final_lsn, xid, .. } => {
                    commit = final_lsn;
                    skip = copied.has(xid, final_lsn);
                    in_transaction = true;
                }
                ReplicationEvent::XLogData { data, .. } => match pgoutput::decode(&data)? {
                    Message::Relation(relation) => {
                        if let Some(end) = self.described(relation, client).await? {
                            return Ok(end);
                        }
                    }
                    _ if skip => {}
                    message => self.message(message, commit)?,
                },
                ReplicationEvent::Commit { end_lsn, commit_time_micros, .. } => {
                    in_transaction = false;
                    self.waiting = Some((end_lsn, commit_time_micros));
                    if self.gathered.is_full() || self.one_by_one {
                        self.flush(copied)?;
                        self.acknowledge(stream, None);
                    }
                }
                ReplicationEvent::KeepAlive { wal_end, .. } => {
                    // With nothing under way all of the log up to here is of no concern to us:
                    // an idle database need not keep it.
                    let idle = !in_transaction && self.waiting.is_none();
                    self.acknowledge(stream, idle.then_some(wal_end));
                }
                ReplicationEvent::Message { .. } | ReplicationEvent::StoppedAt { .. } => {}
            }
            if self.cx.stop.is_set() && !in_transaction {
                self.flush(copied)?;
                return Ok(End::Stopped);
            }
        }
    }

    /// A relation looks so from now on. If that is news, the tables are looked at again.
    async fn described(&mut self, relation: Relation, client: &Client) -> Result<Option<End>> {
        let Some(place) = self.gathered.place_of(&relation.name) else {
            self.relations.insert(relation.id, None);
            return Ok(None);
        };
        let policy = self.cx.feed.on_schema_change();
        let is_known = |published: &[PublishedTable]| {
            published.iter().any(|t| t.upstream.name == relation.name && t.is_described_by(&relation))
        };
        if policy != OnSchemaChange::Ignore && !is_known(&self.published) {
            let Settled { grown, copy, .. } = self.look(client).await?;
            if grown || copy.is_some() {
                return Ok(Some(End::OtherColumns));
            }
        }
        let output = self.gathered.builders[place].output();
        let table = self.published.iter().find(|t| t.upstream.name == relation.name);
        if policy == OnSchemaChange::Pause
            && let Some(table) = table
        {
            // A description of before the change is of the columns here.
            let ours = output.schema.fields().iter().map(|f| f.name());
            if table.is_described_by(&relation) || !relation.columns.iter().eq(ours) {
                shapes::check_taken(output, &table.upstream.schema, policy)?;
            }
        }
        let places = shapes::places(output, relation.columns.iter().map(String::as_str), policy)?;
        self.relations.insert(relation.id, Some(Followed { builder: place, places }));
        Ok(None)
    }

    fn message(&mut self, message: Message<'_>, commit: Lsn) -> Result<()> {
        let at = |m: &str| format!("{m} lsn={}", commit.to_pg_string());
        let Gathered { builders, bad } = &mut self.gathered;
        match message {
            Message::Insert { relation, new } => {
                if let Some((builder, places)) = target(&self.relations, builders, relation)? {
                    bad.extend(builder.push(Effect::Put, &new, places, &at("insert"))?);
                }
            }
            Message::Update { relation, old, new } => {
                if let Some((builder, places)) = target(&self.relations, builders, relation)? {
                    let new = complete(new, old.as_ref());
                    match &old {
                        // By key: the old row goes only if it was under another key.
                        Some(Old::Key(old) | Old::Full(old)) if builder.keyed() => {
                            let moved = builder.output().key.iter().any(|k| {
                                let place = places[*k];
                                old.get(place) != new.get(place)
                            });
                            if moved {
                                // The row that has the large values is about to go.
                                if let Some(c) =
                                    places.iter().position(|p| new.get(*p) == Some(&Value::Unchanged))
                                {
                                    return Err(untold(builder.output(), c));
                                }
                                bad.extend(builder.push(Effect::Remove, old, places, &at("update"))?);
                            }
                        }
                        Some(Old::Full(old)) => {
                            bad.extend(builder.push(Effect::Remove, old, places, &at("update"))?);
                        }
                        None if builder.keyed() => {}
                        _ => return Err(no_identity(builder)),
                    }
                    bad.extend(builder.push(Effect::Put, &new, places, &at("update"))?);
                }
            }
            Message::Delete { relation, old } => {
                if let Some((builder, places)) = target(&self.relations, builders, relation)? {
                    match old {
                        Old::Full(old) => {
                            bad.extend(builder.push(Effect::Remove, &old, places, &at("delete"))?);
                        }
                        Old::Key(old) if builder.keyed() => {
                            bad.extend(builder.push(Effect::Remove, &old, places, &at("delete"))?);
                        }
                        Old::Key(_) => return Err(no_identity(builder)),
                    }
                }
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    if let Some((builder, _)) = target(&self.relations, builders, relation)? {
                        builder.truncate()?;
                    }
                }
            }
            Message::Relation(_) | Message::Other => {}
        }
        Ok(())
    }

    /// The position behind what was read so far.
    fn position_at(&self, lsn: u64, copied: snapshot::Copied) -> Position {
        let tables = self.cx.outputs.iter().map(|o| o.collection.0).collect();
        Position { lsn, copied, tables, noted: self.noted.clone(), identities: self.identities.clone() }
    }

    /// Hands over what was gathered.
    fn flush(&mut self, copied: &snapshot::Copied) -> Result<()> {
        let Some((end, time)) = self.waiting.take() else { return Ok(()) };
        let position = self.position_at(end.as_u64(), copied.clone());
        self.hand_over(position, Some(time + POSTGRES_EPOCH_MICROS))
    }

    fn hand_over(&mut self, position: Position, event_time_micros: Option<i64>) -> Result<()> {
        // If only tables that are not ours were changed, there is nothing to remember but the place.
        if !self.gathered.is_empty() {
            self.gathered.hand_over(&self.cx, Some(encoded(&position)?), event_time_micros)?;
            self.submitted_lsn = position.lsn;
        }
        self.position = Some(position);
        Ok(())
    }

    fn durable_lsn(&self) -> Option<u64> {
        let bytes = self.cx.feed.durable_position()?;
        serde_json::from_slice::<Position>(&bytes).ok().map(|p| p.lsn)
    }

    /// Tells the server what it may forget: what is durable here, or, when we have all of it, `idle_at`.
    fn acknowledge(&mut self, stream: &ReplicationClient, idle_at: Option<Lsn>) {
        let Some(durable) = self.durable_lsn() else { return };
        let safe = match idle_at {
            Some(at) if durable >= self.submitted_lsn => at.as_u64().max(durable),
            _ => durable,
        };
        if safe > self.acknowledged {
            self.acknowledged = safe;
            stream.update_applied_lsn(Lsn(safe));
        }
    }
}

type Target<'a> = Option<(&'a mut RowBuilder, &'a [usize])>;

fn target<'a>(
    relations: &'a HashMap<u32, Option<Followed>>,
    builders: &'a mut [RowBuilder],
    relation: u32,
) -> Result<Target<'a>> {
    match relations.get(&relation) {
        Some(Some(f)) => Ok(Some((&mut builders[f.builder], &f.places))),
        Some(None) => Ok(None),
        None => Err(Error::new(
            SqlState::PROTOCOL_VIOLATION,
            format!("the replication stream speaks of relation {relation} before describing it"),
        )),
    }
}

/// A new row whose unchanged large values are taken from the whole old row, where there is one.
fn complete<'a>(new: Tuple<'a>, old: Option<&Old<'a>>) -> Tuple<'a> {
    let Some(Old::Full(old)) = old else { return new };
    new.into_iter()
        .enumerate()
        .map(|(i, v)| if v == Value::Unchanged { old.get(i).copied().unwrap_or(v) } else { v })
        .collect()
}

fn no_identity(builder: &RowBuilder) -> Error {
    let table = &builder.output().upstream;
    Error::new(
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{table} has no key here, and its updates and deletes do not tell whole old rows"),
    )
    .with_hint(format!("Upstream: ALTER TABLE {table} REPLICA IDENTITY FULL;"))
}

fn encoded(position: &Position) -> Result<Vec<u8>> {
    serde_json::to_vec(position).map_err(|e| Error::internal(e.to_string()))
}

fn lost(e: &pgwire_replication::PgWireError) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, format!("replication: {e}"))
}
