//! The source: the first copy, then transaction after transaction from the slot.
//!
//! Whole transactions are gathered until the stream pauses or a batch is full, and handed over with the place of the
//! last commit. The server is told to forget only what the engine has on disk. When the connection drops, the
//! source goes on from the last transaction that it handed over.

use std::time::Duration;

use futures::FutureExt;
use hashbrown::HashMap;
use pgwire_replication::{Lsn, ReplicationClient, ReplicationEvent};

use super::pgoutput::{self, Message, Old, Relation};
use super::settings::{SourceSettings, check_wal_level, runtime};
use super::snapshot::{self, Position, Slot};
use super::tables;
use crate::connectors::replicated::{Effect, RowBuilder, Tuple, Value, untold};
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Rows after which gathered transactions are handed over although more are waiting.
const BATCH_ROWS: usize = 32_768;
/// How often the stop flag and the durable position are looked at while nothing comes.
const POLL: Duration = Duration::from_millis(100);
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
        let builders = cx.outputs.iter().cloned().map(RowBuilder::new).collect::<Result<Vec<_>>>()?;
        let mut follower = Follower {
            settings: self.settings,
            position,
            builders,
            relations: HashMap::new(),
            bad: Vec::new(),
            waiting: None,
            submitted_lsn: 0,
            acknowledged: 0,
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
    builders: Vec<RowBuilder>,
    /// By the session's relation numbers; `None`: not one of our outputs.
    relations: HashMap<u32, Option<Followed>>,
    bad: Vec<BadRecord>,
    /// End of the last gathered commit that was not handed over, and its time.
    waiting: Option<(Lsn, i64)>,
    /// Where the last batch ends that the engine was given by this run.
    submitted_lsn: u64,
    /// The newest log position that the server was told to be safe.
    acknowledged: u64,
    cx: SourceContext,
}

impl Follower {
    async fn run(&mut self) -> Result<()> {
        let mut pause = RECONNECT_MIN;
        while !self.cx.stop.is_set() {
            let before = self.position.clone();
            match self.follow().await {
                Ok(()) => return Ok(()),
                Err(e) if e.sqlstate != SqlState::CONNECTION_FAILURE => return Err(e),
                Err(e) => {
                    tracing::warn!(source = %self.cx.name, error = %e, "postgres source lost its server, trying again");
                    self.cx.status.update(|s| {
                        s.state = "stalled";
                        s.error = Some(e.to_string());
                    });
                }
            }
            // Half a transaction, and what was gathered but not handed over, comes again.
            for builder in &mut self.builders {
                builder.take()?;
            }
            self.bad.clear();
            self.waiting = None;
            self.relations.clear();
            pause = if self.position == before { (pause * 2).min(RECONNECT_MAX) } else { RECONNECT_MIN };
            let until = world::instant() + pause.mul_f64(0.5 + world::jitter() / 2.0);
            while world::instant() < until && !self.cx.stop.is_set() {
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// One connection's life. `Ok`: told to stop.
    async fn follow(&mut self) -> Result<()> {
        let mut client = self.settings.server.connect().await?;
        check_wal_level(&client).await?;
        let published = tables::of_publication(&client, &self.settings.publication).await?;
        self.check_outputs(&published)?;
        let slot = snapshot::slot(&client, &self.settings.slot).await?;
        let copied = |p: &Position| self.cx.outputs.iter().all(|o| p.tables.contains(&o.collection.0));
        if slot == Slot::Missing || !self.position.as_ref().is_some_and(copied) {
            if self.position.is_some() && slot == Slot::Missing {
                tracing::warn!(source = %self.cx.name, slot = %self.settings.slot,
                    "the replication slot is gone upstream: the tables are copied again");
            }
            self.cx.status.update(|s| s.state = "snapshot");
            let position = snapshot::copy(
                &mut client,
                &self.settings.slot,
                &published,
                &mut self.builders,
                &mut self.bad,
                &self.cx.stop,
            )
            .await?;
            world::crash_point("postgres.copied");
            self.hand_over(position, None)?;
        }
        drop(client);
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
        let followed = self.read(&mut stream, &position.copied).await;
        if followed.is_ok() {
            self.acknowledge(&stream, None);
            if let Err(e) = stream.shutdown().await {
                tracing::debug!(error = %e, "ending the replication session");
            }
        }
        followed
    }

    async fn read(&mut self, stream: &mut ReplicationClient, copied: &snapshot::Copied) -> Result<()> {
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
                        return Ok(());
                    }
                    self.acknowledge(stream, None);
                    tokio::time::timeout(POLL, stream.recv()).await.ok()
                }
            };
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
                ReplicationEvent::XLogData { data, .. } => self.message(&data, skip, commit)?,
                ReplicationEvent::Commit { end_lsn, commit_time_micros, .. } => {
                    in_transaction = false;
                    self.waiting = Some((end_lsn, commit_time_micros));
                    if self.builders.iter().map(RowBuilder::pending).sum::<usize>() >= BATCH_ROWS {
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
                return self.flush(copied);
            }
        }
    }

