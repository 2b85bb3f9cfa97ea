//! The compose file as the tests see it: the parts that they check, typed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use nexus_tests::settings;
use serde::Deserialize;

/// The file, from the root of the repository.
pub(crate) const FILE: &str = "compose/docker-compose.yml";

/// The whole file; anchors and merge keys are resolved by the parser.
#[derive(Debug, Deserialize)]
pub(crate) struct Stack {
    pub(crate) services: BTreeMap<String, Service>,
    pub(crate) volumes: BTreeMap<String, Option<serde_json::Value>>,
    pub(crate) secrets: BTreeMap<String, serde_json::Value>,
}

/// One service.
#[derive(Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) image: String,
    pub(crate) build: Option<Build>,
    #[serde(default)]
    pub(crate) command: Vec<String>,
    /// A variable without a value is handed on from the environment of compose.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, Option<String>>,
    #[serde(default)]
    volumes: Vec<String>,
    #[serde(default)]
    pub(crate) secrets: Vec<String>,
    #[serde(default)]
    pub(crate) ports: Vec<String>,
    #[serde(default)]
    pub(crate) depends_on: BTreeMap<String, Dependency>,
    pub(crate) healthcheck: Option<HealthCheck>,
    pub(crate) restart: Option<String>,
    pub(crate) stop_grace_period: Option<String>,
    pub(crate) logging: Option<Logging>,
}

/// Where an image comes from.
#[derive(Debug, Deserialize, PartialEq, Eq)]
pub(crate) struct Build {
    pub(crate) context: String,
    #[serde(default = "default_dockerfile")]
    pub(crate) dockerfile: String,
}

/// What a service waits for before it starts.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) condition: String,
}

/// How Docker asks a service whether it is well.
#[derive(Debug, Deserialize)]
pub(crate) struct HealthCheck {
    pub(crate) test: Vec<String>,
    pub(crate) interval: String,
    pub(crate) timeout: String,
    pub(crate) start_period: String,
    pub(crate) retries: u32,
}

/// Where the output of a service goes, and how much of it is kept.
#[derive(Debug, Deserialize)]
pub(crate) struct Logging {
    pub(crate) options: BTreeMap<String, String>,
}

impl Stack {
    /// Reads the file.
    pub(crate) fn read() -> Result<Self> {
        serde_saphyr::from_str(&text(FILE)?).with_context(|| format!("failed to parse {FILE}"))
    }

    /// The service of that name.
    pub(crate) fn service(&self, name: &str) -> Result<&Service> {
        self.services
            .get(name)
            .with_context(|| format!("{FILE} has no service {name}"))
    }
}

impl Service {
    /// The volumes, each with the folder that it is mounted on.
    ///
    /// Entries that are no named volume (a bind mount, a nameless volume) come out under their
    /// whole text, which no declaration matches.
    pub(crate) fn mounts(&self) -> Vec<(String, String)> {
        self.volumes
            .iter()
            .map(
                |entry| match entry.split(':').collect::<Vec<_>>().as_slice() {
                    [volume, folder] if !volume.contains(['/', '.']) => {
                        ((*volume).to_owned(), (*folder).to_owned())
                    }
                    _ => (entry.clone(), entry.clone()),
                },
            )
            .collect()
    }

    /// The named volume that holds `folder`.
    pub(crate) fn volume_at(&self, folder: &str) -> Result<String> {
        let mounts = self.mounts();
        let found = mounts
            .into_iter()
            .find(|(_volume, mounted)| mounted == folder);
        found
            .map(|(volume, _mounted)| volume)
            .with_context(|| format!("no volume on {folder}"))
    }
}

fn default_dockerfile() -> String {
    "Dockerfile".to_owned()
}

/// A file of the repository.
pub(crate) fn text(path: &str) -> Result<String> {
    std::fs::read_to_string(settings::workspace().join(path))
        .with_context(|| format!("failed to read {path}"))
}

/// A duration as compose writes it, `5s` or `2m`.
pub(crate) fn seconds(duration: &str) -> Result<u64> {
    let (number, factor) = match duration.strip_suffix('s') {
        Some(seconds) => (seconds, 1),
        None => match duration.strip_suffix('m') {
            Some(minutes) => (minutes, 60),
            None => bail!("{duration} has no unit"),
        },
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("{duration} is no duration"))?;
    Ok(number * factor)
}

/// Every `NEXUS_…` name in a text.
pub(crate) fn setting_names(text: &str) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .filter(|word| word.starts_with("NEXUS_"))
        .map(ToOwned::to_owned)
        .collect()
}

/// The text with each `${NAME:-default}` replaced by its default.
pub(crate) fn with_defaults(text: &str) -> String {
    substitutions(text)
        .into_iter()
        .fold(text.to_owned(), |text, (whole, _name, default)| {
            text.replace(&whole, &default)
        })
}

/// The names of all `${NAME:-default}` in a text.
pub(crate) fn substituted(text: &str) -> Vec<String> {
    substitutions(text)
        .into_iter()
        .map(|(_whole, name, _default)| name)
        .collect()
}

fn substitutions(text: &str) -> Vec<(String, String, String)> {
    text.split("${")
        .skip(1)
        .filter_map(|rest| rest.split_once('}'))
        .map(|(inside, _rest)| {
            let (name, default) = inside.split_once(":-").unwrap_or((inside, ""));
            (
                format!("${{{inside}}}"),
                name.to_owned(),
                default.to_owned(),
            )
        })
        .collect()
}
