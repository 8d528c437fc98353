//! The sources and sinks that are at work in an open database.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::connectors::webhook::{self, mailbox::Mailbox};
use crate::connectors::{
    Checks, MEMORY_COMMITTED, SinkCommit, SinkContext, SourceContext, Status, StatusValues, Whole, registry,
};
use crate::database::store::Store;
use crate::database::supervise::{EngineFeed, Followed, Worker, refused};
use crate::database::webhook::{Webhook, check};
use crate::database::{Database, connect};
use crate::engine::Engine;
use crate::error::{Error, Result, SqlState};
use crate::sql::catalog::{Catalog, Entry, Object, ObjectId};
use crate::world;

/// How long a connector may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Everything at work, by its object.
#[derive(Default)]
pub(crate) struct Workers(Mutex<HashMap<ObjectId, AtWork>>);

struct AtWork {
    status: Arc<Status>,
    /// `None`: paused.
    worker: Option<Worker>,
    /// A sink's subscription, over all its attempts.
    followed: Option<Arc<Followed>>,
    /// Where a sink at work is asked to compare its target.
    checks: Option<Arc<Checks>>,
    /// Where requests to a webhook go.
    webhook: Option<Arc<Webhook>>,
}

/// What a source's position is stored under.
pub(crate) fn progress_key(source: ObjectId) -> String {
    format!("source/{}", source.0)
}

/// What a sink's claim on the journal is called.
pub(crate) fn hold_key(sink: ObjectId) -> String {
    format!("sink/{}", sink.0)
}

impl Workers {
    /// How an object's connector is doing; `None`: it was never started.
    pub fn status(&self, id: ObjectId) -> Option<StatusValues> {
        self.0.lock().get(&id).map(|w| w.status.get())
    }

    /// A sink's newest commits, oldest first.
    pub fn commits(&self, id: ObjectId) -> Vec<Arc<SinkCommit>> {
        let status = self.0.lock().get(&id).map(|w| Arc::clone(&w.status));
        status.map_or_else(Vec::new, |s| s.commits())
    }

    /// Sets a source to work, anew if it is at work already.
    pub fn start_source(&self, database: &Weak<Database>, catalog: &Catalog, entry: &Entry) -> Result<()> {
        let Object::Source(source) = &entry.object else {
            return Err(Error::internal("what is started as a source is none"));
        };
        self.stop(entry.id)?;
        let status = self.status_of(entry.id);
        if source.paused {
            status.update(|s| s.state = "paused");
            return Ok(());
        }
        if connect::outputs(catalog, entry).is_empty() {
            status.update(|s| s.state = "idle");
            return Ok(());
        }
        let name = catalog.full_name(entry);
        let definition = connect::source_definition(catalog, &name, source)?;
        let schema = entry.schema().unwrap_or_else(|| Arc::new(arrow::datatypes::Schema::empty()));
        let (database, id, progress) = (Weak::clone(database), entry.id, progress_key(entry.id));
        let door = match definition.kind.as_str() {
            "webhook" => {
                let mailbox = Mailbox::new(webhook::limits(&definition)?);
                Some(Webhook::new(&name, mailbox, check(catalog, source)?))
            }
            _ => None,
        };
        if let Some(at_work) = self.0.lock().get_mut(&entry.id) {
            at_work.webhook.clone_from(&door);
        }
        let (source, entry_at_work) = (source.clone(), entry.clone());
        let state = Arc::clone(&status);
        let worker = Worker::start(&name.clone(), status, move |stop| {
            let (feed, outputs, resume) = {
                let closed = || Error::new(SqlState::ADMIN_SHUTDOWN, "the database is closed");
                let database = database.upgrade().ok_or_else(closed)?;
                let (progress, name, stop) = (progress.clone(), name.clone(), stop.clone());
                let resume = database.engine.resume_source(&progress)?;
                let feed = EngineFeed::new(&database, progress, id, &source, name, stop);
                // Tables may have got columns since the last attempt.
                (feed, connect::outputs(&database.catalog(), &entry_at_work), resume)
            };
            let context = SourceContext {
                name: name.clone(),
                outputs,
                resume,
                feed,
                status: Arc::clone(&state),
                stop: stop.clone(),
            };
            let source = match &door {
                Some(door) => webhook::source_of(&definition, &schema, door.mailbox())?,
                None => registry::source(&definition, &schema)?,
            };
            source.run(context)
        })?;
        if let Some(entry) = self.0.lock().get_mut(&entry.id) {
            entry.worker = Some(worker);
        }
        Ok(())
    }