    fn message(&mut self, data: &[u8], skip: bool, commit: Lsn) -> Result<()> {
        let at = |m: &str| format!("{m} lsn={}", commit.to_pg_string());
        match pgoutput::decode(data)? {
            Message::Relation(relation) => {
                let followed = self.followed(&relation)?;
                self.relations.insert(relation.id, followed);
            }
            _ if skip => {}
            Message::Insert { relation, new } => {
                if let Some((builder, places)) = target(&self.relations, &mut self.builders, relation)? {
                    self.bad.extend(builder.push(Effect::Put, &new, places, &at("insert"))?);
                }
            }
            Message::Update { relation, old, new } => {
                if let Some((builder, places)) = target(&self.relations, &mut self.builders, relation)? {
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
                                self.bad.extend(builder.push(Effect::Remove, old, places, &at("update"))?);
                            }
                        }
                        Some(Old::Full(old)) => {
                            self.bad.extend(builder.push(Effect::Remove, old, places, &at("update"))?);
                        }
                        None if builder.keyed() => {}
                        _ => return Err(no_identity(builder)),
                    }
                    self.bad.extend(builder.push(Effect::Put, &new, places, &at("update"))?);
                }
            }
            Message::Delete { relation, old } => {
                if let Some((builder, places)) = target(&self.relations, &mut self.builders, relation)? {
                    match old {
                        Old::Full(old) => {
                            self.bad.extend(builder.push(Effect::Remove, &old, places, &at("delete"))?);
                        }
                        Old::Key(old) if builder.keyed() => {
                            self.bad.extend(builder.push(Effect::Remove, &old, places, &at("delete"))?);
                        }
                        Old::Key(_) => return Err(no_identity(builder)),
                    }
                }
            }
            Message::Truncate { relations } => {
                for relation in relations {
                    if let Some((builder, _)) = target(&self.relations, &mut self.builders, relation)? {
                        builder.truncate()?;
                    }
                }
            }
            Message::Other => {}
        }
        Ok(())
    }

    /// Every output must still be published, with all its columns.
    fn check_outputs(&self, published: &[tables::PublishedTable]) -> Result<()> {
        for builder in &self.builders {
            let output = builder.output();
            let Some(table) = published.iter().find(|t| t.name() == output.upstream) else {
                return Err(Error::new(
                    SqlState::UNDEFINED_TABLE,
                    format!(
                        "table {} is no longer in publication \"{}\"",
                        output.upstream, self.settings.publication
                    ),
                )
                .with_hint("Add it to the publication again, or drop the table here."));
            };
            let columns: Vec<&str> = table.schema.fields().iter().map(|f| f.name().as_str()).collect();
            check_columns(output, |name| columns.iter().position(|c| *c == name))?;
        }
        Ok(())
    }

    fn followed(&self, relation: &Relation) -> Result<Option<Followed>> {
        let Some(builder) = self.builders.iter().position(|b| b.output().upstream == relation.name) else {
            return Ok(None);
        };
        let places = check_columns(self.builders[builder].output(), |name| {
            relation.columns.iter().position(|c| c == name)
        })?;
        Ok(Some(Followed { builder, places }))
    }

    /// Hands over what was gathered.
    fn flush(&mut self, copied: &snapshot::Copied) -> Result<()> {
        let Some((end, time)) = self.waiting.take() else { return Ok(()) };
        let tables = self.cx.outputs.iter().map(|o| o.collection.0).collect();
        let position = Position { lsn: end.as_u64(), copied: copied.clone(), tables };
        self.hand_over(position, Some(time + POSTGRES_EPOCH_MICROS))
    }

    fn hand_over(&mut self, position: Position, event_time_micros: Option<i64>) -> Result<()> {
        let mut batch = SourceBatch { bad: std::mem::take(&mut self.bad), ..SourceBatch::default() };
        let mut rows = 0;
        for builder in &mut self.builders {
            let collection = builder.output().collection;
            for change in builder.take()? {
                rows += change.rows().map_or(0, |r| r.num_rows());
                batch.changes.push((collection, change));
            }
        }
        if batch.changes.is_empty() && batch.bad.is_empty() {
            // Only tables that are not ours were changed: nothing to remember but the place.
            self.position = Some(position);
            return Ok(());
        }
        let bad = batch.bad.len() as u64;
        batch.position = Some(serde_json::to_vec(&position).map_err(|e| Error::internal(e.to_string()))?);
        self.cx.feed.submit_nowait(batch)?;
        self.submitted_lsn = position.lsn;
        self.position = Some(position);
        self.cx.status.update(|s| {
            s.rows += rows as u64;
            s.bad_records += bad;
            s.event_time_micros = event_time_micros.or(s.event_time_micros);
        });
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

/// Where each column of an output stands upstream.
fn check_columns(
    output: &crate::connectors::SourceOutput,
    place: impl Fn(&str) -> Option<usize>,
) -> Result<Vec<usize>> {
    output
        .schema
        .fields()
        .iter()
        .map(|f| {
            place(f.name()).ok_or_else(|| {
                Error::new(
                    SqlState::UNDEFINED_COLUMN,
                    format!("column \"{}\" of {} is gone upstream", f.name(), output.upstream),
                )
                .with_hint("Add it again upstream, or drop the table here and create it anew.")
            })
        })
        .collect()
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

fn lost(e: &pgwire_replication::PgWireError) -> Error {
    Error::new(SqlState::CONNECTION_FAILURE, format!("replication: {e}"))
}
