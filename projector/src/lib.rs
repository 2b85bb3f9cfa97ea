//! The read model of `NexusAI` Hub: a projection of the event log in SQLite.
//!
//! *What it is.* The [`run`](run::run) loop reads the log and applies each event to
//! the tables; [`ReadModel`] answers questions from them; [`verify`](verify::verify)
//! rebuilds them beside the live ones and compares.
//!
//! *What it promises.* The tables are a function of which prefixes of the four
//! streams were read: not of how they interleave, of batch sizes, of the clock
//! or of the machine. Effects and checkpoint are committed together, so an
//! event counts once however often it is delivered. A read model that is
//! deleted comes back the same.
//!
//! *What it never does.* It holds no fact of its own, and nothing else writes
//! the tables.

pub mod apply;
pub mod checkpoint;
pub mod database;
mod dead_letter;
mod dump;
mod exchange_row;
mod halt;
mod handover;
pub mod live;
pub mod position;
pub mod read_model;
pub mod rebuild;
pub mod replay;
pub mod run;
pub mod scratch;
mod soundness;
pub mod source;
pub mod status;
#[cfg(test)]
mod testing;
pub mod verify;

pub use apply::Writer;
pub use position::AsOf;
pub use read_model::ReadModel;
pub use run::{ProjectorError, ProjectorSettings, run};
pub use status::ProjectorStatus;
pub use verify::{Verdict, verify};
