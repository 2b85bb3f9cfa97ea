//! The command line.

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::{
    command::{
        apply::Apply, archiver::ArchiverCommand, backup::BackupCommand, events::EventsCommand,
        gateway::GatewayCommand, health::Health, keys::KeysCommand, projector::ProjectorCommand,
        replay::Replay, standalone::StandaloneCommand, verify::Verify,
    },
    nats_server::exec::NatsExec,
};

/// The LLM gateway that never loses a record: every request, attempt, chunk, token count and
/// configuration change is an event in NATS `JetStream`.
///
/// Every setting is an environment variable and a flag; the flag wins. Without a command,
/// `standalone` is run, with the flags that are given.
#[derive(Parser, Debug)]
#[command(name = "nexus", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What `nexus` can do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run everything in one process, with a NATS server of its own unless `NEXUS_NATS_URL` names one
    Standalone(Box<StandaloneCommand>),
    /// Run the gateway: client API and management API
    Gateway(Box<GatewayCommand>),
    /// Run the projector: keeps the read model up to date
    Projector(Box<ProjectorCommand>),
    /// Run the archiver: backups and retention
    Archiver(Box<ArchiverCommand>),
    /// Rebuild the read model into a scratch file and compare: exit code 1 and the first difference if there is one
    Verify(Box<Verify>),
    /// Rebuild the read model from the log beside the live one and swap it in; or the state as of a moment
    Replay(Box<Replay>),
    /// Read the log, and bring in what it lacks: tail, reship
    #[command(subcommand)]
    Events(EventsCommand),
    /// Backups of the read model: now, list
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Make providers, models, routes, prices, users and keys what a file declares, and print the difference
    Apply(Box<Apply>),
    /// API keys, straight in the log, for whoever can reach the broker: create, list, revoke
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Ask a running role whether it lives: exit code 0 or 1
    Health(Health),
    /// Become the supervised NATS server
    #[command(hide = true)]
    NatsExec(NatsExec),
}

impl Cli {
    /// Reads the command line; flags without a command are those of `standalone`.
    pub fn read(arguments: impl IntoIterator<Item = OsString>) -> Self {
        let mut arguments: Vec<OsString> = arguments.into_iter().collect();
        let first = arguments.get(1).and_then(|first| first.to_str());
        let is_flag = first.is_some_and(|first| first.starts_with('-'));
        let is_about = matches!(first, Some("-h" | "--help" | "-V" | "--version"));
        if is_flag && !is_about {
            arguments.insert(1, "standalone".into());
        }
        Self::parse_from(arguments)
    }

    /// The command, `standalone` when none is given.
    pub fn command(self) -> Command {
        self.command.unwrap_or_else(|| {
            Command::Standalone(Box::new(StandaloneCommand::parse_from([
                "nexus standalone",
            ])))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command_factory_checked();
    }

    impl Cli {
        fn command_factory_checked() {
            <Self as CommandFactory>::command().debug_assert();
        }
    }

    #[test]
    fn flags_without_a_command_are_those_of_standalone() {
        let read = |arguments: &[&str]| Cli::read(arguments.iter().map(OsString::from)).command();
        for arguments in [&["nexus"][..], &["nexus", "--drain-seconds", "7"]] {
            let Command::Standalone(command) = read(arguments) else {
                panic!("{arguments:?}")
            };
            let seconds = if arguments.len() > 1 { 7 } else { 30 };
            assert_eq!(command.role.drain.as_secs(), seconds);
        }
        assert!(matches!(read(&["nexus", "verify"]), Command::Verify(_)));
    }

    #[test]
    fn every_setting_is_a_variable_with_an_explanation() {
        let cli = <Cli as CommandFactory>::command();
        for role in ["standalone", "gateway", "projector", "archiver"] {
            let command = cli.find_subcommand(role).unwrap();
            for argument in command.get_arguments() {
                let name = argument.get_id();
                let variable = argument
                    .get_env()
                    .unwrap_or_else(|| panic!("{role}: {name}"));
                assert!(
                    variable.to_string_lossy().starts_with("NEXUS_"),
                    "{role}: {name}"
                );
                assert!(argument.get_help().is_some(), "{role}: {name}");
                let flag = argument.get_long().unwrap_or_default();
                let flag = flag.to_uppercase().replace('-', "_");
                assert_eq!(variable.to_string_lossy(), format!("NEXUS_{flag}"));
            }
        }
    }

    #[test]
    fn what_a_command_can_do_is_told_beside_its_name() {
        let cli = <Cli as CommandFactory>::command();
        for command in cli.get_subcommands() {
            let about = command.get_about().map(ToString::to_string);
            for part in command.get_subcommands() {
                let (command, part) = (command.get_name(), part.get_name());
                let about = about.as_deref().unwrap_or_default();
                assert!(about.contains(part), "{command} {part}: {about}");
            }
        }
    }

    #[test]
    fn secrets_are_not_shown_by_help() {
        let cli = <Cli as CommandFactory>::command();
        let command = cli.find_subcommand("standalone").unwrap();
        for secret in ["admin_key", "master_key", "redis_url", "nats_url"] {
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_id() == secret)
                .unwrap();
            assert!(argument.is_hide_env_values_set(), "{secret}");
        }
    }
}
