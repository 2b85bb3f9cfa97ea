//! The configuration as the log has it, followed while a plan is carried out.

use std::sync::Arc;

use anyhow::Context;
use nexus_events::{
    clock::SystemClock,
    log::{Log, Reader},
    seal::MasterKey,
    subject::Stream,
};

use super::{Declaration, SOURCE, hidden::Unknown, plan::Plan, problem::Problem};
use crate::configuration::{CommandError, Commands, Configuration, Fold, fold::FoldError};

/// Events that are applied at once: 1 000, a replay's worth.
const BATCH_MAX: usize = 1000;

/// The configuration of a hub, read from its log.
#[derive(Debug)]
pub struct Live {
    log: Log,
    reader: Reader,
    fold: Fold,
    unknown: Unknown,
    master: MasterKey,
    configuration: Configuration,
    commands: Commands,
}

/// A plan that was not carried out to its end.
#[derive(Debug, thiserror::Error)]
#[error("{subject} was not changed")]
pub struct Interrupted {
    /// The resource that was left as it is: `provider azure`.
    pub subject: String,
    /// Why.
    #[source]
    pub error: CommandError,
}

impl Live {
    /// Reads the log to its present end.
    ///
    /// # Errors
    /// No hub has ever been started on it, or its secrets do not open with the master key.
    pub async fn open(log: Log, master: MasterKey) -> anyhow::Result<Self> {
        let mut reader = log.reader(Stream::Config, None, 0);
        let (mut fold, mut unknown) = (Fold::default(), Unknown::default());
        read_to_end(&log, &mut reader, (&mut fold, &mut unknown)).await?;
        let snapshot = fold.snapshot(&master).map_err(|error| match error {
            FoldError::NoMessageKey => anyhow::Error::new(error)
                .context("no gateway has been started on this log yet: start one first"),
            error @ (FoldError::Sealed { .. } | FoldError::MessageKeyLength) => {
                anyhow::Error::new(error).context(
                    "the master key must be that of the hub: see NEXUS_MASTER_KEY, NEXUS_MASTER_KEY_FILE and NEXUS_DATA_DIR",
                )
            }
        })?;
        let configuration =
            Configuration::new(snapshot, nexus_events::clock::Clock::now(&SystemClock));
        let commands = Commands::new(
            log.clone(),
            configuration.clone(),
            Arc::new(SystemClock),
            SOURCE.to_owned(),
        );
        Ok(Self {
            log,
            reader,
            fold,
            unknown,
            master,
            configuration,
            commands,
        })
    }

    /// Reads what has been published since.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn catch_up(&mut self) -> anyhow::Result<()> {
        let state = (&mut self.fold, &mut self.unknown);
        read_to_end(&self.log, &mut self.reader, state).await?;
        self.configuration
            .replace(self.fold.snapshot(&self.master)?);
        Ok(())
    }

    /// What is to be done to make it what the file declares; with `prune` what the file does not
    /// declare goes.
    ///
    /// # Errors
    /// The declaration does not stand beside what is configured.
    pub fn plan(&self, declaration: &Declaration, prune: bool) -> Result<Plan, Vec<Problem>> {
        declaration.plan(
            (&self.fold, &self.unknown),
            (&self.master, &SystemClock),
            prune,
        )
    }

    /// Makes the changes one after the other, and tells each that is made.
    ///
    /// # Errors
    /// The first that could not be made; all before it are made, none after it.
    pub async fn carry_out(
        &mut self,
        plan: &Plan,
        mut told: impl FnMut(String),
    ) -> anyhow::Result<Result<(), Interrupted>> {
        let Self {
            reader,
            fold,
            unknown,
            master,
            configuration,
            commands,
            ..
        } = self;
        let making = async {
            for step in &plan.steps {
                if let Err(error) = step.make(commands).await {
                    let subject = step.subject();
                    return Err(Interrupted { subject, error });
                }
                told(step.line());
            }
            Ok(())
        };
        // Commands wait until what they published has come back.
        let following = async {
            loop {
                let batch = reader.next_batch(BATCH_MAX).await?;
                for message in batch {
                    apply((fold, unknown), message.sequence, &message.payload);
                }
                configuration.replace(fold.snapshot(master)?);
            }
        };
        tokio::select! {
            made = making => Ok(made),
            broken = following => broken,
        }
    }
}

async fn read_to_end(
    log: &Log,
    reader: &mut Reader,
    (fold, unknown): (&mut Fold, &mut Unknown),
) -> anyhow::Result<()> {
    let state = log.stream_state(Stream::Config).await;
    let state = state.context("read the configuration")?;
    while fold.sequence() < state.last_sequence {
        for message in reader.next_batch(BATCH_MAX).await? {
            apply((fold, unknown), message.sequence, &message.payload);
        }
    }
    Ok(())
}

fn apply((fold, unknown): (&mut Fold, &mut Unknown), sequence: u64, payload: &[u8]) {
    // What this version cannot read is none of what it declares.
    fold.apply(sequence, payload).unwrap_or_default();
    unknown.note(payload);
}
