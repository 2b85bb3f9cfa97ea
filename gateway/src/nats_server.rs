//! The NATS server that `standalone` runs: found, checked, started, watched, stopped.
//!
//! *Never left behind.* The server dies with this process, even when that is
//! killed with SIGKILL: it is started through `nexus nats-exec` ([`exec`]),
//! which asks the kernel for a signal at the parent's death and then becomes
//! the server. The kernel ties that signal to the thread that started the
//! child, so one thread starts it, waits for it, and starts it again.
//!
//! *Never twice on one store.* The child holds a lock on its store, inherited
//! through `exec`, so the server of a killed hub and the server of the next
//! one cannot write to the same files.
//!
//! *Always the same address.* The port is drawn once and remembered in the
//! data directory, so that the address that subscribers use stays valid.

pub mod binary;
pub mod configuration;
pub mod exec;
pub mod supervisor;

pub use supervisor::NatsServer;
