//! The event log of NexusAI Hub.
//!
//! *What it is.* Every request, attempt, chunk, token count and configuration
//! change is an event: a CloudEvents envelope in a NATS JetStream stream. This
//! crate holds the events' types and codec, the subjects and streams, the
//! outbox through which a gateway appends, the shipper that brings the outbox
//! to the broker, and the readers.
//!
//! *What it promises.* An appended event survives the death of any process. It
//! reaches its stream exactly once and in the order of its lane, however often
//! anything is retried. A reader sees every event of a stream in the stream's
//! order or learns that it did not.
//!
//! *What it never does.* It edits no stored event, drops none in silence, and
//! holds no API key, no secret in clear and no `Authorization` header.

pub mod audit_event;
pub mod chunk_event;
pub mod clock;
pub mod config_event;
pub mod envelope;
pub mod exchange_event;
pub mod id;
pub mod log;
pub mod message;
pub mod message_id;
pub mod outbox;
pub mod private;
pub mod raw_object;
pub mod rollup_event;
pub mod seal;
pub mod stillness;
pub mod subject;
pub mod upcast;
pub mod usage;
