//! A stage of the user's own: a prefix in an object store that we write to and a warehouse reads from.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{Failure, Step};
use crate::connectors::files::store::Place;
use crate::error::{Error, Result, SqlState};

/// How long one request to the store may take.
const TIMEOUT: Duration = Duration::from_secs(120);

/// A prefix in an object store.
#[derive(Clone, Debug)]
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    url: String,
}

impl Bucket {
    /// The prefix that a url names; `options` are the store's. Touches nothing.
    ///
    /// # Errors
    /// 22023 for what is wrong with either.
    pub fn new(url: &str, options: Vec<(String, String)>) -> Result<Bucket> {
        let url = url.trim_end_matches('/').to_string();
        let place = Place::new(&url, options)?;
        if place.is_pattern() {
            let message = format!("a stage must be a prefix like s3://bucket/tidemill, not \"{url}\"");
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
        Ok(Bucket { prefix: place.prefix().clone(), store: place.store, url })
    }

    /// The url of a file below the prefix.
    pub fn url_of(&self, file: &str) -> String {
        format!("{}/{file}", self.url)
    }

    fn path(&self, file: &str) -> Step<Path> {
        let path = Path::parse(format!("{}/{file}", self.prefix).trim_start_matches('/'));
        path.map_err(|e| Error::internal(format!("a staged file cannot be named: {e}")).into())
    }

    /// Stores a file below the prefix. Storing it again does no harm.
    pub fn put(&self, runtime: &tokio::runtime::Runtime, file: &str, bytes: Bytes) -> Step<()> {
        let path = self.path(file)?;
        let put = async { tokio::time::timeout(TIMEOUT, self.store.put(&path, bytes.into())).await };
        match runtime.block_on(put) {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(e)) => Err(self.failure(file, &e)),
            Err(_) => Err(Failure::retry(Error::new(
                SqlState::CONNECTION_FAILURE,
                format!("{} was not stored in {} s", self.url_of(file), TIMEOUT.as_secs()),
            ))),
        }
    }

    /// Removes everything below a directory. Best effort: what stays is never read again.
    pub fn remove(&self, runtime: &tokio::runtime::Runtime, directory: &str) {
        let Ok(path) = self.path(directory.trim_end_matches('/')) else { return };
        let remove = async {
            let found = self.store.list(Some(&path)).map_ok(|meta| meta.location).boxed();
            let gone = self.store.delete_stream(found).try_for_each(|_| async { Ok(()) });
            tokio::time::timeout(TIMEOUT, gone).await
        };
        match runtime.block_on(remove) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, directory, "staged files stay"),
            Err(_) => tracing::debug!(directory, "staged files stay: no answer"),
        }
    }

    /// Removes a file. Best effort, like [`Bucket::remove`].
    pub fn delete(&self, runtime: &tokio::runtime::Runtime, file: &str) {
        let Ok(path) = self.path(file) else { return };
        let delete = async { tokio::time::timeout(TIMEOUT, self.store.delete(&path)).await };
        match runtime.block_on(delete) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, file, "a staged file stays"),
            Err(_) => tracing::debug!(file, "a staged file stays: no answer"),
        }
    }

    fn failure(&self, file: &str, e: &object_store::Error) -> Failure {
        let refused = matches!(
            e,
            object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }
        );
        // Credentials are rotated, so that a refusal may pass, too.
        let state = if refused { SqlState::INVALID_AUTHORIZATION } else { SqlState::CONNECTION_FAILURE };
        Failure::retry(Error::new(state, format!("{} cannot be stored: {e}", self.url_of(file))))
    }
}
