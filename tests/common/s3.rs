//! An emulator of S3 of one's own.

use std::io::Write;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A running server without buckets; gone when dropped.
pub struct S3 {
    child: Child,
    pub url: String,
}

impl S3 {
    /// Starts it. `scripts/test-deps s3` brings it.
    pub fn start() -> Self {
        let deps = std::env::var("TEST_DEPS").unwrap_or_else(|_| {
            format!("{}/.cache/tidemill/test-deps", std::env::var("HOME").expect("a home"))
        });
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let child = Command::new(format!("{deps}/s3/bin/moto_server"))
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starting moto: run scripts/test-deps s3 first");
        let server = S3 { child, url: format!("http://127.0.0.1:{port}") };
        let deadline = Instant::now() + Duration::from_secs(60);
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "moto did not start");
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Stores an object, or makes a bucket.
    pub fn put(&self, path: &str, bytes: &[u8]) {
        let mut curl = Command::new("curl")
            .args(["-s", "-f", "-X", "PUT", "--data-binary", "@-", "-o", "/dev/null"])
            .args(["-H", "Authorization: AWS4-HMAC-SHA256 Credential=k/20240101/us-east-1/s3/aws4_request"])
            // A form would not be stored as it is.
            .args(["-H", "Content-Type: application/octet-stream"])
            .arg(format!("{}/{path}", self.url))
            .stdin(Stdio::piped())
            .spawn()
            .expect("curl");
        curl.stdin.take().expect("piped").write_all(bytes).expect("it reads");
        assert!(curl.wait().expect("it ends").success(), "PUT {path}");
    }

    /// Options of a connection to it.
    pub fn options(&self) -> String {
        format!(
            "region = 'us-east-1', endpoint = '{}', access_key_id = 'k', secret_access_key = 's'",
            self.url
        )
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
