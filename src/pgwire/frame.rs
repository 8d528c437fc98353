//! The client's messages: bytes to values, nothing else.
//!
//! The decoder of the `pgwire` crate reads past a message's end and panics on a short body, so requests are
//! read here, each from exactly its own bytes; what the server sends is encoded by the crate (`reply`).

use bytes::{Buf, Bytes, BytesMut};

use crate::error::{Error, Result, SqlState};

/// The longest start-up packet, in bytes, as in PostgreSQL.
pub const STARTUP_BYTES_MAX: usize = 10_000;
/// The longest message after start-up, in bytes: one parameter or one piece of COPY may be large, but is bounded.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// The longest message of a kind that has no reason to be long, in bytes.
const SMALL_MESSAGE_BYTES_MAX: usize = 10_000;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// The first packet of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Opening {
    /// May this connection be encrypted by TLS?
    Ssl,
    /// May this connection be encrypted by GSSAPI?
    GssEnc,
    /// Cancel what this session is doing.
    Cancel {
        /// The session's process id.
        pid: i32,
        /// Its secret.
        secret: Bytes,
    },
    /// A new session.
    Startup {
        /// Minor version of protocol 3 that the client asks for.
        minor: u16,
        /// `user`, `database`, and settings, in the order sent.
        parameters: Vec<(String, String)>,
    },
}

/// What Describe and Close speak about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A prepared statement.
    Statement(String),
    /// A portal.
    Portal(String),
}

/// The Bind message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The portal to make; empty: the unnamed one.
    pub portal: String,
    /// The statement to bind; empty: the unnamed one.
    pub statement: String,
    /// 0 text, 1 binary: none, one for all, or one each.
    pub param_formats: Vec<i16>,
    /// The values; `None` is NULL.
    pub params: Vec<Option<Bytes>>,
    /// Formats of the result's columns: none, one for all, or one each.
    pub result_formats: Vec<i16>,
}

/// A message of a started session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Statements as text, answered one by one.
    Query(String),
    /// Prepare a statement.
    Parse {
        /// Its name; empty: the unnamed one.
        name: String,
        /// Its text.
        sql: String,
        /// Types of its parameters; 0: to be inferred.
        param_oids: Vec<u32>,
    },
    /// Give a prepared statement its parameters.
    Bind(Bind),
    /// What are its parameters and columns?
    Describe(Target),
    /// Run a portal.
    Execute {
        /// Which one.
        portal: String,
        /// After how many rows to pause; 0: never.
        rows_max: u32,
    },
    /// Forget it.
    Close(Target),
    /// Send what is waiting to be sent.
    Flush,
    /// The pipeline ends here.
    Sync,
    /// A piece of COPY input.
    CopyData(Bytes),
    /// COPY input ends.
    CopyDone,
    /// COPY input fails.
    CopyFail(String),
    /// The client leaves.
    Terminate,
    /// A password or a step of SASL; nobody asked for one.
    Password,
}

/// Takes the first packet from `buf` once all of it is there.
pub fn opening(buf: &mut BytesMut) -> Result<Option<Opening>> {
    let Some(mut body) = take_packet(buf, 0, STARTUP_BYTES_MAX)? else { return Ok(None) };
    let code = body.u32()?;
    let opening = match code {
        SSL_REQUEST => Opening::Ssl,
        GSSENC_REQUEST => Opening::GssEnc,
        CANCEL_REQUEST => {
            let pid = body.u32()? as i32;
            let secret = body.rest();
            if !(4..=256).contains(&secret.len()) {
                return Err(violation("invalid length of cancel request key"));
            }
            return Ok(Some(Opening::Cancel { pid, secret }));
        }
        version if version >> 16 == 3 => {
            let mut parameters = Vec::new();
            loop {
                let name = body.cstring()?;
                if name.is_empty() {
                    break;
                }
                parameters.push((name, body.cstring()?));
            }
            Opening::Startup { minor: (version & 0xffff) as u16, parameters }
        }
        version => {
            return Err(Error::new(
                SqlState::FEATURE_NOT_SUPPORTED,
                format!(
                    "unsupported frontend protocol {}.{}: server supports 3.0",
                    version >> 16,
                    version & 0xffff
                ),
            ));
        }
    };
    body.end()?;
    Ok(Some(opening))
}

/// A message cut from the stream, not read yet.
pub struct Frame {
    /// The message's kind byte, one of the protocol's.
    pub kind: u8,
    body: Body,
}

impl Frame {
    /// Takes the next message from `buf` once all of it is there. After an error the place in the stream is lost.
    pub fn take(buf: &mut BytesMut) -> Result<Option<Frame>> {
        let Some(&kind) = buf.first() else { return Ok(None) };
        let bytes_max = match kind {
            b'Q' | b'P' | b'B' | b'd' => MESSAGE_BYTES_MAX,
            b'D' | b'E' | b'C' | b'H' | b'S' | b'c' | b'f' | b'X' | b'p' => SMALL_MESSAGE_BYTES_MAX,
            other => return Err(violation(format!("invalid frontend message type {other}"))),
        };
        Ok(take_packet(buf, 1, bytes_max)?.map(|body| Frame { kind, body }))
    }

