//! Statements as they were written: names folded, types resolved, nothing looked up yet.
//!
//! Queries and DML keep sqlparser's trees; everything that PostgreSQL does not have is ours.

mod copying;

use datafusion::sql::sqlparser::ast;

use crate::declared::{Envelope, FormatSpec, Include, OnError, OnSchemaChange, OptionList};
use crate::names::Name;
use crate::types::SqlType;

pub use copying::{Copy, CopyFormat, CopyKind, CopyWhat};
pub use datafusion::sql::sqlparser::ast::{Delete, Expr, Insert, Query, Update};

/// One statement of a string of statements.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// Its own text, without the semicolon and surrounding space.
    pub text: String,
    /// Characters that stand before it in the whole string; error positions of its planning are relative to `text`.
    pub offset: u32,
}

/// A statement.
#[derive(Clone, Debug)]
pub enum Statement {
    /// SELECT, VALUES, TABLE, WITH …
    Query(Box<Query>),
    /// INSERT.
    Insert(Box<Insert>),
    /// UPDATE.
    Update(Box<Update>),
    /// DELETE.
    Delete(Box<Delete>),
    /// TRUNCATE.
    Truncate(Truncate),
    /// COPY … FROM STDIN | TO STDOUT.
    Copy(Copy),
    /// CREATE SECRET.
    CreateSecret(CreateSecret),
    /// CREATE CONNECTION.
    CreateConnection(CreateConnection),
    /// CREATE SOURCE.
    CreateSource(Box<CreateSource>),
    /// CREATE TABLE with columns, AS a query, or FROM SOURCE.
    CreateTable(Box<CreateTable>),
    /// CREATE VIEW.
    CreateView(Box<CreateView>),
    /// CREATE MATERIALIZED VIEW.
    CreateMaterializedView(Box<CreateView>),
    /// CREATE INDEX.
    CreateIndex(CreateIndex),
    /// CREATE SINK.
    CreateSink(Box<CreateSink>),
    /// CREATE SCHEMA.
    CreateSchema(CreateSchema),
    /// DROP.
    Drop(Drop),
    /// ALTER.
    Alter(Alter),
    /// COMMENT ON.
    Comment(Comment),
    /// SHOW of objects.
    Show(Show),
    /// SHOW of a session setting; `all` for all of them.
    ShowVariable(String),
    /// SET, RESET.
    Set(Set),
    /// EXPLAIN.
    Explain(Explain),
    /// SUBSCRIBE.
    Subscribe(Subscribe),
    /// DECLARE … CURSOR FOR.
    Declare(Declare),
    /// FETCH, MOVE is not built.
    Fetch(Fetch),
    /// CLOSE; `None`: every cursor.
    Close(Option<String>),
    /// BEGIN, START TRANSACTION.
    Begin(Begin),
    /// COMMIT, END.
    Commit,
    /// ROLLBACK, ABORT.
    Rollback,
    /// SAVEPOINT.
    Savepoint(String),
    /// RELEASE \[SAVEPOINT\].
    Release(String),
    /// ROLLBACK TO \[SAVEPOINT\].
    RollbackTo(String),
    /// FLUSH: what was written before is visible after it, which it always is.
    Flush,
    /// DISCARD.
    Discard(Discard),
    /// PREPARE.
    Prepare(Box<Prepare>),
    /// EXECUTE.
    Execute(Execute),
    /// DEALLOCATE; `None`: all.
    Deallocate(Option<String>),
    /// CHECK MATERIALIZED VIEW.
    CheckView(Name),
    /// WAIT FOR SINK.
    WaitForSink(WaitForSink),
    /// VERIFY SINK.
    VerifySink(VerifySink),
    /// REPLAY ERRORS.
    ReplayErrors(Box<ReplayErrors>),
    /// VALIDATE CONNECTION.
    ValidateConnection(Name),
    /// Something of SQL or of the dialect that is not built: the error (0A000) names it.
    Unsupported(crate::error::Error),
}

impl Statement {
    /// Whether it may run inside a transaction block that has failed: only the ends of the block may.
    pub fn ends_transaction(&self) -> bool {
        matches!(self, Statement::Commit | Statement::Rollback | Statement::RollbackTo(_))
    }
}

