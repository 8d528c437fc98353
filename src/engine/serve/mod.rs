//! Reading collections: consistent snapshots.

pub mod snapshot;
