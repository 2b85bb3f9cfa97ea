//! Everything moves in one run, and those who are served meanwhile notice nothing.

use std::convert::Infallible;

use anyhow::ensure;
use nexus_tests::{Client, Result, Upstream};

use super::{ADA, Declared, NIGHTLY_JOBS, ask};

const BEFORE: &str = "
providers: [{name: a, server_url: \"${UPSTREAM}\"}]
models: [{provider: a, model_name: x}, {provider: a, model_name: m}]
routes: [{name: y, targets: [{model: x}]}, {name: r, targets: [{model: m, provider: a}]}]
users: [{name: old}]
keys:
- {name: boss, secret: \"${BOSS}\", role: admin}
- {name: ada, secret: \"${ADA}\", user: old}
";

/// Another provider and user; the names of a route and a model, and the roles of two keys swapped;
/// and one of the keys has another name.
const AFTER: &str = "
prune_built_in: true
providers: [{name: b, server_url: \"${UPSTREAM}\"}]
models: [{provider: b, model_name: y}, {provider: b, model_name: m}]
routes: [{name: x, targets: [{model: y}]}, {name: r, targets: [{model: m, provider: b}]}]
users: [{name: new}]
keys:
- {name: boss, secret: \"${BOSS}\"}
- {name: ada-lovelace, secret: \"${ADA}\", role: admin, user: new}
";

const MADE: [&str; 17] = [
    "+ provider b",
    "+ model b/y",
    "+ model b/m",
    "+ route x",
    "~ route r: targets [a/m weight 1 priority 0] → [b/m weight 1 priority 0]",
    "+ user new",
    "~ key ada-lovelace: name ada → ada-lovelace, role member → admin, user old → new",
    "~ key boss: role admin → member",
    "- key admin",
    "- user old",
    "- route y",
    "- model echo/echo",
    "- model a/x",
    "- model a/m",
    "- provider echo",
    "- provider a",
    "= 0 unchanged",
];

/// Asks for all names over and over, and returns with the first that is not served.
async fn ask_on(client: &Client, asked: &mut u32) -> Result<Infallible> {
    loop {
        for model in ["x", "y", "m", "r"] {
            client.chat(&ask(model)).await?.expect(200)?;
            *asked += 1;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_served_before_and_after_is_served_all_the_time() -> Result<()> {
    let upstream = Upstream::start().await?;
    let mut declared = Declared::start(BEFORE).await?;
    declared.set("UPSTREAM", &upstream.url());
    declared.set("BOSS", NIGHTLY_JOBS);
    declared.set("ADA", ADA);
    declared.lines(&[]).await?;
    declared.until_answered(ADA, "r", 200).await?;
    declared.write(AFTER)?;
    let client = declared.client(ADA)?;
    let mut asked = 0;
    let lines = tokio::select! {
        lines = declared.lines(&["--prune"]) => lines?,
        served = ask_on(&client, &mut asked) => match served? {},
    };
    assert_eq!(lines, MADE);
    ensure!(asked > 0, "nobody asked");
    for model in ["x", "y", "m", "r"] {
        client.chat(&ask(model)).await?.expect(200)?;
    }
    assert_eq!(declared.lines(&["--prune"]).await?, ["= 8 unchanged"]);
    Ok(())
}
