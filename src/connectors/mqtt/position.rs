//! The position of a MQTT source: how many messages were taken, and the last of them, by which a message that the
//! broker sends again is recognised.

use std::collections::VecDeque;

use ring::digest;

use crate::error::{Error, Result};

/// So many messages may have been taken and not be acknowledged.
pub(super) const UNACKNOWLEDGED_MAX: usize = 128;
/// So many messages are remembered: those, and as many again several times whose acknowledgements may be lost on their way.
const SEEN_MAX: usize = 4 * UNACKNOWLEDGED_MAX;

/// A message of a session: its number, which the broker gives again when it sends it again, and its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    number: u16,
    digest: u64,
}

impl Message {
    /// A message of this number, topic and payload.
    pub(super) fn new(number: u16, topic: &str, payload: &[u8]) -> Message {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(topic.as_bytes());
        context.update(&[0]);
        context.update(payload);
        let digest = context.finish();
        let digest = digest.as_ref().first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        Message { number, digest }
    }
}

/// How far a source has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Messages that were taken, ever.
    pub taken: u64,
    seen: VecDeque<Message>,
}

impl Position {
    /// Whether a message was taken before.
    pub(super) fn has(&self, message: Message) -> bool {
        self.seen.contains(&message)
    }

    /// A message is taken; another one may have had its number before.
    pub(super) fn take(&mut self, message: Option<Message>) {
        self.taken += 1;
        let Some(message) = message else { return };
        self.seen.retain(|seen| seen.number != message.number);
        self.seen.push_back(message);
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_front();
        }
    }

    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.taken.to_be_bytes().to_vec();
        for message in &self.seen {
            bytes.extend(message.number.to_be_bytes());
            bytes.extend(message.digest.to_be_bytes());
        }
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// They are none of ours.
    pub(super) fn decode(bytes: &[u8]) -> Result<Position> {
        let wrong = || Error::internal("the position of a MQTT source cannot be read");
        let (taken, rest) = bytes.split_first_chunk::<8>().ok_or_else(wrong)?;
        let mut seen = VecDeque::new();
        for message in rest.chunks(10) {
            let (number, digest) = message.split_first_chunk::<2>().ok_or_else(wrong)?;
            let digest = digest.first_chunk::<8>().ok_or_else(wrong)?;
            seen.push_back(Message {
                number: u16::from_be_bytes(*number),
                digest: u64::from_be_bytes(*digest),
            });
        }
        Ok(Position { taken: u64::from_be_bytes(*taken), seen })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_again_is_recognised() {
        let mut position = Position::default();
        let first = Message::new(1, "a", b"x");
        position.take(Some(first));
        position.take(None);
        assert!(position.has(first) && !position.has(Message::new(1, "a", b"y")));
        assert!(!position.has(Message::new(2, "a", b"x")) && !position.has(Message::new(1, "ax", b"")));
        let again = Position::decode(&position.encode()).unwrap();
        assert_eq!((again.taken, &again), (2, &position));
        // Its number is another message's now.
        position.take(Some(Message::new(1, "a", b"z")));
        assert!(!position.has(first));
        (2..1000).for_each(|n| position.take(Some(Message::new(n, "a", b"x"))));
        assert_eq!(position.encode().len(), 8 + 10 * SEEN_MAX);
        assert!(Position::decode(b"short").is_err() && Position::decode(&[0; 12]).is_err());
    }
}
