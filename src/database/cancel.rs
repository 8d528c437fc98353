//! Stopping a running statement: by the client's cancel request, or by `statement_timeout`.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream, StreamExt};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result, SqlState};
use crate::world;

/// Stops a session's running statement, from any thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle(Arc<Mutex<CancellationToken>>);

impl CancelHandle {
    /// Stops the running statement with SQLSTATE 57014. Without one, nothing happens.
    pub fn cancel(&self) {
        self.0.lock().cancel();
    }

    /// A statement begins: requests that came before do not count.
    pub(crate) fn begin(&self, timeout: Option<Duration>) -> Interrupt {
        let token = CancellationToken::new();
        *self.0.lock() = token.clone();
        Interrupt { token, deadline: timeout.map(|t| world::instant() + t) }
    }
}

/// What may stop one statement.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt {
    token: CancellationToken,
    deadline: Option<std::time::Instant>,
}

impl Interrupt {
    /// Waits until the statement is to stop; answers why.
    pub async fn triggered(&self) -> Error {
        let timeout = async {
            match self.deadline {
                Some(deadline) => world::pause(deadline.saturating_duration_since(world::instant())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.token.cancelled() => {
                Error::new(SqlState::QUERY_CANCELED, "canceling statement due to user request")
            }
            () = timeout => {
                Error::new(SqlState::QUERY_CANCELED, "canceling statement due to statement timeout")
            }
        }
    }

    /// The outcome of `work`, or an error as soon as the statement is to stop; `work` is dropped then.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            error = self.triggered() => Err(error),
            result = work => result,
        }
    }

    /// The same rows, which end with an error when the statement is to stop.
    pub fn stream(&self, inner: SendableRecordBatchStream) -> SendableRecordBatchStream {
        let interrupt = self.clone();
        let triggered = async move { interrupt.triggered().await }.boxed();
        Box::pin(Guarded { inner, triggered, ended: false })
    }
}

struct Guarded {
    inner: SendableRecordBatchStream,
    triggered: BoxFuture<'static, Error>,
    ended: bool,
}

impl Stream for Guarded {
    type Item = Result<RecordBatch, DataFusionError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Poll::Ready(error) = self.triggered.poll_unpin(cx) {
            self.ended = true;
            return Poll::Ready(Some(Err(error.into())));
        }
        let polled = self.inner.poll_next_unpin(cx);
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            self.ended = true;
        }
        polled
    }
}

impl RecordBatchStream for Guarded {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }
}
