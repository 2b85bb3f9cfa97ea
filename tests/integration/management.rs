//! The management API: what it changes, what it refuses, what it records.

use std::time::Duration;

use nexus_tests::{Hub, Result, log::Stream, until};
use serde_json::{Value, json};

const BOUND: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_provider_and_its_models_live_through_the_api() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let created = admin
        .post(
            "/providers",
            &json!({"name": "one", "server_url": "http://127.0.0.1:9/v1", "server_key": "sk-one", "rate_limit": 5}),
        )
        .await?
        .expect(201)?;
    let id = created.id()?;
    assert_eq!(created.json["kind"], "openai");
    assert_eq!(created.json["has_key"], true);
    for path in [format!("/providers/{id}"), "/providers/one".to_owned()] {
        let got = admin.get(&path).await?.expect(200)?;
        assert_eq!(got.json, created.json);
        assert_eq!(got.header("etag"), created.header("etag"));
    }

    let changed = admin
        .put("/providers/one", &json!({"rate_limit": 1000}))
        .await?
        .expect(200)?;
    assert_eq!(changed.json["rate_limit"], 1000);
    assert_eq!(changed.json["server_url"], created.json["server_url"]);
    assert_eq!(changed.json["has_key"], true);
    assert_ne!(changed.header("etag"), created.header("etag"));
    let unchanged = admin.put("/providers/one", &json!({})).await?.expect(200)?;
    assert_eq!(unchanged.header("etag"), changed.header("etag"));
    let bare = admin
        .put(
            "/providers/one",
            &json!({"server_key": null, "rate_limit": null}),
        )
        .await?
        .expect(200)?;
    assert_eq!(
        (&bare.json["has_key"], &bare.json["rate_limit"]),
        (&json!(false), &Value::Null)
    );

    let model = json!({"provider_id": "one", "model_name": "gpt", "upstream_model": "gpt-up"});
    let model = admin.post("/provider_models", &model).await?.expect(201)?;
    assert_eq!(model.json["provider_id"], id);
    let path = format!("/provider_models/{}", model.id()?);
    let renamed = admin
        .put(&path, &json!({"model_name": "a/b"}))
        .await?
        .expect(200)?;
    assert_eq!(renamed.json["upstream_model"], "gpt-up");
    assert_eq!(
        admin.get("/v1/models/a/b").await?.expect(200)?.json["owned_by"],
        "one"
    );
    assert_eq!(
        admin.get("/models/gpt").await?.error_code(),
        "model_not_found"
    );
    let models = admin.get("/providers/one/models").await?.expect(200)?;
    assert_eq!(models.json["data"], json!([renamed.json]));

    admin.delete("/providers/one").await?.expect(200)?;
    admin.get("/providers/one").await?.expect(404)?;
    admin.get(&path).await?.expect(404)?;
    admin.get("/v1/models/a/b").await?.expect(404)?;
    Ok(())
}

#[tokio::test]
async fn a_change_to_something_else_than_was_seen_is_refused() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let body = json!({"name": "one", "server_url": "http://127.0.0.1:9"});
    let created = admin.post("/providers", &body).await?.expect(201)?;
    let seen = admin.with_header("if-match", created.header("etag").unwrap())?;
    seen.put("/providers/one", &json!({"rate_limit": 1}))
        .await?
        .expect(200)?;
    let stale = seen
        .put("/providers/one", &json!({"rate_limit": 2}))
        .await?;
    assert_eq!(
        (stale.status, stale.error_code()),
        (412, "precondition_failed")
    );
    assert_eq!(seen.delete("/providers/one").await?.status, 412);
    let now = admin.get("/providers/one").await?.expect(200)?;
    assert_eq!(now.json["rate_limit"], 1);
    let taken = admin.post("/providers", &body).await?;
    assert_eq!((taken.status, taken.error_code()), (409, "name_taken"));
    let taken = admin
        .put("/providers/echo", &json!({"name": "one"}))
        .await?;
    assert_eq!((taken.status, taken.error_code()), (409, "name_taken"));
    Ok(())
}

#[tokio::test]
async fn a_key_is_shown_once_and_void_as_soon_as_it_is_deleted() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let created = admin
        .post("/keys", &json!({"name": "ann"}))
        .await?
        .expect(201)?;
    let secret = created.json["key"].as_str().unwrap().to_owned();
    assert_eq!(created.json["role"], "member");
    let ann = hub.anonymous()?.with_key(&secret)?;
    ann.get("/v1/models").await?.expect(200)?;
    let by_header = hub.anonymous()?.with_header("x-api-key", &secret)?;
    by_header.get("/v1/models").await?.expect(200)?;
    assert!(
        !admin
            .get("/keys")
            .await?
            .expect(200)?
            .text()
            .contains(&secret)
    );
    admin
        .delete(&format!("/keys/{}", created.id()?))
        .await?
        .expect(200)?;
    let refused = ann.get("/v1/models").await?;
    assert_eq!(
        (refused.status, refused.error_code()),
        (401, "invalid_api_key")
    );

    let operator = admin.with_new_key("op", "operator").await?;
    let escalated = operator
        .post("/keys", &json!({"name": "x", "role": "admin"}))
        .await?;
    assert_eq!(escalated.status, 403);
    let admins = admin.get("/keys/admin").await?.expect(200)?.id()?;
    assert_eq!(
        operator.delete(&format!("/keys/{admins}")).await?.status,
        403
    );
    let last = admin.delete(&format!("/keys/{admins}")).await?;
    assert_eq!((last.status, last.error_code()), (409, "last_admin_key"));
    Ok(())
}