    /// Whether an error in answering it is answered by silence up to the next Sync.
    pub fn is_extended(&self) -> bool {
        matches!(self.kind, b'P' | b'B' | b'D' | b'E' | b'C' | b'H')
    }

    /// Reads the message. An error concerns only this message.
    pub fn request(self) -> Result<Request> {
        let Frame { kind, mut body } = self;
        let request = match kind {
            b'Q' => Request::Query(body.cstring()?),
            b'P' => {
                let (name, sql) = (body.cstring()?, body.cstring()?);
                let n = body.u16()?;
                let param_oids = (0..n).map(|_| body.u32()).collect::<Result<_>>()?;
                Request::Parse { name, sql, param_oids }
            }
            b'B' => Request::Bind(Bind {
                portal: body.cstring()?,
                statement: body.cstring()?,
                param_formats: body.formats()?,
                params: body.values()?,
                result_formats: body.formats()?,
            }),
            b'D' => Request::Describe(body.target()?),
            b'C' => Request::Close(body.target()?),
            // A negative limit means none, as in PostgreSQL.
            b'E' => Request::Execute {
                portal: body.cstring()?,
                rows_max: u32::try_from(body.u32()? as i32).unwrap_or(0),
            },
            b'H' => Request::Flush,
            b'S' => Request::Sync,
            b'd' => return Ok(Request::CopyData(body.rest())),
            b'c' => Request::CopyDone,
            b'f' => Request::CopyFail(body.cstring()?),
            b'X' => Request::Terminate,
            _ => return Ok(Request::Password),
        };
        body.end()?;
        Ok(request)
    }
}

fn violation(message: impl Into<String>) -> Error {
    Error::new(SqlState::PROTOCOL_VIOLATION, message)
}

/// Cuts the packet whose length stands at `offset` off the front of `buf`; the length counts itself, not the kind.
fn take_packet(buf: &mut BytesMut, offset: usize, bytes_max: usize) -> Result<Option<Body>> {
    let Some(length) = buf.get(offset..offset + 4) else { return Ok(None) };
    // Four bytes are there, so the conversion to an array cannot fail.
    let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
    if length < 4 {
        return Err(violation("invalid message length"));
    }
    if length > bytes_max {
        return Err(violation(format!("message of {length} bytes is too long: at most {bytes_max}")));
    }
    if buf.len() < offset + length {
        // Grow by what has to come anyway, but not at a stranger's word: a claimed length costs nothing until sent.
        buf.reserve((offset + length - buf.len()).min(1 << 16));
        return Ok(None);
    }
    let mut packet = buf.split_to(offset + length);
    packet.advance(offset + 4);
    Ok(Some(Body(packet.freeze())))
}

/// The unread bytes of one message.
struct Body(Bytes);

impl Body {
    fn short() -> Error {
        violation("insufficient data left in message")
    }

    fn u16(&mut self) -> Result<u16> {
        self.0.try_get_u16().map_err(|_| Self::short())
    }

    fn u32(&mut self) -> Result<u32> {
        self.0.try_get_u32().map_err(|_| Self::short())
    }

