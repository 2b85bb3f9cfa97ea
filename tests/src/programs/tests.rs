//! The client programs against the upstream, which is as polite to them as the hub must be.

use serde_json::json;

use super::*;
use crate::upstream::{Script, Upstream, content};

/// A client starts in about a second; Python compiles its packages at the first run.
const BOUND: Duration = Duration::from_mins(1);

/// An upstream that knows its keys and its models.
async fn strict_upstream() -> Upstream {
    let upstream = Upstream::start().await.unwrap();
    upstream.choose(|request| {
        if request.header("authorization") != Some("Bearer right") {
            let error = content::error("who is that?", "invalid_request_error", Some("wrong_key"));
            return Script::json(401, &error);
        }
        if request.model() != "gpt-test" {
            let error = content::error("what is that?", "invalid_request_error", Some("unknown"));
            return Script::json(404, &error);
        }
        Script::answer()
    });
    upstream
}

async fn run_against(upstream: &Upstream, runtime: Runtime, file: &str) -> Value {
    let program = Program::client(runtime, file).unwrap();
    let program = program
        .hub(&upstream.url(), "right", "gpt-test")
        .env("TAG", "tag");
    program.run(BOUND).await.unwrap().json().unwrap()
}

fn assert_got_everything(got: &Value) {
    assert_eq!(got["models"], json!(["gpt-test"]), "{got}");
    assert_eq!(
        got["chat"]["text"],
        content::text("tag-chat", 0, 5),
        "{got}"
    );
    assert_eq!(
        got["stream"]["text"],
        content::text("tag-stream", 0, 5),
        "{got}"
    );
    assert_eq!(got["stream"]["finish_reason"], "stop", "{got}");
    assert_eq!(got["stream"]["error"], Value::Null, "{got}");
    assert_eq!(got["unknown_model"]["status"], 404, "{got}");
    assert_eq!(got["wrong_key"]["status"], 401, "{got}");
    assert_eq!(got["wrong_key"]["class"], "AuthenticationError", "{got}");
}

#[tokio::test]
async fn python() {
    let upstream = strict_upstream().await;
    let got = run_against(&upstream, Runtime::Python, "chat.py").await;
    assert_got_everything(&got);
    assert_eq!(got["stream"]["usage"]["completion"], 5, "{got}");
    assert_eq!(got["unknown_model"]["class"], "NotFoundError", "{got}");
}

#[tokio::test]
async fn python_028() {
    let upstream = strict_upstream().await;
    let got = run_against(&upstream, Runtime::Python028, "chat_028.py").await;
    assert_got_everything(&got);
    assert_eq!(got["version"], "0.28.1");
}

#[tokio::test]
async fn node() {
    let upstream = strict_upstream().await;
    let got = run_against(&upstream, Runtime::Node, "chat.mjs").await;
    assert_got_everything(&got);
    assert_eq!(got["stream"]["usage"]["completion"], 5, "{got}");
}

#[tokio::test]
async fn a_cut_stream_reaches_the_caller_as_an_error() {
    let upstream = Upstream::start().await.unwrap();
    for (runtime, file) in [(Runtime::Python, "chat.py"), (Runtime::Node, "chat.mjs")] {
        upstream.choose(|request| {
            if request.wants_stream() {
                Script::answer().cut_after(2)
            } else {
                Script::answer()
            }
        });
        let got = run_against(&upstream, runtime, file).await;
        assert_eq!(
            got["stream"]["text"],
            content::text("tag-stream", 0, 2),
            "{got}"
        );
        assert!(got["stream"]["error"].is_object(), "{got}");
    }
}

#[tokio::test]
async fn a_program_that_fails_is_told_with_its_words() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "echo it went wrong >&2; exit 4"]);
    let outcome = run(&command, BOUND).await.unwrap();
    let error = outcome.json().unwrap_err().to_string();
    assert!(
        error.contains("exit status: 4") && error.contains("it went wrong"),
        "{error}"
    );
}
