//! Administration over HTTP and from the shell: every change is an event and in force at once, here
//! and at other gateways, and no secret ever comes out.

mod access;
mod dangling;
mod full;
mod hang_up;
mod put_back;
mod secrets;
mod several;
mod shell;

use anyhow::{Context, ensure};
use nexus_tests::client::Answer;
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Client, Hub, Result, Upstream};
use serde_json::{Value, json};

fn ask(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "hello, req-1"}]})
}

fn etag(answer: &Answer) -> Result<String> {
    Ok(answer.header("etag").context("no ETag")?.to_owned())
}

/// The members of a resource but for when it was changed, and how it fares.
fn without_time(answer: &Answer) -> Value {
    let mut resource = answer.json.clone();
    if let Some(members) = resource.as_object_mut() {
        members.remove("updated_ms");
        members.remove("health");
    }
    resource
}

/// The values of a member in all rows of a list, page after page of `limit`.
async fn listed(client: &Client, path: &str, member: &str, limit: usize) -> Result<Vec<String>> {
    let (mut found, mut cursor) = (Vec::new(), String::new());
    // 100 pages are a bound: no list of a test is that long.
    for _page in 0..100 {
        let path = format!("{path}?limit={limit}{cursor}");
        let page = client.get(&path).await?.expect(200)?.json;
        let rows = page["data"].as_array().context("no `data`")?;
        ensure!(rows.len() <= limit, "{} rows", rows.len());
        found.extend(
            rows.iter()
                .map(|row| row[member].as_str().unwrap_or_default().to_owned()),
        );
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(found),
        }
    }
    anyhow::bail!("{path} has no last page")
}

/// What the events of one kind of resource say: what was done, which members changed.
fn told(events: &[Event], kind: &str) -> Vec<(String, Vec<String>)> {
    let of_kind = events.iter().filter(|event| event.name() == kind);
    of_kind
        .map(|event| {
            let action = event.data()["action"].as_str().unwrap_or_default();
            let changed = event.data()["changed"].as_array().into_iter().flatten();
            let changed = changed.filter_map(Value::as_str).map(str::to_owned);
            (action.to_owned(), changed.collect())
        })
        .collect()
}

/// A provider `main` with a model `m1`, and two upstreams that it may send to.
struct Configured {
    hub: Hub,
    client: Client,
    first: Upstream,
    second: Upstream,
    provider: Answer,
    model_id: String,
}

impl Configured {
    async fn start() -> Result<Self> {
        let (first, second) = (Upstream::start().await?, Upstream::start().await?);
        let hub = Hub::standalone().start().await?;
        let client = hub.client()?;
        let url = first.url();
        let new = json!({"name": "main", "kind": "openai", "server_url": url, "server_key": "k1"});
        let provider = client.post("/providers", &new).await?.expect(201)?;
        ensure!(provider.json["has_key"] == true && provider.json["rate_limit"].is_null());
        let model = json!({"provider_id": "main", "model_name": "m1"});
        let model = client.post("/provider_models", &model).await?.expect(201)?;
        Ok(Self {
            model_id: model.id()?,
            hub,
            client,
            first,
            second,
            provider,
        })
    }

    async fn get(&self, path: &str, status: u16) -> Result<Answer> {
        self.client.get(path).await?.expect(status)
    }

    async fn put(&self, path: &str, body: Value) -> Result<Answer> {
        self.client.put(path, &body).await?.expect(200)
    }

    async fn change_provider(&self) -> Result<()> {
        let limit = json!({"rate_limit": 1000});
        let limited = self.put("/providers/main", limit.clone()).await?;
        let mut expected = without_time(&self.provider);
        expected["rate_limit"] = json!(1000);
        assert_eq!(without_time(&limited), expected, "all else stays");
        ensure!(
            etag(&limited)? != etag(&self.provider)?,
            "it is another one"
        );
        let same = self.put("/providers/main", limit).await?;
        assert_eq!(etag(&same)?, etag(&limited)?, "nothing changed");
        let elsewhere = json!({"server_url": self.second.url()});
        self.put("/providers/main", elsewhere).await?;
        self.client.chat(&ask("m1")).await?.expect(200)?;
        assert_eq!(self.second.exchanges().len(), 1, "in force at once");
        let renaming = json!({"name": "renamed", "server_key": null});
        self.put("/providers/main", renaming).await?;
        self.get("/providers/main", 404).await?;
        let renamed = self.get("/providers/renamed", 200).await?;
        assert_eq!(renamed.json["has_key"], false);
        Ok(())
    }

