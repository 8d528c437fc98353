//! `tidemill serve`: a database behind its listeners, until a signal says stop.

use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use tidemill::config::LogFormat;
use tidemill::database::Database;
use tidemill::pgwire::ServerOptions;
use tidemill::{Config, Error, Result, SqlState, world};

/// How long sessions may take to end after the listeners have closed.
const SESSIONS_END: Duration = Duration::from_secs(5);

/// Sets logging up for the whole process.
pub fn log(config: &Config) {
    let filter = EnvFilter::try_new(&config.log_level).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let set = match config.log_format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    if let Err(error) = set {
        eprintln!("tidemill: logging was set up before: {error}");
    }
    for variable in &config.unknown_variables {
        tracing::warn!(variable, "this environment variable is no setting");
    }
}

async fn bind(address: std::net::SocketAddr, what: &str) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|e| {
        Error::new(SqlState::IO_ERROR, format!("cannot listen on {address} for {what}: {e}"))
            .with_hint(format!("Another address can be given with --{what}."))
    })
}

/// Serves until SIGTERM or SIGINT.
pub fn run(config: Config) -> Result<()> {
    log(&config);
    run_with(config, async |_| std::future::pending().await)
}

/// The same, with `beside` run on the database when it is ready; if that ends, so does the server.
pub fn run_with(config: Config, beside: impl AsyncFnOnce(Arc<Database>) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("session")
        .thread_stack_size(world::PLANNING_STACK)
        .build()?;
    let outcome = runtime.block_on(async {
        let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Before the database is opened: a taken port is found out at once.
        let wire = bind(config.listen, "listen").await?;
        let http = bind(config.http, "http").await?;
        let opening = config.clone();
        let database = tokio::task::spawn_blocking(move || Database::open(&opening))
            .await
            .map_err(|e| Error::internal(format!("opening was lost: {e}")))??;
        announce(&config, &wire, &http)?;
        let stop = CancellationToken::new();
        let options = ServerOptions { sessions_max: config.connections, ..ServerOptions::default() };
        let sessions =
            tokio::spawn(tidemill::pgwire::serve(wire, Arc::clone(&database), options, stop.clone()));
        let pages = tokio::spawn(tidemill::http::serve(http, Arc::clone(&database), stop.clone()));
        let mut outcome = Ok(());
        tokio::select! {
            _ = term.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = int.recv() => tracing::info!("SIGINT: shutting down"),
            ended = beside(Arc::clone(&database)) => outcome = ended,
        }
        stop.cancel();
        let ended = tokio::time::timeout(SESSIONS_END, async {
            let (sessions, pages) = tokio::join!(sessions, pages);
            for result in [sessions, pages] {
                match result {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "a listener failed"),
                    Err(error) => tracing::error!(%error, "a listener was lost"),
                }
            }
        });
        if ended.await.is_err() {
            tracing::warn!("sessions were still open");
        }
        let closing = Arc::clone(&database);
        tokio::task::spawn_blocking(move || closing.shutdown())
            .await
            .map_err(|e| Error::internal(format!("shutting down was lost: {e}")))?;
        tracing::info!("stopped");
        outcome
    });
    // A session that still plans a statement keeps its thread; nothing waits for that.
    runtime.shutdown_background();
    outcome
}

/// Says where the server is, on standard output: what a person or a script waits for.
fn announce(config: &Config, wire: &TcpListener, http: &TcpListener) -> Result<()> {
    let (wire, http) = (wire.local_addr()?, http.local_addr()?);
    tracing::info!(listen = %wire, %http, data_dir = %config.data_dir.display(), "ready");
    // Whoever started the server may have closed its output: that is no reason not to serve.
    let mut out = std::io::stdout().lock();
    let _ = writeln!(
        out,
        "tidemill is ready: psql -h {} -p {} -U tidemill tidemill\n                   http://{http}/",
        wire.ip(),
        wire.port()
    );
    Ok(())
}
