//! The declared streams, and the bucket of bodies, which is a stream as well.
//!
//! A stream that exists must be what its declaration says: a foreign setting
//! could lose events in silence (`discard: old`, `persist_mode: async`). So a
//! difference is refused, by name. The age limit is the one thing that an
//! operator changes through the hub's own settings; it is followed as long as
//! nobody else changed it, which the stream's metadata tells.
//!
//! A longer retention is followed at once, by whoever starts with it. A shorter
//! one would make the broker drop days whose statistics are not in the log yet,
//! so only the archiver follows it, with [`Log::lower_age_limits`], after it has
//! closed those days.

use std::{collections::HashMap, time::Duration};

use async_nats::jetstream::{
    self,
    context::{CreateStreamError, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind},
    stream::{Compression, Config, DiscardPolicy, RetentionPolicy, StorageType},
};

use crate::{
    log::{Log, LogError, StreamState, bodies, lease},
    subject::{Lane, Stream},
};

/// How much longer streams keep events than the retention: 30 days.
///
/// A backstop only, for an archiver that stands still; it purges at the retention itself.
const BACKSTOP: Duration = Duration::from_hours(30 * 24);

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// Metadata that tells which age limit the hub declared, in seconds.
const DECLARED_AGE: &str = "nexus.max_age_s";

impl Log {
    /// Creates the streams that are missing and checks the others.
    ///
    /// # Errors
    /// [`LogError::Drift`], [`LogError::Broker`].
    pub(super) async fn declare_streams(&self) -> Result<(), LogError> {
        for declared in self.declarations() {
            self.declare(declared).await?;
        }
        Ok(())
    }

    /// Lowers the age limits to what the settings say: what is older goes at once.
    ///
    /// For who has made sure that nobody needs what is older: its days are closed.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn lower_age_limits(&self) -> Result<(), LogError> {
        for declared in self.declarations() {
            let found = self.found(&declared.name).await?;
            if let Some(found) = found
                && is_ours(&declared, &found)
                && found.max_age > declared.max_age
            {
                self.follow_age(declared, found).await?;
            }
        }
        Ok(())
    }

    fn declarations(&self) -> Vec<Config> {
        let streams = Stream::ALL.map(|stream| self.declaration(stream));
        let mut declarations = Vec::from(streams);
        declarations.push(self.bucket_declaration());
        declarations.push(lease::declaration(self.settings().replicas));
        declarations
    }

    /// Where a stream stands.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn stream_state(&self, stream: Stream) -> Result<StreamState, LogError> {
        let info = self
            .jetstream()
            .get_stream(stream.name())
            .await
            .map_err(|error| LogError::broker(format!("describe stream {stream}"), error))?;
        let info = info.cached_info();
        Ok(StreamState {
            created_ns: info.created.unix_timestamp_nanos(),
            first_sequence: info.state.first_sequence,
            last_sequence: info.state.last_sequence,
            messages: info.state.messages,
            bytes: info.state.bytes,
        })
    }

    /// Removes the messages below a sequence whose subject matches the filter; tells how many.
    ///
    /// # Errors
    /// [`LogError::Broker`].
    pub async fn purge(
        &self,
        stream: Stream,
        filter: &str,
        below_sequence: u64,
    ) -> Result<u64, LogError> {
        let handle = self.handle(stream).await?;
        handle
            .purge()
            .filter(filter)
            .sequence(below_sequence)
            .await
            .map(|answer| answer.purged)
            .map_err(|error| LogError::broker(format!("purge stream {stream}"), error))
    }

    pub(super) async fn handle(
        &self,
        stream: Stream,
    ) -> Result<jetstream::stream::Stream<()>, LogError> {
        self.handle_of(stream.name()).await
    }

    pub(super) async fn handle_of(
        &self,
        stream: &str,
    ) -> Result<jetstream::stream::Stream<()>, LogError> {
        self.jetstream()
            .get_stream_no_info(stream)
            .await
            .map_err(|error| LogError::broker(format!("find stream {stream}"), error))
    }

    async fn declare(&self, declared: Config) -> Result<(), LogError> {
        let Some(found) = self.found(&declared.name).await? else {
            // Another gateway may create it in the same moment: the same
            // declaration is no error on the broker.
            let (stream, replicas) = (declared.name.clone(), declared.num_replicas);
            let created = self.jetstream().create_stream(declared).await;
            return created.map(drop).map_err(|error| {
                if is_alone(&error) {
                    return LogError::Replicas { stream, replicas };
                }
                LogError::broker(format!("create stream {stream}"), error)
            });
        };
        let expected = Config {
            max_age: if is_ours(&declared, &found) {
                found.max_age
            } else {
                declared.max_age
            },
            ..declared.clone()
        };
        let differences = differences(&expected, &found);
        if !differences.is_empty() {
            return Err(LogError::Drift {
                stream: declared.name,
                differences: differences.join("; "),
            });
        }
        if found.max_age < declared.max_age {
            self.follow_age(declared, found).await?;
        }
        Ok(())
    }

    /// How a stream is set up; `None`: it is not there.
    async fn found(&self, name: &str) -> Result<Option<Config>, LogError> {
        match self.jetstream().get_stream(name).await {
            Ok(handle) => Ok(Some(handle.cached_info().config.clone())),
            Err(error) if not_found(&error) => Ok(None),
            Err(error) => Err(LogError::broker(format!("describe stream {name}"), error)),
        }
    }

    async fn follow_age(&self, declared: Config, found: Config) -> Result<(), LogError> {
        let (stream, days) = (&declared.name, declared.max_age.as_secs() / DAY_S);
        tracing::info!(stream, days, "age limit follows the changed retention");
        let doing = format!("update stream {stream}");
        self.jetstream()
            .update_stream(Config {
                metadata: declared.metadata,
                max_age: declared.max_age,
                ..found
            })
            .await
            .map(drop)
            .map_err(|error| LogError::broker(doing, error))
    }

    fn declaration(&self, stream: Stream) -> Config {
        let mut subjects = vec![stream.events().to_owned()];
        subjects.extend(stream.lane().map(Lane::cursors));
        let max_age = match stream {
            Stream::Config | Stream::Rollups => Duration::ZERO,
            Stream::Exchanges | Stream::Chunks | Stream::Audit => {
                self.settings().retention.saturating_add(BACKSTOP)
            }
        };
        let kept_for_ever = matches!(stream, Stream::Config);
        Config {
            allow_rollup: stream.lane().is_some(),
            allow_atomic_publish: true,
            deny_delete: kept_for_ever,
            deny_purge: kept_for_ever,
            ..self.kept(stream.name(), subjects, max_age)
        }
    }

    /// As the client library makes a bucket of its object store.
    fn bucket_declaration(&self) -> Config {
        let bucket = bodies::BUCKET;
        let subjects = vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")];
        let max_age = self.settings().retention.saturating_add(BACKSTOP);
        Config {
            description: Some("Message content above 512 KiB, by event id".to_owned()),
            allow_rollup: true,
            ..self.kept(&format!("OBJ_{bucket}"), subjects, max_age)
        }
    }

    /// What all of them have in common: on disk, nothing dropped but by age.
    fn kept(&self, name: &str, subjects: Vec<String>, max_age: Duration) -> Config {
        Config {
            name: name.to_owned(),
            subjects,
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            max_age,
            num_replicas: self.settings().replicas,
            allow_direct: true,
            compression: Some(Compression::S2),
            max_bytes: -1,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            metadata: HashMap::from([(DECLARED_AGE.to_owned(), max_age.as_secs().to_string())]),
            ..Config::default()
        }
    }
}

