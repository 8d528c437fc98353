//! What the server says: messages appended to an output buffer, encoded by the `pgwire` crate.
//!
//! Rows are the exception: `encode` writes them straight into the buffer, a row being the one message that must cost
//! no allocation.

use bytes::{Bytes, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, ErrorResponse, NoticeResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

use crate::database::Notice;
use crate::error::{Error, Result, SqlState};

/// How grave an error is to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed; the session goes on.
    Error,
    /// The session is over.
    Fatal,
}

/// Messages waiting to be sent.
#[derive(Debug, Default)]
pub struct Replies {
    /// Encoded messages.
    pub buf: Vec<u8>,
    /// One message on its way through the crate's encoder.
    scratch: BytesMut,
}

impl Replies {
    fn put(&mut self, message: impl Message) -> Result<()> {
        self.scratch.clear();
        // Only a message beyond the protocol's own limits cannot be encoded.
        message.encode(&mut self.scratch).map_err(|e| Error::new(SqlState("54000"), e.to_string()))?;
        self.buf.extend_from_slice(&self.scratch);
        Ok(())
    }

    /// The user is who he says.
    pub fn authentication_ok(&mut self) -> Result<()> {
        self.put(Authentication::Ok)
    }

    /// The session's settings, as the client has to know them.
    pub fn parameter_status(&mut self, name: &str, value: &str) -> Result<()> {
        self.put(ParameterStatus::new(name.into(), value.into()))
    }

    /// What a cancel request must show.
    pub fn backend_key(&mut self, pid: i32, secret: &Bytes) -> Result<()> {
        self.put(BackendKeyData::new(pid, SecretKey::Bytes(secret.clone())))
    }

    /// The newest protocol 3 minor version there is here, and the `_pq_.` options not known here.
    pub fn negotiate(&mut self, minor: u16, unknown: Vec<String>) -> Result<()> {
        self.put(NegotiateProtocolVersion::new((3 << 16) | i32::from(minor), unknown))
    }

    /// The next statement may come.
    pub fn ready(&mut self, status: TransactionStatus) -> Result<()> {
        self.put(ReadyForQuery::new(status))
    }

    /// A statement was parsed.
    pub fn parse_complete(&mut self) -> Result<()> {
        self.put(ParseComplete::new())
    }

    /// A portal was made.
    pub fn bind_complete(&mut self) -> Result<()> {
        self.put(BindComplete::new())
    }

    /// A statement or portal is gone.
    pub fn close_complete(&mut self) -> Result<()> {
        self.put(CloseComplete::new())
    }

    /// The portal has more rows.
    pub fn portal_suspended(&mut self) -> Result<()> {
        self.put(PortalSuspended::new())
    }

    /// There are no columns to describe.
    pub fn no_data(&mut self) -> Result<()> {
        self.put(NoData::new())
    }

    /// A statement is through.
    pub fn command_complete(&mut self, tag: String) -> Result<()> {
        self.put(CommandComplete::new(tag))
    }

    /// There was no statement in the text.
    pub fn empty_query(&mut self) -> Result<()> {
        self.put(EmptyQueryResponse::new())
    }

    /// Types of a statement's parameters.
    pub fn parameters(&mut self, oids: Vec<u32>) -> Result<()> {
        self.put(ParameterDescription::new(oids))
    }

    /// Columns of the rows to come.
    pub fn row_description(&mut self, fields: Vec<FieldDescription>) -> Result<()> {
        if fields.len() > COLUMNS_MAX {
            return Err(Error::new(
                SqlState("54011"),
                format!("a result can have at most {COLUMNS_MAX} columns, not {}", fields.len()),
            ));
        }
        self.put(RowDescription::new(fields))
    }

    /// COPY FROM STDIN may begin: `columns` in text.
    pub fn copy_in(&mut self, columns: usize) -> Result<()> {
        let columns = columns.min(COLUMNS_MAX);
        self.put(CopyInResponse::new(0, columns as i16, vec![0; columns]))
    }

    /// COPY TO STDOUT begins: `columns` in text.
    pub fn copy_out(&mut self, columns: usize) -> Result<()> {
        let columns = columns.min(COLUMNS_MAX);
        self.put(CopyOutResponse::new(0, columns as i16, vec![0; columns]))
    }

    /// COPY TO STDOUT has sent everything.
    pub fn copy_done(&mut self) -> Result<()> {
        self.put(CopyDone::new())
    }

    /// Something went wrong.
    pub fn error(&mut self, e: &Error, severity: Severity) -> Result<()> {
        let severity = match severity {
            Severity::Error => "ERROR",
            Severity::Fatal => "FATAL",
        };
        let mut fields = fields(severity, e.sqlstate.0, &e.message, e.detail.as_deref(), e.hint.as_deref());
        fields.extend(e.position.map(|p| (b'P', p.to_string())));
        self.put(ErrorResponse::new(fields))
    }

    /// Something worth knowing.
    pub fn notice(&mut self, n: &Notice) -> Result<()> {
        let severity = n.severity.as_str();
        let fields = fields(severity, n.sqlstate, &n.message, n.detail.as_deref(), n.hint.as_deref());
        self.put(NoticeResponse::new(fields))
    }
}

/// The most columns a row can have, as in PostgreSQL's target lists; the protocol counts them in 16 bits.
pub const COLUMNS_MAX: usize = 1664;

fn fields(
    severity: &str,
    sqlstate: &str,
    message: &str,
    detail: Option<&str>,
    hint: Option<&str>,
) -> Vec<(u8, String)> {
    // A zero byte would end the field early and let the rest of it be read as other fields.
    let text = |s: &str| s.replace('\0', "\u{fffd}");
    let mut fields = vec![
        (b'S', severity.to_string()),
        (b'V', severity.to_string()),
        (b'C', sqlstate.to_string()),
        (b'M', text(message)),
    ];
    fields.extend(detail.map(|d| (b'D', text(d))));
    fields.extend(hint.map(|h| (b'H', text(h))));
    fields
}
