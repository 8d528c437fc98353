//! What waits for the tick thread: transactions, bounded by rows and bytes, and commands, which go first.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::engine::{Tick, Transaction};
use crate::error::{Error, Result, SqlState};

/// Rows that may wait before `submit` blocks.
pub(crate) const QUEUE_ROWS_MAX: usize = 1 << 20;
/// Bytes of rows that may wait before `submit` blocks.
pub(crate) const QUEUE_BYTES_MAX: usize = 256 << 20;
/// What a transaction weighs at least, in rows, so that empty ones are bounded too.
const TRANSACTION_ROWS_MIN: usize = 1;

/// Something that has its place among the transactions, and where its answer goes.
pub(crate) struct Queued {
    pub(crate) item: Item,
    pub(crate) answer: oneshot::Sender<Result<Tick>>,
    rows: usize,
    bytes: usize,
}

/// See [`Queued`].
pub(crate) enum Item {
    Transaction(Transaction),
    /// The source of this name begins anew after all that it has submitted before.
    Resume(String),
}

/// What the tick thread does next.
pub(crate) enum Work<C> {
    /// Commands, in order; each at a tick boundary.
    Commands(Vec<C>),
    /// The transactions of one tick.
    Transactions(Vec<Queued>),
    /// The time to wait for something is over.
    Due,
    /// Nothing will come any more.
    Closed,
}

struct State<C> {
    commands: VecDeque<C>,
    transactions: VecDeque<Queued>,
    rows: usize,
    bytes: usize,
    /// Why nothing is taken any more, or not yet.
    refused: Option<Error>,
    closed: bool,
}

/// The queue in front of the tick thread.
pub(crate) struct Inbox<C> {
    state: Mutex<State<C>>,
    /// There is something to do.
    work: Condvar,
    /// There is room again.
    room: Condvar,
}

impl<C> Inbox<C> {
    /// An empty queue; with `refused` it takes commands only.
    pub(crate) fn new(refused: Option<Error>) -> Self {
        Inbox {
            state: Mutex::new(State {
                commands: VecDeque::new(),
                transactions: VecDeque::new(),
                rows: 0,
                bytes: 0,
                refused,
                closed: false,
            }),
            work: Condvar::new(),
            room: Condvar::new(),
        }
    }

    /// Queues an item, waiting for room.
    pub(crate) fn submit(&self, item: Item) -> oneshot::Receiver<Result<Tick>> {
        let (answer, receipt) = oneshot::channel();
        let (rows, bytes) = match &item {
            Item::Transaction(transaction) => weigh(transaction),
            Item::Resume(_) => (TRANSACTION_ROWS_MIN, 0),
        };
        let queued = Queued { item, answer, rows, bytes };
        let mut state = self.state.lock();
        loop {
            if let Some(error) = &state.refused {
                // The receiver is in our hands, so the send cannot fail.
                let _ = queued.answer.send(Err(error.clone()));
                return receipt;
            }
            let fits = state.rows + rows <= QUEUE_ROWS_MAX && state.bytes + bytes <= QUEUE_BYTES_MAX;
            // One that is larger than the whole queue goes alone.
            if fits || state.transactions.is_empty() {
                break;
            }
            self.room.wait(&mut state);
        }
        state.rows += rows;
        state.bytes += bytes;
        state.transactions.push_back(queued);
        drop(state);
        self.work.notify_one();
        receipt
    }

    /// Queues a command; given back when the tick thread is gone.
    pub(crate) fn command(&self, command: C) -> Result<(), C> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(command);
        }
        state.commands.push_back(command);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Waits for something to do: every waiting command, or as many transactions as fit `rows_max` (at least one).
    /// With `wait`, waits no longer than that.
    pub(crate) fn next(&self, rows_max: usize, wait: Option<Duration>) -> Work<C> {
        let mut state = self.state.lock();
        loop {
            if !state.commands.is_empty() {
                return Work::Commands(state.commands.drain(..).collect());
            }
            if !state.transactions.is_empty() {
                let mut taken = Vec::new();
                let mut rows = 0;
                while let Some(next) = state.transactions.front() {
                    if !taken.is_empty() && rows + next.rows > rows_max {
                        break;
                    }
                    let Some(next) = state.transactions.pop_front() else { break };
                    rows += next.rows;
                    state.rows -= next.rows;
                    state.bytes -= next.bytes;
                    taken.push(next);
                }
                drop(state);
                self.room.notify_all();
                return Work::Transactions(taken);
            }
            if state.closed {
                return Work::Closed;
            }
            match wait {
                None => self.work.wait(&mut state),
                Some(wait) => {
                    if self.work.wait_for(&mut state, wait).timed_out() {
                        return Work::Due;
                    }
                }
            }
        }
    }

    /// Takes transactions (`None`) or refuses them with an error, those that wait for room included.
    pub(crate) fn refuse(&self, error: Option<Error>) {
        self.state.lock().refused = error;
        self.room.notify_all();
    }

    /// Takes nothing more; what is queued is still handed out.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        state.refused = Some(shut_down());
        drop(state);
        self.work.notify_all();
        self.room.notify_all();
    }

    /// Takes nothing more and forgets what is queued: whoever waits for an answer learns that there is none.
    pub(crate) fn abort(&self, error: Error) {
        let mut state = self.state.lock();
        state.closed = true;
        state.refused = Some(error.clone());
        state.commands.clear();
        let transactions = std::mem::take(&mut state.transactions);
        state.rows = 0;
        state.bytes = 0;
        drop(state);
        for queued in transactions {
            // Whoever is not there any more does not wait either.
            let _ = queued.answer.send(Err(error.clone()));
        }
        self.room.notify_all();
    }

    /// Rows waiting.
    pub(crate) fn rows(&self) -> usize {
        self.state.lock().rows
    }
}

/// The answer to whoever comes too late.
pub(crate) fn shut_down() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "the engine is shut down")
}

/// Rows and bytes of a transaction.
fn weigh(transaction: &Transaction) -> (usize, usize) {
    let mut rows = TRANSACTION_ROWS_MIN;
    let mut bytes = 0;
    for (_, change) in &transaction.changes {
        let Some(batch) = change.rows() else { continue };
        rows += batch.num_rows();
        bytes += batch.get_array_memory_size();
    }
    (rows, bytes)
}
