//! Opening a data directory: everything that was there comes back to life, in an order that leaves no gap.
//!
//! Lock, metadata store, catalog, engine; then the collections in order of dependence; then the sinks' claims on
//! history, before the journal is replayed; then the replay; then sources and sinks go to work.
//! What a crash has left behind between two steps of a statement is swept on the way.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::config::Config;
use crate::connectors::{MEMORY_COMMITTED, MEMORY_INTENT};
use crate::database::objects::former::{self, When};
use crate::database::objects::leavings;
use crate::database::queries::Queries;
use crate::database::store::{CatalogBatch, FIRST_ID, Store, decode_u64};
use crate::database::supervise::Followed;
use crate::database::system;
use crate::database::workers::{Workers, hold_key};
use crate::database::writer::Writer;
use crate::database::{Database, objects, retention};
use crate::engine::durable::lock::lock_directory;
use crate::engine::{Engine, EngineConfig, InputSpec, SubscribeFrom, Tick};
use crate::error::{Error, Result, SqlState};
use crate::memory;
use crate::sql::catalog::{Entry, Object};
use crate::sql::{Catalog, ObjectId};
use crate::world::{self, Clock};

/// See [`Database::open`].
pub(crate) fn open(config: &Config, clock: Clock) -> Result<Arc<Database>> {
    let dir = &config.data_dir;
    make_private(dir)?;
    let lock = lock_directory(dir)?;
    memory::keep_to(config.memory_limit, &dir.join("spill"))?;
    let store = Arc::new(Store::open(&dir.join("meta"))?);
    let catalog = load(&store)?;
    let spill_dir = dir.join("backlog");
    make_empty(&spill_dir)?;
    let engine = Engine::open(EngineConfig {
        dir: Some(dir.join("journal")),
        spill_dir: Some(spill_dir),
        subscription_bytes_max: config.sink_memory,
        tick_rows_max: config.tick_rows,
        workers: config.workers,
        checkpoint_bytes_min: config.checkpoint_bytes,
        clock,
        ..EngineConfig::default()
    })?;
    check_whole(config, &store, &engine)?;
    engine.create_input(system::errors_input())?;
    engine.create_input(system::files_input())?;
    let failed = create_collections(&engine, &catalog, &store)?;
    let queries = Queries::new()?;
    let database = Arc::new_cyclic(|me| Database {
        me: me.clone(),
        config: config.clone(),
        queries,
        writer: Writer::new(engine.clone()),
        store,
        engine,
        catalog: ArcSwap::from_pointee(catalog),
        changing: Mutex::new(()),
        workers: Workers::default(),
        failed: Mutex::new(failed),
        hydrating: Mutex::default(),
        subscriptions: Arc::default(),
        errors: Arc::default(),
        opened_at: world::instant(),
        _lock: lock,
    });
    let mut stops = Vec::new();
    let resumed = follow_committed(&database, &mut stops)?;
    stops.sort_unstable();
    stops.dedup();
    let report = database.engine.replay(&stops)?;
    if report.torn_bytes > 0 {
        tracing::warn!(
            bytes = report.torn_bytes,
            "the journal's torn end was cut off: a write that nobody was told of"
        );
    }
    tracing::info!(
        tick = report.tick,
        checkpoint = report.checkpoint_tick,
        nodes_restored = report.nodes_restored,
        rows_replayed = report.rows,
        took = ?report.elapsed,
        "the database is as it was"
    );
    database.declare_indexes(&database.catalog());
    set_to_work(&database, resumed);
    leavings::sweep(&database);
    retention::start(&database)?;
    Ok(database)
}

/// Refuses a catalog without its journal, and a journal without its catalog: somebody or something has removed one.
fn check_whole(config: &Config, store: &Store, engine: &Engine) -> Result<()> {
    let (dir, ends, noted) = (config.data_dir.display(), engine.recorded(), store.recorded()?);
    let lost = if store.is_new() && ends > 0 {
        format!("{dir}/meta is empty, and {dir}/journal has rows of a database that it does not tell of")
    } else if ends < noted {
        format!("{dir}/journal ends at tick {ends}, and tick {noted} was acknowledged: some of it is gone")
    } else {
        return Ok(());
    };
    if config.accept_loss {
        tracing::error!(lost, "started with what is left");
        return store.note_recorded(ends);
    }
    Err(Error::new(SqlState::DATA_CORRUPTED, lost).with_hint(
        "Bring the directory back from a copy. To go on with what is left, start with --set accept_loss=on.",
    ))
}

/// Makes the directory if need be, readable by its owner only: it holds secrets.
fn make_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let at = |e: std::io::Error| {
        let mut error = Error::from(e);
        error.message = format!("cannot use data directory {}: {}", dir.display(), error.message);
        error
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(at)?;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)).map_err(at)
}

/// Makes a directory, or empties it: what is in it belongs to a process that is gone.
fn make_empty(dir: &Path) -> Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => make_private(dir),
    }
}