    async fn change_model(&self) -> Result<()> {
        let path = format!("/provider_models/{}", self.model_id);
        let renaming = json!({"model_name": "m2", "upstream_model": "theirs"});
        self.put(&path, renaming).await?;
        let gone = self.client.chat(&ask("m1")).await?.expect(404)?;
        assert_eq!(gone.error_code(), "model_not_found");
        self.client.chat(&ask("m2")).await?.expect(200)?;
        let asked = self.second.exchanges().pop().context("not asked")?.request;
        assert_eq!(asked.model(), "theirs");
        let key = asked.header("authorization");
        ensure!(key.is_none(), "its key was taken away: {key:?}");
        let of_provider = format!("/providers/{}/models", self.provider.id()?);
        let offered = listed(&self.client, &of_provider, "model_name", 10).await?;
        assert_eq!(offered, ["m2"]);
        let public = self.get("/v1/models", 200).await?.json;
        let rows = public["data"].as_array().into_iter().flatten();
        let ids: Vec<_> = rows.map(|model| &model["id"]).collect();
        assert_eq!(ids, ["echo", "m2"]);
        Ok(())
    }

    /// With the provider go its models.
    async fn delete(&self) -> Result<()> {
        let by_id = format!("/providers/{}", self.provider.id()?);
        self.client
            .delete("/providers/renamed")
            .await?
            .expect(200)?;
        self.client.delete(&by_id).await?.expect(404)?;
        self.get(&by_id, 404).await?;
        let model = format!("/provider_models/{}", self.model_id);
        self.get(&model, 404).await?;
        self.client.chat(&ask("m2")).await?.expect(404)?;
        Ok(())
    }
}

fn done(action: &str, changed: &str) -> (String, Vec<String>) {
    let changed = changed.split_whitespace().map(str::to_owned);
    (action.to_owned(), changed.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_created_changed_and_deleted_and_each_is_an_event() -> Result<()> {
    let configured = Configured::start().await?;
    configured.client.chat(&ask("m1")).await?.expect(200)?;
    assert_eq!(configured.first.exchanges().len(), 1, "in force at once");
    let id = configured.provider.id()?;
    for name in [&id, "main"] {
        let got = configured.get(&format!("/providers/{name}"), 200).await?;
        assert_eq!(without_time(&got), without_time(&configured.provider));
        assert_eq!(etag(&got)?, etag(&configured.provider)?);
    }
    configured.change_provider().await?;
    configured.change_model().await?;
    configured.delete().await?;

    let log = configured.hub.log().await?;
    let events = log.events(Stream::Config).await?;
    // The first of each kind is the first start's own.
    assert_eq!(
        told(&events, "provider_changed")[1..],
        [
            done("created", "name kind server_url server_key"),
            done("updated", "rate_limit"),
            done("updated", "server_url"),
            done("updated", "name server_key"),
            done("deleted", ""),
        ]
    );
    assert_eq!(
        told(&events, "model_changed")[1..],
        [
            done("created", "provider_id model_name"),
            done("updated", "model_name upstream_model"),
            done("deleted", ""),
        ]
    );
    let last = events.iter().rfind(|event| event.request_id() == id);
    let last = last.context("no event")?;
    assert_eq!(last.data()["actor"]["name"], "admin");
    assert_eq!(last.data()["resource"]["name"], "renamed");
    assert_eq!(last.nats_subject, format!("nexus.config.provider.{id}"));
    Ok(())
}
