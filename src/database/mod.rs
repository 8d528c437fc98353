//! The one place where language, edges and engine meet: a data directory that is open.

mod copy;
mod notice;
mod outcome;
pub mod pg_catalog;
mod session;

use std::sync::Arc;

pub use copy::{CopyFormat, CopyIn, CopyKind};
pub use notice::{Notice, Severity};
pub use outcome::Outcome;
pub use session::{CancelHandle, Prepared, Session, SessionOptions, TransactionStatus};

use crate::config::Config;
use crate::error::{Error, Result};

/// An open data directory: its objects, its engine, its sources and sinks at work.
pub struct Database {}

impl Database {
    /// Opens the data directory that `config` names, makes it if it is new, and sets sources and sinks to work.
    pub fn open(config: &Config) -> Result<Arc<Database>> {
        let _ = config;
        Err(Error::unsupported("a data directory"))
    }

    /// A session of its own: transaction, settings, prepared statements and cursors.
    pub fn session(self: &Arc<Self>, options: SessionOptions) -> Session {
        Session::new(Arc::clone(self), options)
    }

    /// Stops sources and sinks, finishes the tick in hand and makes everything durable. Sessions fail afterwards.
    pub fn shutdown(&self) {}
}
