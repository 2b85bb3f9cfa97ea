//! Message content that is too large for a message: the object store.
//!
//! An object is named by the id of the event that refers to it, and so are its
//! parts: putting it twice is the same as once, what a failed try left is
//! removed by the next one, and all of it can be removed with its event. The
//! client library would draw a new name for the parts of each try, and nobody
//! would ever find those of a try that failed.
//!
//! Objects are those of the library in every other way: any reader of a NATS
//! object store reads them.

use std::io;

use async_nats::jetstream::object_store::{GetErrorKind, Object, ObjectStore};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use bytes::Bytes;
use futures_util::TryStreamExt;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::{
    io::AsyncReadExt,
    time::{Duration, timeout},
};

use crate::{
    id::EventId,
    log::{Log, LogError},
};

/// The bucket.
pub const BUCKET: &str = "NEXUS_BODIES";

/// The stream below the bucket.
const STREAM: &str = "OBJ_NEXUS_BODIES";

/// Largest content that is read back: 64 MiB, twice the largest record of an outbox.
const CONTENT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Size of the parts of an object: 128 KiB, as the client library has it.
const PART_BYTES: usize = 128 * 1024;

/// Room for the headers of a part, where the broker takes only small messages: 1 KiB.
const HEADER_BYTES: usize = 1024;

/// Without a further part for so long, the broker is asked whether there is one: 5 s.
const STALL: Duration = Duration::from_secs(5);

/// So many times an object must be found damaged, each time anew, before it counts as missing.
const TRIES: u32 = 3;

/// What the object store keeps of an object beside its parts.
///
/// All of it follows from the event and the content, so each try writes the same.
#[derive(Debug, Serialize)]
struct Meta<'a> {
    name: &'a str,
    bucket: &'static str,
    nuid: &'a str,
    size: usize,
    chunks: usize,
    mtime: String,
    digest: String,
    options: Options,
}

#[derive(Debug, Serialize)]
struct Options {
    max_chunk_size: usize,
}

impl Log {
    /// Stores the content of an event.
    ///
    /// Each part expects the one before it as the last, so one that an earlier
    /// try sent and that arrives late never gets between those of this one.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn put_body(&self, event: EventId, content: &[u8]) -> Result<(), LogError> {
        let refused = |error| LogError::broker("store a body", error);
        self.purge_parts(event).await?;
        let part_bytes = self.part_bytes();
        let (mut chunks, mut last, mut digest) = (0, 0, Sha256::new());
        for part in content.chunks(part_bytes) {
            digest.update(part);
            let published = self.publish_at(parts_of(event), part.to_vec(), last);
            last = published.await.map_err(refused)?;
            chunks += 1;
        }
        let name = event.to_string();
        let meta = Meta {
            name: &name,
            bucket: BUCKET,
            nuid: &name,
            size: content.len(),
            chunks,
            mtime: event.drawn_at().to_rfc3339(),
            digest: format!("SHA-256={}", URL_SAFE.encode(digest.finalize())),
            options: Options {
                max_chunk_size: part_bytes,
            },
        };
        let meta =
            serde_json::to_vec(&meta).map_err(|error| LogError::broker("store a body", error))?;
        let subject = format!("$O.{BUCKET}.M.{}", URL_SAFE.encode(&name));
        let published = self.publish_in_place(subject, meta);
        published.await.map(drop).map_err(refused)
    }

    /// The content of an event; `None` when there is none, or not the whole of it any more.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn body(&self, event: EventId) -> Result<Option<Bytes>, LogError> {
        // Boxed: the client library's part of it is large, and most readers never need it.
        Box::pin(self.whole_body(event)).await
    }

    async fn whole_body(&self, event: EventId) -> Result<Option<Bytes>, LogError> {
        for _ in 0..TRIES {
            let object = match self.bucket().await?.get(event.to_string()).await {
                Ok(object) => object,
                Err(error) if error.kind() == GetErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(LogError::broker("find a body", error)),
            };
            let (nuid, chunks) = (object.info().nuid.clone(), object.info().chunks);
            let error = match read(object).await {
                Ok(content) => return Ok(Some(content)),
                Err(error) => error,
            };
            // By its digest, or by the broker's own count of what there is of it.
            let is_damaged = error.kind() == io::ErrorKind::InvalidData
                || (error.kind() == io::ErrorKind::TimedOut
                    && self.count_parts(&nuid).await? < chunks);
            if !is_damaged {
                return Err(LogError::broker("read a body", error));
            }
        }
        tracing::error!(event.id = %event, "the content of an event is damaged in the object store");
        Ok(None)
    }

    /// Removes the content of an event; none there is no error.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn delete_body(&self, event: EventId) -> Result<(), LogError> {
        use async_nats::jetstream::object_store::DeleteErrorKind;
        match self.bucket().await?.delete(event.to_string()).await {
            Ok(()) => Ok(()),
            // The parts of a try that failed may be there without the object.
            Err(error) if error.kind() == DeleteErrorKind::NotFound => {
                self.purge_parts(event).await
            }
            Err(error) => Err(LogError::broker("delete a body", error)),
        }
    }

    async fn bucket(&self) -> Result<ObjectStore, LogError> {
        self.jetstream()
            .get_object_store(BUCKET)
            .await
            .map_err(|error| LogError::broker("find the bucket of bodies", error))
    }

    async fn purge_parts(&self, event: EventId) -> Result<(), LogError> {
        let handle = self.handle_of(STREAM).await?;
        let purged = handle.purge().filter(parts_of(event)).await;
        purged
            .map(drop)
            .map_err(|error| LogError::broker("remove the parts of a body", error))
    }

    /// How many parts of an object there are.
    async fn count_parts(&self, nuid: &str) -> Result<usize, LogError> {
        let failed = |error| LogError::broker("count the parts of a body", error);
        let handle = self.handle_of(STREAM).await?;
        let parts = format!("$O.{BUCKET}.C.{nuid}");
        let mut subjects = handle.info_with_subjects(parts).await.map_err(failed)?;
        let mut count = 0;
        while let Some((_, messages)) = subjects.try_next().await.map_err(failed)? {
            count += messages;
        }
        Ok(count)
    }

    fn part_bytes(&self) -> usize {
        match self.message_bytes_max() {
            0 => PART_BYTES,
            limit => limit.saturating_sub(HEADER_BYTES).clamp(1, PART_BYTES),
        }
    }
}

/// The subject of the parts of an object.
fn parts_of(event: EventId) -> String {
    format!("$O.{BUCKET}.C.{event}")
}

/// Reads an object to its end; [`io::ErrorKind::TimedOut`] when nothing more comes of it.
async fn read(object: Object) -> io::Result<Bytes> {
    let size = u64::try_from(object.info().size).unwrap_or(u64::MAX);
    let room = usize::try_from(size.min(CONTENT_BYTES_MAX)).unwrap_or(0);
    let mut content = Vec::with_capacity(room);
    let mut object = object.take(CONTENT_BYTES_MAX);
    while timeout(STALL, object.read_buf(&mut content)).await?? > 0 {}
    Ok(content.into())
}
