//! A server over an empty data directory, on free ports, for one test.

use std::net::SocketAddr;

use tempfile::TempDir;
use tidemill::Config;
use tidemill::database::Database;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Lives as long as the test needs it.
pub struct Server {
    /// Where the wire listens.
    pub addr: SocketAddr,
    /// Where HTTP listens.
    pub http: SocketAddr,
    stop: CancellationToken,
    _dir: TempDir,
}

impl Server {
    pub async fn start() -> Server {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().join("data"), ..Config::default() };
        let database = tokio::task::spawn_blocking(move || Database::open(&config)).await.unwrap().unwrap();
        let stop = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let options = tidemill::pgwire::ServerOptions::default();
        tokio::spawn(tidemill::pgwire::serve(listener, database.clone(), options, stop.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = listener.local_addr().unwrap();
        tokio::spawn(tidemill::http::serve(listener, database, stop.clone()));
        Server { addr, http, stop, _dir: dir }
    }

    /// A client of the ecosystem's Rust driver.
    pub async fn client(&self) -> tokio_postgres::Client {
        let config = format!("host=127.0.0.1 port={} user=tidemill dbname=tidemill", self.addr.port());
        let (client, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
