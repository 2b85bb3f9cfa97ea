//! `nexus apply -f hub.yaml`: makes the configuration what a file declares.
//!
//! Like `nexus keys` it works straight in the log. It asks for no admin key,
//! but for the master key, which seals the secrets of providers.

use std::{
    fs::File,
    io::{Read, stdin},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::Args;

use super::{banner, reach::Reach};
use crate::{
    apply::{BYTES_MAX, Declaration, Interrupted, Live, Plan, Problem, schema},
    configuration::CommandError,
    data_dir,
    settings::{self, MasterKeySettings},
};

/// What a dry run ends with when something would be changed: 2, as 1 is a failure.
const DIFFERENT: u8 = 2;

/// Makes the configuration what a file declares.
#[derive(Args, Debug)]
pub struct Apply {
    /// Where the log is.
    #[command(flatten)]
    pub reach: Reach,
    /// The master key of the hub.
    #[command(flatten)]
    pub master_key: MasterKeySettings,
    /// The file, at most 1 MiB of YAML; - for standard input
    #[arg(short, long, required_unless_present = "schema")]
    pub file: Option<PathBuf>,
    /// Only print the difference: exit code 0 if there is none, 2 if there is one
    #[arg(long)]
    pub dry_run: bool,
    /// Delete what the file does not declare, in the sections that it has
    #[arg(long)]
    pub prune: bool,
    /// Print the JSON Schema of the file, and do nothing else
    #[arg(long, conflicts_with_all = ["file", "dry_run", "prune"])]
    pub schema: bool,
}

impl Apply {
    /// Does it.
    ///
    /// # Errors
    /// A sentence for the person at the keyboard: what is wrong with the file, or what stood
    /// against a change.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let Some(file) = self.file.as_deref().filter(|_| !self.schema) else {
            banner::out(&serde_json::to_string_pretty(&schema())?)?;
            return Ok(ExitCode::SUCCESS);
        };
        let text = read(file)?;
        let declaration = Declaration::read(&text, &settings::environment)
            .or_else(|problems| refused(file, &problems))?;
        let back = declaration.leading_back(&self.listening()).await;
        if !back.is_empty() {
            return refused(file, &back);
        }
        let master = self.master_key.existing(&self.reach.data_dir)?;
        let mut live = Live::open(self.reach.log().await?, master).await?;
        let plan = live
            .plan(&declaration, self.prune)
            .or_else(|problems| refused(file, &problems))?;
        if self.dry_run {
            plan.lines().try_for_each(|line| banner::out(&line))?;
            rest(&plan)?;
            let code = if plan.is_empty() { 0 } else { DIFFERENT };
            return Ok(ExitCode::from(code));
        }
        // Whether anybody reads decides nothing about what is done.
        let mut said = Ok(());
        let tell = |line: String| {
            if said.is_ok() {
                said = banner::out(&line);
            }
        };
        let made = live.carry_out(&plan, tell).await?;
        if let Err(interrupted) = made {
            left(&mut live, &declaration, self.prune).await;
            return Err(explained(interrupted));
        }
        said?;
        rest(&plan)?;
        Ok(ExitCode::SUCCESS)
    }

    /// Where the hub on this data directory listens; another one is left to the mark on its calls.
    fn listening(&self) -> Vec<SocketAddr> {
        let roles = data_dir::announced(&self.reach.data_dir).into_iter();
        roles.filter_map(|role| role.listen?.parse().ok()).collect()
    }
}

/// What is as it should be, and what is not declared.
fn rest(plan: &Plan) -> anyhow::Result<()> {
    plan.undeclared
        .iter()
        .try_for_each(|line| banner::out(line))?;
    banner::out(&format!("= {} unchanged", plan.unchanged))
}

/// After a change that was not made: what there is to be done now.
async fn left(live: &mut Live, declaration: &Declaration, prune: bool) {
    if live.catch_up().await.is_err() {
        return;
    }
    if let Ok(plan) = live.plan(declaration, prune) {
        banner::err("not done, as the configuration is now:");
        plan.lines().for_each(|line| banner::err(&line));
    }
}

fn explained(interrupted: Interrupted) -> anyhow::Error {
    let subject = interrupted.subject.clone();
    let is_theirs = matches!(
        interrupted.error,
        CommandError::Stale | CommandError::NotFound(_) | CommandError::Overtaken
    );
    let error = anyhow::Error::new(interrupted);
    if is_theirs {
        return error.context(format!(
            "someone else has changed {subject} meanwhile, and their change was left as it is: look at the difference, then run it again"
        ));
    }
    error
}

fn refused<T>(file: &Path, problems: &[Problem]) -> anyhow::Result<T> {
    for problem in problems {
        banner::err(&format!("{}: {problem}", file.display()));
    }
    bail!(
        "{} cannot be applied, and nothing was changed",
        file.display()
    )
}

fn read(file: &Path) -> anyhow::Result<String> {
    let context = || format!("read {}", file.display());
    let mut bytes = Vec::new();
    // One byte more than allowed, so that a file that is too large is seen to be.
    let bound = BYTES_MAX as u64 + 1;
    if file == Path::new("-") {
        stdin().lock().take(bound).read_to_end(&mut bytes)
    } else {
        let open = File::open(file).with_context(context)?;
        open.take(bound).read_to_end(&mut bytes)
    }
    .with_context(context)?;
    if bytes.len() > BYTES_MAX {
        bail!("{} has more than {BYTES_MAX} bytes", file.display());
    }
    String::from_utf8(bytes).with_context(context)
}
