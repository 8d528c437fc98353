//! A client that sends what it is told to, byte by byte, and shows what comes back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A message of the server: its kind and its body.
pub type Reply = (u8, Vec<u8>);

pub struct Raw(TcpStream);

/// Nothing takes longer than this on a server that still lives.
const PATIENCE: Duration = Duration::from_secs(20);

impl Raw {
    /// A socket, and nothing said.
    pub async fn connect(addr: SocketAddr) -> Raw {
        Raw(TcpStream::connect(addr).await.unwrap())
    }

    /// A started session.
    pub async fn session(addr: SocketAddr) -> Raw {
        let mut raw = Raw::connect(addr).await;
        raw.send(&startup(&[("user", "tidemill"), ("database", "whatever")])).await;
        let kinds: Vec<u8> = raw.until_ready().await.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds[0], b'R', "authentication");
        assert!(kinds.contains(&b'K'), "a key to cancel with");
        raw
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Reads `n` bytes as they are.
    pub async fn bytes(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        tokio::time::timeout(PATIENCE, self.0.read_exact(&mut bytes)).await.expect("an answer").unwrap();
        bytes
    }

    /// The next message; `None`: the server has closed the connection.
    pub async fn reply(&mut self) -> Option<Reply> {
        let mut kind = [0];
        let n = tokio::time::timeout(PATIENCE, self.0.read(&mut kind)).await.expect("an answer");
        if n.unwrap_or(0) == 0 {
            return None;
        }
        let length = self.bytes(4).await;
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        Some((kind[0], self.bytes(length - 4).await))
    }

    /// Messages up to and with ReadyForQuery.
    pub async fn until_ready(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            replies.push(self.reply().await.expect("the connection lives"));
            if replies.last().is_some_and(|(kind, _)| *kind == b'Z') {
                return replies;
            }
        }
    }

    /// Messages up to the end of the connection.
    pub async fn until_closed(&mut self) -> Vec<Reply> {
        let mut replies = Vec::new();
        while let Some(reply) = self.reply().await {
            replies.push(reply);
        }
        replies
    }

    /// Runs a string of statements; kinds of the answers, with SQLSTATE for errors and the status for the end:
    /// `T D C:SELECT 1 Z:I`.
    pub async fn query(&mut self, sql: &str) -> String {
        self.send(&message(b'Q', format!("{sql}\0").as_bytes())).await;
        summary(&self.until_ready().await)
    }
}

/// A start-up packet of protocol 3.0.
pub fn startup(parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = 196_608u32.to_be_bytes().to_vec();
    for (name, value) in parameters {
        body.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
    }
    body.push(0);
    packet(&body)
}

/// A packet without a kind.
pub fn packet(body: &[u8]) -> Vec<u8> {
    let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A message.
pub fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&packet(body));
    bytes
}

/// Parse of the unnamed statement, types to be inferred.
pub fn parse(sql: &str) -> Vec<u8> {
    message(b'P', format!("\0{sql}\0\0\0").as_bytes())
}

/// Bind of the unnamed statement to the unnamed portal: no parameters, all text.
pub fn bind() -> Vec<u8> {
    message(b'B', b"\0\0\0\0\0\0\0\0")
}

/// Execute of the unnamed portal.
pub fn execute(rows_max: u32) -> Vec<u8> {
    let mut body = vec![0];
    body.extend_from_slice(&rows_max.to_be_bytes());
    message(b'E', &body)
}

pub fn sync() -> Vec<u8> {
    message(b'S', b"")
}

/// A field of an error or notice.
pub fn field(body: &[u8], code: u8) -> Option<String> {
    body.split(|b| *b == 0)
        .find(|field| field.first() == Some(&code))
        .map(|field| String::from_utf8_lossy(&field[1..]).into_owned())
}

/// Replies in short.
pub fn summary(replies: &[Reply]) -> String {
    let words = replies.iter().map(|(kind, body)| match kind {
        b'E' => format!("E:{}", field(body, b'C').unwrap_or_default()),
        b'C' => format!("C:{}", String::from_utf8_lossy(&body[..body.len() - 1])),
        b'Z' => format!("Z:{}", body[0] as char),
        kind => (*kind as char).to_string(),
    });
    words.collect::<Vec<_>>().join(" ")
}
