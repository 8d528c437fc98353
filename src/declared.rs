//! What a statement declares about a connector, as plain data: options, format, envelope, metadata columns.
//!
//! The language writes it, the catalog keeps it, the edges read it; it stands below all of them.

/// How a record's bytes become columns, and back.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FormatSpec {
    /// `json`, `csv`, `text`, `bytes`, `parquet`, …
    pub name: String,
    /// The format's own options (`header`, `delimiter`, …).
    pub options: OptionList,
}

/// What a record means for the collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Envelope {
    /// Every record is a new row.
    #[default]
    None,
    /// A record replaces the row of its key; an empty value deletes it.
    Upsert,
    /// A Debezium change event.
    Debezium,
}

/// What becomes of a record that a source does not understand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnError {
    /// It is a row of `tidemill.errors`.
    #[default]
    Store,
    /// It is counted and forgotten.
    Skip,
    /// The source stops before it.
    Fail,
}

impl OnError {
    /// Each by its name.
    pub const NAMES: [(&'static str, OnError); 3] =
        [("store", OnError::Store), ("skip", OnError::Skip), ("fail", OnError::Fail)];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OnError::Store => "store",
            OnError::Skip => "skip",
            OnError::Fail => "fail",
        }
    }
}

/// What becomes of a source's tables when their columns change upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnSchemaChange {
    /// They stay as they are; when a column of theirs is gone, the source stops.
    #[default]
    Ignore,
    /// The source stops before the first row of another shape.
    Pause,
    /// They get the columns that come; those that are gone upstream are NULL from then on.
    Evolve,
}

impl OnSchemaChange {
    /// Each by its name.
    pub const NAMES: [(&'static str, OnSchemaChange); 3] = [
        ("ignore", OnSchemaChange::Ignore),
        ("pause", OnSchemaChange::Pause),
        ("evolve", OnSchemaChange::Evolve),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            OnSchemaChange::Ignore => "ignore",
            OnSchemaChange::Pause => "pause",
            OnSchemaChange::Evolve => "evolve",
        }
    }
}

/// A piece of a record's metadata that becomes a column (`INCLUDE …`).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Include {
    /// `key`, `topic`, `partition`, `offset`, `timestamp`, `headers`; `header 'name'`, quoted as in SQL.
    pub what: String,
    /// The column's name.
    pub column: String,
}

/// An option's value as written in SQL, with secrets resolved only when a connector is built.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum OptionValue {
    /// A literal: string, number, boolean, interval, as text.
    Literal(String),
    /// `SECRET name`, by the secret's name.
    Secret(String),
}

/// Options by lower-case name, in the order written.
pub type OptionList = Vec<(String, OptionValue)>;
