//! `nexus apply`: a file declares the configuration; the difference is printed and written, once.

mod bad_files;
mod order;
mod others;
mod prices;
mod prune;
mod schema;
mod secrets;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use nexus_tests::account::BOUND;
use nexus_tests::log::{Event, Stream};
use nexus_tests::programs::{self, Outcome};
use nexus_tests::{Client, Hub, Result, Upstream, settings, until};
use serde_json::{Value, json};

const EXAMPLE: &str = "compose/hub.example.yaml";

const ADA: &str = "ada-9f86d081884c7d659a2feaa0c55ad015";
const NIGHTLY_JOBS: &str = "nightly-2c26b46b68ffc68ff99b453c1d304134";

fn read(file: &str) -> Result<String> {
    let path = settings::workspace().join(file);
    std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))
}

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello"}]})
}

/// The lines, those of prices without their dates.
fn lines_of(printed: &str) -> Vec<String> {
    let lines = printed.lines();
    let dateless = lines.map(|line| line.split(" from 2").next().unwrap_or(line));
    dateless.map(str::to_owned).collect()
}

/// A hub, and a file that is applied to it with variables that it may refer to.
struct Declared {
    hub: Hub,
    file: PathBuf,
    variables: Vec<(String, String)>,
    _folder: tempfile::TempDir,
}

impl Declared {
    async fn start(text: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let declared = Self {
            hub: Hub::standalone().start().await?,
            file: folder.path().join("hub.yaml"),
            variables: Vec::new(),
            _folder: folder,
        };
        declared.write(text)?;
        Ok(declared)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(&self.file, text)?)
    }

    fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    async fn apply(&self, flags: &[&str]) -> Result<Outcome> {
        let mut command = self.hub.command(["apply", "-f"]);
        command.arg(&self.file).args(flags);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        programs::run(&command, BOUND).await
    }

    /// The lines that a run prints which does what it should.
    async fn lines(&self, flags: &[&str]) -> Result<Vec<String>> {
        let outcome = self.apply(flags).await?;
        Ok(lines_of(&outcome.succeeded()?.stdout))
    }

    async fn sequence(&self) -> Result<u64> {
        self.hub.log().await?.last_sequence(Stream::Config).await
    }

    async fn events_after(&self, sequence: u64) -> Result<Vec<Event>> {
        let mut events = self.hub.log().await?.events(Stream::Config).await?;
        events.retain(|event| event.sequence > sequence);
        Ok(events)
    }

    fn client(&self, key: &str) -> Result<Client> {
        self.hub.anonymous()?.with_key(key)
    }

    /// Waits until the gateway answers a chat with that status.
    async fn until_answered(&self, key: &str, model: &str, status: u16) -> Result<()> {
        let client = self.client(key)?;
        until("a change is in force", BOUND, async || {
            let answer = client.chat(&ask(model)).await?;
            ensure!(answer.status == status, "{}", answer.status);
            Ok::<_, anyhow::Error>(())
        })
        .await
    }
}

/// The example with an upstream instead of the providers that it names.
async fn example() -> Result<(Declared, Upstream)> {
    let upstream = Upstream::start().await?;
    let mut declared = Declared::start(&read(EXAMPLE)?).await?;
    for (name, value) in [
        ("OPENAI_BASE_URL", upstream.url()),
        ("OPENAI_API_KEY", "sk-upstream".to_owned()),
        ("ANTHROPIC_API_KEY", "sk-ant-upstream".to_owned()),
        ("HUB_KEY_ADA", ADA.to_owned()),
        ("HUB_KEY_NIGHTLY_JOBS", NIGHTLY_JOBS.to_owned()),
    ] {
        declared.set(name, &value);
    }
    Ok((declared, upstream))
}

const FIRST: [&str; 12] = [
    "+ provider openai",
    "+ provider claude",
    "+ model openai/gpt-4.1-mini",
    "+ model openai/fast",
    "+ model claude/claude-sonnet-4-5",
    "+ route assistant",
    "+ price openai/gpt-4.1-mini",
    "+ price any/claude-sonnet-4-5",
    "+ user ada",
    "+ key ada",
    "+ key nightly-jobs",
    "= 0 unchanged",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_example_is_applied_once_and_works() -> Result<()> {
    let (declared, upstream) = example().await?;
    assert_eq!(declared.lines(&[]).await?, FIRST);
    declared.until_answered(ADA, "fast", 200).await?;
    let asked = upstream.exchanges().pop().context("not asked")?.request;
    assert_eq!(asked.model(), "gpt-4.1-nano");
    assert_eq!(asked.header("authorization"), Some("Bearer sk-upstream"));
    let by_route = declared.client(ADA)?.chat(&ask("assistant")).await?;
    by_route.expect(200)?;
    let refused = declared.client(NIGHTLY_JOBS)?.get("/providers").await?;
    assert_eq!(refused.status, 403, "it is a member");
    let client = declared.hub.client()?;
    let key = client.get("/keys/nightly-jobs").await?.expect(200)?.json;
    assert_eq!(key["on_disconnect"], "cancel");
    assert_eq!(key["monthly_budget"], 10_000_000);
    let user = client.get("/users/ada").await?.expect(200)?.json;
    assert_eq!(user["concurrent_requests"], 20);
    let key = client.get("/keys/ada").await?.expect(200)?.json;
    assert_eq!(key["user_id"], user["id"]);

    let before = declared.sequence().await?;
    assert_eq!(declared.lines(&[]).await?, ["= 11 unchanged"]);
    assert_eq!(declared.lines(&["--dry-run"]).await?, ["= 11 unchanged"]);
    let everything_there = ["--prune", "--dry-run"];
    assert_eq!(declared.lines(&everything_there).await?, ["= 11 unchanged"]);
    assert_eq!(declared.sequence().await?, before, "nothing was written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_one_event_and_a_dry_run_none() -> Result<()> {
    let (declared, _upstream) = example().await?;
    let untouched = declared.sequence().await?;
    let dry = declared.apply(&["--dry-run"]).await?;
    assert_eq!(dry.status.code(), Some(2), "{}", dry.stderr);
    assert_eq!(lines_of(&dry.stdout), FIRST);
    assert_eq!(declared.sequence().await?, untouched, "nothing was written");
    declared.lines(&[]).await?;

    let before = declared.sequence().await?;
    let edited = read(EXAMPLE)?.replace("rate_limit: 50", "rate_limit: 60");
    declared.write(&edited)?;
    let line = "~ provider openai: rate_limit 50 → 60";
    assert_eq!(declared.lines(&[]).await?, [line, "= 10 unchanged"]);
    let events = declared.events_after(before).await?;
    let [event] = events.as_slice() else {
        anyhow::bail!("{} events", events.len())
    };
    let data = event.data();
    assert_eq!(
        (&data["action"], &data["changed"]),
        (&json!("updated"), &json!(["rate_limit"]))
    );
    assert_eq!(data["actor"], json!({"name": "shell"}));

    // What is left out has its default again.
    declared.write(&edited.replace("    rate_limit: 60\n", ""))?;
    let line = "~ provider openai: rate_limit 60 → none";
    assert_eq!(declared.lines(&[]).await?, [line, "= 10 unchanged"]);
    Ok(())
}
