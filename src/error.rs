//! The one error type a user can see: what went wrong, as PostgreSQL would say it.
//!
//! The SQLSTATE is chosen where the error is born; each layer adds what it knows (detail, hint, the
//! place in the statement) and nothing is translated twice. Messages follow PostgreSQL's style:
//! lower-case, no full stop; the detail and the hint are sentences.

use std::collections::BTreeSet;
use std::fmt;

use parking_lot::Mutex;

/// A `Result` whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A five-character SQLSTATE, see PostgreSQL's appendix A.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SqlState(pub &'static str);

impl SqlState {
    /// The SQLSTATE of this code. A code is kept for the life of the process; there are few.
    pub fn of(code: &str) -> SqlState {
        static CODES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut codes = CODES.lock();
        if let Some(known) = codes.get(code) {
            return SqlState(known);
        }
        let code: &'static str = Box::leak(code.into());
        codes.insert(code);
        SqlState(code)
    }
}

#[allow(missing_docs)] // the names are PostgreSQL's own condition names
impl SqlState {
    pub const FEATURE_NOT_SUPPORTED: SqlState = SqlState("0A000");
    pub const CONNECTION_FAILURE: SqlState = SqlState("08006");
    pub const PROTOCOL_VIOLATION: SqlState = SqlState("08P01");
    pub const CARDINALITY_VIOLATION: SqlState = SqlState("21000");
    pub const DATA_EXCEPTION: SqlState = SqlState("22000");
    pub const NUMERIC_VALUE_OUT_OF_RANGE: SqlState = SqlState("22003");
    pub const INVALID_DATETIME_FORMAT: SqlState = SqlState("22007");
    pub const DIVISION_BY_ZERO: SqlState = SqlState("22012");
    pub const INVALID_LIMIT: SqlState = SqlState("2201W");
    pub const INVALID_OFFSET: SqlState = SqlState("2201X");
    pub const INVALID_PARAMETER_VALUE: SqlState = SqlState("22023");
    pub const INVALID_TEXT_REPRESENTATION: SqlState = SqlState("22P02");
    pub const BAD_COPY_FILE_FORMAT: SqlState = SqlState("22P04");
    pub const NOT_NULL_VIOLATION: SqlState = SqlState("23502");
    pub const UNIQUE_VIOLATION: SqlState = SqlState("23505");
    pub const INVALID_CURSOR_STATE: SqlState = SqlState("24000");
    pub const ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25001");
    pub const NO_ACTIVE_SQL_TRANSACTION: SqlState = SqlState("25P01");
    pub const IN_FAILED_SQL_TRANSACTION: SqlState = SqlState("25P02");
    pub const INVALID_SQL_STATEMENT_NAME: SqlState = SqlState("26000");
    pub const INVALID_AUTHORIZATION: SqlState = SqlState("28000");
    pub const INVALID_PASSWORD: SqlState = SqlState("28P01");
    pub const DEPENDENT_OBJECTS_STILL_EXIST: SqlState = SqlState("2BP01");
    pub const INVALID_CURSOR_NAME: SqlState = SqlState("34000");
    pub const INVALID_CATALOG_NAME: SqlState = SqlState("3D000");
    pub const INVALID_SCHEMA_NAME: SqlState = SqlState("3F000");
    pub const SERIALIZATION_FAILURE: SqlState = SqlState("40001");
    pub const SYNTAX_ERROR: SqlState = SqlState("42601");
    pub const DUPLICATE_COLUMN: SqlState = SqlState("42701");
    pub const AMBIGUOUS_COLUMN: SqlState = SqlState("42702");
    pub const UNDEFINED_COLUMN: SqlState = SqlState("42703");
    pub const UNDEFINED_OBJECT: SqlState = SqlState("42704");
    pub const DUPLICATE_OBJECT: SqlState = SqlState("42710");
    pub const GROUPING_ERROR: SqlState = SqlState("42803");
    pub const DATATYPE_MISMATCH: SqlState = SqlState("42804");
    pub const WRONG_OBJECT_TYPE: SqlState = SqlState("42809");
    pub const UNDEFINED_FUNCTION: SqlState = SqlState("42883");
    pub const WINDOWING_ERROR: SqlState = SqlState("42P20");
    pub const UNDEFINED_TABLE: SqlState = SqlState("42P01");
    pub const UNDEFINED_PARAMETER: SqlState = SqlState("42P02");
    pub const DUPLICATE_SCHEMA: SqlState = SqlState("42P06");
    pub const DUPLICATE_TABLE: SqlState = SqlState("42P07");
    pub const INVALID_TABLE_DEFINITION: SqlState = SqlState("42P16");
    pub const INDETERMINATE_DATATYPE: SqlState = SqlState("42P18");
    pub const CONFIGURATION_LIMIT_EXCEEDED: SqlState = SqlState("53400");
    pub const OUT_OF_MEMORY: SqlState = SqlState("53200");
    pub const DISK_FULL: SqlState = SqlState("53100");
    pub const OBJECT_IN_USE: SqlState = SqlState("55006");
    pub const OBJECT_NOT_IN_PREREQUISITE_STATE: SqlState = SqlState("55000");
    pub const QUERY_CANCELED: SqlState = SqlState("57014");
    pub const ADMIN_SHUTDOWN: SqlState = SqlState("57P01");
    pub const IO_ERROR: SqlState = SqlState("58030");
    pub const INTERNAL_ERROR: SqlState = SqlState("XX000");
    pub const DATA_CORRUPTED: SqlState = SqlState("XX001");
}

