//! Settings.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where the PostgreSQL wire listens.
    pub listen: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
}
