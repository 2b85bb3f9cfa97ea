//! The `nexus` executable: reads the command line, runs the command.

use std::process::ExitCode;

use clap::Parser;
use nexus_gateway::{
    cli::Cli,
    command::{self, banner},
};

fn main() -> ExitCode {
    match command::run(Cli::parse().command()) {
        Ok(code) => code,
        Err(error) => {
            banner::failure(&error);
            ExitCode::FAILURE
        }
    }
}
