//! The arguments of a tool call, hashed by what they say.
//!
//! `arguments` is JSON inside a string, and not every client keeps that string.
//! One that got the call as an object, as every client of Anthropic's does,
//! writes it anew when it repeats the answer: other blanks, another order,
//! other escapes. The same call must stay the same node, or each turn with a
//! tool would begin a conversation of its own. So arguments have a form too:
//!
//! - An object's members are in the order of their names, at every depth; of
//!   equal names the last one counts, as readers of JSON have it.
//! - Nothing is left out. To a tool, null, `""` and a missing member differ.
//! - A number is its value. A whole one is an integer however it is written,
//!   `1`, `1.0` or `1e0` and also `-0`: a client in JavaScript knows no other
//!   way and repeats `1.0` as `1`. Any other number, and one beyond 64 bits, is
//!   its double. (An integer above 2⁵³ that a client has rounded is another
//!   value and is not recognised.)
//! - No text, blanks, and `{}` are the same as no arguments: they all call a
//!   tool with nothing, and providers and clients write each of them.
//! - Some servers give the value itself in place of its text, and clients repeat it as a text: it is
//!   the same. (Beyond [`ARGUMENTS_BYTES_MAX`] it is not, because a text of that length is no value.)
//! - What is no JSON, nests deeper than 128 levels, has half a surrogate pair,
//!   or is longer than [`ARGUMENTS_BYTES_MAX`] is hashed as the text it is,
//!   under another tag, so that no text is ever taken for a value.
//!
//! The node keeps the spelling in which it came first, so a request that is put
//! together from the tree has arguments equal in value to those that were sent.
//!
//! Only gateways compute ids; readers take them from the events, and no stored
//! id is computed again. An upgrade from a version that hashed the string gives
//! a message with tool calls another id. Conversations with tools that were open
//! then, or that go on between gateways of both versions, begin anew once.

use hmac::{Hmac, Mac};
use serde::de::DeserializeSeed;
use sha2::Sha256;

use super::form::{Form, Reading, feed_text};

/// Arguments that are read as a value: up to 1 MiB.
///
/// A value of many tiny parts takes some 40 times its text in memory, for as long as it is hashed.
const ARGUMENTS_BYTES_MAX: usize = 1024 * 1024;

/// Whether those arguments say nothing.
pub(super) fn are_none(arguments: &str) -> bool {
    let text = arguments.trim();
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    inner.unwrap_or(text).trim().is_empty()
}

/// The member that they stand in.
pub(super) const NAME: &str = "arguments";

/// Writes arguments that came as a value into the hash.
pub(super) fn feed_value(hash: &mut Hmac<Sha256>, value: &Form<'_>) {
    hash.update(b"a");
    value.feed(hash);
}

/// Writes arguments into the hash: by value, or as the text they are.
pub(super) fn feed(hash: &mut Hmac<Sha256>, arguments: &str) {
    match read(arguments) {
        Some(form) => feed_value(hash, &form),
        None => feed_text(hash, b's', arguments),
    }
}

fn read(arguments: &str) -> Option<Form<'_>> {
    if arguments.len() > ARGUMENTS_BYTES_MAX {
        return None;
    }
    let mut text = serde_json::Deserializer::from_str(arguments);
    let form = Reading::Arguments.deserialize(&mut text).ok()?;
    text.end().ok()?;
    Some(form)
}

/// A number that is not written as an integer.
pub(super) fn number<'a>(value: f64) -> Form<'a> {
    // A double is written without an exponent, and without a fraction where it has none.
    let integer: Option<i128> = value.to_string().parse().ok();
    let fits = |integer: &i128| i64::try_from(*integer).is_ok() || u64::try_from(*integer).is_ok();
    match integer.filter(fits) {
        Some(integer) => Form::Integer(integer),
        None => Form::Double(value.to_bits()),
    }
}

#[cfg(test)]
mod tests {
    use nexus_events::message_id::MessageId;
    use serde_json::{json, value::RawValue};

    use super::super::MessageTree;
    use super::*;

    fn id_of(message: &str) -> MessageId {
        let message = RawValue::from_string(message.to_owned()).unwrap();
        MessageTree::new(&[7; 32]).id(None, &message)
    }

    /// The id of an answer that calls a tool with those arguments.
    fn id(arguments: &str) -> MessageId {
        let function = json!({"name": "f", "arguments": arguments});
        let calls = json!([{"id": "c1", "type": "function", "function": function}]);
        id_of(&json!({"role": "assistant", "tool_calls": calls}).to_string())
    }

    fn assert_same(spellings: &[&str]) {
        for spelling in spellings {
            assert_eq!(id(spelling), id(spellings[0]), "{spelling}");
        }
    }

