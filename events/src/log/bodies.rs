//! Message content that is too large for a message: the object store.
//!
//! An object is named by the id of the event that refers to it, so putting it
//! twice is the same as once, and it can be removed with its event.

use async_nats::jetstream::object_store::{GetErrorKind, ObjectStore};
use bytes::Bytes;
use tokio::io::AsyncReadExt;

use crate::{
    id::EventId,
    log::{Log, LogError},
};

/// The bucket.
pub const BUCKET: &str = "NEXUS_BODIES";

/// Largest content that is read back: 64 MiB, twice the largest record of an outbox.
const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

impl Log {
    /// Stores the content of an event.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn put_body(&self, event: EventId, content: &[u8]) -> Result<(), LogError> {
        let mut content = content;
        self.bucket()
            .await?
            .put(event.to_string().as_str(), &mut content)
            .await
            .map(drop)
            .map_err(|error| LogError::broker("store a body", error))
    }

    /// The content of an event; `None` when there is none.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn body(&self, event: EventId) -> Result<Option<Bytes>, LogError> {
        let object = match self.bucket().await?.get(event.to_string()).await {
            Ok(object) => object,
            Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::broker("find a body", error)),
        };
        let mut content = Vec::with_capacity(object.info().size);
        object
            .take(CONTENT_BYTES_MAX)
            .read_to_end(&mut content)
            .await
            .map_err(|error| LogError::broker("read a body", error))?;
        Ok(Some(content.into()))
    }

    /// Removes the content of an event; none there is no error.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn delete_body(&self, event: EventId) -> Result<(), LogError> {
        use async_nats::jetstream::object_store::DeleteErrorKind;
        match self.bucket().await?.delete(event.to_string()).await {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == DeleteErrorKind::NotFound => Ok(()),
            Err(error) => Err(LogError::broker("delete a body", error)),
        }
    }

    async fn bucket(&self) -> Result<ObjectStore, LogError> {
        self.jetstream()
            .get_object_store(BUCKET)
            .await
            .map_err(|error| LogError::broker("find the bucket of bodies", error))
    }
}
