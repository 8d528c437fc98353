//! A small blocking PostgreSQL client that shows results as text in both protocols, as psql would print them.
//!
//! The drivers of the ecosystem ask for binary results in the extended protocol; a test of what users see wants text.

use std::fmt;
use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

/// Which protocol statements go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Simple,
    Extended,
}

/// The outcome of one statement.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    /// Column names; `None`: the statement gives no rows.
    pub columns: Option<Vec<String>>,
    /// Rows as text; `None`: NULL.
    pub rows: Vec<Vec<Option<String>>>,
    /// The command tag.
    pub tag: String,
}

/// An error as the server told it, or what went wrong on the way (SQLSTATE 08006).
#[derive(Clone, Debug, PartialEq)]
pub struct PgError {
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
    pub position: Option<usize>,
}

impl fmt::Display for PgError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.sqlstate, self.message)?;
        if let Some(detail) = &self.detail {
            write!(f, " DETAIL: {detail}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " HINT: {hint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for PgError {}

impl From<std::io::Error> for PgError {
    fn from(e: std::io::Error) -> Self {
        PgError { sqlstate: "08006".into(), message: e.to_string(), detail: None, hint: None, position: None }
    }
}

/// One connection.
pub struct PgClient {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    /// `I`dle, in a `T`ransaction, or in a failed one (`E`).
    pub status: u8,
}

impl PgClient {
    /// Connects as user and database `tidemill`.
    pub fn connect(addr: SocketAddr) -> Result<Self, PgError> {
        Self::connect_to(addr, "tidemill", "tidemill")
    }

    /// Connects without a password.
    pub fn connect_to(addr: SocketAddr, user: &str, database: &str) -> Result<Self, PgError> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        let mut client =
            PgClient { reader: BufReader::new(stream.try_clone()?), writer: stream, status: b'I' };
        let mut body = Vec::new();
        body.extend_from_slice(&196_608u32.to_be_bytes());
        for part in ["user", user, "database", database, ""] {
            body.extend_from_slice(part.as_bytes());
            body.push(0);
        }
        let mut message = ((body.len() + 4) as u32).to_be_bytes().to_vec();
        message.extend_from_slice(&body);
        client.writer.write_all(&message)?;
        client.until_ready()?;
        Ok(client)
    }

    /// How long to wait for an answer; then the connection is of no more use.
    pub fn set_timeout(&mut self, timeout: std::time::Duration) -> Result<(), PgError> {
        Ok(self.reader.get_ref().set_read_timeout(Some(timeout))?)
    }

    /// Runs the statements of `sql`; the extended protocol takes one.
    pub fn run(&mut self, protocol: Protocol, sql: &str) -> Result<Vec<Answer>, PgError> {
        let mut out = Vec::new();
        match protocol {
            Protocol::Simple => message(&mut out, b'Q', &[sql.as_bytes(), b"\0"]),
            Protocol::Extended => {
                // unnamed statement and portal, no parameters, every result column as text
                message(&mut out, b'P', &[b"\0", sql.as_bytes(), b"\0", &0u16.to_be_bytes()]);
                message(&mut out, b'B', &[b"\0\0", &[0; 6]]);
                message(&mut out, b'D', &[b"P\0"]);
                message(&mut out, b'E', &[b"\0", &0u32.to_be_bytes()]);
                message(&mut out, b'S', &[]);
            }
        }
        self.writer.write_all(&out)?;
        self.until_ready()
    }

    fn until_ready(&mut self) -> Result<Vec<Answer>, PgError> {
        let mut answers = Vec::new();
        let mut current = Answer::default();
        let mut failed = None;
        loop {
            let mut head = [0; 5];
            self.reader.read_exact(&mut head)?;
            let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            let mut body = vec![0; len - 4];
            self.reader.read_exact(&mut body)?;
            match head[0] {
                b'T' => current.columns = Some(column_names(&body)),
                b'D' => current.rows.push(row(&body)),
                b'C' => {
                    current.tag = text(&body).0;
                    answers.push(std::mem::take(&mut current));
                }
                b'I' => answers.push(std::mem::take(&mut current)),
                b'E' => failed = failed.or(Some(error(&body))),
                b'Z' => {
                    self.status = body[0];
                    return match failed {
                        Some(e) => Err(e),
                        None => Ok(answers),
                    };
                }
                _ => {}
            }
        }
    }
}

fn message(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    out.push(kind);
    let len: usize = parts.iter().map(|p| p.len()).sum();
    out.extend_from_slice(&((len + 4) as u32).to_be_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
}

fn text(bytes: &[u8]) -> (String, &[u8]) {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    (String::from_utf8_lossy(&bytes[..end]).into_owned(), &bytes[(end + 1).min(bytes.len())..])
}

fn column_names(body: &[u8]) -> Vec<String> {
    let n = u16::from_be_bytes([body[0], body[1]]);
    let mut rest = &body[2..];
    (0..n)
        .map(|_| {
            let (name, after) = text(rest);
            rest = &after[18..];
            name
        })
        .collect()
}

fn row(body: &[u8]) -> Vec<Option<String>> {
    let n = u16::from_be_bytes([body[0], body[1]]);
    let mut rest = &body[2..];
    (0..n)
        .map(|_| {
            let len = i32::from_be_bytes([rest[0], rest[1], rest[2], rest[3]]);
            rest = &rest[4..];
            let len = usize::try_from(len).ok()?;
            let value = String::from_utf8_lossy(&rest[..len]).into_owned();
            rest = &rest[len..];
            Some(value)
        })
        .collect()
}

fn error(body: &[u8]) -> PgError {
    let mut e = PgError::from(std::io::Error::other("error without a message"));
    let mut rest = body;
    while let Some((&field, after)) = rest.split_first().filter(|(f, _)| **f != 0) {
        let (value, after) = text(after);
        rest = after;
        match field {
            b'C' => e.sqlstate = value,
            b'M' => e.message = value,
            b'D' => e.detail = Some(value),
            b'H' => e.hint = Some(value),
            b'P' => e.position = value.parse().ok(),
            _ => {}
        }
    }
    e
}