/// The catalog as stored, after the drops that a crash has cut short.
fn load(store: &Arc<Store>) -> Result<Catalog> {
    let mut batch = CatalogBatch::default();
    let mut gone = Vec::new();
    for (id, _) in store.leavings()? {
        batch.remove(id);
        gone.push(id);
    }
    let mut entries = Vec::new();
    for (id, json) in store.objects()? {
        if gone.contains(&id) {
            continue;
        }
        let entry: Entry = serde_json::from_slice(&json).map_err(|e| {
            Error::new(SqlState::DATA_CORRUPTED, format!("object {id} of the catalog cannot be read: {e}"))
        })?;
        entries.push(entry);
    }
    let mut catalog = Catalog::from_entries(entries, FIRST_ID)?;
    former::forget(&mut catalog, &mut batch, store, When::Opening)?;
    store.commit(batch)?;
    store.sweep(|owner| catalog.get(ObjectId(owner)).is_some())?;
    Ok(catalog)
}

/// Gives the engine every collection, what is read before what reads it. A view that cannot be built is noted;
/// the rest goes on without it.
fn create_collections(engine: &Engine, catalog: &Catalog, store: &Store) -> Result<HashMap<ObjectId, Error>> {
    let (mut failed, mut replaced) = (HashMap::new(), Vec::new());
    for entry in in_order(catalog) {
        match &entry.object {
            Object::MaterializedView(view) => {
                let built = former::versions(catalog, store, &entry, view).and_then(|versions| {
                    match versions.then.is_empty() {
                        true => engine.create_view(versions.first)?,
                        false => engine.create_former_view(versions.first)?,
                    }
                    Ok(versions.then)
                });
                match built {
                    Ok(then) => replaced.extend(then.into_iter().map(|(tick, spec)| (tick, entry.id, spec))),
                    Err(error) => {
                        tracing::error!(view = entry.name, %error, "cannot be built");
                        failed.insert(entry.id, error);
                    }
                }
            }
            Object::Table(_) | Object::Source(_) => {
                if let Some(spec) = input(&entry) {
                    engine.create_input(spec)?;
                }
            }
            _ => {}
        }
    }
    for (tick, id, spec) in replaced {
        engine.replace_view_at(tick, id.collection(), spec)?;
    }
    Ok(failed)
}

/// The engine's input for a table or a source with columns of its own.
pub(crate) fn input(entry: &Entry) -> Option<InputSpec> {
    let retain = match &entry.object {
        Object::Table(_) => true,
        Object::Source(source) => source.retain,
        _ => return None,
    };
    let schema = entry.schema().filter(|s| !s.fields().is_empty())?;
    Some(InputSpec {
        id: entry.id.collection(),
        name: entry.name.clone(),
        schema,
        key: entry.key().to_vec(),
        retain,
        watermark: entry.watermark().map(crate::sql::catalog::Watermark::engine),
    })
}

/// All objects, each after those it uses.
fn in_order(catalog: &Catalog) -> Vec<Arc<Entry>> {
    let mut ordered: Vec<Arc<Entry>> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    // Depth first without recursion: a chain of views may be long.
    let mut stack: Vec<(Arc<Entry>, bool)> = catalog.entries().map(|e| (Arc::clone(e), false)).collect();
    stack.reverse();
    while let Some((entry, ready)) = stack.pop() {
        if ready {
            ordered.push(entry);
        } else if seen.insert(entry.id) {
            let uses: Vec<_> = entry.uses.iter().filter_map(|id| catalog.get(*id).cloned()).collect();
            stack.push((entry, true));
            stack.extend(uses.into_iter().map(|e| (e, false)));
        }
    }
    ordered
}

/// A sink, and what it follows when it goes on from a tick it knows of.
type Resumed = (Arc<Entry>, Option<Arc<Followed>>);

/// Subscribes every sink that has committed, or was about to, to what comes after; before the replay, which stops
/// exactly at those ticks.
fn follow_committed(database: &Arc<Database>, stops: &mut Vec<Tick>) -> Result<Vec<Resumed>> {
    let catalog = database.catalog();
    let mut sinks = Vec::new();
    for entry in catalog.entries() {
        let Object::Sink(sink) = &entry.object else { continue };
        let memory = database.store.memory(entry.id.0);
        let tick =
            |name: &str| -> Result<Option<Tick>> { Ok(memory.get(name)?.as_deref().and_then(decode_u64)) };
        let (committed, intent) = (tick(MEMORY_COMMITTED)?, tick(MEMORY_INTENT)?);
        stops.extend(committed.into_iter().chain(intent));
        let from = match (committed, intent) {
            (Some(tick), _) => tick,
            // The first commit may have happened or not: from the empty relation on, both can be gone on from.
            (None, Some(_)) => 0,
            (None, None) => {
                sinks.push((Arc::clone(entry), None));
                continue;
            }
        };
        let subscription = database.engine.subscribe_kept(sink.from.collection(), SubscribeFrom::After(from));
        match subscription {
            Ok(s) => {
                let followed =
                    Followed::new(database.engine.clone(), sink.from.collection(), s, hold_key(entry.id));
                sinks.push((Arc::clone(entry), Some(followed)));
            }
            // What it follows could not be built.
            Err(error) => database.workers.fail(entry.id, &error),
        }
    }
    Ok(sinks)
}

fn set_to_work(database: &Arc<Database>, sinks: Vec<Resumed>) {
    for (entry, followed) in sinks {
        let followed = match followed {
            Some(followed) => Ok(followed),
            None => objects::sink::follow(database, &entry),
        };
        match followed {
            Ok(followed) => database.start_sink(&entry, followed),
            Err(error) => database.workers.fail(entry.id, &error),
        }
    }
    for entry in database.catalog().entries().filter(|e| matches!(e.object, Object::Source(_))) {
        database.start_source(entry);
    }
}
