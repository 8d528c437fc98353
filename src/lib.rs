//! Tidemill: a SQL streaming database, as a library.
//!
//! Layers, each using only those below it (`ARCHITECTURE.md` is the map):
//! `pgwire`, `http` → `database` → `sql` | `connectors` → `engine`; all may use `declared`, `types`, `names`, `error`, `memory`, `world`.

// In the product a value that is not there is an error or a proof; tests may unwrap.
#![deny(clippy::unwrap_used)]
// The documentation is for those who work on the house: it is built with private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod config;
pub mod connectors;
pub mod database;
pub mod declared;
pub mod engine;
pub mod error;
pub mod http;
pub mod memory;
pub mod names;
pub mod pgwire;
pub mod sql;
pub mod types;
pub mod world;

pub use config::Config;
pub use error::{Error, Result, SqlState};
