//! HTTP beside the wire: whether the server lives, whether it can answer, its numbers for Prometheus, and webhooks.
//!
//! `GET /health` answers as long as the process does; `GET /ready` once statements can be run;
//! `GET /metrics` shows the relations of schema `tidemill` as metrics; `POST /webhook/NAME` is what sources read.

mod metrics;
mod webhook;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::database::{Database, Outcome, Session, SessionOptions};
use crate::error::{Error, Result};

/// Serves until `stop` is cancelled and the requests in hand are answered.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, database: Arc<Database>, stop: CancellationToken) -> Result<()> {
    let router = Router::new()
        .route("/health", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(show_metrics))
        .route("/webhook/{name}", post(webhook::receive))
        .with_state(database);
    Ok(axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await?)
}

async fn ready(State(database): State<Arc<Database>>) -> Response {
    match probe(&database).await {
        Ok(()) => "ready\n".into_response(),
        Err(e) => unavailable(&e),
    }
}

/// Runs the smallest statement there is.
async fn probe(database: &Arc<Database>) -> Result<()> {
    use futures::TryStreamExt;
    if let Some(Outcome::Rows { stream, .. }) = session(database).simple("SELECT 1").await? {
        stream.try_collect::<Vec<_>>().await?;
    }
    Ok(())
}

async fn show_metrics(State(database): State<Arc<Database>>) -> Response {
    match metrics::render(&mut session(&database)).await {
        Ok(text) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
        }
        Err(e) => unavailable(&e),
    }
}

fn session(database: &Arc<Database>) -> Session {
    database.session(SessionOptions { application_name: "tidemill http".into(), ..SessionOptions::default() })
}

fn unavailable(e: &Error) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")).into_response()
}