/// What kind of object a statement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ObjectKind {
    /// A secret value.
    Secret,
    /// The way to an external system.
    Connection,
    /// A table.
    Table,
    /// A source.
    Source,
    /// A view that is computed when it is read.
    View,
    /// A view that is kept up to date.
    MaterializedView,
    /// A sink.
    Sink,
    /// An index.
    Index,
    /// A schema.
    Schema,
}

impl ObjectKind {
    /// Lower case, as in messages: `materialized view`.
    pub fn noun(self) -> &'static str {
        match self {
            ObjectKind::Secret => "secret",
            ObjectKind::Connection => "connection",
            ObjectKind::Table => "table",
            ObjectKind::Source => "source",
            ObjectKind::View => "view",
            ObjectKind::MaterializedView => "materialized view",
            ObjectKind::Sink => "sink",
            ObjectKind::Index => "index",
            ObjectKind::Schema => "schema",
        }
    }

    /// Whether two of it can exchange their names by ALTER … SWAP WITH.
    pub fn is_swappable(self) -> bool {
        !matches!(self, ObjectKind::Secret | ObjectKind::Connection | ObjectKind::Index | ObjectKind::Schema)
    }

    /// Upper case, as in statements and command tags: `MATERIALIZED VIEW`.
    pub fn keyword(self) -> &'static str {
        match self {
            ObjectKind::Secret => "SECRET",
            ObjectKind::Connection => "CONNECTION",
            ObjectKind::Table => "TABLE",
            ObjectKind::Source => "SOURCE",
            ObjectKind::View => "VIEW",
            ObjectKind::MaterializedView => "MATERIALIZED VIEW",
            ObjectKind::Sink => "SINK",
            ObjectKind::Index => "INDEX",
            ObjectKind::Schema => "SCHEMA",
        }
    }
}

/// TRUNCATE.
#[derive(Clone, Debug)]
pub struct Truncate {
    /// Which tables.
    pub tables: Vec<Name>,
}

/// CREATE SECRET.
#[derive(Clone)]
pub struct CreateSecret {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// Its value. Never printed.
    pub value: String,
}

impl std::fmt::Debug for CreateSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreateSecret").field("name", &self.name).finish_non_exhaustive()
    }
}

/// CREATE SCHEMA.
#[derive(Clone, Debug)]
pub struct CreateSchema {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// AUTHORIZATION: whose it is.
    pub owner: Option<String>,
}

/// CREATE CONNECTION.
#[derive(Clone, Debug)]
pub struct CreateConnection {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// `kafka`, `postgres`, `snowflake`, `object store`.
    pub kind: String,
    /// What it is made of.
    pub options: OptionList,
    /// Whether it is tried now; `WITH (validate = false)` says no.
    pub validate: bool,
}

/// A column of CREATE TABLE and CREATE SOURCE.
#[derive(Clone, Debug)]
pub struct ColumnDef {
    /// Its name.
    pub name: String,
    /// Its type.
    pub data_type: SqlType,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Its DEFAULT.
    pub default: Option<Expr>,
}

/// A CHECK constraint.
#[derive(Clone, Debug)]
pub struct CheckDef {
    /// CONSTRAINT name.
    pub name: Option<String>,
    /// The column that it was written with.
    pub column: Option<String>,
    /// The condition.
    pub condition: Expr,
}

/// WATERMARK FOR.
#[derive(Clone, Debug)]
pub struct WatermarkDef {
    /// The column that it follows.
    pub column: String,
    /// What it is after AS.
    pub expr: Expr,
    /// Where it stands in the statement, in characters from 1.
    pub position: u32,
}

/// CREATE SOURCE.
#[derive(Clone, Debug)]
pub struct CreateSource {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// Declared columns; empty: inferred, or none of its own.
    pub columns: Vec<ColumnDef>,
    /// Columns of the declared primary key.
    pub key: Vec<String>,
    /// WATERMARK FOR.
    pub watermark: Option<WatermarkDef>,
    /// `kafka`, `postgres`, `mysql`, `webhook`, `nexmark`, `datagen`.
    pub kind: String,
    /// The CONNECTION it uses.
    pub connection: Option<Name>,
    /// Its options.
    pub options: OptionList,
    /// FOR ALL TABLES: every upstream relation becomes a table.
    pub all_tables: bool,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// The connection of FORMAT … USING SCHEMA REGISTRY.
    pub registry: Option<Name>,
    /// ENVELOPE.
    pub envelope: Envelope,
    /// INCLUDE.
    pub includes: Vec<Include>,
    /// Whether its rows are kept; `WITH (retain = false)` says no.
    pub retain: bool,
    /// WITH (on_error = …).
    pub on_error: OnError,
    /// CHECK of a webhook's requests, as written.
    pub check: Option<String>,
    /// ON SCHEMA CHANGE.
    pub on_schema_change: OnSchemaChange,
}