    fn assert_all_differ(arguments: &[&str]) {
        for (place, one) in arguments.iter().enumerate() {
            for other in &arguments[..place] {
                assert_ne!(id(one), id(other), "{one} {other}");
            }
        }
    }

    #[test]
    fn blanks_order_and_escapes_do_not_count() {
        assert_same(&[
            r#"{"a":1,"b":{"x":[1,2],"y":"caf\u00e9/"}}"#,
            "{ \"b\" : {\"y\": \"café\\/\", \"x\": [1, 2]},\n\t\"a\": 1 }",
            r#"{"a":0,"a":1,"b":{"x":[1,2],"\u0079":"café/"}}"#,
        ]);
    }

    #[test]
    fn numbers_are_their_values() {
        for integer in [
            r#"{"n":1}"#,
            r#"{"n":1.0}"#,
            r#"{"n":1e0}"#,
            r#"{"n":10E-1}"#,
        ] {
            assert_same(&[r#"{"n":1}"#, integer]);
        }
        assert_same(&["[0]", "[-0]", "[0.0]", "[-0.0]"]);
        assert_same(&["[10000000000000000000]", "[1e19]"]);
        assert_same(&["[100000000000000000000]", "[1e20]"]);
        assert_same(&["[0.1]", "[0.10]", "[1e-1]"]);
        assert_all_differ(&[
            "[9007199254740992]",
            "[9007199254740993]",
            "[1]",
            "[1.5]",
            "[-1]",
            "[\"1\"]",
            "[1e300]",
            "[1e301]",
        ]);
    }

    #[test]
    fn nothing_is_left_out_of_an_object() {
        assert_all_differ(&[
            r#"{"a":1}"#,
            r#"{"a":1,"b":null}"#,
            r#"{"a":1,"b":""}"#,
            r#"{"a":1,"b":[]}"#,
            r#"{"a":1,"b":{}}"#,
            r#"{"a":{"b":1}}"#,
            r#"[{"a":1}]"#,
            "null",
            "[]",
            "[null]",
            r#"["a","b"]"#,
            r#"["b","a"]"#,
        ]);
    }

    #[test]
    fn a_value_is_the_same_as_its_text() {
        for arguments in [
            r#"{"city":"Paris","days":1.0,"note":null,"tags":[],"deep":{"empty":{},"arguments":""}}"#,
            r#"{"n":10000000000000000000,"a":0,"a":1}"#,
            "{}",
            "[1,null]",
            "7",
        ] {
            let message = format!(
                r#"{{"role":"assistant","tool_calls":[
                    {{"id":"c1","type":"function","function":{{"name":"f","arguments":{arguments}}}}}]}}"#
            );
            assert_eq!(id_of(&message), id(arguments), "{arguments}");
        }
    }

    #[test]
    fn no_arguments_have_many_spellings() {
        assert_same(&["{}", "", " ", "{ }", "\n{\t}\n"]);
        let without = r#"{"role":"assistant","tool_calls":[
            {"id":"c1","type":"function","function":{"name":"f"}}]}"#;
        assert_eq!(id_of(without), id("{}"));
        assert_all_differ(&["{}", "null", "[]", "{", "}", "{{}}"]);
    }

    #[test]
    fn what_is_no_json_is_its_text() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let number = "[1e400]";
        let half = r#"{"a":"\ud800"}"#;
        for text in ["{\"a\":", "rain", "{} {}", number, half, &deep] {
            assert!(read(text).is_none());
            assert_same(&[text]);
            assert_ne!(id(text), id(&format!("{text} ")));
        }
        let string = |inner: &str| json!(inner).to_string();
        assert_all_differ(&["rain", &string("rain"), &string(&string("rain"))]);
        let long = format!("[\"{}\"]", "x".repeat(ARGUMENTS_BYTES_MAX));
        assert!(read(&long).is_none(), "what is read is bounded");
        assert_ne!(id(&long), id(&format!("{long} ")));
    }

    #[test]
    fn only_the_arguments_of_a_call_are_read() {
        let old = |arguments: &str| {
            let call = json!({"name": "f", "arguments": arguments});
            id_of(&json!({"role": "assistant", "function_call": call}).to_string())
        };
        assert_eq!(old("{\"a\": 1}"), old("{\"a\":1}"));
        let said = |text: &str| {
            id_of(
                &json!({"role": "user", "content": text, "function": {"arguments": text}})
                    .to_string(),
            )
        };
        assert_ne!(said("{\"a\": 1}"), said("{\"a\":1}"));
        let custom = |input: &str| {
            let call = json!({"type": "custom", "custom": {"name": "f", "input": input}});
            id_of(&json!({"role": "assistant", "tool_calls": [call]}).to_string())
        };
        assert_ne!(custom("{\"a\": 1}"), custom("{\"a\":1}"));
    }
}
