//! The integration tests: one executable, one file for each promise.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::float_arithmetic,
    clippy::wildcard_enum_match_arm,
    reason = "what a test looks for and does not find must fail it, there and then; figures are printed"
)]

mod administration;
mod apply;
mod archiver;
mod bad_input;
mod browser;
mod cache;
mod clients;
mod commands;
mod compose;
mod configuration;
mod conversations;
mod dialects;
mod ernie_v1;
mod frameworks;
mod harness_hub;
mod http2;
mod kill;
mod lease;
mod lifecycle;
mod limits;
mod loops;
mod lost;
mod malformed;
mod management;
mod outage;
mod outbox;
mod permissions;
mod projector;
mod reader;
mod readme;
mod rebuild;
mod recorded;
mod release;
mod replay;
mod resume;
mod roles;
mod routes;
mod running;
mod sessions;
mod shared_state;
mod stage;
mod streams;
mod tidy;
mod tokens;
mod traffic;
mod unlogged;
mod upstream_faults;
mod web_socket;
