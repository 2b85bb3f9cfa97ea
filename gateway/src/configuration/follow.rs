//! The task that reads `NEXUS_CONFIG` and keeps the configuration in force up to date.

use std::time::Duration;

use nexus_events::{
    clock::{SharedClock, UnixMillis},
    log::{Known, KnownError, Log, LogError, Message, ReadError, Reader},
    seal::MasterKey,
    subject::Stream,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Configuration, Fold,
    bootstrap::{Bootstrap, BootstrapError},
    disk::Disk,
    first_key::FirstKey,
    fold::FoldError,
};
/// Events applied before the configuration is replaced: 1 000, a replay's worth.
const BATCH_MAX: usize = 1000;

/// One round of waiting for the broker; between rounds readiness says that it is away.
const ROUND: Duration = Duration::from_secs(5);

/// Pause before another try after a broker that was there and could not: 200 ms.
const PAUSE: Duration = Duration::from_millis(200);

/// How often a quiet stream is taken for up to date: 1 s.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Why the configuration cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The broker is away, or it is not one that will do.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The stream is not the one that was followed so far, or has lost its tail.
    #[error(
        "{0}; this gateway goes on with the configuration that it knew and takes no change: put the stream back as it was and start again, or stop the gateway, remove config/snapshot.json from its data directory and start it to go on with what the stream holds"
    )]
    Read(ReadError),
    /// What an installation needs could not be put there.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The state cannot be put in force.
    #[error("the configuration cannot be put in force")]
    Fold(#[from] FoldError),
    /// The copy on disk belongs to another stream.
    #[error(
        "{} is not the stream that this gateway followed: it was created anew since, so its configuration is lost; remove config/snapshot.json from the data directory to go on with what the stream holds",
        Stream::Config
    )]
    OtherStream,
}

impl FollowError {
    /// Whether waiting may mend it.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::Log(error) => error.is_passing(),
            Self::Bootstrap(error) => error.is_passing(),
            Self::Read(_) | Self::Fold(_) | Self::OtherStream => false,
        }
    }

    /// Whether a gateway begins with its copy all the same: with what it would go on with, had it
    /// found that out while it was running.
    pub const fn leaves_copy(&self) -> bool {
        self.is_passing() || matches!(self, Self::Read(_))
    }
}

impl From<ReadError> for FollowError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<KnownError> for FollowError {
    fn from(error: KnownError) -> Self {
        match error {
            KnownError::Other(ReadError::StreamRecreated { .. }) => Self::OtherStream,
            KnownError::Other(error) => Self::Read(error),
            KnownError::Log(error) => Self::Log(error),
        }
    }
}

/// Follows the stream.
#[derive(Debug)]
pub struct Follower {
    pub(super) log: Log,
    pub(super) master: MasterKey,
    clock: SharedClock,
    pub(super) disk: Disk,
    bootstrap: Bootstrap,
    pub(super) fold: Fold,
    /// Identity of the stream that the fold comes from; `None` before the first contact.
    stream_created_ns: Option<i128>,
    /// When the broker stored the last event of the fold, if it is known.
    stored_ns: Option<i64>,
    /// When the fold was known to be all there is.
    newest_at: UnixMillis,
    prepared: bool,
}

/// What a follower needs.
#[derive(Debug)]
pub struct Parts {
    /// The log.
    pub log: Log,
    /// Opens secrets.
    pub master: MasterKey,
    /// Dates what the hub writes itself.
    pub clock: SharedClock,
    /// Where the copy lies.
    pub disk: Disk,
    /// What an installation needs.
    pub bootstrap: Bootstrap,
}

impl Follower {
    /// A follower that begins with the copy on disk, if there is one.
    pub fn new(parts: Parts) -> Self {
        let mut follower = Self {
            log: parts.log,
            master: parts.master,
            clock: parts.clock,
            disk: parts.disk,
            bootstrap: parts.bootstrap,
            fold: Fold::default(),
            stream_created_ns: None,
            stored_ns: None,
            newest_at: UnixMillis::from_millis(0),
            prepared: false,
        };
        if let Some(copy) = follower.disk.load() {
            follower.fold = copy.fold;
            follower.stream_created_ns = Some(copy.stream_created_ns);
            follower.stored_ns = copy.stored_ns;
            follower.newest_at = copy.written_ms;
        }
        follower
    }

