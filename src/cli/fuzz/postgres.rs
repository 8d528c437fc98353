//! The second oracle: a PostgreSQL server that is given the same statements.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use tidemill::{Error, Result, SqlState};

/// A schema of a server, for one database after the other.
pub struct Postgres {
    client: Client,
    schema: String,
}

/// What the server says against a statement: SQLSTATE and message.
pub type Refusal = (String, String);

impl Postgres {
    /// Connects to the server of that URL.
    pub async fn connect(url: &str) -> Result<Postgres> {
        let failed = |e: tokio_postgres::Error| Error::new(SqlState::CONNECTION_FAILURE, e.to_string());
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.map_err(failed)?;
        // The client tells of whatever ends the connection.
        tokio::spawn(connection);
        Ok(Postgres { client, schema: format!("tidemill_fuzz_{}", std::process::id()) })
    }

    /// Begins with nothing.
    pub async fn reset(&self) -> Result<()> {
        let schema = &self.schema;
        let text = format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE; CREATE SCHEMA {schema}; \
             SET search_path = {schema}; SET TimeZone = 'UTC'; SET statement_timeout = '20s'; \
             SET jit = off"
        );
        let failed = |(state, message)| Error::internal(format!("PostgreSQL: {state} {message}"));
        self.run(&text).await.map_err(failed)
    }

    /// Leaves nothing behind.
    pub async fn close(&self) {
        // What is left is dropped by the next run of this process's number.
        self.run(&format!("DROP SCHEMA IF EXISTS {} CASCADE", self.schema)).await.ok();
    }

    /// Runs statements as one transaction.
    pub async fn run(&self, sql: &str) -> Result<(), Refusal> {
        self.client.batch_execute(sql).await.map_err(refusal)
    }

    /// A query's rows as text.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Refusal> {
        let messages = self.client.simple_query(sql).await.map_err(refusal)?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|i| row.get(i).map(str::to_string)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }
}

fn refusal(e: tokio_postgres::Error) -> Refusal {
    match e.as_db_error() {
        Some(db) => (db.code().code().to_string(), db.message().to_string()),
        None => ("08006".to_string(), e.to_string()),
    }
}

/// The rows of `ours` that `theirs` does not have, and the other way round; in any order.
pub fn difference(
    ours: &[Vec<Option<String>>],
    theirs: &[Vec<Option<String>>],
) -> (Vec<String>, Vec<String>) {
    let lines = |rows: &[Vec<Option<String>>]| {
        let mut lines: Vec<(String, String)> = rows
            .iter()
            .map(|row| {
                let cells: Vec<&str> = row.iter().map(|c| c.as_deref().unwrap_or("NULL")).collect();
                (cells.iter().map(|c| canonical(c)).collect::<Vec<_>>().join(" | "), cells.join(" | "))
            })
            .collect();
        lines.sort();
        lines
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let (mut i, mut j, mut more, mut fewer) = (0, 0, Vec::new(), Vec::new());
    while i < ours.len() || j < theirs.len() {
        let order = match (ours.get(i), theirs.get(j)) {
            (Some(a), Some(b)) => a.0.cmp(&b.0),
            (Some(_), None) => std::cmp::Ordering::Less,
            _ => std::cmp::Ordering::Greater,
        };
        if order.is_le() {
            if order.is_lt() {
                more.push(ours[i].1.clone());
            }
            i += 1;
        }
        if order.is_ge() {
            if order.is_gt() {
                fewer.push(theirs[j].1.clone());
            }
            j += 1;
        }
    }
    (more, fewer)
}

/// A value with its numbers in twelve digits: how many `numeric` and floats show is another question.
fn canonical(cell: &str) -> String {
    let (mut out, mut rest) = (String::new(), cell);
    while let Some(c) = rest.chars().next() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (token, behind) = rest.split_at(digits.max(c.len_utf8()));
        // An exponent belongs to its number.
        let exponent = behind.strip_prefix('e').map_or(0, |e| {
            1 + e.find(|c: char| !c.is_ascii_digit() && c != '-' && c != '+').unwrap_or(e.len())
        });
        let whole = format!("{token}{}", &behind[..exponent]);
        match (token.starts_with(|c: char| c.is_ascii_digit()), whole.parse::<f64>()) {
            (true, Ok(number)) => {
                if number == 0.0 && out.ends_with('-') {
                    out.pop();
                }
                out.push_str(&format!("{number:.11e}"));
                rest = &behind[exponent..];
            }
            _ => {
                out.push_str(token);
                rest = behind;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_compared_by_value() {
        assert_eq!(canonical("3"), canonical("3.0000"));
        assert_eq!(canonical("{-0,1.50}"), canonical("{0,1.5}"));
        assert_eq!(canonical("1e+20"), canonical("100000000000000000000"));
        assert_eq!(canonical("0.1"), canonical("0.10000000000000001"));
        assert_ne!(canonical("1234567890"), canonical("1234567891"));
        assert_ne!(canonical("aé1"), canonical("aé2"));
    }

    #[test]
    fn rows_are_compared_as_multisets() {
        let row = |cell: &str| vec![Some(cell.to_string()), None];
        let (more, fewer) = difference(&[row("1"), row("1"), row("2")], &[row("3"), row("1.0"), row("2")]);
        assert_eq!((more, fewer), (vec!["1 | NULL".to_string()], vec!["3 | NULL".to_string()]));
    }
}
