//! Changes with members that are wrong: the error names the member, and what is there stays as it is.

use anyhow::{Context, ensure};
use nexus_tests::Result;
use nexus_tests::log::Stream;
use serde_json::{Value, json};

use crate::stage::{MODEL, Stage, ensure_error};

/// A member, and values that it does not take.
type Wrong = (&'static str, Vec<Value>);

/// What no member takes.
fn wrong_types() -> Vec<Value> {
    vec![json!([]), json!({"a": 1}), json!(true)]
}

/// Members of limits, with what is no limit.
fn limits() -> Vec<Wrong> {
    let none = vec![json!(-1), json!(0), json!(1.5), json!("5"), json!(1e30)];
    [
        "requests_per_minute",
        "tokens_per_minute",
        "concurrent_requests",
    ]
    .map(|member| (member, none.clone()))
    .into_iter()
    .chain([(
        "monthly_budget",
        vec![json!(-1), json!("5"), json!(1.5), json!(1e30)],
    )])
    .collect()
}

/// What is changed, and by which member with which values.
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn bad_changes(model: &str) -> Vec<(String, Vec<Wrong>)> {
    let names = || {
        vec![
            json!(7),
            json!(""),
            json!(null),
            json!("x".repeat(300)),
            json!("a\u{7}b"),
        ]
    };
    let unknown = ("nmae", vec![json!("x")]);
    let id = ("id", vec![json!("0193b8e0-0000-7000-8000-000000000000")]);
    let mut key = vec![
        ("name", names()),
        ("role", vec![json!(7), json!("king"), json!(null)]),
        ("on_disconnect", vec![json!(7), json!("maybe")]),
        (
            "cache_ttl_seconds",
            vec![json!(-1), json!("9"), json!(2_592_001)],
        ),
        (
            "user_id",
            vec![
                json!(7),
                json!("nobody"),
                json!("0193b8e0-0000-7000-8000-000000000000"),
            ],
        ),
        ("key", vec![json!("mine")]),
        unknown.clone(),
        id.clone(),
    ];
    key.extend(limits());
    let mut user = vec![("name", names()), unknown.clone(), id.clone()];
    user.extend(limits());
    let models = vec![
        ("model_name", names()),
        ("upstream_model", vec![json!(7), json!("")]),
        unknown.clone(),
        id.clone(),
    ];
    let target = |member: &str, value: Value| {
        let mut target = json!({"model": MODEL});
        target[member] = value;
        json!([target])
    };
    let route = vec![
        ("name", names()),
        (
            "targets",
            vec![json!(7), json!([]), json!(null), json!([7]), json!([{}])],
        ),
        ("targets[0].model", vec![target("model", json!(7))]),
        (
            "targets[0].weight",
            vec![
                target("weight", json!(0)),
                target("weight", json!(1001)),
                target("weight", json!("5")),
            ],
        ),
        (
            "targets[0].priority",
            vec![
                target("priority", json!(-1)),
                target("priority", json!(101)),
            ],
        ),
        ("attempts", vec![json!(0), json!(6), json!("2")]),
        (
            "first_byte_timeout_ms",
            vec![json!(0), json!(-1), json!("5"), json!(1e12)],
        ),
        ("idle_timeout_ms", vec![json!(0), json!(1.5)]),
        unknown,
        id,
    ];
    vec![
        ("/keys/k".to_owned(), key),
        ("/users/u".to_owned(), user),
        (format!("/provider_models/{model}"), models),
        ("/routes/r".to_owned(), route),
    ]
}

/// Whether the error names the member, or what stands in it.
fn names(param: Option<&str>, member: &str) -> bool {
    let outer = member.split(['[', '.']).next();
    param.is_some_and(|param| {
        param == member || Some(param) == outer || param.starts_with(&format!("{member}["))
    })
}

#[tokio::test]
async fn a_change_with_a_wrong_member_is_refused_by_its_name() -> Result<()> {
    let stage = Stage::set().await?;
    let client = &stage.client;
    let route = json!({"name": "r", "targets": [{"model": MODEL}]});
    for (path, body) in [
        ("/keys", json!({"name": "k"})),
        ("/users", json!({"name": "u"})),
        ("/routes", route),
    ] {
        client.post(path, &body).await?.expect(201)?;
    }
    let models = client
        .get("/provider_models?limit=100")
        .await?
        .expect(200)?;
    let models = models.json["data"].as_array().context("no list")?.clone();
    let model = models
        .iter()
        .find(|model| model["model_name"] == MODEL)
        .and_then(|model| model["id"].as_str())
        .context("no model")?;
    let events_before = stage.log.events(Stream::Config).await?.len();
    for (path, members) in bad_changes(model) {
        let before = client.get(&path).await?.expect(200)?.json;
        for (member, values) in members {
            let values = values.into_iter().chain(
                // A list is right for targets only, and null takes a limit away.
                wrong_types()
                    .into_iter()
                    .filter(|_| !member.starts_with("targets")),
            );
            for value in values {
                let name = member.split(['[', '.']).next().unwrap_or(member);
                let body = json!({ name: value });
                let answer = client.put(&path, &body).await?;
                ensure_error(&answer, 400).with_context(|| format!("PUT {path} {body}"))?;
                let param = answer.json["error"]["param"].as_str();
                ensure!(names(param, member), "PUT {path} {body}: {}", answer.text());
            }
        }
        ensure!(
            client.get(&path).await?.expect(200)?.json == before,
            "{path}"
        );
    }
    ensure!(stage.log.events(Stream::Config).await?.len() == events_before);
    stage.strike().await
}
