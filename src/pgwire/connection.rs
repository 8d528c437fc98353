//! One session on the wire: the loop over the client's messages, and the simple protocol.

use std::collections::HashMap;

use pgwire::messages::response::TransactionStatus as WireStatus;

use crate::database::{CopyIn, Notice, Outcome, Session, TransactionStatus};
use crate::error::{Error, Result, SqlState};
use crate::pgwire::copy::CopyWriter;
use crate::pgwire::encode::RowEncoder;
use crate::pgwire::extended::Portal;
use crate::pgwire::frame::Request;
use crate::pgwire::io::{End, Io};
use crate::pgwire::reply::Severity;
use crate::pgwire::rows::{Halt, Rows, Sent, copy_out};
use crate::types::TextFormat;

/// A session with its client.
pub struct Connection {
    pub(super) io: Io,
    pub(super) session: Session,
    /// Bound statements by name; the unnamed one is "".
    pub(super) portals: HashMap<String, Portal>,
    /// After an error in the extended protocol: everything up to the next Sync is passed over.
    skipping: bool,
}

impl Connection {
    /// A session that the client was just welcomed to.
    pub fn new(io: Io, session: Session) -> Connection {
        Connection { io, session, portals: HashMap::new(), skipping: false }
    }

    /// Serves the client until one of the two has enough. The client has then been told why, as far as it listens.
    pub async fn run(mut self) {
        if let Err(End::Fatal(e)) = self.serve().await {
            // The connection ends in any case; a client that does not listen misses the reason.
            let _ = self.io.out.error(&e, Severity::Fatal);
            let _ = self.io.flush().await;
        }
    }

    async fn serve(&mut self) -> Result<(), End> {
        self.ready().await?;
        while let Some(frame) = self.io.frame().await? {
            if self.skipping && !matches!(frame.kind, b'S' | b'X') {
                continue;
            }
            let (kind, is_extended) = (frame.kind, frame.is_extended());
            let answered = match frame.request() {
                Ok(Request::Terminate) => return Ok(()),
                Ok(request) => self.answer(request).await,
                Err(e) => Err(Halt::Failed(e)),
            };
            match answered {
                Ok(()) => {}
                Err(Halt::End(end)) => return Err(end),
                Err(Halt::Failed(e)) => {
                    self.session.fail();
                    self.report(&e)?;
                    self.skipping = is_extended;
                    // Not at Sync only: a client that sent Flush waits for the error before it sends Sync.
                    self.io.flush().await?;
                }
            }
            if matches!(kind, b'Q' | b'S') {
                self.ready().await?;
            } else {
                self.io.flush_if_large().await?;
            }
        }
        Ok(())
    }