    /// Sets a sink to work on what it follows.
    pub fn start_sink(
        &self,
        engine: &Engine,
        store: &Arc<Store>,
        catalog: &Catalog,
        entry: &Entry,
        followed: Arc<Followed>,
    ) -> Result<()> {
        let Object::Sink(sink) = &entry.object else {
            return Err(Error::internal("what is started as a sink is none"));
        };
        self.stop(entry.id)?;
        let status = self.status_of(entry.id);
        if let Some(entry) = self.0.lock().get_mut(&entry.id) {
            entry.followed = Some(Arc::clone(&followed));
        }
        status.keep_commits_in(store.commits(entry.id.0))?;
        if sink.paused {
            status.update(|s| s.state = "paused");
            return Ok(());
        }
        let name = catalog.full_name(entry);
        let definition = connect::sink_definition(catalog, &name, sink)?;
        let (_, schema) = connect::followed_schema(catalog, sink)?;
        let key = connect::sink_key(sink, &schema)?;
        let (uuid, memory) = (sink.uuid.0, store.memory(entry.id.0));
        let refused = refused(engine.clone(), name.clone());
        let state = Arc::clone(&status);
        let checks = Arc::new(Checks::new(whole(engine, sink.from)));
        let asked = Arc::clone(&checks);
        let worker = Worker::start(&name.clone(), status, move |stop| {
            if memory.get(MEMORY_COMMITTED)?.is_some_and(|tick| tick.is_empty()) {
                followed.begin_again()?;
            }
            let release = Arc::clone(&followed);
            let context = SinkContext {
                name: name.clone(),
                uuid,
                schema: Arc::clone(&schema),
                key: key.clone(),
                append_only: definition.append_only,
                changes: followed.attempt(),
                memory: Arc::clone(&memory),
                release: Arc::new(move |tick| release.release(tick)),
                status: Arc::clone(&state),
                checks: Arc::clone(&asked),
                refused: Arc::clone(&refused),
                stop: stop.clone(),
            };
            registry::sink(&definition, &schema, &key)?.run(context)
        })?;
        if let Some(entry) = self.0.lock().get_mut(&entry.id) {
            entry.worker = Some(worker);
            entry.checks = Some(checks);
        }
        Ok(())
    }

    /// Where requests to a webhook go; `None`: it was never started.
    pub fn webhook(&self, id: ObjectId) -> Option<Arc<Webhook>> {
        self.0.lock().get(&id)?.webhook.clone()
    }

    /// Where a sink that is at work is asked to compare its target.
    pub fn checks(&self, id: ObjectId) -> Option<Arc<Checks>> {
        let workers = self.0.lock();
        let sink = workers.get(&id)?;
        sink.worker.as_ref().and(sink.checks.clone())
    }

    /// What a sink that was started follows.
    pub fn followed(&self, id: ObjectId) -> Option<Arc<Followed>> {
        self.0.lock().get(&id)?.followed.clone()
    }

    /// Stops a connector and waits for its thread: none of its batches is on the way when this returns.
    ///
    /// # Errors
    /// 55006 when it does not stop: a second one beside it would tell everything twice.
    pub fn stop(&self, id: ObjectId) -> Result<()> {
        let Some(mut worker) = self.0.lock().get_mut(&id).and_then(|e| e.worker.take()) else {
            return Ok(());
        };
        if worker.join(world::instant() + STOP_TIMEOUT) {
            return Ok(());
        }
        let error = Error::new(
            SqlState::OBJECT_IN_USE,
            format!("connector \"{}\" has not stopped within {} s", worker.name(), STOP_TIMEOUT.as_secs()),
        );
        if let Some(entry) = self.0.lock().get_mut(&id) {
            entry.worker = Some(worker);
        }
        Err(error)
    }

    /// Notes why an object is not at work.
    pub fn fail(&self, id: ObjectId, error: &Error) {
        self.status_of(id).update(|s| {
            s.state = "failed";
            s.error = Some(error.to_string());
        });
    }

    /// Forgets a connector, which is told to stop.
    pub fn remove(&self, id: ObjectId) {
        if let Some(followed) = self.0.lock().remove(&id).and_then(|e| e.followed) {
            followed.end();
        }
    }

    /// Stops everything, all at once, waiting at most until `deadline`.
    pub fn stop_all(&self, deadline: Instant) {
        let mut workers: Vec<Worker> = self.0.lock().values_mut().filter_map(|e| e.worker.take()).collect();
        workers.iter().for_each(Worker::ask_to_stop);
        for worker in &mut workers {
            worker.join(deadline);
        }
    }

    fn status_of(&self, id: ObjectId) -> Arc<Status> {
        let mut workers = self.0.lock();
        let entry = workers.entry(id).or_insert_with(|| AtWork {
            status: Arc::new(Status::default()),
            worker: None,
            followed: None,
            checks: None,
            webhook: None,
        });
        Arc::clone(&entry.status)
    }
}

/// How all rows of a collection are had, as they are when they are asked for.
fn whole(engine: &Engine, from: ObjectId) -> impl Fn() -> Result<Whole> + Send + Sync + 'static {
    let (engine, from) = (engine.clone(), from.collection());
    move || {
        let snapshot = engine.snapshot();
        let gone = || Error::internal("what a sink follows is not in the snapshot");
        let collection = snapshot.collection(from).ok_or_else(gone)?;
        if !collection.keeps_rows() {
            return Err(Error::unsupported("VERIFY of a sink that follows a relation which keeps no rows"));
        }
        Ok(Whole { tick: snapshot.tick, rows: collection.batches()? })
    }
}

impl Database {
    /// Sets a source to work; what stands in its way is shown as its status.
    pub(crate) fn start_source(&self, entry: &Entry) {
        if let Err(error) = self.workers.start_source(&self.me, &self.catalog(), entry) {
            tracing::error!(source = entry.name, %error, "cannot start");
            self.workers.fail(entry.id, &error);
        }
    }

    /// Sets a sink to work on what it follows; what stands in its way is shown as its status.
    pub(crate) fn start_sink(&self, entry: &Entry, followed: Arc<Followed>) {
        let started = self.workers.start_sink(&self.engine, &self.store, &self.catalog(), entry, followed);
        if let Err(error) = started {
            tracing::error!(sink = entry.name, %error, "cannot start");
            self.workers.fail(entry.id, &error);
        }
    }
}
