//! Places in the binary log: a file and an offset, and for MariaDB the last transaction of each domain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A durable place in the upstream's log: behind a transaction.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// The log's file.
    pub file: String,
    /// Offset in it.
    pub offset: u64,
    /// MariaDB: the last transaction of each domain; `None`: the file and offset count.
    pub gtid: Option<GtidState>,
    /// Whose log the file and offset are of; `None`: that of the server there was before this was noted.
    #[serde(default)]
    pub server: Option<String>,
}

impl Position {
    /// For people: `mariadb-bin.000001:342`.
    pub fn text(&self) -> String {
        format!("{}:{}", self.file, self.offset)
    }
}

/// The last transaction of each domain of a MariaDB server: the server that wrote it, and its number.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GtidState(BTreeMap<u32, (u32, u64)>);

impl GtidState {
    /// Reads `0-1-42,1-2-7`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut state = GtidState::default();
        for one in text.split(',').map(str::trim).filter(|t| !t.is_empty()) {
            let mut parts = one.splitn(3, '-');
            let (domain, server) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            state.0.insert(domain, (server, parts.next()?.parse().ok()?));
        }
        Some(state)
    }

    /// A transaction has passed.
    pub fn advance(&mut self, gtid: Gtid) {
        self.0.insert(gtid.domain, (gtid.server, gtid.sequence));
    }

    /// As the server wants to be told.
    pub fn text(&self) -> String {
        let one = |(domain, (server, sequence)): (&u32, &(u32, u64))| format!("{domain}-{server}-{sequence}");
        self.0.iter().map(one).collect::<Vec<_>>().join(",")
    }
}

/// A MariaDB transaction's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gtid {
    domain: u32,
    server: u32,
    sequence: u64,
    /// The transaction is the one statement that follows: nothing says that it ends.
    pub standalone: bool,
}

impl Gtid {
    /// Reads the body of a MariaDB GTID event; the server's number stands in the event's head.
    pub fn read(body: &[u8], server: u32) -> Option<Self> {
        let sequence = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
        let domain = u32::from_le_bytes(body.get(8..12)?.try_into().ok()?);
        Some(Gtid { domain, server, sequence, standalone: body.get(12)? & 1 == 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_go_to_text_and_back() {
        let mut state = GtidState::parse("0-1-42, 7-3-9").unwrap();
        let event = [43u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
        let gtid = Gtid::read(&event, 2).unwrap();
        assert!(gtid.standalone);
        state.advance(gtid);
        assert_eq!(state.text(), "0-2-43,7-3-9");
        assert_eq!(GtidState::parse("").unwrap().text(), "");
        assert!(GtidState::parse("0-1").is_none() && Gtid::read(&event[..9], 2).is_none());
    }
}
