//! A Tidemill server of one's own inside the test's process, on a temporary data directory and a free port.

use std::net::SocketAddr;
use std::sync::Arc;

use tidemill::Config;
use tidemill::database::Database;
use tidemill::pgwire::{ServerOptions, serve};
use tidemill::world::Clock;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Gone with its data when dropped.
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    database: Arc<Database>,
    clock: Clock,
    runtime: Option<tokio::runtime::Runtime>,
    _data: tempfile::TempDir,
}

impl Server {
    /// Starts it, with so many threads that compute.
    pub fn start(workers: usize) -> Self {
        let clock = Clock::settable();
        let data = tempfile::tempdir().expect("a temporary directory");
        let flags = [
            ("data_dir".to_string(), data.path().display().to_string()),
            ("workers".to_string(), workers.to_string()),
        ];
        let config = Config::load(None, std::iter::empty(), &flags).expect("a configuration");
        let database = Database::open_with_clock(&config, clock.clone()).expect("an empty directory opens");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let stop = CancellationToken::new();
        runtime.spawn(serve(listener, Arc::clone(&database), ServerOptions::default(), stop.clone()));
        Server { address, stop, database, clock, runtime: Some(runtime), _data: data }
    }

    /// Sets its clock, which stands from then on, and waits until views are as of then.
    pub fn set_clock(&self, micros: i64) -> Result<(), String> {
        self.clock.set(micros);
        self.database.pass_time().map(|_| ()).map_err(|e| e.to_string())
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.database.shutdown();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
