//! What the projector does while its read model and the log do not fit each other: nothing but
//! say so, and look whether somebody has done something about it.

use std::path::Path;

use crate::{
    database, handover,
    run::LOOK_EVERY,
    source::Misfit,
    status::{Phase, ProjectorStatus},
};

/// Which database may do where the one that there is does not.
pub(crate) enum Another {
    /// A replay offers one.
    Offered,
    /// There is none any more.
    ToBeBuilt,
}

/// Says why nothing is applied, and waits until there is another database to try it with.
pub(crate) async fn halt(dir: &Path, misfit: &Misfit, status: &ProjectorStatus) -> Another {
    tracing::error!(
        error = misfit as &dyn std::error::Error,
        "the projector halts"
    );
    let reason = misfit.to_string();
    if let Err(error) = database::note_halt(dir, Some(&reason)) {
        tracing::error!(%error, "readers cannot be told; they answer from what is there");
    }
    status.enter(Phase::Halted { reason });
    let current = database::current(dir).ok();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if handover::offered(dir).is_some() {
            return Another::Offered;
        }
        // Without one it was a new one that did not fit: the log changed while it was being built.
        if current.is_none() || database::current(dir).ok() != current {
            return Another::ToBeBuilt;
        }
    }
}