/// An error as it reaches a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of error, for programs.
    pub sqlstate: SqlState,
    /// What went wrong, for people: lower-case, no full stop.
    pub message: String,
    /// More about it, in sentences.
    pub detail: Option<String>,
    /// What to do about it, in sentences.
    pub hint: Option<String>,
    /// Where in the statement's text: 1-based, in characters.
    pub position: Option<u32>,
}

impl Error {
    /// An error of the given kind.
    pub fn new(sqlstate: SqlState, message: impl Into<String>) -> Self {
        Error { sqlstate, message: message.into(), detail: None, hint: None, position: None }
    }

    /// Something that SQL allows and Tidemill does not build yet; `what` names it.
    pub fn unsupported(what: impl fmt::Display) -> Self {
        Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("{what} is not supported yet"))
    }

    /// A broken promise between parts of Tidemill itself.
    pub fn internal(message: impl Into<String>) -> Self {
        Error::new(SqlState::INTERNAL_ERROR, message)
    }

    /// The same error with a DETAIL line.
    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// The same error with a HINT line.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with its place in the statement (1-based, in characters).
    pub fn at(mut self, position: u32) -> Self {
        self.position = Some(position);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, "; {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        let state = match e.kind() {
            std::io::ErrorKind::StorageFull => SqlState::DISK_FULL,
            _ => SqlState::IO_ERROR,
        };
        Error::new(state, e.to_string())
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(e: arrow::error::ArrowError) -> Self {
        use arrow::error::ArrowError;
        match e {
            ArrowError::DivideByZero => Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"),
            ArrowError::ArithmeticOverflow(m) => Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, m),
            ArrowError::CastError(m) | ArrowError::ParseError(m) => {
                Error::new(SqlState::INVALID_TEXT_REPRESENTATION, m)
            }
            ArrowError::ExternalError(e) => match e.downcast::<Error>() {
                Ok(e) => *e,
                Err(e) => Error::internal(e.to_string()),
            },
            ArrowError::IoError(_, e) => e.into(),
            e => Error::new(SqlState::DATA_EXCEPTION, e.to_string()),
        }
    }
}

impl From<datafusion::error::DataFusionError> for Error {
    fn from(e: datafusion::error::DataFusionError) -> Self {
        use datafusion::common::SchemaError;
        use datafusion::error::DataFusionError as D;
        match e {
            D::ArrowError(e, _) => (*e).into(),
            D::SQL(e, _) => Error::new(SqlState::SYNTAX_ERROR, e.to_string()),
            D::NotImplemented(m) => Error::new(SqlState::FEATURE_NOT_SUPPORTED, m),
            D::SchemaError(e, _) => {
                let state = match *e {
                    SchemaError::AmbiguousReference { .. } => SqlState::AMBIGUOUS_COLUMN,
                    SchemaError::FieldNotFound { .. } => SqlState::UNDEFINED_COLUMN,
                    SchemaError::DuplicateQualifiedField { .. }
                    | SchemaError::DuplicateUnqualifiedField { .. } => SqlState::DUPLICATE_COLUMN,
                };
                Error::new(state, e.to_string())
            }
            // The value of a parameter is known only when the statement runs.
            D::Plan(m) if m.starts_with("LIMIT must be") => {
                Error::new(SqlState::INVALID_LIMIT, "LIMIT must not be negative")
            }
            D::Plan(m) if m.starts_with("OFFSET must be") => {
                Error::new(SqlState::INVALID_OFFSET, "OFFSET must not be negative")
            }
            D::Plan(m) | D::Configuration(m) => Error::new(SqlState::SYNTAX_ERROR, m),
            // DataFusion's series, of numbers and of times.
            D::Execution(m) if m.starts_with("step can't be 0") || m.starts_with("Interval argument to") => {
                Error::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero")
            }
            D::Execution(m) => Error::new(SqlState::DATA_EXCEPTION, m),
            D::IoError(e) => e.into(),
            D::ResourcesExhausted(m) => Error::new(SqlState::OUT_OF_MEMORY, m),
            D::Context(_, inner) | D::Diagnostic(_, inner) => (*inner).into(),
            D::Shared(inner) => match std::sync::Arc::try_unwrap(inner) {
                Ok(inner) => inner.into(),
                Err(shared) => match shared.find_root() {
                    D::Execution(m) => D::Execution(m.clone()).into(),
                    D::External(e) if e.is::<Error>() => {
                        e.downcast_ref::<Error>().map_or_else(|| Error::internal(e.to_string()), Error::clone)
                    }
                    other => Error::new(SqlState::DATA_EXCEPTION, other.strip_backtrace()),
                },
            },
            D::External(e) => match e.downcast::<Error>() {
                Ok(e) => *e,
                Err(e) => Error::new(SqlState::DATA_EXCEPTION, e.to_string()),
            },
            e => Error::internal(e.strip_backtrace()),
        }
    }
}

impl From<Error> for datafusion::error::DataFusionError {
    fn from(e: Error) -> Self {
        datafusion::error::DataFusionError::External(Box::new(e))
    }
}
