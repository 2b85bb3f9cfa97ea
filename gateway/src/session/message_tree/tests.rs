use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn tree() -> MessageTree {
    MessageTree::new(&[7; 32])
}

fn id_of(text: &str) -> MessageId {
    tree().id(None, &RawValue::from_string(text.to_owned()).unwrap())
}

fn id(message: &Value) -> MessageId {
    id_of(&message.to_string())
}

/// Ids are in the log for ever and on every gateway: they must never change.
///
/// They did once, for messages with tool calls: see [`arguments`].
#[test]
fn ids_are_the_same_in_every_version() {
    let question = id(&json!({"role": "user", "content": "What is 2 + 2?"}));
    let answer = RawValue::from_string(
        r#"{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function",
            "function":{"name":"add","arguments":"{\"a\":2,\"b\":2}"}}],"n":[1,-2.5,true]}"#
            .into(),
    )
    .unwrap();
    assert_eq!(question.to_string(), "95c79bddfe08d808af14e48a9e085fdc");
    assert_eq!(
        tree().id(Some(question), &answer).to_string(),
        "e60c151e595fadd11e52ffb0c2c154e4"
    );
}

#[test]
fn an_answer_and_its_repetition_are_one_node() {
    let answer = json!({
        "role": "assistant", "content": "4", "refusal": null, "annotations": [],
        "reasoning_content": "2 + 2 = 4", "tool_calls": null,
    });
    let repetition = json!({"content": "4", "role": "assistant"});
    assert_eq!(id(&answer), id(&repetition));

    let call = json!({"index": 0, "id": "c1", "type": "function",
                      "function": {"name": "now", "arguments": "{}"}});
    let answer = json!({"role": "assistant", "content": null, "tool_calls": [call]});
    let mut repetition = answer.clone();
    repetition["content"] = json!("");
    repetition["tool_calls"][0]
        .as_object_mut()
        .unwrap()
        .remove("index");
    assert_eq!(id(&answer), id(&repetition));
}

#[test]
fn a_cache_mark_that_wanders_changes_nothing() {
    let text = json!({"role": "user", "content": [{"type": "text", "text": "a"}]});
    let mut marked = text.clone();
    marked["content"][0]["cache_control"] = json!({"type": "ephemeral"});
    assert_eq!(id(&text), id(&marked));
    marked["content"][0]["text"] = json!("b");
    assert_ne!(id(&text), id(&marked));
}

#[test]
fn a_single_part_of_text_is_that_text() {
    let content = |content: Value| id(&json!({"role": "user", "content": content}));
    let plain = content(json!("a"));
    assert_eq!(content(json!([{"text": "a", "type": "text"}])), plain);
    let mark = json!({"type": "ephemeral"});
    let marked = json!([{"type": "text", "text": "a", "cache_control": mark}]);
    assert_eq!(content(marked), plain);
    for other in [
        json!([{"type": "text", "text": "b"}]),
        json!([{"type": "refusal", "text": "a"}]),
        json!([{"type": "text", "text": "a", "lang": "en"}]),
        json!([{"type": "text", "text": "a"}, {"type": "text", "text": "a"}]),
        json!(["a"]),
    ] {
        assert_ne!(content(other.clone()), plain, "{other}");
    }
}