/// CREATE TABLE.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// Where its columns come from.
    pub body: TableBody,
    /// Whether rows only ever come: no UPDATE, no DELETE.
    pub append_only: bool,
}

/// Where the columns of a new table come from.
#[derive(Clone, Debug)]
pub enum TableBody {
    /// They are declared.
    Columns {
        /// The columns.
        columns: Vec<ColumnDef>,
        /// Columns of the primary key; empty: none.
        key: Vec<String>,
        /// CHECK constraints.
        checks: Vec<CheckDef>,
        /// WATERMARK FOR.
        watermark: Option<Box<WatermarkDef>>,
    },
    /// AS a query, whose rows it is filled with.
    Query {
        /// New names for the first columns.
        columns: Vec<String>,
        /// The query.
        query: Box<Query>,
        /// Whether it is filled (WITH NO DATA says no).
        with_data: bool,
    },
    /// FROM SOURCE s (REFERENCE upstream): filled by the source.
    Source {
        /// The source.
        source: Name,
        /// The upstream's name of the relation: `public.users`.
        reference: String,
    },
}

/// CREATE \[MATERIALIZED\] VIEW.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is replaced.
    pub or_replace: bool,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// New names for the first columns.
    pub columns: Vec<String>,
    /// Its query.
    pub query: Box<Query>,
    /// EMIT ON WINDOW CLOSE: the rows of a window come once, when it is closed.
    pub on_close: bool,
    /// The query's own text.
    pub query_text: String,
    /// Characters of the statement's text that stand before the query's.
    pub query_offset: u32,
    /// WITH (…).
    pub options: OptionList,
}

/// CREATE INDEX.
#[derive(Clone, Debug)]
pub struct CreateIndex {
    /// Its name; `None`: made from the columns.
    pub name: Option<Name>,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// On which relation.
    pub on: Name,
    /// Which columns.
    pub columns: Vec<String>,
}

/// CREATE SINK.
#[derive(Clone, Debug)]
pub struct CreateSink {
    /// Its name.
    pub name: Name,
    /// Whether one that exists is left alone.
    pub if_not_exists: bool,
    /// What it follows.
    pub from: Name,
    /// `snowflake`, `kafka`, `files`.
    pub kind: String,
    /// The CONNECTION it uses.
    pub connection: Option<Name>,
    /// Its options, those of WITH included.
    pub options: OptionList,
    /// KEY (…): columns that tell rows apart at the destination.
    pub key: Vec<String>,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// The connection of FORMAT … USING SCHEMA REGISTRY.
    pub registry: Option<Name>,
    /// ENVELOPE.
    pub envelope: Envelope,
}

/// DROP.
#[derive(Clone, Debug)]
pub struct Drop {
    /// What kind of object.
    pub kind: ObjectKind,
    /// Which ones.
    pub names: Vec<Name>,
    /// Whether one that does not exist is no error.
    pub if_exists: bool,
    /// Whether what depends on them goes, too.
    pub cascade: bool,
}

/// ALTER.
#[derive(Clone, Debug)]
pub struct Alter {
    /// What kind of object.
    pub kind: ObjectKind,
    /// Which one.
    pub name: Name,
    /// Whether one that does not exist is no error.
    pub if_exists: bool,
    /// What is changed.
    pub change: AlterChange,
}

/// What ALTER changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlterChange {
    /// RENAME TO.
    Rename(String),
    /// PAUSE (a sink or a source).
    Pause,
    /// RESUME.
    Resume,
    /// OWNER TO.
    Owner(String),
    /// SET SCHEMA.
    SetSchema(String),
    /// SWAP WITH (relations and sinks).
    Swap(Name),
    /// ON SCHEMA CHANGE (a source).
    OnSchemaChange(OnSchemaChange),
}

