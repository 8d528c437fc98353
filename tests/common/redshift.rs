//! Redshift, as far as a sink sees it: a real PostgreSQL behind a proxy that turns `COPY … FROM 's3://…'` into reading
//! the manifest and its Parquet files from an S3 emulator and a `COPY … FROM STDIN`.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use bytes::Bytes;
use parking_lot::Mutex;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::postgres::Postgres;
use super::s3::S3;

/// A PostgreSQL database that answers as Redshift does; gone when dropped.
pub struct Redshift {
    pub postgres: Postgres,
    pub s3: S3,
    pub port: u16,
    copies: Arc<Mutex<Vec<String>>>,
}

impl Redshift {
    pub fn start() -> Self {
        let (postgres, s3) = (Postgres::start(), S3::start());
        // What Redshift has and PostgreSQL lacks.
        postgres.psql(
            "postgres",
            "CREATE DOMAIN super AS jsonb; CREATE DOMAIN varbyte AS bytea;
             CREATE FUNCTION json_parse(text) RETURNS jsonb LANGUAGE sql IMMUTABLE RETURN $1::jsonb;
             CREATE FUNCTION from_hex(text) RETURNS bytea LANGUAGE sql IMMUTABLE RETURN decode($1, 'hex')",
        );
        s3.put("stage", b"");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (backend, url, copies) = (postgres.port, s3.url.clone(), Arc::new(Mutex::new(Vec::new())));
        let seen = Arc::clone(&copies);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (url, seen) = (url.clone(), Arc::clone(&seen));
                std::thread::spawn(move || {
                    // However a session ends is the client's business.
                    let _ = serve(client, backend, &url, &seen);
                });
            }
        });
        Redshift { postgres, s3, port, copies }
    }

    /// The COPY statements that came.
    pub fn copies(&self) -> Vec<String> {
        self.copies.lock().clone()
    }

    /// Options of a connection to it.
    pub fn options(&self) -> String {
        format!(
            "host = '127.0.0.1', port = {}, user = 'postgres', database = 'postgres', sslmode = 'disable', \
             iam_role = 'arn:aws:iam::123456789012:role/loader', stage = 's3://stage/tidemill', \
             stage.region = 'us-east-1', stage.endpoint = '{}', stage.access_key_id = 'k', stage.secret_access_key = 's'",
            self.port, self.s3.url
        )
    }
}

/// One session: strictly a question, then its answers.
fn serve(mut client: TcpStream, backend: u16, s3: &str, copies: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", backend))?;
    let mut startup = untyped(&mut client)?;
    // Whoever asks for TLS is told that there is none.
    while startup[4..8] == 80_877_103_u32.to_be_bytes() {
        client.write_all(b"N")?;
        startup = untyped(&mut client)?;
    }
    server.write_all(&startup)?;
    if startup[4..8] == 80_877_102_u32.to_be_bytes() {
        return Ok(()); // a cancellation, which has no answer
    }
    until_ready(&mut server, &mut client)?;
    loop {
        let (kind, body) = message(&mut client)?;
        let text = String::from_utf8_lossy(&body).trim_end_matches('\0').to_string();
        if kind == b'Q' && text.starts_with("COPY") && text.contains("'s3://") {
            copies.lock().push(text.clone());
            copy(&text, &mut client, &mut server, s3)?;
        } else {
            server.write_all(&framed(kind, &body))?;
            if kind == b'X' {
                return Ok(());
            }
            until_ready(&mut server, &mut client)?;
        }
    }
}

/// `COPY t FROM 's3://bucket/manifest' IAM_ROLE '…' FORMAT AS PARQUET MANIFEST`, by hand.
fn copy(sql: &str, client: &mut TcpStream, server: &mut TcpStream, s3: &str) -> std::io::Result<()> {
    let table = sql.split(' ').nth(1).expect("a table");
    let manifest = sql.split('\'').nth(1).expect("a manifest");
    let rest = sql.split_once("' IAM_ROLE ").expect("a role").1;
    assert!(rest.ends_with(" FORMAT AS PARQUET MANIFEST"), "{sql}");
    let get = |url: &str| {
        let path = url.strip_prefix("s3://").expect("an S3 url");
        let output = std::process::Command::new("curl")
            .args([
                "-s",
                "-f",
                "-H",
                "Authorization: AWS4-HMAC-SHA256 Credential=k/20240101/us-east-1/s3/aws4_request",
            ])
            .arg(format!("{s3}/{path}"))
            .output()
            .expect("curl");
        assert!(output.status.success(), "{url} is not there");
        Bytes::from(output.stdout)
    };
    let listed: serde_json::Value = serde_json::from_slice(&get(manifest)).expect("a manifest");
    server.write_all(&framed(b'Q', format!("COPY {table} FROM STDIN\0").as_bytes()))?;
    let (kind, body) = message(server)?;
    if kind != b'G' {
        client.write_all(&framed(kind, &body))?;
        return until_ready(server, client);
    }
    for entry in listed["entries"].as_array().expect("entries") {
        let bytes = get(entry["url"].as_str().expect("a url"));
        assert_eq!(entry["meta"]["content_length"], bytes.len(), "Redshift compares lengths");
        assert_eq!(entry["mandatory"], true);
        for batch in
            ParquetRecordBatchReaderBuilder::try_new(bytes).expect("Parquet").build().expect("a reader")
        {
            server.write_all(&framed(b'd', text_of(&batch.expect("rows")).as_bytes()))?;
        }
    }
    server.write_all(&framed(b'c', b""))?;
    until_ready(server, client)
}

/// Rows as COPY's text.
fn text_of(rows: &RecordBatch) -> String {
    let columns: Vec<ArrayRef> =
        rows.columns().iter().map(|c| cast(c, &DataType::Utf8).expect("text")).collect();
    let mut out = String::new();
    for row in 0..rows.num_rows() {
        for (i, column) in columns.iter().enumerate() {
            if i > 0 {
                out.push('\t');
            }
            let texts = column.as_any().downcast_ref::<arrow::array::StringArray>().expect("text");
            if texts.is_null(row) {
                out.push_str("\\N");
                continue;
            }
            for c in texts.value(row).chars() {
                match c {
                    '\\' => out.push_str("\\\\"),
                    '\t' => out.push_str("\\t"),
                    '\n' => out.push_str("\\n"),
                    '\r' => out.push_str("\\r"),
                    c => out.push(c),
                }
            }
        }
        out.push('\n');
    }
    out
}

fn untyped(from: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; 4];
    from.read_exact(&mut message)?;
    let length = u32::from_be_bytes([message[0], message[1], message[2], message[3]]) as usize;
    message.resize(length, 0);
    from.read_exact(&mut message[4..])?;
    Ok(message)
}

fn message(from: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut kind = [0];
    from.read_exact(&mut kind)?;
    Ok((kind[0], untyped(from)?.split_off(4)))
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
    [&[kind][..], &length, body].concat()
}

/// Passes answers on until the server waits for the next question.
fn until_ready(server: &mut TcpStream, client: &mut TcpStream) -> std::io::Result<()> {
    loop {
        let (kind, body) = message(server)?;
        client.write_all(&framed(kind, &body))?;
        if kind == b'Z' {
            return Ok(());
        }
    }
}
