//! What is done to a database, step by step, and how it is written down.

use std::fmt;

/// A statement; an INSERT's rows are apart, so that they can be left out one by one.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// The statement, or what stands before the rows.
    pub head: String,
    pub rows: Vec<String>,
    /// What stands behind the rows.
    pub tail: String,
}

impl Write {
    /// A statement without rows.
    pub fn plain(text: String) -> Write {
        Write { head: text, rows: Vec::new(), tail: String::new() }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.head, self.rows.join(", "), self.tail)
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// CREATE TABLE.
    Table(String),
    /// A view of a query.
    View { name: String, materialized: bool, query: String },
    /// A view goes.
    Drop { name: String, materialized: bool },
    /// One transaction.
    Tick(Vec<Write>),
    /// The database is closed and opened again.
    Restart,
}

impl Step {
    /// The statements of the step, to be run as one string.
    pub fn statements(&self) -> Vec<String> {
        let kind = |materialized: &bool| if *materialized { "MATERIALIZED VIEW" } else { "VIEW" };
        match self {
            Step::Table(text) => vec![text.clone()],
            Step::View { name, materialized, query } => {
                vec![format!("CREATE {} {name} AS {query}", kind(materialized))]
            }
            Step::Drop { name, materialized } => vec![format!("DROP {} {name}", kind(materialized))],
            Step::Tick(writes) => writes.iter().map(Write::to_string).collect(),
            Step::Restart => Vec::new(),
        }
    }
}

/// Steps, as an .slt file; `last` says what fails at the end.
pub fn as_slt(title: &str, steps: &[Step], last: &str) -> String {
    let mut text = format!("# {}\n", title.replace('\n', "\n# "));
    for step in steps {
        if *step == Step::Restart {
            text.push_str("\n# The database is closed and opened again here.\n");
        }
        let mut statements = step.statements();
        if statements.len() > 1 {
            statements.insert(0, "BEGIN".into());
            statements.push("COMMIT".into());
        }
        for statement in statements {
            text.push_str(&format!("\nstatement ok\n{statement}\n"));
        }
    }
    text.push_str(last);
    text
}
