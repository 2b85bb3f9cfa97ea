//! Who calls, and what they may do.

pub mod permission;
pub mod principal;
pub mod unauthenticated;

pub use permission::{Access, Permission};
pub use principal::Principal;
pub use unauthenticated::Unauthenticated;
