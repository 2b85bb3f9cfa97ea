//! A real browser on the hub's WebSocket, which a page can open from any address.
//!
//! The scripted upstream is also the server of the page, and takes what the page posts back.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nexus_tests::process::Process;
use nexus_tests::upstream::request::Request;
use nexus_tests::upstream::{End, content};
use nexus_tests::{Gate, Result, Script, settings, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::recorded::Recorded;
use crate::stage::{MODEL, Stage};

/// A browser starts in two seconds; a busy machine may need far more.
const OUTCOME_BOUND: Duration = Duration::from_mins(2);

/// It ends within a second of being asked to.
const CLOSE_BOUND: Duration = Duration::from_secs(30);

/// A browser with one page.
struct Browser {
    process: Process,
    /// Its profile; after the process, so that nobody writes there any more.
    _profile: TempDir,
}

impl Browser {
    fn open(chromium: &Path, page: &str) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let mut command = Command::new(chromium);
        settings::clear_environment(&mut command);
        command
            .args(["--headless=new", "--disable-gpu", "--no-first-run"])
            // The page is our own, and in a container the sandbox cannot be set up.
            .args(["--no-sandbox", "--disable-dev-shm-usage"])
            // Nothing but the page: no updates, no variations, no proxy of the machine.
            .args(["--disable-background-networking", "--no-proxy-server"])
            .arg("--disable-component-update")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .env("HOME", profile.path())
            .arg(page);
        Ok(Self {
            process: Process::start("chromium", &command, profile.path())?,
            _profile: profile,
        })
    }
}

#[tokio::test]
#[expect(clippy::print_stderr, reason = "says what was not run, and why")]
async fn a_page_streams_cancels_and_is_refused() -> Result<()> {
    let Ok(chromium) = settings::on_path("chromium") else {
        eprintln!("not run: there is no chromium on PATH to open a page");
        return Ok(());
    };
    let stage = Stage::set().await?;
    let gate = Gate::closed();
    // Nobody opens the gate: only the page's word ends this answer.
    let held = Script::answer().wait_after(2, &gate);
    stage.upstream.choose(move |request| {
        if request.tag() == "cancelled" {
            held.clone()
        } else {
            Script::answer()
        }
    });
    let mut browser = Browser::open(&chromium, &serve_page(&stage)?)?;
    let got = outcome(&stage).await?;
    browser.process.interrupt(CLOSE_BOUND).await?;
    checked(&stage, &got)
        .await
        .with_context(|| format!("{got:#}"))?;
    stage.strike().await
}

/// Has the page served, and names its address.
fn serve_page(stage: &Stage) -> Result<String> {
    let file = settings::client_programs().join("web_socket.html");
    let page = std::fs::read(&file).with_context(|| file.display().to_string())?;
    stage.upstream.route("/page", move |_request| {
        Script::status(200, page.clone()).header("content-type", "text/html")
    });
    stage
        .upstream
        .route("/outcome", |_request| Script::json(200, &json!({})));
    let base = stage.hub.url()?;
    let socket = base.replacen("http", "ws", 1);
    let key = stage.hub.admin_key();
    let host = stage.upstream.host_port();
    Ok(format!(
        "http://{host}/page#url={socket}/ws/chat&key={key}&model={MODEL}"
    ))
}

/// What the page posted, once it has.
async fn outcome(stage: &Stage) -> Result<Value> {
    until("the page posts what it saw", OUTCOME_BOUND, async || {
        let others = stage.upstream.others();
        let posted = others.iter().find(|request| request.path == "/outcome");
        posted.map(Request::json).context("nothing yet")
    })
    .await
}

async fn checked(stage: &Stage, got: &Value) -> Result<()> {
    ensure!(got["protocol"] == "nexus.v1", "protocol");
    ensure!(got["wrong_key"] == "close", "a wrong key");
    ensure!(got["unknown"]["code"] == "model_not_found", "unknown model");
    for (case, words, code, last) in [
        ("streamed", 5, Value::Null, "done"),
        ("cancelled", 2, json!("client_cancelled"), "error"),
        // The connection goes on after an error of one request.
        ("again", 5, Value::Null, "done"),
    ] {
        let one = &got[case];
        ensure!(one["text"] == content::text(case, 0, words), "{case}: text");
        ensure!(one["code"] == code && one["last"] == last, "{case}: end");
        let id = one["request_id"].as_str().context("no request id")?;
        let recorded = Recorded::wait(&stage.log, id).await?;
        ensure!(recorded.text(0) == one["text"], "{recorded:#?}");
        ensure!(
            recorded.failure() == code.as_str().unwrap_or_default(),
            "{recorded:#?}"
        );
        let exchanges = stage.upstream.exchanges_of(case);
        let [exchange] = exchanges.as_slice() else {
            anyhow::bail!("{case}: asked {} times", exchanges.len());
        };
        let left = matches!(exchange.end, Some(End::ClientLeft));
        ensure!(left == (case == "cancelled"), "{exchange:?}");
    }
    Ok(())
}
