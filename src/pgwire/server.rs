//! The listener: connections in, each served on a task of its own, all ended together.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::database::Database;
use crate::error::{Error, Result, SqlState};
use crate::pgwire::cancel::CancelRegistry;
use crate::pgwire::connection::Connection;
use crate::pgwire::io::{End, Io};
use crate::pgwire::reply::Severity;
use crate::pgwire::startup;

/// Bounds of the server.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// How many sessions there can be at once.
    pub sessions_max: usize,
    /// How long a client may take from connecting to its start-up packet.
    pub startup_timeout: Duration,
}

impl Default for ServerOptions {
    fn default() -> Self {
        ServerOptions { sessions_max: 1000, startup_timeout: Duration::from_secs(60) }
    }
}

/// What all connections share.
struct Shared {
    database: Arc<Database>,
    options: ServerOptions,
    sessions: Arc<Semaphore>,
    cancels: CancelRegistry,
    stop: CancellationToken,
}

/// Serves connections until `stop` is cancelled and the last session has ended.
///
/// # Errors
/// None at present: a connection that fails concerns nobody but its client.
pub async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    options: ServerOptions,
    stop: CancellationToken,
) -> Result<()> {
    let sessions = Arc::new(Semaphore::new(options.sessions_max));
    let shared = Arc::new(Shared {
        database,
        options,
        sessions,
        cancels: CancelRegistry::default(),
        stop: stop.clone(),
    });
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => {
                    tracing::debug!(%peer, "connection");
                    connections.spawn(connection(socket, Arc::clone(&shared)));
                }
                Err(error) => {
                    // Out of file descriptors, or a client that was gone at once: others may still have more luck.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::task::yield_now().await;
                }
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                tracing::error!(%error, "a connection's task failed");
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn connection(socket: TcpStream, shared: Arc<Shared>) {
    // Replies are flushed whole; waiting for more of them would only add latency.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let mut io = Io::new(socket, shared.stop.clone());
    let received = tokio::select! {
        received = tokio::time::timeout(shared.options.startup_timeout, startup::receive(&mut io, &shared.cancels)) => {
            // A client that says nothing is told nothing.
            let Ok(received) = received else { return };
            received
        }
        () = shared.stop.cancelled() => return,
    };
    let options = match received {
        Ok(Some(options)) => options,
        Ok(None) | Err(End::Gone) => return,
        Err(End::Fatal(e)) => return refuse(io, &e).await,
    };
    let Ok(_permit) = Arc::clone(&shared.sessions).try_acquire_owned() else {
        return refuse(io, &Error::new(SqlState("53300"), "sorry, too many clients already")).await;
    };
    let session = shared.database.session(options);
    let cancel = session.cancel_handle();
    let key = shared.cancels.enter(move || cancel.cancel());
    if let Err(e) = startup::welcome(&mut io, &session, &key) {
        return refuse(io, &e).await;
    }
    Connection::new(io, session).run().await;
}

/// Tells the client why there is no session.
async fn refuse(mut io: Io, e: &Error) {
    // Whether it can still be told is of no consequence: the connection closes.
    let _ = io.out.error(e, Severity::Fatal);
    let _ = io.flush().await;
}
