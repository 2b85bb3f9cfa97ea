use std::collections::BTreeSet;

use crate::{apply::testing::Desk, configuration::Snapshot};

const PRICED: &str =
    "prices: [{model_name: m, input_micros_per_million: 1, output_micros_per_million: 1}]";

/// A file before, a file after, and what the case is.
const CASES: [(&str, &str, &str); 8] = [
    (
        "a model moves to another provider, and the first one goes",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: m}]
routes: [{name: r, targets: [{model: m, provider: a}]}]
",
        "
providers: [{name: b, kind: gemini}]
models: [{provider: b, model_name: m}]
routes: [{name: r, targets: [{model: m, provider: b}]}]
",
    ),
    (
        "a route leads to a new model, and the old one goes",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: x}]
routes: [{name: r, targets: [{model: x}]}]
",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: y}]
routes: [{name: r, targets: [{model: y}]}]
",
    ),
    (
        "a route and a model change names",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: x}]
routes: [{name: y, targets: [{model: x}]}]
",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: y}]
routes: [{name: x, targets: [{model: y}]}]
",
    ),
    (
        "a route's name becomes a model's",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: x}]
routes: [{name: y, targets: [{model: x}]}]
",
        "
providers: [{name: a, kind: gemini}]
models: [{provider: a, model_name: y}]
routes: []
",
    ),
    (
        "a key moves from a user who goes to a new one",
        "
users: [{name: old}]
keys: [{name: root, secret: \"${ROOT}\", role: admin}, {name: k, secret: \"${K}\", user: old}]
",
        "
users: [{name: new}]
keys: [{name: root, secret: \"${ROOT}\", role: admin}, {name: k, secret: \"${K}\", user: new}]
",
    ),
    (
        "the only admin key hands its role over to one that stands below it",
        "
keys: [{name: root, secret: \"${ROOT}\", role: admin}, {name: k, secret: \"${K}\"}]
",
        "
keys: [{name: root, secret: \"${ROOT}\"}, {name: k, secret: \"${K}\", role: admin}]
",
    ),
    (
        "a key has another name",
        "
users: [{name: ann}]
keys: [{name: root, secret: \"${ROOT}\", role: admin}, {name: k, secret: \"${K}\", user: ann}]
",
        "
users: []
keys: [{name: root, secret: \"${ROOT}\", role: admin}, {name: l, secret: \"${K}\"}]
",
    ),
    (
        "two users and two providers give way to others",
        "
providers: [{name: a, kind: gemini}, {name: b, kind: gemini}]
models: [{provider: a, model_name: m}, {provider: b, model_name: n}]
users: [{name: one}, {name: two}]
keys: [{name: k, secret: \"${K}\", role: admin, user: one}, {name: l, secret: \"${L}\", user: two}]
",
        "
providers: [{name: c, kind: gemini}, {name: b, kind: gemini}]
models: [{provider: b, model_name: m}, {provider: c, model_name: n}]
users: [{name: two}, {name: three}]
keys: [{name: l, secret: \"${L}\", role: admin, user: three}, {name: k, secret: \"${K}\", user: two}]
",
    ),
];

/// What clients can ask for, and the secrets by which they may.
fn served(snapshot: &Snapshot) -> BTreeSet<String> {
    let names = snapshot.models().map(|(name, _)| format!("model {name}"));
    let keys = snapshot.keys();
    let keys = keys.map(|entry| format!("secret {}", entry.resource.hash));
    names.chain(keys).collect()
}

#[test]
fn what_is_served_before_and_after_is_served_in_between() {
    for (case, before, after) in CASES {
        let start = Desk::with(before);
        let plan = start.plan(after, true);
        let plan = plan.unwrap_or_else(|problems| panic!("{case}: {problems:?}"));
        let states = (0..=plan.steps.len()).map(|count| {
            let mut desk = start.clone();
            desk.make(&plan, count);
            (desk.snapshot(), served(&desk.snapshot()))
        });
        let states: Vec<_> = states.collect();
        let (first, last) = (&states[0].1, &states[states.len() - 1].1);
        let lasting: BTreeSet<_> = first.intersection(last).cloned().collect();
        assert!(!lasting.is_empty(), "{case}");
        for ((between, known), step) in states.iter().zip(&plan.steps) {
            let line = step.line();
            let missing: Vec<_> = lasting.difference(known).collect();
            assert!(missing.is_empty(), "{case}: {missing:?} before {line}");
            let problem = step.check(between);
            assert!(problem.is_none(), "{case}: {line}: {problem:?}");
        }
    }
}

#[test]
fn a_change_that_does_not_stand_at_its_place_is_found_before_it_is_made() {
    for (case, before, after) in &CASES[4..6] {
        let start = Desk::with(before);
        let mut plan = start.plan(after, true).unwrap();
        start.walk(&plan).unwrap();
        plan.steps.reverse();
        let problem = start.walk(&plan).unwrap_err();
        assert!(
            problem.message.contains("in the middle of the run"),
            "{case}: {problem}"
        );
    }
}

#[test]
fn a_run_that_ends_anywhere_is_completed_by_the_next() {
    for (case, before, after) in CASES {
        let start = Desk::with(before);
        let plan = start.plan(after, true).unwrap();
        for count in 0..=plan.steps.len() {
            let mut desk = start.clone();
            desk.make(&plan, count);
            let left = desk.plan(after, true);
            let left = left.unwrap_or_else(|problems| panic!("{case}, {count}: {problems:?}"));
            assert_eq!(left.steps.len(), plan.steps.len() - count, "{case}");
            desk.make(&left, usize::MAX);
            assert!(desk.plan(after, true).unwrap().is_empty(), "{case}");
        }
    }
}

#[test]
fn what_names_comes_after_what_it_names_and_goes_before_it() {
    let file = format!(
        "
keys: [{{name: k, secret: \"${{K}}\", role: admin, user: ann}}]
users: [{{name: ann, monthly_budget: 5}}]
{PRICED}
routes: [{{name: r, targets: [{{model: m}}]}}]
models: [{{provider: a, model_name: m}}]
providers: [{{name: a, kind: gemini}}]
"
    );
    let mut desk = Desk::new();
    let made = desk.apply(&file);
    let kinds: Vec<_> = made
        .iter()
        .filter_map(|line| line.split(' ').nth(1))
        .collect();
    assert_eq!(
        kinds,
        ["provider", "model", "route", "price", "user", "key"]
    );
    let rest = "keys: [{name: k, role: admin}]\nusers: []\nroutes: []\nmodels: []\nproviders: []\n";
    let gone = desk.apply(rest);
    let expected = [
        "~ key k: user ann → none",
        "- user ann",
        "- route r",
        "- model a/m",
        "- provider a",
    ];
    assert_eq!(gone, expected);
}

#[test]
fn a_renamed_key_is_the_same_key() {
    let file = "keys: [{name: k, secret: \"${K}\", role: admin}]";
    let mut desk = Desk::with(file);
    let id = desk.snapshot().key_named("k").unwrap().resource.id;
    let renamed = file.replace("name: k", "name: l");
    let refused = desk.refused(&renamed, false);
    assert!(refused.contains("is that of the key 'k'"), "{refused}");
    assert_eq!(desk.apply(&renamed), ["~ key l: name k → l"]);
    assert_eq!(desk.snapshot().key_named("l").unwrap().resource.id, id);
}

#[test]
fn what_no_order_can_do_is_refused_before_the_first_change() {
    let two = "keys: [{name: a, secret: \"${A}\", role: admin}, {name: b, secret: \"${B}\"}]";
    let desk = Desk::with(two);
    let swapped = two
        .replace("${A}", "${C}")
        .replace("${B}", "${A}")
        .replace("${C}", "${B}");
    let handed_on = two.replace("${A}", "${C}").replace("${B}", "${A}");
    let taken = two
        .replace("${A}", "${B}")
        .replace(", {name: b, secret: \"${B}\"}", "");
    for (file, wrong) in [
        (&swapped, "keys[0].secret: 'secret' is that of the key 'b'"),
        (&swapped, "keys[1].secret: 'secret' is that of the key 'a'"),
        (&taken, "keys[0].secret: 'secret' is that of the key 'b'"),
        (
            &handed_on,
            "keys[1].secret: 'secret' is that of the key 'a'",
        ),
    ] {
        let refused = desk.refused(file, true);
        assert!(refused.contains(wrong), "{refused}");
    }
}
