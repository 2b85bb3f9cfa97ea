//! One gateway takes away what another one names at that moment: nothing is left that names nothing.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use nexus_tests::account::BOUND;
use nexus_tests::log::{Event, Stream};
use nexus_tests::{Client, Result, until};
use serde_json::{Value, json};

use super::several::Pair;

/// A gateway that expects its own kind only fails in the first rounds; the rest is for good measure.
const ROUNDS: u32 = 24;

/// Creates something at the first gateway, and waits until the second one has it; its path.
async fn at_both([one, two]: &[Client; 2], path: &str, body: &Value) -> Result<(String, String)> {
    let id = one.post(path, body).await?.expect(201)?.id()?;
    let path = format!("{path}/{id}");
    until("the other has it", BOUND, async || {
        two.get(&path).await?.expect(200).map(drop)
    })
    .await?;
    Ok((id, path))
}

async fn a_user_goes_and_gets_a_key(clients: &[Client; 2], round: u32) -> Result<()> {
    let [one, two] = clients;
    let (id, user) = at_both(clients, "/users", &json!({"name": format!("u-{round}")})).await?;
    let key = json!({"name": format!("k-{round}"), "user_id": id});
    let (gone, given) = tokio::join!(one.delete(&user), two.post("/keys", &key));
    let (gone, given) = (gone?, given?);
    let statuses = (gone.status, given.status);
    ensure!(
        matches!(statuses, (200, 400) | (409, 201)),
        "{} {}",
        gone.text(),
        given.text()
    );
    Ok(())
}

async fn a_user_goes_and_takes_a_key_over(clients: &[Client; 2], round: u32) -> Result<()> {
    let [one, two] = clients;
    let (_, key) = at_both(clients, "/keys", &json!({"name": format!("o-{round}")})).await?;
    let (id, user) = at_both(clients, "/users", &json!({"name": format!("v-{round}")})).await?;
    let change = json!({"user_id": id});
    let (gone, given) = tokio::join!(one.delete(&user), two.put(&key, &change));
    let statuses = (gone?.status, given?.status);
    ensure!(matches!(statuses, (200, 400) | (409, 200)), "{statuses:?}");
    Ok(())
}

async fn a_provider_goes_and_gets_a_model(clients: &[Client; 2], round: u32) -> Result<()> {
    let [one, two] = clients;
    let new = json!({"name": format!("p-{round}"), "server_url": "http://127.0.0.1:9/v1"});
    let (id, provider) = at_both(clients, "/providers", &new).await?;
    let model = json!({"provider_id": id, "model_name": "m"});
    let (gone, given) = tokio::join!(one.delete(&provider), two.post("/provider_models", &model));
    let statuses = (gone?.status, given?.status);
    ensure!(matches!(statuses, (200, 400 | 201)), "{statuses:?}");
    Ok(())
}

async fn a_model_goes_and_gets_a_route(clients: &[Client; 2], round: u32) -> Result<()> {
    let [one, two] = clients;
    let name = format!("m-{round}");
    let new = json!({"provider_id": "echo", "model_name": name});
    let (_, model) = at_both(clients, "/provider_models", &new).await?;
    let route = json!({"name": format!("r-{round}"), "targets": [{"model": name}]});
    let (gone, given) = tokio::join!(one.delete(&model), two.post("/routes", &route));
    let statuses = (gone?.status, given?.status);
    ensure!(matches!(statuses, (200, 400 | 201)), "{statuses:?}");
    Ok(())
}

/// What there is after each event.
#[derive(Default)]
struct There {
    users: BTreeSet<String>,
    providers: BTreeSet<String>,
    /// Id → provider and name.
    models: BTreeMap<String, (String, String)>,
    /// Id → user.
    keys: BTreeMap<String, Option<String>>,
}

impl There {
    /// Applies an event, and fails when something names then what is not there.
    fn apply(&mut self, event: &Event) -> Result<()> {
        let (data, is_gone) = (event.data(), event.data()["action"] == "deleted");
        let resource = &data["resource"];
        let text = |member: &str| resource[member].as_str().map(str::to_owned);
        let Some(id) = text("id") else { return Ok(()) };
        match event.name() {
            "user_changed" if is_gone => {
                let holds = |user: &Option<String>| user.as_ref() == Some(&id);
                ensure!(!self.keys.values().any(holds), "a key has lost its user");
                self.users.remove(&id);
            }
            "user_changed" => drop(self.users.insert(id)),
            "key_changed" if is_gone => drop(self.keys.remove(&id)),
            "key_changed" => {
                let user = text("user_id");
                let is_there = user.as_ref().is_none_or(|user| self.users.contains(user));
                ensure!(is_there, "a key names no user");
                self.keys.insert(id, user);
            }
            "provider_changed" if is_gone => {
                let mut models = self.models.values();
                ensure!(!models.any(|(of, _)| *of == id), "a model is left behind");
                self.providers.remove(&id);
            }
            "provider_changed" => drop(self.providers.insert(id)),
            "model_changed" if is_gone => drop(self.models.remove(&id)),
            "model_changed" => {
                let provider = text("provider_id").context("no provider")?;
                ensure!(self.providers.contains(&provider), "nobody offers a model");
                let name = text("model_name").context("no name")?;
                self.models.insert(id, (provider, name));
            }
            "route_changed" if !is_gone => {
                let targets = resource["targets"].as_array().into_iter().flatten();
                for target in targets {
                    let is_it = |(_, name): &(String, String)| target["model"] == **name;
                    ensure!(self.models.values().any(is_it), "a route names no model");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_names_what_has_gone_however_close_the_calls_are() -> Result<()> {
    let pair = Pair::start().await?;
    let clients = pair.clients()?;
    for round in 0..ROUNDS {
        // By turns, so that each gateway is once the one that takes away.
        let [one, two] = &clients;
        let clients = if round % 2 == 0 {
            clients.clone()
        } else {
            [two.clone(), one.clone()]
        };
        a_user_goes_and_gets_a_key(&clients, round).await?;
        a_user_goes_and_takes_a_key_over(&clients, round).await?;
        a_provider_goes_and_gets_a_model(&clients, round).await?;
        a_model_goes_and_gets_a_route(&clients, round).await?;
    }
    let log = pair.gateways[0].log().await?;
    let mut there = There::default();
    for event in log.events(Stream::Config).await? {
        let applied = there.apply(&event);
        applied.with_context(|| format!("after event {}: {}", event.sequence, event.json))?;
    }
    Ok(())
}