/// COMMENT ON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// What kind of object; of a relation when it is a column's.
    pub kind: ObjectKind,
    /// Which one.
    pub name: Name,
    /// The column, for COMMENT ON COLUMN; then `kind` means any relation.
    pub column: Option<String>,
    /// The text; `None` removes it.
    pub text: Option<String>,
}

/// SHOW of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// All objects of a kind.
    Objects(ObjectKind),
    /// The columns of a relation.
    Columns(Name),
    /// The statement that makes an object.
    Create(ObjectKind, Name),
    /// How the database is doing.
    Status,
}

/// SET, RESET.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Set {
    /// SET name = value.
    Variable {
        /// The setting, lower case.
        name: String,
        /// Its value as text; `None`: DEFAULT.
        value: Option<String>,
        /// SET LOCAL: until the transaction ends.
        local: bool,
    },
    /// RESET name; `None`: RESET ALL.
    Reset(Option<String>),
    /// SET TRANSACTION, SET SESSION CHARACTERISTICS: accepted, every transaction is one consistent tick.
    Transaction,
}

/// EXPLAIN.
#[derive(Clone, Debug)]
pub struct Explain {
    /// Whether it is run and measured.
    pub analyze: bool,
    /// Whether more is told.
    pub verbose: bool,
    /// What is explained: a query, CREATE \[MATERIALIZED\] VIEW, INSERT …
    pub statement: Box<Statement>,
}

/// SUBSCRIBE.
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// What is followed.
    pub what: SubscribeTo,
    /// Whether the present rows come first.
    pub snapshot: bool,
    /// Whether the passing of ticks without a change is told.
    pub progress: bool,
    /// AS OF: the tick to begin after.
    pub as_of: Option<u64>,
}

/// What a subscription follows.
#[derive(Clone, Debug)]
pub enum SubscribeTo {
    /// A relation.
    Relation(Name),
    /// A query.
    Query {
        /// The query.
        query: Box<Query>,
        /// Its text.
        text: String,
    },
}

/// DECLARE … CURSOR FOR.
#[derive(Clone, Debug)]
pub struct Declare {
    /// The cursor's name.
    pub name: String,
    /// What it reads.
    pub what: CursorOf,
    /// WITH HOLD: it outlives the transaction.
    pub hold: bool,
}

/// What a cursor reads.
#[derive(Clone, Debug)]
pub enum CursorOf {
    /// A query.
    Query(Box<Query>),
    /// A subscription.
    Subscribe(Box<Subscribe>),
}

/// FETCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The cursor's name.
    pub name: String,
    /// How many rows at most; `None`: all.
    pub count: Option<u64>,
    /// How long to wait for rows of a subscription, in microseconds; `None`: do not wait.
    pub timeout_micros: Option<u64>,
}

/// BEGIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// READ ONLY.
    pub read_only: bool,
}

/// DISCARD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Discard {
    /// Everything of the session.
    All,
    /// Cached plans; there are none.
    Plans,
    /// Sequences; there are none.
    Sequences,
    /// Temporary tables; there are none.
    Temp,
}

/// PREPARE.
#[derive(Clone, Debug)]
pub struct Prepare {
    /// The statement's name.
    pub name: String,
    /// Declared parameter types.
    pub types: Vec<SqlType>,
    /// The statement.
    pub statement: Statement,
    /// Its text.
    pub text: String,
}

/// EXECUTE.
#[derive(Clone, Debug)]
pub struct Execute {
    /// The statement's name.
    pub name: String,
    /// Its arguments.
    pub args: Vec<ast::Expr>,
}

/// WAIT FOR SINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitForSink {
    /// The sink.
    pub name: Name,
    /// Until it has committed this tick; `None`: the present one.
    pub tick: Option<u64>,
    /// How long at most, in microseconds; `None`: for ever.
    pub timeout_micros: Option<u64>,
}

/// VERIFY SINK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifySink {
    /// The sink.
    pub name: Name,
    /// Whether the target is also mended.
    pub repair: bool,
}

/// REPLAY ERRORS.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayErrors {
    /// The source whose bad records are decoded again.
    pub source: Name,
    /// Which of them, over the columns of `tidemill.errors`; `None`: all.
    pub condition: Option<ast::Expr>,
}