#[test]
fn the_parent_and_the_key_are_part_of_an_id() {
    let message = RawValue::from_string(r#"{"role":"user","content":"go on"}"#.into()).unwrap();
    let first = tree().id(None, &message);
    let second = tree().id(Some(first), &message);
    let third = tree().id(Some(second), &message);
    assert_ne!(first, second);
    assert_ne!(second, third);
    assert_ne!(MessageTree::new(&[8; 32]).id(None, &message), first);
}

#[test]
fn what_differs_in_any_word_has_another_id() {
    let message = json!({
        "role": "tool", "name": "weather", "tool_call_id": "c1", "content": "rain",
        "tool_calls": [{"id": "c2", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    });
    let changes: [(&str, Value); 9] = [
        ("/role", json!("user")),
        ("/name", json!("weather2")),
        ("/tool_call_id", json!("c2")),
        ("/content", json!("rain ")),
        ("/content", json!(["rain"])),
        ("/tool_calls/0/id", json!("c1")),
        ("/tool_calls/0/function/name", json!("g")),
        ("/tool_calls/0/function/arguments", json!("[]")),
        ("/tool_calls", json!([])),
    ];
    for (place, value) in changes {
        let mut other = message.clone();
        *other.pointer_mut(place).unwrap() = value.clone();
        assert_ne!(id(&other), id(&message), "{place} = {value}");
    }
    let mut added = message.clone();
    added["audio_format"] = json!("wav");
    assert_ne!(id(&added), id(&message));
}

#[test]
fn borders_between_values_count() {
    let pairs = [
        (
            json!({"content": ["ab", "c"]}),
            json!({"content": ["a", "bc"]}),
        ),
        (
            json!({"content": [["a"], "b"]}),
            json!({"content": [["a", "b"]]}),
        ),
        (json!({"content": [null]}), json!({"content": [""]})),
        (
            json!({"content": [{"a": 1}, {"b": 1}]}),
            json!({"content": [{"a": 1, "b": 1}]}),
        ),
        (json!({"content": "1"}), json!({"content": 1})),
        (json!({"content": true}), json!({"content": "true"})),
    ];
    for (one, other) in pairs {
        assert_ne!(id(&one), id(&other), "{one} {other}");
    }
}

#[test]
fn spelling_of_text_and_repeated_names_do_not_count() {
    assert_eq!(
        id_of(r#"{"role":"user","content":"caf\u00e9\n\/"}"#),
        id_of("{\"content\" : \"café\\n/\", \"role\":\"user\"}")
    );
    // Readers of JSON take the last of equal names; so does the id.
    assert_eq!(
        id_of(r#"{"content":"a","role":"user","content":"b"}"#),
        id_of(r#"{"role":"user","content":"b"}"#)
    );
    assert_eq!(
        id_of(r#"{"role":"user","content":"b","content":null}"#),
        id_of(r#"{"role":"user"}"#)
    );
}

#[test]
fn what_cannot_be_read_in_full_still_has_a_role_and_an_id() {
    let deep = format!(
        r#"{{"role":"developer","content":{}1{}}}"#,
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    let deep = RawValue::from_string(deep).unwrap();
    assert!(ReadMessage::of(&deep).is_system());
    let surrogate = |half: &str| format!(r#"{{"role":"user","content":"\u{half}"}}"#);
    assert_ne!(id_of(&surrogate("d800")), id_of(&surrogate("d801")));
    assert_eq!(id_of(&surrogate("d800")), id_of(&surrogate("d800")));
}

/// Any message: what is needed, and members of every shape.
fn any_message() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>()
            .prop_filter("JSON has no infinity", |n| n.is_finite())
            .prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    let any = leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]{1,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    });
    let members = proptest::collection::btree_map(
        prop_oneof![Just("content"), Just("tool_calls"), Just("name"), Just("x")],
        any,
        0..4,
    );
    ("user|assistant|tool", members).prop_map(|(role, members)| {
        let mut message = json!({ "role": role });
        for (name, value) in members {
            message[name] = value;
        }
        message
    })
}

/// Writes a value with its members in another order, with blanks, and with members that are empty.
fn respelled(value: &Value, order: &mut impl FnMut() -> u64) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{} : {}", json!(name), respelled(value, order)))
                .collect();
            for (name, empty) in [("zz", "null"), ("ya", "\"\""), ("ab0", "[ ]"), ("b0", "{}")] {
                if order().is_multiple_of(3) {
                    members.push(format!("\"{name}\":{empty}"));
                }
            }
            for last in (1..members.len()).rev() {
                members.swap(last, usize::try_from(order()).unwrap() % (last + 1));
            }
            format!("{{ {} }}", members.join(" ,\n"))
        }
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| respelled(item, order)).collect();
            format!("[{}]", items.join(" , "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

/// The value without null and empty members.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| (name.clone(), pruned(value)))
            .filter(|(_, value)| {
                !matches!(value.to_string().as_str(), "null" | "\"\"" | "[]" | "{}")
            })
            .collect(),
        Value::Array(items) => items.iter().map(pruned).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

proptest! {
    #[test]
    fn order_blanks_nulls_and_empties_do_not_count(message in any_message(), seed in any::<u64>()) {
        let mut state = seed;
        let mut order = || {
            // A linear congruential generator: the order need not be good, only varied.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        };
        let text = respelled(&message, &mut order);
        prop_assert_eq!(id_of(&text), id(&message), "{}", text);
    }

    #[test]
    fn different_messages_have_different_ids(one in any_message(), other in any_message()) {
        let same = pruned(&one) == pruned(&other);
        prop_assert_eq!(id(&one) == id(&other), same, "{} {}", one, other);
    }
}
