//! How far a source has read: the next offset of each partition of each topic. Stored as JSON, for people to read.

use std::collections::BTreeMap;

use crate::error::{Error, Result, SqlState};

/// Next offsets. Partitions that nothing was read of are not in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Position {
    topics: BTreeMap<String, BTreeMap<i32, i64>>,
}

impl Position {
    /// From its stored bytes.
    ///
    /// # Errors
    /// XX001 when they are none.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|e| {
            Error::new(
                SqlState::DATA_CORRUPTED,
                format!("the stored position of a KAFKA source is broken: {e}"),
            )
        })
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(e.to_string()))
    }

    /// The next offset to read, if one is known.
    pub fn get(&self, topic: &str, partition: i32) -> Option<i64> {
        self.topics.get(topic)?.get(&partition).copied()
    }

    /// Sets the next offset to read.
    pub fn set(&mut self, topic: &str, partition: i32, next: i64) {
        match self.topics.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, next);
            }
            None => {
                self.topics.insert(topic.to_string(), BTreeMap::from([(partition, next)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_back() {
        let mut p = Position::default();
        p.set("b", 10, 5);
        p.set("a", 0, 1 << 40);
        p.set("b", 10, 6);
        let bytes = p.encode().unwrap();
        assert_eq!(
            String::from_utf8(bytes.clone()).unwrap(),
            r#"{"topics":{"a":{"0":1099511627776},"b":{"10":6}}}"#
        );
        assert_eq!(Position::decode(&bytes), Ok(p));
        assert_eq!(Position::decode(b"{").unwrap_err().sqlstate, SqlState::DATA_CORRUPTED);
    }
}
