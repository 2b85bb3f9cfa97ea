//! What can go wrong in a sweep.

use nexus_events::{
    envelope::EncodeError,
    log::{LogError, history::HistoryError},
    outbox::{AppendError, ReleaseError},
};
use nexus_projector::read_model::ReadError;

use crate::role::gateway::settle::{self, SettleError};

/// Why a sweep was not finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum SweepError {
    #[error("the read model could not be asked")]
    ReadModel(#[from] ReadError),
    #[error("the read model is {0} messages behind the log")]
    Behind(u64),
    #[error("the log could not be asked")]
    Log(#[from] LogError),
    #[error("the log could not be searched")]
    History(#[from] HistoryError),
    #[error("an event could not be written")]
    Encode(#[from] EncodeError),
    #[error("an event could not be appended")]
    Append(#[from] AppendError),
    #[error("a request could not be settled")]
    Settle(#[from] SettleError),
    #[error("what was appended is not shipped")]
    NotStored,
    #[error("this gateway ships nothing any more")]
    Stopped(#[from] ReleaseError),
    #[error("the lease is another's")]
    NotHeld,
}

impl SweepError {
    /// Whether there was no room for a record: there may be later, or for a smaller one.
    pub(super) const fn is_of_room(&self) -> bool {
        matches!(self, Self::Append(error) if settle::is_of_room(error))
    }
}
