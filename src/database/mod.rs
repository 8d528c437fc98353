//! The one place where language, edges and engine meet: a data directory that is open.
//!
//! * [`Session`] is the door: statements in, [`Outcome`]s out;
//! * `open` brings a directory to life, `objects` changes what is in it, `supervise` keeps sources and sinks at work;
//! * `writer` and `write_set` turn statements' writes into ticks, `system` shows all of it as relations.

mod cancel;
mod connect;
mod copy;
mod files;
mod notice;
mod objects;
mod open;
mod outcome;
pub mod pg_catalog;
mod queries;
mod retention;
mod session;
mod settings;
mod statements;
mod store;
mod supervise;
mod system;
mod transaction;
pub mod webhook;
mod workers;
mod write_set;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use cancel::CancelHandle;
pub use copy::{CopyFormat, CopyIn, CopyKind};
pub use notice::{Notice, Severity};
pub use outcome::Outcome;
pub use session::{Prepared, Session, SessionOptions, TransactionStatus};
pub use settings::SERVER_VERSION;

use crate::config::Config;
use crate::engine::{Engine, Hydration, Tick};
use crate::error::{Error, Result};
use crate::sql::{Catalog, ObjectId};
use crate::world::{self, Clock};
use queries::Queries;
use store::Store;
use system::Subscriptions;
use workers::Workers;
use writer::Writer;

/// An open data directory: its objects, its engine, its sources and sinks at work.
pub struct Database {
    /// Itself, for what outlives a call.
    me: Weak<Database>,
    config: Config,
    store: Arc<Store>,
    engine: Engine,
    catalog: ArcSwap<Catalog>,
    /// Held while the catalog is changed.
    changing: Mutex<()>,
    queries: Queries,
    writer: Writer,
    workers: Workers,
    /// Views that could not be built when the directory was opened, and why.
    failed: Mutex<HashMap<ObjectId, Error>>,
    /// Views that are being filled, by the identity that they have or will have.
    hydrating: Mutex<HashMap<ObjectId, Hydrating>>,
    subscriptions: Arc<Subscriptions>,
    /// Held while rows are taken out of `tidemill.errors`.
    errors: Arc<Mutex<()>>,
    /// When it was opened, for rates.
    opened_at: std::time::Instant,
    /// Held for as long as the directory is open: a second server finds it locked.
    _lock: std::fs::File,
}

/// A view that is being filled.
#[derive(Clone)]
struct Hydrating {
    name: String,
    query: String,
    hydration: Arc<Hydration>,
}

impl Database {
    /// Opens the data directory that `config` names, makes it if it is new, and sets sources and sinks to work.
    ///
    /// # Errors
    /// 55006 when another process has it open; 58030 and XX001 when it cannot be read.
    pub fn open(config: &Config) -> Result<Arc<Database>> {
        Self::open_with_clock(config, Clock::default())
    }

    /// As [`open`](Self::open), with what `now()` in queries and views goes by.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with_clock(config: &Config, clock: Clock) -> Result<Arc<Database>> {
        open::open(config, clock)
    }

    /// Has views do what the clock makes due, as they do by themselves a moment later, and waits for it. Blocks.
    ///
    /// # Errors
    /// The tick could not be journalled.
    pub fn pass_time(&self) -> Result<Tick> {
        self.engine.pass_time()
    }

    /// A session of its own: transaction, settings, prepared statements and cursors.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Session {
        Session::new(Arc::clone(self), options)
    }

    /// What there is now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalog.load_full()
    }

    /// The engine, for those who read numbers of it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the database was opened with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Stops sources and sinks, finishes the tick in hand and makes everything durable. Sessions fail afterwards.
    /// Blocks for up to `drain_timeout_ms` and a little more.
    pub fn shutdown(&self) {
        self.workers.stop_all(world::instant() + Duration::from_millis(self.config.drain_timeout_ms));
        self.engine.shutdown();
        if let Err(error) = self.store.note_recorded(self.engine.recorded()) {
            tracing::error!(%error, "the catalog could not be synchronised");
        }
    }

    /// Runs blocking work of the database beside the async threads.
    pub(crate) async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Arc<Database>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let database = Arc::clone(self);
        tokio::task::spawn_blocking(move || work(&database))
            .await
            .map_err(|e| Error::internal(format!("a statement's work was lost: {e}")))?
    }
}

impl Drop for Database {
    /// What [`Database::shutdown`] does, where nobody did it.
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("data_dir", &self.config.data_dir).finish_non_exhaustive()
    }
}
