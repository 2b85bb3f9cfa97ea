//! Scenarios of faults: each breaks something on purpose, under load, and then takes everything to
//! account. One file for each kind of fault; random timing comes from a printed seed.
#![expect(
    clippy::print_stdout,
    reason = "what a scenario did and found is printed"
)]

mod broker;
mod clock;
mod cluster;
mod deployment;
mod load;
mod outbox;
mod poison;
mod read_model;
mod shared_state;
mod storm;
mod weather;
