//! Where operators keep rows: the only places.
//!
//! [`rows::RowStore`] holds rows in columnar tiles under stable numbers; [`index::HashIndex`] finds numbers by hash;
//! [`weights::Weights`] counts. Out of these are made the [`Arrangement`] (a bag of rows, looked up by key) and the
//! [`Table`] (one slot per key, whose values are the operator's own vectors).

pub mod agenda;
pub mod arrangement;
pub mod column;
pub mod index;
pub mod rows;
pub mod saved;
pub mod snapshot;
pub mod table;
pub mod weights;

pub use arrangement::{Arrangement, Cursor, Key, Matches, Moment};
pub use saved::{Restored, Saved};
pub use snapshot::ArrangementSnapshot;
pub use table::Table;

/// An arrangement that several operators look rows up in, which are run one after the other or only read.
pub type Arranged = std::sync::Arc<parking_lot::RwLock<Arrangement>>;

/// No row, no slot.
pub const NONE: u32 = u32::MAX;
