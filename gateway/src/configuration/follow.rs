//! The task that reads `NEXUS_CONFIG` and keeps the configuration in force up to date.

use std::time::Duration;

use nexus_events::{
    clock::{SharedClock, UnixMillis},
    log::{Log, LogError, Message, ReadError, Reader, StreamState},
    seal::MasterKey,
    subject::Stream,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Configuration, Fold,
    bootstrap::{Bootstrap, BootstrapError},
    disk::{Disk, Stored},
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
    /// The stream is not the one that was followed so far.
    #[error(transparent)]
    Read(#[from] ReadError),
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
}

/// Follows the stream.
#[derive(Debug)]
pub struct Follower {
    log: Log,
    master: MasterKey,
    clock: SharedClock,
    disk: Disk,
    bootstrap: Bootstrap,
    fold: Fold,
    /// Identity of the stream that the fold comes from; `None` before the first contact.
    stream_created_ns: Option<i128>,
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
        let (fold, stream_created_ns, newest_at) = match parts.disk.load() {
            Some(Stored {
                fold,
                stream_created_ns,
                written_ms,
                ..
            }) => (fold, Some(stream_created_ns), written_ms),
            None => (Fold::default(), None, UnixMillis::from_millis(0)),
        };
        Self {
            log: parts.log,
            master: parts.master,
            clock: parts.clock,
            disk: parts.disk,
            bootstrap: parts.bootstrap,
            fold,
            stream_created_ns,
            newest_at,
            prepared: false,
        }
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
        mut self,
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
                    self.apply(message.sequence, &message.payload);
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
        let state: StreamState = self.log.stream_state(Stream::Config).await?;
        match self.stream_created_ns {
            Some(created_ns) if created_ns != state.created_ns => {
                return Err(FollowError::OtherStream);
            }
            Some(_) => {}
            None => self.stream_created_ns = Some(state.created_ns),
        }
        let mut reader = self.reader();
        while self.fold.sequence() < state.last_sequence {
            for message in reader.next_batch(BATCH_MAX).await? {
                self.apply(message.sequence, &message.payload);
            }
        }
        Ok(())
    }

    fn reader(&self) -> Reader {
        let reader = self.log.reader(Stream::Config, None, self.fold.sequence());
        match self.stream_created_ns {
            Some(created_ns) => reader.of_stream_created(created_ns),
            None => reader,
        }
    }

    fn apply(&mut self, sequence: u64, payload: &[u8]) {
        if let Err(error) = self.fold.apply(sequence, payload) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, sequence, "left a configuration event aside");
        }
    }

    fn store_copy(&self) {
        if let Some(created_ns) = self.stream_created_ns {
            self.disk.store(created_ns, &self.fold);
        }
    }
}
