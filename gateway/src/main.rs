//! The `nexus` executable: reads the command line, runs the command.

use std::process::ExitCode;

use nexus_gateway::{
    cli::Cli,
    command::{self, banner},
};

fn main() -> ExitCode {
    match command::run(Cli::read(std::env::args_os()).command()) {
        Ok(code) => code,
        Err(error) => {
            banner::failure(&error);
            ExitCode::FAILURE
        }
    }
}