#[tokio::test]
async fn a_list_is_paged_by_cursor() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    for name in ["a", "b", "c"] {
        let body = json!({"name": name, "server_url": "http://127.0.0.1:9"});
        admin.post("/providers", &body).await?.expect(201)?;
    }
    let mut names = Vec::new();
    let mut path = "/providers?limit=3".to_owned();
    loop {
        let page = admin.get(&path).await?.expect(200)?;
        let rows = page.json["data"].as_array().unwrap().clone();
        names.extend(
            rows.iter()
                .map(|row| row["name"].as_str().unwrap().to_owned()),
        );
        match page.json["next_cursor"].as_str() {
            Some(cursor) => path = format!("/providers?limit=3&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(names, ["echo", "a", "b", "c"]);
    for wrong in ["limit=0", "limit=201", "limit=x", "cursor=x"] {
        assert_eq!(
            admin.get(&format!("/providers?{wrong}")).await?.status,
            400,
            "{wrong}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_bad_body_is_refused_by_the_name_of_its_member() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let cases = [
        ("/providers", json!({}), "name"),
        (
            "/providers",
            json!({"name": "x", "server_url": 7}),
            "server_url",
        ),
        (
            "/providers",
            json!({"name": "x", "server_url": "file:///x"}),
            "server_url",
        ),
        (
            "/providers",
            json!({"name": "x", "server_url": "http://x", "nmae": 1}),
            "nmae",
        ),
        (
            "/provider_models",
            json!({"model_name": "m"}),
            "provider_id",
        ),
        (
            "/provider_models",
            json!({"provider_id": "gone", "model_name": "m"}),
            "provider_id",
        ),
        (
            "/provider_models",
            json!({"provider_id": "echo", "model_name": ""}),
            "model_name",
        ),
        ("/keys", json!({"name": "x", "role": "king"}), "role"),
    ];
    for (path, body, member) in cases {
        let answer = admin.post(path, &body).await?;
        assert_eq!(answer.status, 400, "{path} {body}");
        assert_eq!(answer.json["error"]["param"], member, "{path} {body}");
        assert_eq!(answer.json["error"]["type"], "invalid_request_error");
    }
    // Echo has no address, so it cannot become what needs one.
    let kind = admin
        .put("/providers/echo", &json!({"kind": "openai"}))
        .await?;
    assert_eq!(
        (kind.status, &kind.json["error"]["param"]),
        (400, &json!("server_url"))
    );
    for body in [&b"{"[..], b"[]", b"{\"name\":\"\xff\"}", b""] {
        assert_eq!(
            admin.post_bytes("/providers", body.to_vec()).await?.status,
            400
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_providers_key_is_nowhere_in_clear() -> Result<()> {
    let hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let secret = "sk-0123456789-in-clear";
    let body = json!({"name": "one", "server_url": "http://127.0.0.1:9", "server_key": secret});
    let answers = [
        admin.post("/providers", &body).await?.expect(201)?,
        admin.get("/providers/one").await?,
        admin.get("/providers").await?,
        admin.get("/settings").await?,
    ];
    for answer in answers {
        assert!(!answer.text().contains(secret));
    }
    for event in hub.log().await?.events(Stream::Config).await? {
        assert!(!event.json.to_string().contains(secret));
    }
    let mut files = 0;
    let mut folders = vec![hub.data_dir().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            files += 1;
            let bytes = std::fs::read(&path)?;
            let found = bytes
                .windows(secret.len())
                .any(|window| window == secret.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
    assert!(files > 5, "the data directory was searched");
    Ok(())
}

#[tokio::test]
async fn what_is_managed_refused_or_tried_without_a_key_is_in_the_audit_trail() -> Result<()> {
    let mut hub = Hub::standalone().start().await?;
    let admin = hub.client()?;
    let viewer = admin.with_new_key("eve", "viewer").await?;
    admin.post("/providers", &json!({})).await?.expect(400)?;
    viewer.delete("/providers/echo").await?.expect(403)?;
    for _ in 0..3 {
        hub.anonymous()?.get("/stats").await?.expect(401)?;
    }
    let log = hub.log().await?;
    let audited = |kind: &'static str| {
        let log = log.clone();
        async move {
            until(kind, BOUND, async || {
                let events = log.events(Stream::Audit).await?;
                let of_kind: Vec<Value> = events
                    .iter()
                    .filter(|event| event.kind() == format!("ai.nexus.audit.{kind}.v1"))
                    .map(|event| event.data().clone())
                    .collect();
                anyhow::ensure!(!of_kind.is_empty(), "none yet");
                Ok::<_, anyhow::Error>(of_kind)
            })
            .await
        }
    };
    let refused = audited("access_refused").await?;
    assert_eq!(refused[0]["actor"]["name"], "eve");
    assert_eq!(refused[0]["url.path"], "/providers/echo");
    let calls = audited("management_call").await?;
    let told: Vec<(&str, &str, u64)> = calls
        .iter()
        .map(|call| {
            (
                call["actor"]["name"].as_str().unwrap(),
                call["http.request.method"].as_str().unwrap(),
                call["http.response.status_code"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("admin", "POST", 201),
            ("admin", "POST", 400),
            ("eve", "DELETE", 403)
        ]
    );
    // The minute of the strangers is told when it is over, or when the hub stops.
    hub.stop().await?;
    hub.start_again().await?;
    let log = hub.log().await?;
    let events = log.events(Stream::Audit).await?;
    let strangers: u64 = events
        .iter()
        .filter(|event| event.kind() == "ai.nexus.audit.unauthenticated_calls.v1")
        .map(|event| event.data()["count"].as_u64().unwrap())
        .sum();
    assert_eq!(strangers, 3);
    Ok(())
}
