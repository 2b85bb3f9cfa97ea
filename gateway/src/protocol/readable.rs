//! Whether every reader of JSON can read a value.
//!
//! What clients and providers send is carried as raw text, and raw text may be
//! JSON by its grammar and yet break readers: nested deeper than their stack
//! allows, half a surrogate pair, a number beyond all ranges. In the log it
//! would break subscribers, and answers of the management API the consoles that
//! show them. So it is refused at both doors.

use std::fmt;

use nexus_events::raw_object::RawObject;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Levels of nesting: 100.
///
/// Common readers stop at 128, and an event adds five of its own around what a
/// client sent. The deepest schemas of tools seen have some twenty.
pub const DEPTH_MAX: u8 = 100;

/// Reads a value to its end and keeps nothing of it.
///
/// # Errors
/// Some reader could not read it; the error says why.
pub fn check(json: &RawValue) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_str(json.get());
    Level(DEPTH_MAX).deserialize(&mut reader)
}

/// What is wrong with JSON, in words for a client: without the position in a text that it has not
/// written by hand.
pub fn words(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((words, _)) if error.line() > 0 => words.to_owned(),
        _ => text,
    }
}

/// Reads a body that is a JSON object.
///
/// # Errors
/// The sentence for the client.
pub fn object(body: &[u8]) -> Result<RawObject<'_>, String> {
    RawObject::parse(body).map_err(|error| match std::str::from_utf8(body) {
        Ok(_) => format!("The body is not a JSON object: {}.", words(&error)),
        Err(_) => "The body is not UTF-8.".to_owned(),
    })
}

/// How many more levels there may be.
#[derive(Clone, Copy)]
struct Level(u8);

impl Level {
    fn below<E: Error>(self) -> Result<Self, E> {
        let below = self.0.checked_sub(1).map(Self);
        below.ok_or_else(|| E::custom(format_args!("nested deeper than {DEPTH_MAX} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Level {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while items.next_element_seed(below)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let below = self.below()?;
        while members.next_entry_seed(below, below)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(json: &str) -> bool {
        check(serde_json::from_str(json).unwrap()).is_ok()
    }

    #[test]
    fn ordinary_values_are_readable() {
        for json in [
            "null",
            "[true, -1, 18446744073709551615, 1.5e300, \"\\ud83c\\udf0a \\u0000\"]",
            r#"{"a": {"b": [{}, [], ""]}}"#,
        ] {
            assert!(is_readable(json), "{json}");
        }
    }

    #[test]
    fn what_breaks_readers_is_not() {
        for json in [
            "1e999",
            r#""\ud800""#,
            r#"{"\udc00": 1}"#,
            r#"["fine", {"a": "\ud800x"}]"#,
        ] {
            assert!(!is_readable(json), "{json}");
        }
    }

    #[test]
    fn depth_has_a_bound_and_no_effect_on_the_stack() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let deepest = usize::from(DEPTH_MAX);
        assert!(is_readable(&nested(deepest)));
        assert!(!is_readable(&nested(deepest + 1)));
        assert!(!is_readable(&nested(1_000_000)));
    }
}
