//! Who may do what: the whole route table, walked with every role and with no key at all.

use std::collections::BTreeMap;

use anyhow::Context;
use nexus_events::config_event::Role;
use nexus_gateway::{auth::Access, router::routes};
use nexus_tests::{Client, Hub, Result};
use serde_json::{Value, json};

const ROLES: [(&str, Role); 5] = [
    ("admin", Role::Admin),
    ("operator", Role::Operator),
    ("auditor", Role::Auditor),
    ("viewer", Role::Viewer),
    ("member", Role::Member),
];

/// An id that nothing has.
const NOTHING: &str = "01a20b89-0000-7000-8000-000000000000";

#[tokio::test]
async fn every_route_is_guarded_by_its_row_of_the_table() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let mut callers = Vec::new();
    for (name, role) in ROLES {
        let client = admin.with_new_key(&format!("walker-{name}"), name).await?;
        callers.push((name, role, client));
    }
    let strangers = [hub.anonymous()?, hub.anonymous()?.with_key("nx-wrong")?];
    let mut seen = BTreeMap::new();
    for (method, path, permission) in routes() {
        let path = path.replace("{id}", NOTHING).replace("{*model}", "nothing");
        for stranger in &strangers {
            let (status, _) = call(stranger, &method, &path).await?;
            assert_eq!(status, 401, "{method} {path}");
        }
        for (name, role, client) in &callers {
            let (status, error) = call(client, &method, &path).await?;
            if permission.of(*role) == Access::No {
                assert_eq!(status, 403, "{method} {path} as {name}: {error}");
                assert_eq!(error["error"]["code"], "permission_denied");
            } else {
                assert!(
                    ![401, 403].contains(&status),
                    "{method} {path} as {name}: {error}"
                );
            }
            seen.entry(*name).or_insert_with(Vec::new).push(status);
        }
    }
    // Both sides of the table were looked at.
    assert!(seen["viewer"].contains(&403) && seen["viewer"].contains(&200));
    Ok(())
}

#[tokio::test]
async fn a_member_sees_only_what_was_done_with_its_own_key() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let (ann, bob) = (
        admin.with_new_key("ann", "member").await?,
        admin.with_new_key("bob", "member").await?,
    );
    let body = json!({"model": "echo", "messages": [{"role": "user", "content": "hello"}]});
    let answer = ann.chat(&body).await?.expect(200)?;
    let conversation = answer.header("x-conversation-id").unwrap().to_owned();
    let request = answer.header("x-request-id").unwrap().to_owned();
    let paths = [
        format!("/conversations/{conversation}"),
        format!("/requests/{request}"),
        format!("/stats/conversations/{conversation}"),
    ];
    for path in &paths {
        nexus_tests::until(path, std::time::Duration::from_secs(10), async || {
            ann.get(path).await?.expect(200)
        })
        .await?;
        admin.get(path).await?.expect(200)?;
        assert_eq!(bob.get(path).await?.status, 404, "{path}");
    }
    assert_eq!(rows(&ann).await?, 1);
    assert_eq!(rows(&bob).await?, 0);
    assert_eq!(rows(&admin).await?, 1);
    Ok(())
}

async fn rows(client: &Client) -> Result<usize> {
    let answer = client.get("/conversations").await?.expect(200)?;
    assert!(answer.header("x-nexus-as-of").is_some());
    let rows = answer.json.get("data").and_then(Value::as_array);
    Ok(rows.context("no rows")?.len())
}

async fn call(client: &Client, method: &http::Method, path: &str) -> Result<(u16, Value)> {
    let request = client.request(method.clone(), path);
    let answer = match method.as_str() {
        "GET" | "DELETE" => request.send().await?,
        _ => request.body("{}").send().await?,
    };
    let status = answer.status().as_u16();
    let body = answer.bytes().await?;
    Ok((status, serde_json::from_slice(&body).unwrap_or_default()))
}