    /// The configuration as far as it is known; `None` for one that nothing can be served by.
    ///
    /// # Errors
    /// Its secrets do not open with the master key.
    pub fn configuration(&self) -> Result<Option<Configuration>, FoldError> {
        match self.fold.snapshot(&self.master) {
            Ok(snapshot) => Ok(Some(Configuration::new(snapshot, self.newest_at))),
            Err(FoldError::NoMessageKey) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for the broker at most `bound`, reads the stream to its end, and puts there what
    /// an installation needs; gives the admin key that was drawn, until somebody was told.
    ///
    /// # Errors
    /// [`FollowError`]; one that [is passing](FollowError::is_passing) may be tried again.
    ///
    /// # Cancel safety
    /// It may be dropped and called again.
    pub async fn prepare(&mut self, bound: Duration) -> Result<Option<FirstKey>, FollowError> {
        self.log.ready(bound).await?;
        self.catch_up(bound).await?;
        while self
            .bootstrap
            .step(&self.log, &self.fold, &self.master, &*self.clock)
            .await?
        {
            self.catch_up(bound).await?;
        }
        self.newest_at = self.clock.now();
        self.store_copy();
        self.prepared = true;
        Ok(self.bootstrap.untold(&self.fold)?)
    }

    /// Keeps `configuration` up to date until the stop.
    ///
    /// # Errors
    /// Only what waiting cannot mend; the configuration then stays as it is.
    pub async fn run(
        &mut self,
        configuration: &Configuration,
        stop: &CancellationToken,
    ) -> Result<(), FollowError> {
        let following = async {
            while !self.prepared {
                match self.prepare(ROUND).await {
                    // A key that nobody was told is told at the next start.
                    Ok(_) => {
                        configuration.replace(self.fold.snapshot(&self.master)?);
                        configuration.is_newest(self.newest_at);
                    }
                    Err(error) if error.is_passing() => {
                        tracing::warn!(
                            error = &error as &dyn std::error::Error,
                            "the configuration is not up to date"
                        );
                        sleep(PAUSE).await;
                    }
                    Err(error) => return Err(error),
                }
            }
            let mut reader = self.reader();
            loop {
                let batch = self.news(&mut reader, configuration).await?;
                for message in &batch {
                    self.apply(message);
                }
                configuration.replace(self.fold.snapshot(&self.master)?);
                if batch.last().is_none_or(|message| message.pending == 0) {
                    configuration.is_newest(self.clock.now());
                }
                self.store_copy();
            }
        };
        Box::pin(stop.run_until_cancelled(following))
            .await
            .unwrap_or(Ok(()))
    }

    /// Waits for news; says meanwhile that there are none, while they would come if there were.
    async fn news(
        &self,
        reader: &mut Reader,
        configuration: &Configuration,
    ) -> Result<Vec<Message>, ReadError> {
        let live = reader.live();
        // One and the same wait all the time: a broker that answers slowly must not be asked anew each second.
        let mut waiting = std::pin::pin!(reader.next_batch(BATCH_MAX));
        loop {
            tokio::select! {
                biased;
                batch = &mut waiting => return batch,
                () = sleep(HEARTBEAT) => {
                    if live.is_live() && self.log.is_connected() {
                        configuration.is_newest(self.clock.now());
                    }
                }
            }
        }
    }

    /// Reads the stream to its present end, which must not take longer than `bound`.
    async fn catch_up(&mut self, bound: Duration) -> Result<(), FollowError> {
        let away = self.log.unreachable();
        let reading = timeout(bound, self.read_to_end());
        reading.await.unwrap_or_else(|_elapsed| Err(away.into()))
    }

    async fn read_to_end(&mut self) -> Result<(), FollowError> {
        let known = Known {
            created_ns: self.stream_created_ns,
            sequence: self.fold.sequence(),
            stored_ns: self.stored_ns,
        };
        let state = self.log.known_stream(Stream::Config, known).await?;
        self.stream_created_ns = Some(state.created_ns);
        let mut reader = self.reader();
        while self.fold.sequence() < state.last_sequence {
            for message in reader.next_batch(BATCH_MAX).await? {
                self.apply(&message);
            }
        }
        Ok(())
    }

    fn reader(&self) -> Reader {
        let reader = self
            .log
            .reader(Stream::Config, None, self.fold.sequence())
            .of_message_stored(self.stored_ns);
        match self.stream_created_ns {
            Some(created_ns) => reader.of_stream_created(created_ns),
            None => reader,
        }
    }

    fn apply(&mut self, message: &Message) {
        let sequence = message.sequence;
        if sequence > self.fold.sequence() {
            self.stored_ns = Some(message.stored_ns);
        }
        if let Err(error) = self.fold.apply(sequence, &message.payload) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, sequence, "left a configuration event aside");
        }
    }

    pub(super) fn store_copy(&self) {
        if let Some(created_ns) = self.stream_created_ns {
            self.disk.store(created_ns, self.stored_ns, &self.fold);
        }
    }
}
