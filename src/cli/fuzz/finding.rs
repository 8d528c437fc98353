//! Something that the fuzzer found.

use tidemill::{Error, SqlState};

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A view is not what its query gives.
    Differs,
    /// A query's answer is not PostgreSQL's.
    DiffersFromPostgres,
    /// A write is done only here, or only there.
    WriteDiffers,
    /// A statement fails with this SQLSTATE that should not.
    Error(String),
    /// A broken promise between parts of Tidemill.
    Internal,
    /// A panic.
    Panic,
    /// Something takes too long.
    Hang,
}

/// Something wrong.
#[derive(Clone, Debug)]
pub struct Finding {
    pub kind: Kind,
    /// What was seen.
    pub text: String,
    /// Where.
    pub view: Option<String>,
    /// The rows that PostgreSQL gives.
    pub expected: Option<Vec<Vec<Option<String>>>>,
}

impl Finding {
    /// Something wrong.
    pub fn new(kind: Kind, text: impl Into<String>) -> Finding {
        Finding { kind, text: text.into(), view: None, expected: None }
    }

    /// An error that should not be.
    pub fn of_error(e: &Error) -> Finding {
        let kind = match e.sqlstate {
            SqlState::INTERNAL_ERROR => Kind::Internal,
            state => Kind::Error(state.0.to_string()),
        };
        Finding::new(kind, format!("{} {e}", e.sqlstate.0))
    }

    /// The same, of a view.
    pub fn of_view(mut self, name: &str) -> Finding {
        self.view = Some(name.to_string());
        self
    }

    /// The same, with the rows that PostgreSQL gives.
    pub fn expecting(mut self, rows: Vec<Vec<Option<String>>>) -> Finding {
        self.expected = Some(rows);
        self
    }

    /// Whether it is an error's message, and not an answer, that is wrong.
    pub fn is_error(&self) -> bool {
        matches!(self.kind, Kind::Internal | Kind::Error(_))
    }

    /// Whether it is of the same kind, and an error of the same words.
    pub fn is_like(&self, other: &Finding) -> bool {
        self.kind == other.kind && (!self.is_error() || words(&self.text) == words(&other.text))
    }

    /// What findings of one cause have in common.
    pub fn signature(&self) -> String {
        match self.kind {
            Kind::Internal | Kind::Error(_) => words(&self.text),
            _ => format!("{:?}", self.kind),
        }
    }
}

/// A message without what is different each time: names, numbers, values.
pub fn words(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    let mut out = String::new();
    let mut quoted = None;
    let mut before = ' ';
    for c in line.chars() {
        let inside_a_word = c == '\'' && before.is_alphabetic();
        before = c;
        match quoted {
            Some(end) if c == end => {
                quoted = None;
                out.push(c);
            }
            Some(_) => {}
            None if c == '"' || c == '\'' && !inside_a_word => {
                quoted = Some(c);
                out.push(c);
            }
            None if c.is_ascii_digit() => {
                if !out.ends_with('0') {
                    out.push('0');
                }
            }
            None => out.push(c),
        }
        if out.len() > 160 {
            break;
        }
    }
    out
}
