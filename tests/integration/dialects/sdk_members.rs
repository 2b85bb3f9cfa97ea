//! The unit test that walks through the members of the official SDKs knows all that are installed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::Result;
use nexus_tests::programs::{Program, Runtime};
use serde_json::Value;

/// A client starts in about a second; Python compiles its packages at the first run.
const PROGRAM_BOUND: Duration = Duration::from_mins(2);

/// Members with values, which `gateway/src/dialect/sdk_members.rs` sends to every kind of provider.
const WALKED: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../gateway/src/dialect/testdata/sdk-members.json"
);

#[tokio::test]
async fn every_member_of_the_installed_sdks_is_walked_through() -> Result<()> {
    let program = Program::client(Runtime::Python, "members.py")?;
    let installed = program.run(PROGRAM_BOUND).await?.json()?;
    let installed: BTreeMap<String, Vec<String>> = serde_json::from_value(installed)?;
    let walked = std::fs::read(WALKED).context(WALKED)?;
    let walked: BTreeMap<String, BTreeMap<String, Value>> = serde_json::from_slice(&walked)?;
    let mut missing = Vec::new();
    for (way, members) in &installed {
        ensure!(members.len() > 4, "no members of {way}");
        let known = walked.get(way).with_context(|| way.clone())?;
        let unknown = members.iter().filter(|member| !known.contains_key(*member));
        missing.extend(unknown.map(|member| format!("{way} {member}")));
    }
    ensure!(missing.is_empty(), "not walked through: {missing:?}");
    Ok(())
}
