//! Tidemill: a SQL streaming database, as a library.
//!
//! Layers, each using only those below it (`ARCHITECTURE.md` is the map):
//! `pgwire`, `http` → `database` → `sql` | `connectors` → `engine`.

pub mod config;
pub mod connectors;
pub mod database;
pub mod engine;
pub mod error;
pub mod http;
pub mod pgwire;
pub mod sql;
pub mod world;

pub use config::Config;
pub use error::{Error, Result, SqlState};