    async fn answer(&mut self, request: Request) -> Result<(), Halt> {
        match request {
            Request::Query(sql) => self.simple(&sql).await,
            Request::Parse { name, sql, param_oids } => self.parse(&name, &sql, &param_oids).await,
            Request::Bind(bind) => self.bind(bind),
            Request::Describe(target) => self.describe(target),
            Request::Execute { portal, rows_max } => self.execute(&portal, rows_max).await,
            Request::Close(target) => self.close(target),
            Request::Flush => Ok(self.io.flush().await?),
            Request::Sync => self.sync().await,
            // What is left of a COPY that failed on this side, as in PostgreSQL.
            Request::CopyData(_) | Request::CopyDone | Request::CopyFail(_) => Ok(()),
            Request::Terminate => Ok(()),
            Request::Password => Err(Halt::End(End::Fatal(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                "a password came though none was asked for",
            )))),
        }
    }

    /// Statements as text, one after the other; the first error ends them.
    async fn simple(&mut self, sql: &str) -> Result<(), Halt> {
        // The simple protocol has the unnamed statement and portal for itself.
        self.portals.remove("");
        self.session.close_prepared("");
        let Some(mut outcome) = self.io.watch(self.session.simple(sql)).await?? else {
            return Ok(self.io.out.empty_query()?);
        };
        loop {
            self.simple_outcome(outcome).await?;
            match self.io.watch(self.session.simple_next()).await?? {
                Some(next) => outcome = next,
                None => return Ok(()),
            }
        }
    }

    async fn simple_outcome(&mut self, outcome: Outcome) -> Result<(), Halt> {
        match outcome {
            Outcome::Rows { schema, stream, tag, notices } => {
                self.notices(notices)?;
                let encoder = RowEncoder::new(&schema, &[], self.text_format())?;
                self.io.out.row_description(encoder.description())?;
                if let Sent::All(tag) = Rows::new(encoder, stream, tag).send(&mut self.io, 0).await? {
                    self.complete(tag)?;
                }
                Ok(())
            }
            other => self.without_rows(other).await,
        }
    }

    /// Answers what both protocols answer alike: everything but rows.
    pub(super) async fn without_rows(&mut self, outcome: Outcome) -> Result<(), Halt> {
        match outcome {
            Outcome::Rows { .. } => {
                Err(Error::internal("rows in the answer to a statement without rows").into())
            }
            Outcome::Done { tag, notices } => {
                self.notices(notices)?;
                Ok(self.complete(tag)?)
            }
            Outcome::CopyIn(copy) => self.copy_in(*copy).await,
            Outcome::CopyOut { schema, format, stream } => {
                let encoder = RowEncoder::new(&schema, &[], self.text_format())?;
                let n = copy_out(&mut self.io, &encoder, stream, CopyWriter::new(format)?).await?;
                Ok(self.complete(format!("COPY {n}"))?)
            }
            Outcome::Empty => Ok(self.io.out.empty_query()?),
        }
    }

    /// Takes COPY data until the client says that it was all, or that it was nothing.
    async fn copy_in(&mut self, mut copy: CopyIn) -> Result<(), Halt> {
        self.io.out.copy_in(copy.columns().fields().len())?;
        self.io.flush().await?;
        loop {
            let frame = self.io.frame().await?.ok_or(End::Gone)?;
            let kind = frame.kind;
            match frame.request()? {
                Request::CopyData(data) => copy.write(&data)?,
                Request::CopyDone => {
                    let outcome = self.io.watch(self.session.copy_finish(copy)).await??;
                    return Box::pin(self.without_rows(outcome)).await;
                }
                Request::CopyFail(reason) => return Err(self.session.copy_fail(copy, &reason).into()),
                // Clients of the extended protocol may have sent these before they knew of the COPY.
                Request::Flush | Request::Sync => {}
                Request::Terminate => return Err(End::Gone.into()),
                _ => {
                    return Err(Error::new(
                        SqlState::PROTOCOL_VIOLATION,
                        format!("unexpected message type 0x{kind:02X} during COPY from stdin"),
                    )
                    .into());
                }
            }
        }
    }

    /// A statement is through: its tag, and what it changed of the settings that clients follow.
    pub(super) fn complete(&mut self, tag: String) -> Result<()> {
        self.pending_notices()?;
        for (name, value) in self.session.changed_settings() {
            self.io.out.parameter_status(name, &value)?;
        }
        self.io.out.command_complete(tag)
    }

    /// Tells the client of an error.
    fn report(&mut self, e: &Error) -> Result<(), End> {
        self.pending_notices().map_err(End::Fatal)?;
        self.io.out.error(e, Severity::Error).map_err(End::Fatal)
    }

    fn pending_notices(&mut self) -> Result<()> {
        let notices = self.session.take_notices();
        self.notices(notices)
    }

    pub(super) fn notices(&mut self, notices: Vec<Notice>) -> Result<()> {
        for notice in &notices {
            self.io.out.notice(notice)?;
        }
        Ok(())
    }

    /// The next statement may come; everything that was said is sent.
    async fn ready(&mut self) -> Result<(), End> {
        self.skipping = false;
        let status = match self.session.transaction_status() {
            TransactionStatus::Idle => WireStatus::Idle,
            TransactionStatus::Open => WireStatus::Transaction,
            TransactionStatus::Failed => WireStatus::Error,
        };
        if status == WireStatus::Idle {
            // Portals live as long as their transaction.
            self.portals.clear();
        }
        self.io.out.ready(status).map_err(End::Fatal)?;
        self.io.flush().await
    }

    /// How values are written as text, by the session's settings.
    pub(super) fn text_format(&self) -> TextFormat {
        self.session.text_format()
    }
}
