//! The wire forms that clients and providers speak: what is read of them, and
//! nothing that is not needed. Everything else passes through as it came.

pub mod at_most;
pub mod openai;
pub mod readable;
