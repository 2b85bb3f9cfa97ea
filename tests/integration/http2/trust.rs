//! Whom the hub trusts: the system's authorities, and those of `NEXUS_UPSTREAM_CA_FILE`.

use anyhow::ensure;
use nexus_tests::{Hub, Result, Upstream};

use crate::stage::{Stage, ask, ensure_error, shown};

const SETTING: &str = "NEXUS_UPSTREAM_CA_FILE";

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_of_ones_own_is_trusted_when_it_is_named() -> Result<()> {
    for upstream in [
        Upstream::start_tls().await?,
        Upstream::start_http2(100).await?,
    ] {
        let ca_file = upstream.ca_file()?.display().to_string();
        let stage = Stage::set_before(upstream, |hub| hub.env(SETTING, &ca_file)).await?;
        stage.client.chat(&ask("trusted")).await?.expect(200)?;
        shown(&stage.client, "/settings", |settings| {
            if settings["upstream_ca_file"] == ca_file {
                Ok(())
            } else {
                Err("another file")
            }
        })
        .await?;
        stage.strike().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_is_not_named_is_not_trusted() -> Result<()> {
    let upstream = Upstream::start_tls().await?;
    let stage = Stage::set_before(upstream, |hub| hub.env(SETTING, "")).await?;
    let answer = stage.client.chat(&ask("stranger")).await?;
    ensure_error(&answer, 502)?;
    ensure!(
        answer.error_code() == "upstream_refused",
        "{}",
        answer.text()
    );
    ensure!(
        stage.upstream.exchanges().is_empty(),
        "the request was sent"
    );
    stage.strike().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_will_not_do_is_refused_by_name() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut_short = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    let cases = [
        ("missing.pem", None, "No such file"),
        ("empty.pem", Some(""), "no certificate"),
        ("text.pem", Some("this is no PEM\n"), "no certificate"),
        ("cut.pem", Some(cut_short), "read the certificates"),
        ("damaged.pem", Some(not_der), "certificate 1"),
    ];
    for (name, content, why) in cases {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content)?;
        }
        let failed = Hub::standalone().env(SETTING, path.display());
        let failed = failed.fail_to_start().await?;
        ensure!(
            !failed.status.success(),
            "{name}: it ended with {}",
            failed.status
        );
        for word in [SETTING, name, why] {
            ensure!(
                failed.stderr.contains(word),
                "{name}: no {word:?} in {}",
                failed.stderr
            );
        }
    }
    Ok(())
}
