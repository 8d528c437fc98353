//! `POST /webhook/NAME`: a body for the WEBHOOK source of that name. 200 says that it is durable.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::{Map, Value, json};

use crate::database::Database;
use crate::database::webhook::{Refused, Taken, Webhook};

/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// When a sender that found no room may try again, in seconds.
const RETRY_AFTER: &str = "1";

/// Takes a request.
pub(super) async fn receive(
    State(database): State<Arc<Database>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let encoded = headers.get(header::CONTENT_ENCODING);
    if encoded.is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bodies must not be compressed");
    }
    match database.webhook(&name) {
        Ok(webhook) => deliver(&webhook, &headers, body).await.unwrap_or_else(|refusal| refusal),
        Err(why) => refused(why),
    }
}

async fn deliver(webhook: &Webhook, headers: &HeaderMap, body: Body) -> Result<Response, Response> {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|l| l.to_str().ok()?.parse::<u64>().ok());
    let room = webhook.reserve(length).map_err(refused)?;
    let body = tokio::time::timeout(BODY_TIMEOUT, read(body, webhook.body_limit()))
        .await
        .map_err(|_| refuse(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"))??;
    let Taken { rows, errors } = webhook.deliver(room, headers_json(headers), body).await.map_err(refused)?;
    Ok(Json(json!({ "rows": rows, "errors": errors })).into_response())
}

/// The whole body, unless it is longer than `limit`.
async fn read(body: Body, limit: usize) -> Result<Bytes, Response> {
    let mut chunks = body.into_data_stream();
    let mut whole = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| refuse(StatusCode::BAD_REQUEST, &e.to_string()))?;
        if whole.len() + chunk.len() > limit {
            return Err(refused(Refused::TooLong(limit)));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// Names in lower case; values of one name are joined by commas. Bytes that are no text are replaced.
fn headers_json(headers: &HeaderMap) -> String {
    let mut object = Map::new();
    for name in headers.keys() {
        let values: Vec<_> =
            headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        object.insert(name.as_str().to_string(), Value::String(values.join(", ")));
    }
    Value::Object(object).to_string()
}

fn refused(why: Refused) -> Response {
    match why {
        Refused::Unknown => refuse(StatusCode::NOT_FOUND, "there is no webhook of this name"),
        Refused::TooLong(limit) => {
            refuse(StatusCode::PAYLOAD_TOO_LARGE, &format!("a body may have {limit} bytes"))
        }
        Refused::Forbidden => {
            refuse(StatusCode::FORBIDDEN, "the request does not fulfil the webhook's CHECK")
        }
        Refused::Full => later(refuse(StatusCode::TOO_MANY_REQUESTS, "too much waits: try again later")),
        Refused::Closed => {
            later(refuse(StatusCode::SERVICE_UNAVAILABLE, "the source is not at work: try again later"))
        }
    }
}

fn later(mut response: Response) -> Response {
    response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
    response
}

fn refuse(status: StatusCode, error: &str) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
