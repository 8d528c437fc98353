//! Whatever bytes come, the server answers as the protocol says or closes the connection; it never falls.

use super::raw::{Raw, field, message, packet, startup, summary, sync};
use super::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_openings_are_refused_and_hurt_nobody() {
    let server = Server::start().await;
    let mut witness = Raw::session(server.addr).await;
    for (what, bytes) in [
        ("HTTP", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a length of nothing", 0u32.to_be_bytes().to_vec()),
        ("a length of 2 GiB", 0x7fff_ffffu32.to_be_bytes().to_vec()),
        ("protocol 2", packet(&131_072u32.to_be_bytes())),
        ("protocol 3 cut short", packet(b"\0\x03\0\0user\0")),
        ("no user", startup(&[("database", "d")])),
        ("replication", startup(&[("user", "u"), ("replication", "true")])),
        ("a cancel request without a key", packet(&80_877_102u32.to_be_bytes())),
    ] {
        let mut raw = Raw::connect(server.addr).await;
        raw.send(&bytes).await;
        let replies = raw.until_closed().await;
        assert!(matches!(replies.as_slice(), [(b'E', _)]), "{what}: {}", summary(&replies));
        assert_eq!(field(&replies[0].1, b'V').as_deref(), Some("FATAL"), "{what}");
    }
    assert_eq!(witness.query("SELECT 1").await, "T D C:SELECT 1 Z:I");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_refused_politely_and_nothing_may_be_smuggled_past_it() {
    let server = Server::start().await;
    let mut raw = Raw::connect(server.addr).await;
    for request in [80_877_104u32, 80_877_103] {
        raw.send(&packet(&request.to_be_bytes())).await;
        assert_eq!(raw.bytes(1).await, b"N");
    }
    raw.send(&startup(&[("user", "tidemill")])).await;
    assert!(summary(&raw.until_ready().await).ends_with("Z:I"));

    let mut smuggler = Raw::connect(server.addr).await;
    let mut bytes = packet(&80_877_103u32.to_be_bytes());
    bytes.extend_from_slice(&startup(&[("user", "tidemill")]));
    smuggler.send(&bytes).await;
    assert_eq!(summary(&smuggler.until_closed().await), "E:08P01");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_messages_are_errors_of_their_own() {
    let server = Server::start().await;
    let mut raw = Raw::session(server.addr).await;
    for (what, kind, body) in [
        ("Parse without a count", b'P', &b"\0SELECT 1\0"[..]),
        ("Parse that promises more", b'P', b"\0SELECT 1\0\xff\xff"),
        ("Bind that promises more", b'B', b"\0\0\0\0\xff\xff"),
        ("Bind with a length below zero", b'B', b"\0\0\0\0\0\x01\x80\0\0\0\0\0"),
        ("Describe of nothing", b'D', b""),
        ("Describe of something else", b'D', b"Xa\0"),
        ("Execute cut short", b'E', b"\0\0"),
        ("Parse that is not UTF-8", b'P', b"\0\xff\xfe\0\0\0"),
    ] {
        raw.send(&message(kind, body)).await;
        // Silence until Sync, whatever else comes.
        raw.send(&message(b'Q', b"SELECT 1\0")).await;
        raw.send(&sync()).await;
        let replies = raw.until_ready().await;
        assert!(matches!(replies.as_slice(), [(b'E', _), (b'Z', _)]), "{what}: {}", summary(&replies));
    }
    raw.send(&message(b'Q', b"no end")).await;
    assert_eq!(summary(&raw.until_ready().await), "E:08P01 Z:I");
    assert_eq!(raw.query("SELECT 1").await, "T D C:SELECT 1 Z:I");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_place_in_the_stream_ends_the_connection() {
    let server = Server::start().await;
    for bytes in
        [&b"!\0\0\0\x04"[..], b"Q\0\0\0\x03", b"S\x7f\xff\xff\xff", b"Q\xff\xff\xff\xff", b"p\0\0\0\x06x\0"]
    {
        let mut raw = Raw::session(server.addr).await;
        raw.send(bytes).await;
        let replies = raw.until_closed().await;
        assert_eq!(summary(&replies), "E:08P01", "{bytes:?}");
        assert_eq!(field(&replies[0].1, b'V').as_deref(), Some("FATAL"));
    }
}

/// Every message of a good conversation, with every one of its bytes turned: no answer is prescribed, but one must
/// come or the connection must end, and the server must go on for others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn turned_bytes_do_not_fell_the_server() {
    let server = Server::start().await;
    let good: Vec<Vec<u8>> = vec![
        super::raw::parse("SELECT $1::int + 1"),
        message(b'B', b"\0\0\0\x01\0\x01\0\x01\0\0\0\x04\0\0\0\x05\0\x01\0\x01"),
        message(b'D', b"P\0"),
        super::raw::execute(7),
    ];
    for turned in 0..good.len() {
        for byte in 5..good[turned].len() {
            let mut raw = Raw::session(server.addr).await;
            for (i, bytes) in good.iter().enumerate() {
                let mut bytes = bytes.clone();
                if i == turned {
                    bytes[byte] ^= 0xff;
                }
                raw.send(&bytes).await;
            }
            raw.send(&sync()).await;
            raw.send(&message(b'X', b"")).await;
            raw.until_closed().await;
        }
    }
    assert_eq!(Raw::session(server.addr).await.query("SELECT 1").await, "T D C:SELECT 1 Z:I");
}