    fn bytes(&mut self, n: usize) -> Result<Bytes> {
        if self.0.len() < n {
            return Err(Self::short());
        }
        Ok(self.0.split_to(n))
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    fn cstring(&mut self) -> Result<String> {
        let end =
            self.0.iter().position(|&b| b == 0).ok_or_else(|| violation("invalid string in message"))?;
        let text = self.0.split_to(end);
        self.0.advance(1);
        match std::str::from_utf8(&text) {
            Ok(text) => Ok(text.to_string()),
            Err(e) => {
                let bad = text.get(e.valid_up_to()).copied().unwrap_or_default();
                Err(Error::new(
                    SqlState("22021"),
                    format!("invalid byte sequence for encoding \"UTF8\": 0x{bad:02x}"),
                ))
            }
        }
    }

    fn formats(&mut self) -> Result<Vec<i16>> {
        let n = self.u16()?;
        (0..n)
            .map(|_| match self.u16()? {
                format @ (0 | 1) => Ok(format as i16),
                other => Err(violation(format!("unsupported format code: {}", other as i16))),
            })
            .collect()
    }

    fn values(&mut self) -> Result<Vec<Option<Bytes>>> {
        let n = self.u16()?;
        (0..n)
            .map(|_| match self.u32()? as i32 {
                -1 => Ok(None),
                length => match usize::try_from(length) {
                    Ok(length) => self.bytes(length).map(Some),
                    Err(_) => Err(violation("invalid length of a parameter value")),
                },
            })
            .collect()
    }

    fn target(&mut self) -> Result<Target> {
        let kind = self.bytes(1)?;
        let name = self.cstring()?;
        match kind.first() {
            Some(b'S') => Ok(Target::Statement(name)),
            Some(b'P') => Ok(Target::Portal(name)),
            _ => Err(violation("invalid subtype of a Describe or Close message")),
        }
    }

    fn end(&self) -> Result<()> {
        if self.0.is_empty() { Ok(()) } else { Err(violation("invalid message format")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> BytesMut {
        let mut buf = BytesMut::new();
        buf.extend_from_slice(&[kind]);
        buf.extend_from_slice(&(body.len() as u32 + 4).to_be_bytes());
        buf.extend_from_slice(body);
        buf
    }

    fn request(buf: &mut BytesMut) -> Result<Option<Request>> {
        Frame::take(buf)?.map(Frame::request).transpose()
    }

    #[test]
    fn a_message_is_taken_only_when_whole_and_only_its_own_bytes() {
        let whole = message(b'Q', b"select 1\0");
        for cut in 0..whole.len() {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(request(&mut part).unwrap(), None, "{cut} bytes");
        }
        let mut two = whole.clone();
        two.extend_from_slice(&message(b'S', b""));
        assert_eq!(request(&mut two).unwrap(), Some(Request::Query("select 1".into())));
        assert_eq!(request(&mut two).unwrap(), Some(Request::Sync));
        assert!(two.is_empty());
    }

    #[test]
    fn bind_is_read() {
        let mut body = b"p\0s\0".to_vec();
        body.extend_from_slice(&[0, 1, 0, 1]); // one format: binary
        body.extend_from_slice(&[0, 2, 0, 0, 0, 2, b'h', b'i', 0xff, 0xff, 0xff, 0xff]);
        body.extend_from_slice(&[0, 0]);
        let bind = Bind {
            portal: "p".into(),
            statement: "s".into(),
            param_formats: vec![1],
            params: vec![Some(Bytes::from_static(b"hi")), None],
            result_formats: vec![],
        };
        assert_eq!(request(&mut message(b'B', &body)).unwrap(), Some(Request::Bind(bind)));
    }

    #[test]
    fn malformed_messages_are_errors_not_panics() {
        for (kind, body) in [
            (b'P', &b"name"[..]),                      // no end of the string
            (b'P', b"\0select 1\0"),                   // no parameter count
            (b'P', b"\0select 1\0\xff\xff\0\0"),       // more parameters than bytes
            (b'B', b"\0\0\0\0\xff\xff"),               // 65535 values, none there
            (b'B', b"\0\0\0\0\0\x01\x80\0\0\0\0\0"),   // a value of length i32::MIN
            (b'B', b"\0\0\0\0\0\x01\x7f\xff\xff\xff"), // a value of 2 GiB
            (b'B', b"\0\0\0\x01\0\x07\0\0\0\0"),       // format 7
            (b'D', b"Xname\0"),                        // neither statement nor portal
            (b'D', b""),
            (b'E', b"\0\0\0"),
            (b'S', b"x"), // something where nothing belongs
            (b'Q', b"\xff\xfe\0"),
        ] {
            assert!(request(&mut message(kind, body)).is_err(), "{} {body:?}", kind as char);
        }
        assert!(
            Frame::take(&mut BytesMut::from(&b"Q\0\0\0\x03"[..])).is_err(),
            "a length that does not count itself"
        );
        assert!(Frame::take(&mut message(b'!', b"")).is_err());
        assert!(Frame::take(&mut BytesMut::from(&b"S\x7f\xff\xff\xff"[..])).is_err(), "a Sync of 2 GiB");
    }

    #[test]
    fn openings_are_told_apart() {
        let packet = |body: &[u8]| {
            let mut buf = BytesMut::from(&(body.len() as u32 + 4).to_be_bytes()[..]);
            buf.extend_from_slice(body);
            buf
        };
        assert_eq!(opening(&mut packet(&SSL_REQUEST.to_be_bytes())).unwrap(), Some(Opening::Ssl));
        assert_eq!(opening(&mut packet(&GSSENC_REQUEST.to_be_bytes())).unwrap(), Some(Opening::GssEnc));
        let mut cancel = CANCEL_REQUEST.to_be_bytes().to_vec();
        cancel.extend_from_slice(&[0, 0, 0, 7, 1, 2, 3, 4]);
        let expected = Opening::Cancel { pid: 7, secret: Bytes::from_static(&[1, 2, 3, 4]) };
        assert_eq!(opening(&mut packet(&cancel)).unwrap(), Some(expected));
        assert!(opening(&mut packet(&cancel[..9])).is_err());
        let expected = Opening::Startup { minor: 2, parameters: vec![("user".into(), "u".into())] };
        assert_eq!(opening(&mut packet(b"\0\x03\0\x02user\0u\0\0")).unwrap(), Some(expected));
        assert!(opening(&mut packet(b"\0\x02\0\0user\0u\0\0")).is_err(), "protocol 2");
        assert!(opening(&mut packet(b"\0\x03\0\0user\0u\0")).is_err(), "no end of the parameters");
        assert!(opening(&mut BytesMut::from(&b"GET / HTTP/1.1\r\n\r\n"[..])).is_err(), "not even PostgreSQL");
    }
}
