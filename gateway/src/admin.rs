//! The management API: one file for each family.
//!
//! Writes change the configuration ([`crate::configuration::commands`]); reads
//! of providers, models, routes and keys come from the configuration in force here,
//! reads of statistics and content from the read model.

pub mod answer;
pub(crate) mod change;
pub mod conversations;
pub mod fields;
pub mod keys;
pub mod models;
pub mod page;
pub mod parameters;
pub mod prices;
pub mod provider_models;
pub mod providers;
pub mod quota;
pub mod requests;
pub mod routes;
pub mod settings;
pub mod stats;
pub mod users;
