//! Running a program to its end: the official clients, and commands of `nexus`.
//!
//! The clients run in the environments that `make test` provisions, pinned to their versions.
//! Each program takes what it needs from its environment and prints one JSON object.

use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process::Process;
use crate::settings;

/// How a program ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit status.
    pub status: ExitStatus,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// An environment that a client program runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// Python with the current `openai` package, and `nats-py`.
    Python,
    /// Python with `openai` 0.28.
    Python028,
    /// Python with `tiktoken`, OpenAI's tokenizer.
    Tiktoken,
    /// Python with `LangChain` and `LlamaIndex`.
    Frameworks,
    /// Node with the `openai` package and the Vercel AI SDK.
    Node,
}

/// A program of `tests/clients/programs`, or any other script, with its environment.
#[derive(Debug)]
pub struct Program {
    command: Command,
}

impl Program {
    /// A program of `tests/clients/programs` by its file name.
    ///
    /// # Errors
    ///
    /// When the environment has not been provisioned.
    pub fn client(runtime: Runtime, file: &str) -> Result<Self> {
        Self::script(runtime, &settings::client_programs().join(file))
    }

    /// Any script.
    ///
    /// # Errors
    ///
    /// When the environment has not been provisioned.
    pub fn script(runtime: Runtime, script: &Path) -> Result<Self> {
        ensure!(script.is_file(), "there is no {}", script.display());
        let mut command = match runtime {
            Runtime::Python => Command::new(settings::client_environment("openai/bin/python")?),
            Runtime::Python028 => {
                Command::new(settings::client_environment("openai028/bin/python")?)
            }
            Runtime::Tiktoken => Command::new(settings::client_environment("tiktoken/bin/python")?),
            Runtime::Frameworks => {
                Command::new(settings::client_environment("frameworks/bin/python")?)
            }
            Runtime::Node => {
                let folder = settings::client_environment("node/node_modules/openai")?;
                let modules = folder.parent().unwrap_or(&folder).to_path_buf();
                let mut command = Command::new(settings::on_path("node")?);
                command.env("NODE_PATH", modules);
                command
            }
        };
        settings::clear_environment(&mut command);
        command.arg(script);
        Ok(Self { command })
    }

    /// Sets an environment variable.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a test writes a number as a number"
    )]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.command.env(name, value.to_string());
        self
    }

    /// Where the hub is and with which key: `BASE_URL` (with `/v1`), `API_KEY`, `MODEL`.
    #[must_use]
    pub fn hub(self, api_base: &str, key: &str, model: &str) -> Self {
        self.env("BASE_URL", api_base)
            .env("API_KEY", key)
            .env("MODEL", model)
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started or does not end in time; an exit status is not an error.
    pub async fn run(self, bound: Duration) -> Result<Outcome> {
        run(&self.command, bound).await
    }
}

impl Outcome {
    /// The JSON object that the program printed.
    ///
    /// # Errors
    ///
    /// When the program failed or printed something else.
    pub fn json(&self) -> Result<Value> {
        self.succeeded()?;
        serde_json::from_str(&self.stdout)
            .with_context(|| format!("the program printed {:?}", self.stdout))
    }

    /// Fails unless the exit status is 0.
    ///
    /// # Errors
    ///
    /// When it is not; with both outputs.
    pub fn succeeded(&self) -> Result<&Self> {
        let Self {
            status,
            stdout,
            stderr,
        } = self;
        ensure!(
            status.success(),
            "the program ended with {status}\n{stdout}\n{stderr}"
        );
        Ok(self)
    }
}

/// Runs a command to its end.
///
/// # Errors
///
/// When it cannot be started or does not end in time; an exit status is not an error.
pub async fn run(command: &Command, bound: Duration) -> Result<Outcome> {
    let folder = tempfile::tempdir().context("failed to create a folder for outputs")?;
    let program = Path::new(command.get_program());
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let mut process = Process::start(&name, command, folder.path())?;
    let status = process.end(bound).await?;
    Ok(Outcome {
        status,
        stdout: process.stdout(),
        stderr: process.stderr(),
    })
}

#[cfg(test)]
mod tests;