/// Whether the age limit that a stream has was set by the hub.
fn is_ours(declared: &Config, found: &Config) -> bool {
    if declared.max_age.is_zero() {
        return false;
    }
    match found.metadata.get(DECLARED_AGE) {
        Some(noted) => *noted == found.max_age.as_secs().to_string(),
        // Buckets were made without a note once.
        None => declared.name.starts_with("OBJ_"),
    }
}

fn not_found(error: &GetStreamError) -> bool {
    matches!(
        error.kind(),
        GetStreamErrorKind::JetStream(error) if error.error_code() == jetstream::ErrorCode::STREAM_NOT_FOUND
    )
}

/// Whether the broker keeps no replicas at all, now and later.
fn is_alone(error: &CreateStreamError) -> bool {
    matches!(
        error.kind(),
        CreateStreamErrorKind::JetStream(error)
            if error.error_code() == jetstream::ErrorCode::STREAM_REPLICAS_NOT_SUPPORTED
    )
}

/// Names what differs in anything that decides what is kept, lost or refused.
fn differences(declared: &Config, found: &Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |setting: &str, declared: String, found: String| {
        if declared != found {
            differences.push(format!("{setting} is {found}, declared {declared}"));
        }
    };
    let sorted = |subjects: &[String]| {
        let mut subjects = subjects.to_vec();
        subjects.sort();
        subjects.join(" ")
    };
    compare(
        "subjects",
        sorted(&declared.subjects),
        sorted(&found.subjects),
    );
    compare(
        "max_age",
        format!("{:?}", declared.max_age),
        format!("{:?}", found.max_age),
    );
    macro_rules! compare_fields {
        ($($field:ident),*) => {
            $(compare(stringify!($field), format!("{:?}", declared.$field), format!("{:?}", found.$field));)*
        };
    }
    compare_fields!(
        storage,
        retention,
        discard,
        num_replicas,
        max_bytes,
        max_messages,
        max_messages_per_subject,
        discard_new_per_subject,
        max_message_size,
        no_ack,
        sealed,
        allow_direct,
        allow_rollup,
        allow_atomic_publish,
        deny_delete,
        deny_purge,
        persist_mode,
        mirror,
        sources,
        subject_transform
    );
    differences
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_named() {
        let declared = Config::default();
        let found = Config {
            discard: DiscardPolicy::New,
            max_bytes: 1000,
            ..Config::default()
        };
        assert_eq!(
            differences(&declared, &found),
            [
                "discard is New, declared Old",
                "max_bytes is 1000, declared 0"
            ]
        );
        assert!(differences(&declared, &declared).is_empty());
    }
}
