use nexus_events::{
    clock::ManualClock,
    config_event::{Action, Provider},
    id::UserId,
};
use serde_json::{Value, json};

use super::*;
use crate::apply::{actor, testing::Desk};

const FILE: &str = "
providers: [{name: a, kind: gemini, server_key: \"${PROVIDER}\"}]
models: [{provider: a, model_name: m, upstream_model: m-1}]
routes: [{name: r, attempts: 2, cache_ttl_seconds: 0, targets: [{model: m, provider: a, weight: 3}]}]
prices: [{model_name: m, input_micros_per_million: 1, output_micros_per_million: 1}]
users: [{name: u, monthly_budget: 5}]
keys: [{name: k, secret: \"${K}\", role: admin, user: u, cache_ttl_seconds: 0, tokens_per_minute: 9}]
";

/// Stores a resource as a newer hub would: with members of its own.
fn store_newer<R: Resource>(desk: &mut Desk, resource: &R, change: impl FnOnce(&mut Value)) {
    let mut whole = serde_json::to_value(resource).unwrap();
    change(&mut whole);
    let event = json!({
        "specversion": "1.0",
        "id": "019ac9f0-0000-7000-8000-000000000001",
        "source": "/nexus/newer",
        "type": R::EVENT,
        "time": "2026-11-24T00:00:00.000Z",
        "subject": resource.key(),
        "data": {"action": "updated", "changed": [], "actor": actor(), "resource": whole},
    });
    desk.store(event.to_string().as_bytes());
}

/// It is told and written once, and then the configuration is what the file declares.
fn is_mended_once(mut desk: Desk, file: &str, line: &str) {
    let plan = desk.plan(file, false).unwrap();
    assert_eq!(plan.lines().collect::<Vec<_>>(), [line]);
    desk.make(&plan, usize::MAX);
    let plan = desk.plan(file, false).unwrap();
    assert!(plan.is_empty(), "{:?}", plan.lines().collect::<Vec<_>>());
}

#[test]
fn a_second_run_changes_nothing_in_any_section() {
    let mut desk = Desk::with(FILE);
    assert_eq!(desk.apply(FILE), [""; 0]);
    assert_eq!(desk.plan(FILE, true).unwrap().unchanged, 6);
}

#[test]
fn a_member_of_a_newer_hub_is_told_and_removed_once() {
    let desk = Desk::with(FILE);
    let snapshot = desk.snapshot();
    let region = |whole: &mut Value| whole["region"] = json!("eu");

    let provider = &snapshot.provider_named("a").unwrap().resource.resource;
    let mut newer = desk.clone();
    store_newer(&mut newer, provider, region);
    let told = "region (unknown to this version, removed)";
    is_mended_once(newer, FILE, &format!("~ provider a: {told}"));

    let model = &snapshot.model_named(provider.id, "m").unwrap().resource;
    let mut newer = desk.clone();
    store_newer(&mut newer, &**model, region);
    is_mended_once(newer, FILE, &format!("~ model a/m: {told}"));

    let route = &snapshot.route_named("r").unwrap().resource;
    let mut newer = desk.clone();
    store_newer(&mut newer, &**route, |whole| {
        whole["targets"][0]["region"] = json!("eu");
    });
    is_mended_once(newer, FILE, &format!("~ route r: targets[0].{told}"));

    let user = &snapshot.user_named("u").unwrap().resource;
    let mut newer = desk.clone();
    store_newer(&mut newer, &**user, region);
    is_mended_once(newer, FILE, &format!("~ user u: {told}"));

    let key = &snapshot.key_named("k").unwrap().resource;
    let mut newer = desk.clone();
    store_newer(&mut newer, &**key, region);
    is_mended_once(newer, FILE, &format!("~ key k: {told}"));
}

#[test]
fn a_price_that_says_more_is_followed_by_one_that_does_not() {
    let mut desk = Desk::with(FILE);
    let price = desk.snapshot();
    let price = &price.prices().next().unwrap().resource;
    store_newer(&mut desk, &**price, |whole| whole["tier"] = json!("night"));
    let made = desk.apply(FILE);
    assert!(
        made.len() == 1 && made[0].starts_with("+ price any/m"),
        "{made:?}"
    );
    assert_eq!(desk.snapshot().prices().count(), 2);
    assert_eq!(desk.apply(FILE), [""; 0]);
}

#[test]
fn a_member_that_says_nothing_is_no_difference() {
    let mut desk = Desk::with(FILE);
    let snapshot = desk.snapshot();
    let route = &snapshot.route_named("r").unwrap().resource;
    store_newer(&mut desk, &**route, |whole| {
        whole["region"] = Value::Null;
        whole["first_byte_timeout_ms"] = Value::Null;
    });
    assert!(desk.plan(FILE, false).unwrap().is_empty());
    // Someone has removed it again.
    store_newer(&mut desk, &**route, |whole| whole["region"] = json!("eu"));
    desk.publish(Action::Updated, (**route).clone());
    assert!(desk.plan(FILE, false).unwrap().is_empty());
}

#[test]
fn a_difference_that_the_names_do_not_show_is_written_once() {
    // The user of the key went in the moment in which the key was written.
    let file = "keys: [{name: k, secret: \"${K}\", role: admin}]";
    let mut desk = Desk::with(file);
    let mut key = (*desk.snapshot().key_named("k").unwrap().resource).clone();
    key.user_id = Some(UserId::draw(&ManualClock::at(key.created_ms)));
    desk.publish(Action::Updated, key);
    let plan = desk.plan(file, false).unwrap();
    assert_eq!(
        plan.steps[0].changed(),
        ["user_id"],
        "or nothing is written"
    );
    is_mended_once(desk, file, "~ key k: user (changed)");

    // Everybody, and somebody of that name.
    let any = "
providers: [{name: any, kind: gemini}]
models: [{provider: any, model_name: m}]
routes: [{name: r, targets: [{model: m}]}]
";
    let desk = Desk::with(any);
    let own = any.replace("{model: m}", "{model: m, provider: any}");
    is_mended_once(desk, &own, "~ route r: targets (changed)");
}

#[test]
fn the_same_secret_is_no_difference_and_another_is_one() {
    let mut desk = Desk::with(FILE);
    let sealed = |desk: &Desk| {
        let snapshot = desk.snapshot();
        let entry = snapshot.provider_named("a").unwrap();
        entry.resource.resource.server_key.clone()
    };
    let before = sealed(&desk);
    let other = FILE
        .replace("${PROVIDER}", "${OTHER}")
        .replace("${K}", "${L}");
    let told = [
        "~ provider a: server_key (changed)",
        "~ key k: secret (changed)",
    ];
    assert_eq!(desk.apply(&other), told);
    assert_ne!(sealed(&desk), before);
    assert_eq!(desk.apply(&other), [""; 0]);
    // Its seal is of another master key: what it is cannot be told.
    let snapshot = desk.snapshot();
    let provider = &snapshot.provider_named("a").unwrap().resource.resource;
    let foreign = nexus_events::seal::MasterKey::draw().unwrap();
    let server_key = foreign.seal(b"other", "provider:x").unwrap();
    desk.publish(
        Action::Updated,
        Provider {
            server_key: Some(server_key),
            ..provider.clone()
        },
    );
    is_mended_once(desk, &other, "~ provider a: server_key (changed)");
}
