//! The socket of one connection: frames in, replies out, and an eye on the client while a statement runs.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result, SqlState};
use crate::pgwire::frame::{self, Frame, Opening};
use crate::pgwire::reply::Replies;

/// Replies are sent when this many bytes are waiting, so that a result of any size needs no more memory.
const FLUSH_BYTES: usize = 64 << 10;
/// While a statement runs, at most this much of what the client sends ahead is read.
const READ_AHEAD_BYTES_MAX: usize = 64 << 10;
/// An emptied buffer larger than this is given back.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Why a connection ends.
#[derive(Debug)]
pub enum End {
    /// The client is gone, there is nobody to tell.
    Gone,
    /// The client is to be told why, then the connection closes.
    Fatal(Error),
}

impl From<std::io::Error> for End {
    fn from(_: std::io::Error) -> Self {
        End::Gone
    }
}

/// Both directions of one connection.
pub struct Io {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    inbox: BytesMut,
    /// What waits to be sent.
    pub out: Replies,
    stop: CancellationToken,
}

impl Io {
    /// The connection over this socket; `stop` is the server's shutdown.
    pub fn new(socket: TcpStream, stop: CancellationToken) -> Io {
        let (reader, writer) = socket.into_split();
        Io { reader, writer, inbox: BytesMut::new(), out: Replies::default(), stop }
    }

    /// Waits for the first packet. `None`: the client went away without one.
    pub async fn opening(&mut self) -> Result<Option<Opening>, End> {
        loop {
            if let Some(opening) = frame::opening(&mut self.inbox).map_err(End::Fatal)? {
                return Ok(Some(opening));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Answers a request for encryption: not here. Anything sent in plain text before the answer would be an
    /// attempt to smuggle it past the encryption that the client asked for.
    pub async fn refuse_encryption(&mut self) -> Result<(), End> {
        if !self.inbox.is_empty() {
            return Err(End::Fatal(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                "received unencrypted data after SSL request",
            )));
        }
        self.writer.write_all(b"N").await?;
        Ok(())
    }

    /// Waits for the next message. `None`: the client went away without a goodbye.
    pub async fn frame(&mut self) -> Result<Option<Frame>, End> {
        loop {
            if let Some(frame) = Frame::take(&mut self.inbox).map_err(End::Fatal)? {
                return Ok(Some(frame));
            }
            self.shrink();
            let stop = self.stop.clone();
            tokio::select! {
                n = self.fill() => if n? == 0 {
                    return Ok(None);
                },
                () = stop.cancelled() => return Err(End::Fatal(shutting_down())),
            }
        }
    }

    /// Sends everything that waits.
    pub async fn flush(&mut self) -> Result<(), End> {
        self.writer.write_all(&self.out.buf).await?;
        self.out.buf.clear();
        Ok(())
    }

    /// Sends what waits if it is much.
    pub async fn flush_if_large(&mut self) -> Result<(), End> {
        if self.out.buf.len() >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Runs a piece of work for the client, which is given up when the client goes away. When the server stops it may
    /// still be finished: it can be a commit.
    pub async fn watch<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            let room = self.inbox.len() < READ_AHEAD_BYTES_MAX;
            tokio::select! {
                biased;
                done = &mut work => return Ok(done),
                n = self.fill(), if room => if n? == 0 {
                    return Err(End::Gone);
                },
            }
        }
    }

    /// As [`Io::watch`], but before it has to wait it sends what was made so far: the client of an unending
    /// stream must see every row when it comes. When the server stops the stream ends.
    pub async fn watch_stream<T>(&mut self, next: impl Future<Output = T>) -> Result<T, End> {
        let mut next = pin!(next);
        if let Poll::Ready(done) = futures::poll!(next.as_mut()) {
            return Ok(done);
        }
        self.flush().await?;
        let stop = self.stop.clone();
        tokio::select! {
            biased;
            done = self.watch(next) => done,
            () = stop.cancelled() => Err(End::Fatal(shutting_down())),
        }
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        self.reader.read_buf(&mut self.inbox).await
    }

    /// One long message or row must not cost its memory for as long as the connection lives.
    fn shrink(&mut self) {
        if self.inbox.is_empty() && self.inbox.capacity() > KEPT_BYTES_MAX {
            self.inbox = BytesMut::new();
        }
        if self.out.buf.is_empty() && self.out.buf.capacity() > KEPT_BYTES_MAX {
            self.out.buf = Vec::new();
        }
    }
}

fn shutting_down() -> Error {
    Error::new(SqlState::ADMIN_SHUTDOWN, "terminating connection due to administrator command")
}
