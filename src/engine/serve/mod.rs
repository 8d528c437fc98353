//! Reading: consistent snapshots, plans bound to one, and their execution.

pub mod bind;
mod bounds;
pub mod execute;
pub mod indexes;
pub mod point;
pub mod provider;
pub mod snapshot;

pub use bind::{Overlay, bind};
pub use execute::{execute, physical_plan, session_state};
