//! The messages of PostgreSQL's `pgoutput` plugin, protocol version 1, text values
//! (PostgreSQL documentation, "Logical Replication Message Formats").
//!
//! Nothing that a server sends can make this panic: what does not fit is an error.

use crate::connectors::replicated::{Tuple, Value};
use crate::error::{Error, Result, SqlState};

/// A message about rows or relations. Begin and commit are told by the replication client itself.
#[derive(Debug, PartialEq)]
pub enum Message<'a> {
    /// What a relation looks like from now on.
    Relation(Relation),
    /// A new row.
    Insert {
        /// Where.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row; `old` when the key changed or the replica identity is FULL.
    Update {
        /// Where.
        relation: u32,
        /// The row before, as far as it was sent.
        old: Option<Old<'a>>,
        /// The row after.
        new: Tuple<'a>,
    },
    /// A row that went.
    Delete {
        /// Where.
        relation: u32,
        /// The row before, as far as it was sent.
        old: Old<'a>,
    },
    /// Relations that were emptied.
    Truncate {
        /// Which ones.
        relations: Vec<u32>,
    },
    /// Types, origins, logical messages: nothing that changes rows.
    Other,
}

/// A relation's description.
#[derive(Clone, Debug, PartialEq)]
pub struct Relation {
    /// Its number in this session.
    pub id: u32,
    /// `schema.table`.
    pub name: String,
    /// Column names, in the order of tuples.
    pub columns: Vec<String>,
    /// The columns' types and modifiers, by PostgreSQL's numbers.
    pub types: Vec<(u32, i32)>,
}

/// What is known of a row before its change.
#[derive(Debug, PartialEq)]
pub enum Old<'a> {
    /// The replica identity's columns; the others are NULL.
    Key(Tuple<'a>),
    /// All columns.
    Full(Tuple<'a>),
}

/// Decodes one message.
///
/// # Errors
/// 08P01 when it is not what the protocol says.
pub fn decode(data: &[u8]) -> Result<Message<'_>> {
    let mut r = Reader { data };
    let message = match r.u8()? {
        b'R' => Message::Relation(relation(&mut r)?),
        b'I' => {
            let relation = r.u32()?;
            match r.u8()? {
                b'N' => Message::Insert { relation, new: r.tuple()? },
                other => return Err(unexpected(other)),
            }
        }
        b'U' => {
            let relation = r.u32()?;
            let (old, marker) = match r.u8()? {
                b'K' => (Some(Old::Key(r.tuple()?)), r.u8()?),
                b'O' => (Some(Old::Full(r.tuple()?)), r.u8()?),
                marker => (None, marker),
            };
            if marker != b'N' {
                return Err(unexpected(marker));
            }
            Message::Update { relation, old, new: r.tuple()? }
        }
        b'D' => {
            let relation = r.u32()?;
            let old = match r.u8()? {
                b'K' => Old::Key(r.tuple()?),
                b'O' => Old::Full(r.tuple()?),
                other => return Err(unexpected(other)),
            };
            Message::Delete { relation, old }
        }
        b'T' => {
            let n = r.u32()?;
            r.u8()?; // options: CASCADE, RESTART IDENTITY; the relations are listed anyway
            Message::Truncate { relations: (0..n).map(|_| r.u32()).collect::<Result<_>>()? }
        }
        b'Y' | b'O' | b'M' => Message::Other,
        other => return Err(unexpected(other)),
    };
    Ok(message)
}

fn relation(r: &mut Reader<'_>) -> Result<Relation> {
    let id = r.u32()?;
    let namespace = match r.string()? {
        "" => "pg_catalog",
        namespace => namespace,
    };
    let name = format!("{namespace}.{}", r.string()?);
    r.u8()?; // replica identity: each message says what it carries
    let n = r.u16()?;
    let (mut columns, mut types) = (Vec::new(), Vec::new());
    for _ in 0..n {
        r.u8()?; // part of the key
        columns.push(r.string()?.to_string());
        types.push((r.u32()?, r.u32()?.cast_signed()));
    }
    Ok(Relation { id, name, columns, types })
}

fn unexpected(byte: u8) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, format!("unexpected byte {byte:#04x} in the replication stream"))
}

struct Reader<'a> {
    data: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.data.split_at_checked(n) else {
            return Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                "the replication stream's message is cut short",
            ));
        };
        self.data = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<&'a str> {
        let end = self.data.iter().position(|b| *b == 0).unwrap_or(self.data.len());
        let text = utf8(self.take(end)?)?;
        self.u8()?;
        Ok(text)
    }

    fn tuple(&mut self) -> Result<Tuple<'a>> {
        let n = self.u16()?;
        (0..n)
            .map(|_| match self.u8()? {
                b'n' => Ok(Value::Null),
                b'u' => Ok(Value::Unchanged),
                b't' => {
                    let len = self.u32()? as usize;
                    Ok(Value::Text(utf8(self.take(len)?)?))
                }
                other => Err(unexpected(other)),
            })
            .collect()
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| {
        Error::new(SqlState::PROTOCOL_VIOLATION, "the replication stream holds text that is not UTF-8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update() -> Vec<u8> {
        let mut m = vec![b'U', 0, 0, 0, 7, b'K', 0, 1, b't', 0, 0, 0, 1, b'5', b'N', 0, 3];
        m.extend_from_slice(&[b't', 0, 0, 0, 1, b'6', b'n', b'u']);
        m
    }

    #[test]
    fn an_update_with_a_changed_key() {
        let message = update();
        assert_eq!(
            decode(&message).unwrap(),
            Message::Update {
                relation: 7,
                old: Some(Old::Key(vec![Value::Text("5")])),
                new: vec![Value::Text("6"), Value::Null, Value::Unchanged],
            }
        );
    }

    #[test]
    fn a_message_cut_anywhere_is_an_error() {
        let message = update();
        for end in 0..message.len() {
            assert!(decode(&message[..end]).is_err(), "{end}");
        }
    }
}
