//! Remarks beside an answer, as PostgreSQL's NOTICE and WARNING.

/// How much a remark matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Something to know.
    Notice,
    /// Something to look after.
    Warning,
}

impl Severity {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Notice => "NOTICE",
            Severity::Warning => "WARNING",
        }
    }
}

/// A remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// How much it matters.
    pub severity: Severity,
    /// Its SQLSTATE; `00000` where none fits.
    pub sqlstate: &'static str,
    /// What is remarked: lower-case, no full stop.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Notice {
    /// Something to know.
    pub fn new(message: impl Into<String>) -> Notice {
        Notice {
            severity: Severity::Notice,
            sqlstate: "00000",
            message: message.into(),
            detail: None,
            hint: None,
        }
    }

    /// Something to look after.
    pub fn warning(sqlstate: &'static str, message: impl Into<String>) -> Notice {
        Notice { severity: Severity::Warning, sqlstate, message: message.into(), detail: None, hint: None }
    }
}
