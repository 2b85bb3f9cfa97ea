//! Changes to the configuration: decided on a snapshot, published with the sequence that it
//! was decided on, answered when they are in force here.
//!
//! A decision that someone else has overtaken is refused by the stream; it is
//! made again on the newer snapshot, a few times. What the decision looked at
//! is what must not have changed ([`Basis`]): its own resource, for a unique
//! name the whole kind, and where one resource names another the whole
//! configuration. So no key is stored after its user has gone, and no user goes
//! whom a key names, however many gateways decide at once. Nothing here keeps
//! state: what was changed comes back through the fold, like everyone's changes.

use std::{borrow::Cow, sync::Arc, time::Duration};

use nexus_events::{
    clock::SharedClock,
    config_event::{Action, Actor, Changed, Resource},
    envelope::{EncodeError, Stamp},
    log::{Expected, Log, PublishError},
    subject::{self, Stream},
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Configuration, Snapshot};

/// A decision that was overtaken so often is given up: 32 times, some 100 ms.
///
/// Each time means that someone else's change was stored. Two gateways that change the configuration
/// without a pause win every other time, so 32 in a row is no coincidence.
pub const TRIES_MAX: u32 = 32;

/// The fold follows the stream within milliseconds; after 5 s it stands still.
const IN_FORCE_TIME: Duration = Duration::from_secs(5);

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no such resource.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// The request names what is not there any more.
    #[error("{message}")]
    Invalid {
        /// The member that names it.
        member: Cow<'static, str>,
        /// The sentence for the client.
        message: Cow<'static, str>,
    },
    /// Each member may be as it is, and together with what is there it makes no sense.
    #[error("{message}")]
    Unprocessable {
        /// The member that does not fit.
        member: &'static str,
        /// The sentence for the client.
        message: String,
    },
    /// What is there stands against it.
    #[error("{message}")]
    Refused {
        /// The error's `code`.
        code: &'static str,
        /// The sentence for the client.
        message: Cow<'static, str>,
    },
    /// The caller may not do that.
    #[error("{0}")]
    Forbidden(&'static str),
    /// The resource is no longer the one that the caller saw.
    #[error("the resource has changed since")]
    Stale,
    /// Others changed the same all the time.
    #[error("others keep changing the same resources")]
    Overtaken,
    /// The broker is away, or did not say whether it stored the change.
    #[error("the broker did not acknowledge the change")]
    Unavailable(#[source] PublishError),
    /// The configuration is not followed any more.
    #[error("the configuration cannot be changed here: {0}")]
    Halted(String),
    /// It is stored, but this gateway does not have it yet.
    #[error("the change is stored and not in force here yet")]
    NotInForce,
    /// The broker refused the change for its own sake.
    #[error("the broker refused the change")]
    Broker(#[source] PublishError),
    /// It cannot be written as JSON.
    #[error(transparent)]
    Encode(#[from] EncodeError),
    /// A secret could not be sealed.
    #[error("a secret could not be sealed")]
    Seal(#[from] nexus_events::seal::SealError),
}

/// Makes changes; a cheap handle.
#[derive(Clone, Debug)]
pub struct Commands {
    log: Log,
    configuration: Configuration,
    clock: SharedClock,
    source: Arc<str>,
    halted: Arc<Mutex<Option<String>>>,
}

/// A resource as it was after a change, with the stream sequence of that change.
#[derive(Clone, Debug)]
pub struct Written<R> {
    /// The resource.
    pub resource: R,
    /// Stream sequence of its last change.
    pub sequence: u64,
}

/// What a decision looked at, and what must therefore be as it was when the change is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The resource itself.
    Resource,
    /// All resources of its kind: it takes a name that must stay unique.
    Kind,
    /// Those of other kinds, too: it names one of them, or must not be named by any.
    Configuration,
}

impl Basis {
    /// The whole configuration if the change names another resource, else this.
    #[must_use]
    pub const fn naming_if(self, names_another: bool) -> Self {
        if names_another {
            Self::Configuration
        } else {
            self
        }
    }

    fn expected<R: Resource>(self, snapshot: &Snapshot, sequence: u64) -> Expected {
        match self {
            Self::Resource => Expected::SubjectAt(sequence),
            Self::Kind => Expected::FilterAt {
                filter: subject::config_kind(R::KIND),
                sequence: snapshot.kind_sequence(R::KIND),
            },
            Self::Configuration => Expected::FilterAt {
                filter: Stream::Config.events().to_owned(),
                sequence: snapshot.sequence,
            },
        }
    }
}

/// A change of an existing resource, decided on a snapshot.
#[derive(Debug)]
pub struct Decision<R> {
    /// What is to be done.
    pub action: Action,
    /// The resource after the change.
    pub resource: R,
    /// Stream sequence of the resource as the decision saw it.
    pub sequence: u64,
    /// Names of the members that change; none: nothing is to be done.
    pub changed: Vec<String>,
    /// What the decision looked at.
    pub basis: Basis,
}

impl Commands {
    /// Makes changes to that configuration; `source` names this process in the events.
    pub fn new(log: Log, configuration: Configuration, clock: SharedClock, source: String) -> Self {
        Self {
            log,
            configuration,
            clock,
            source: source.into(),
            halted: Arc::default(),
        }
    }

    /// Refuses every change from now on, because the fold stands still.
    pub fn halt(&self, reason: String) {
        *self.halted.lock() = Some(reason);
    }

    /// Why changes are refused, if they are.
    pub fn halted(&self) -> Option<String> {
        self.halted.lock().clone()
    }

    /// Creates a resource; `decide` checks the names and may be asked more than once.
    ///
    /// A new name is looked for in the whole kind at least.
    ///
    /// # Errors
    /// By kind, see [`CommandError`].
    pub async fn create<R: Resource + Clone>(
        &self,
        actor: &Actor,
        changed: &[&str],
        basis: Basis,
        decide: impl Fn(&Snapshot) -> Result<R, CommandError>,
    ) -> Result<Written<R>, CommandError> {
        self.not_halted()?;
        for _ in 0..TRIES_MAX {
            let snapshot = self.configuration.current();
            let change = Changed {
                action: Action::Created,
                changed: changed.iter().map(|name| (*name).to_owned()).collect(),
                actor: actor.clone(),
                resource: decide(&snapshot)?,
            };
            let expected = basis.expected::<R>(&snapshot, 0);
            match self.publish(&change, expected).await {
                Ok(sequence) => return self.in_force(change.resource, sequence).await,
                Err(PublishError::Conflict) => self.read_on().await?,
                Err(error) => return Err(refused(error)),
            }
        }
        Err(CommandError::Overtaken)
    }

    /// Changes or deletes a resource; `decide` finds it and may be asked more than once.
    ///
    /// With `if_match` the change is made only to the resource with that sequence.
    ///
    /// # Errors
    /// By kind, see [`CommandError`].
    pub async fn change<R: Resource + Clone>(
        &self,
        actor: &Actor,
        if_match: Option<u64>,
        decide: impl Fn(&Snapshot) -> Result<Decision<R>, CommandError>,
    ) -> Result<Written<R>, CommandError> {
        self.not_halted()?;
        for _ in 0..TRIES_MAX {
            let snapshot = self.configuration.current();
            let decision = decide(&snapshot)?;
            if if_match.is_some_and(|expected| expected != decision.sequence) {
                return Err(CommandError::Stale);
            }
            if decision.changed.is_empty() && decision.action == Action::Updated {
                return Ok(Written {
                    resource: decision.resource,
                    sequence: decision.sequence,
                });
            }
            let expected = decision.basis.expected::<R>(&snapshot, decision.sequence);
            let change = Changed {
                action: decision.action,
                changed: decision.changed,
                actor: actor.clone(),
                resource: decision.resource,
            };
            match self.publish(&change, expected).await {
                Ok(sequence) => return self.in_force(change.resource, sequence).await,
                Err(PublishError::Conflict) => self.read_on().await?,
                Err(error) => return Err(refused(error)),
            }
        }
        Err(CommandError::Overtaken)
    }

    fn not_halted(&self) -> Result<(), CommandError> {
        self.halted()
            .map_or(Ok(()), |reason| Err(CommandError::Halted(reason)))
    }

    async fn publish<R: Resource>(
        &self,
        change: &Changed<R>,
        expected: Expected,
    ) -> Result<u64, PublishError> {
        let stamp = Stamp::draw(&*self.clock);
        let payload = change
            .encode(stamp, &self.source)
            .map_err(|error| PublishError::Unavailable(error.into()))?;
        self.log.publish(change.subject(), payload, expected).await
    }

    /// Waits until the change is in force here.
    async fn in_force<R>(&self, resource: R, sequence: u64) -> Result<Written<R>, CommandError> {
        timeout(IN_FORCE_TIME, self.configuration.reached(sequence))
            .await
            .or(Err(CommandError::NotInForce))?;
        Ok(Written { resource, sequence })
    }

    /// Waits until everything that the stream holds by now is in force here.
    async fn read_on(&self) -> Result<(), CommandError> {
        let state = self.log.stream_state(Stream::Config).await;
        let state = state.map_err(|error| {
            CommandError::Unavailable(PublishError::Unavailable(Box::new(error)))
        })?;
        timeout(
            IN_FORCE_TIME,
            self.configuration.reached(state.last_sequence),
        )
        .await
        .or(Err(CommandError::NotInForce))
    }
}

fn refused(error: PublishError) -> CommandError {
    match error {
        PublishError::Conflict => CommandError::Overtaken,
        PublishError::Unavailable(_) => CommandError::Unavailable(error),
        PublishError::Refused { .. } | PublishError::TooLarge { .. } => CommandError::Broker(error),
    }
}
