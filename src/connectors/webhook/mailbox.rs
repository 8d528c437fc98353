//! Where bodies wait for their source, and where answers come from.
//!
//! Room is reserved before a body is read, so that all bodies together, those half read included, never take more
//! memory than the limit: who finds no room is told to come again later, before anything of the body is read.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

/// What a body weighs besides its bytes: its headers, its answer, its place in the queue.
const LETTER_BYTES: usize = 2 << 10;

/// How much may be sent, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In one body.
    pub body: usize,
    /// In all bodies that wait.
    pub queue: usize,
}

/// Why there is no room for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// Too much waits already.
    Full,
    /// The source is not at work.
    Closed,
}

/// What became of a body, durably.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Rows made of it.
    pub rows: u64,
    /// Records in it that became rows of `tidemill.errors`.
    pub errors: u64,
}

/// A body that waits.
pub struct Letter {
    /// The request's headers, as a JSON object.
    pub headers: String,
    /// What was posted.
    pub body: Bytes,
    /// When it had come, µs since 1970.
    pub at_micros: i64,
    /// Where the answer goes; dropped without one when the source has stopped.
    pub answer: oneshot::Sender<Taken>,
    /// Given back with the letter.
    room: Room,
}

#[derive(Default)]
struct State {
    open: bool,
    reserved: usize,
    waiting: Vec<Letter>,
}

/// The mailbox of one source.
pub struct Mailbox {
    limits: Limits,
    state: Mutex<State>,
    arrived: Condvar,
}

/// Room for one body.
pub struct Room {
    mailbox: Arc<Mailbox>,
    bytes: usize,
}

/// A source takes what comes, until this is dropped.
pub struct Open<'a>(&'a Mailbox);

impl Mailbox {
    /// Empty, and closed until a source opens it.
    pub fn new(limits: Limits) -> Arc<Mailbox> {
        Arc::new(Mailbox { limits, state: Mutex::default(), arrived: Condvar::new() })
    }

    /// How much may be sent.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Reserves room for a body of so many bytes.
    ///
    /// # Errors
    /// When there is none.
    pub fn reserve(self: &Arc<Self>, body: usize) -> Result<Room, NoRoom> {
        let bytes = body.saturating_add(LETTER_BYTES);
        let mut state = self.state.lock();
        if !state.open {
            return Err(NoRoom::Closed);
        }
        // The first one always has room.
        if state.reserved > 0 && state.reserved.saturating_add(bytes) > self.limits.queue {
            return Err(NoRoom::Full);
        }
        state.reserved += bytes;
        Ok(Room { mailbox: Arc::clone(self), bytes })
    }

    /// Puts a body in; the answer comes when it is durable, or never when the source stops before.
    ///
    /// # Errors
    /// The source is not at work any more.
    pub fn post(
        &self,
        room: Room,
        headers: String,
        body: Bytes,
        at_micros: i64,
    ) -> Result<oneshot::Receiver<Taken>, NoRoom> {
        let (answer, receiver) = oneshot::channel();
        let mut state = self.state.lock();
        if !state.open {
            // The room's own drop needs the lock.
            drop(state);
            return Err(NoRoom::Closed);
        }
        state.waiting.push(Letter { headers, body, at_micros, answer, room });
        drop(state);
        self.arrived.notify_one();
        Ok(receiver)
    }

    /// Lets bodies in until the answer is dropped; what waits then goes without an answer.
    pub fn open(&self) -> Open<'_> {
        self.state.lock().open = true;
        Open(self)
    }

    /// Takes all that wait, at most for so long.
    pub fn take(&self, timeout: Duration) -> Vec<Letter> {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            self.arrived.wait_for(&mut state, timeout);
        }
        std::mem::take(&mut state.waiting)
    }
}

impl Room {
    /// Gives back what a body of so many bytes does not need.
    pub fn shrink(&mut self, body: usize) {
        let less = self.bytes.saturating_sub(body.saturating_add(LETTER_BYTES));
        self.bytes -= less;
        self.mailbox.state.lock().reserved -= less;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.mailbox.state.lock().reserved -= self.bytes;
    }
}

impl Letter {
    /// Says what became of it.
    pub fn answer(self, taken: Taken) {
        // Who does not wait any more sends the body again.
        let _ = self.answer.send(taken);
        drop(self.room);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let waiting = {
            let mut state = self.0.state.lock();
            state.open = false;
            std::mem::take(&mut state.waiting)
        };
        // Each gives its room back, which needs the lock.
        drop(waiting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_bounded_and_given_back() {
        let mailbox = Mailbox::new(Limits { body: 10_000, queue: 20_000 });
        assert_eq!(mailbox.reserve(1).err(), Some(NoRoom::Closed));
        let open = mailbox.open();
        let mut first = mailbox.reserve(10_000).unwrap();
        assert_eq!(mailbox.reserve(10_000).err(), Some(NoRoom::Full));
        first.shrink(100);
        let second = mailbox.reserve(10_000).unwrap();
        let mut answered = mailbox.post(first, "{}".into(), Bytes::from_static(b"a"), 0).unwrap();
        let mut left = mailbox.post(second, "{}".into(), Bytes::from_static(b"b"), 0).unwrap();
        let mut letters = mailbox.take(Duration::ZERO);
        assert_eq!(letters.len(), 2);
        letters.swap_remove(0).answer(Taken { rows: 1, errors: 0 });
        assert_eq!(answered.try_recv(), Ok(Taken { rows: 1, errors: 0 }));
        drop(letters);
        assert_eq!(left.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(mailbox.state.lock().reserved, 0);

        let room = mailbox.reserve(1).unwrap();
        let mut waiting = mailbox.post(room, "{}".into(), Bytes::new(), 0).unwrap();
        let late = mailbox.reserve(1).unwrap();
        drop(open);
        assert_eq!(waiting.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert_eq!(mailbox.post(late, "{}".into(), Bytes::new(), 0).err(), Some(NoRoom::Closed));
        assert_eq!(mailbox.state.lock().reserved, 0);
    }
}
