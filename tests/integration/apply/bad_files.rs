//! A file that is wrong changes nothing, and each thing that is wrong with it is named by path and line.

use std::fmt::Write;

use anyhow::ensure;
use nexus_tests::Result;

use super::{ADA, Declared};

/// A file, and what is said of it.
const CASES: &[(&str, &[&str])] = &[
    ("", &["must be a map of sections"]),
    ("keys: [", &["line 1: "]),
    ("keys: []\nkeys: []", &["line 2: ", "keys"]),
    (
        "modles: []",
        &["line 1: modles: unknown section", "prune_built_in"],
    ),
    (
        "prune_built_in: maybe",
        &["line 1: prune_built_in: must be"],
    ),
    ("keys: 7", &["line 1: keys: must be a list"]),
    ("keys:\n- ada", &["line 2: keys[0]: must be a key"]),
    (
        "providers:\n- kind: echo",
        &["line 2: providers[0].name: 'name' is required"],
    ),
    (
        "providers:\n- name: a\n- name: b\n  server_url: ftp://x",
        &[
            "providers[0].server_url: 'server_url' is required",
            "line 4: providers[1].server_url: ",
        ],
    ),
    (
        "providers:\n- name: a\n  kind: grpc",
        &["line 3: providers[0].kind: "],
    ),
    (
        "providers:\n- name: 7\n  kind: echo",
        &["line 2: providers[0].name: 'name' must be a string"],
    ),
    (
        "providers:\n- name: a\n  kind: echo\n  rate_limt: 7",
        &[
            "line 4: providers[0].rate_limt: unknown member",
            "rate_limit",
        ],
    ),
    (
        "providers:\n- name: a\n  kind: echo\n- name: a\n  kind: echo",
        &["line 4: providers[1].name: the provider 'a' is declared already, at providers[0]"],
    ),
    (
        "providers:\n- name: a\n  kind: gemini\n  server_key: sk-literal",
        &[
            "line 4: providers[0].server_key: 'server_key' must be a reference",
            "its history",
        ],
    ),
    (
        "providers:\n- name: a\n  kind: gemini\n  server_key: ${NOT_SET:-sk-literal}",
        &["line 4: providers[0].server_key: 'server_key' must be a reference"],
    ),
    (
        "providers:\n- name: a\n  server_url: https://${NOT_SET}/v1",
        &[
            "line 3: providers[0].server_url: ",
            "NOT_SET, which is not set",
        ],
    ),
    (
        "providers:\n- name: a${\n  kind: echo",
        &["line 2: providers[0].name: ", "'}'"],
    ),
    (
        "models:\n- provider: echo",
        &["models[0].model_name: 'model_name' is required"],
    ),
    (
        "models:\n- model_name: m",
        &["models[0].provider: 'provider' is required"],
    ),
    (
        "models:\n- provider: nobody\n  model_name: m",
        &["line 2: models[0].provider: there is no provider 'nobody'"],
    ),
    (
        "models:\n- provider_id: echo\n  model_name: m",
        &[
            "line 2: models[0].provider_id: unknown member 'provider_id'",
            "provider, model_name",
        ],
    ),
    (
        "routes:\n- name: r\n  targets:\n  - model: echo\n  - provider: echo\n    model: nothing",
        &["line 6: routes[0].targets[1].model: The provider 'echo' offers no model 'nothing'"],
    ),
    (
        "routes:\n- name: r\n  targets:\n  - model: echo\n    wieght: 2",
        &["line 5: routes[0].targets[0].wieght: "],
    ),
    (
        "routes:\n- name: r\n  targets:\n  - model: ${NOT_SET}",
        &["line 4: routes[0].targets[0].model: ", "NOT_SET"],
    ),
    (
        "prices:\n- {model_name: nothing, input_micros_per_million: 1, output_micros_per_million: 1}",
        &["line 2: prices[0].model_name: ", "'nothing'"],
    ),
    (
        "prices:\n- {model_name: echo, provider: nobody, input_micros_per_million: 1, output_micros_per_million: 1}",
        &["line 2: prices[0].provider: There is no such provider"],
    ),
    (
        "prices:\n- {model_name: echo, input_micros_per_million: 1, output_micros_per_million: 1, currency: usd}",
        &["line 2: prices[0].currency: "],
    ),
    (
        "prices:\n- {model_name: echo, input_micros_per_million: 1, output_micros_per_million: 1, currency: USD}\n- {model_name: echo, provider: echo, input_micros_per_million: 1, output_micros_per_million: 1, currency: CNY}",
        &[
            "line 3: prices[1].currency: 'currency' must be 'USD': prices[0] is in it",
            "'CNY' is another",
        ],
    ),
    (
        "users:\n- name: a\n  monthly_budget: 5",
        &["line 3: users[0].monthly_budget: ", "no price"],
    ),
    (
        "keys:\n- name: admin\n  role: admin\n  monthly_budget: 5",
        &["line 4: keys[0].monthly_budget: ", "no price"],
    ),
    (
        "prices:\n- {model_name: echo, input_micros_per_million: 1, output_micros_per_million: 1, valid_from: tomorrow}",
        &["line 2: prices[0].valid_from: 'valid_from' must be a date and time"],
    ),
    (
        "prices:\n- {model_name: echo, input_micros_per_million: 1, output_micros_per_million: 1, valid_from: 2026-12-01T00:00:00Z}\n- {model_name: echo, input_micros_per_million: 1, output_micros_per_million: 1}",
        &["line 3: prices[1].valid_from: 'valid_from' is required"],
    ),
    (
        "users:\n- name: a\n  monthly_budget: 0",
        &["line 3: users[0].monthly_budget: "],
    ),
    (
        "users:\n- name: a\n- name: a",
        &["line 3: users[1].name: the user 'a' is declared already"],
    ),
    (
        "keys:\n- name: admin\n  role: admin\n  user: nobody",
        &["line 4: keys[0].user: There is no such user"],
    ),
    (
        "keys:\n- name: a\n  role: boss",
        &["line 3: keys[0].role: "],
    ),
    (
        "keys:\n- name: a",
        &["line 2: keys[0].secret: 'secret' is required: there is no key 'a' yet"],
    ),
    (
        "keys:\n- name: a\n  secret: nx-literal",
        &["line 3: keys[0].secret: 'secret' must be a reference"],
    ),
    (
        "keys:\n- name: a\n  secret: 7",
        &["line 3: keys[0].secret: 'secret' must be a reference"],
    ),
    (
        "keys:\n- name: a\n  secret: ${SHORT}",
        &["line 3: keys[0].secret: 'secret' can be guessed"],
    ),
    (
        "keys:\n- name: a\n  secret: ${MONOTONOUS}",
        &["line 3: keys[0].secret: 'secret' can be guessed"],
    ),
    (
        "keys:\n- name: a\n  secret: ${BLANK}",
        &["line 3: keys[0].secret: ", "without blanks"],
    ),
    (
        "keys:\n- name: a\n  secret: ${GOOD}\n- name: b\n  secret: ${GOOD}",
        &[
            "keys[0]: The key 'b' has the same secret",
            "keys[1]: The key 'a' has the same secret",
        ],
    ),
    (
        "keys:\n- name: admin\n  role: viewer",
        &["no admin key would be left"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_refused_by_path_and_nothing_is_written() -> Result<()> {
    let mut declared = Declared::start("").await?;
    let literals = ["sk-literal", "nx-literal", "nx-short-secret"];
    declared.set("SHORT", "nx-short-secret");
    declared.set("MONOTONOUS", &"ab".repeat(32));
    declared.set("BLANK", &format!("{ADA} "));
    declared.set("GOOD", ADA);
    let before = declared.sequence().await?;
    let mut wrong = String::new();
    for (text, said) in CASES {
        declared.write(text)?;
        let outcome = declared.apply(&["--prune"]).await?;
        let told = said.iter().all(|words| outcome.stderr.contains(words));
        let is_quiet = !literals.iter().any(|one| outcome.stderr.contains(one));
        if outcome.status.code() != Some(1) || !told || !is_quiet || !outcome.stdout.is_empty() {
            writeln!(wrong, "{text}\n  must say {said:?}, but: {outcome:?}")?;
        }
    }
    ensure!(wrong.is_empty(), "{wrong}");
    assert_eq!(declared.sequence().await?, before, "nothing was written");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_resource_keeps_all_others_out() -> Result<()> {
    let declared = Declared::start("").await?;
    let good = "providers:\n- {name: a, kind: gemini}\nmodels:\n- {provider: a, model_name: m}\n";
    declared.write(&format!(
        "{good}- {{provider: b, model_name: m}}\nkeys:\n- {{name: k}}\n"
    ))?;
    let before = declared.sequence().await?;
    let outcome = declared.apply(&[]).await?;
    assert_eq!(outcome.status.code(), Some(1));
    for path in ["models[1].provider: ", "keys[0].secret: "] {
        ensure!(outcome.stderr.contains(path), "{}", outcome.stderr);
    }
    assert_eq!(declared.sequence().await?, before, "nothing was written");

    let own = declared.hub.api_base()?;
    declared.write(&format!("providers:\n- name: round\n  server_url: {own}\n"))?;
    let outcome = declared.apply(&[]).await?;
    let told = "line 3: providers[0].server_url: 'server_url' is the address of the hub itself";
    ensure!(outcome.stderr.contains(told), "{}", outcome.stderr);

    declared.write(&format!("# {}\n", "x".repeat(1024 * 1024)))?;
    let outcome = declared.apply(&[]).await?;
    ensure!(outcome.stderr.contains("1048576 bytes"), "{outcome:?}");
    declared.write(good)?;
    assert_eq!(declared.lines(&[]).await?.len(), 3);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_seals_nothing() -> Result<()> {
    let mut declared = Declared::start("providers: [{name: a, kind: gemini}]").await?;
    let before = declared.sequence().await?;
    declared.set(
        "NEXUS_MASTER_KEY",
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    );
    let outcome = declared.apply(&[]).await?;
    assert_eq!(outcome.status.code(), Some(1));
    ensure!(outcome.stderr.contains("master key"), "{}", outcome.stderr);
    assert_eq!(declared.sequence().await?, before, "nothing was written");
    Ok(())
}
