//! Reading of a management body member by member, so that an error names the member.

use std::{collections::HashSet, ops::RangeInclusive};

use nexus_events::raw_object::RawObject;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::{cache::TTL_SECONDS_MAX, error::ApiError, protocol::readable};

/// Names of resources have at most 128 characters: they stand in subjects, logs and tables.
const NAME_CHARS_MAX: usize = 128;

/// Secrets and URLs have at most 4 096 characters, more than any provider gives out.
const TEXT_CHARS_MAX: usize = 4096;

/// A member that may be left out, and may be `null`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nullable<T> {
    /// It is not there.
    Absent,
    /// It is `null`.
    Null,
    /// It has a value.
    Value(T),
}

impl<T> Nullable<T> {
    /// The value, if there is one.
    pub fn value(self) -> Option<T> {
        match self {
            Self::Absent | Self::Null => None,
            Self::Value(value) => Some(value),
        }
    }

    /// The same with the value made into something else.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn try_map<U, E>(self, make: impl FnOnce(T) -> Result<U, E>) -> Result<Nullable<U>, E> {
        Ok(match self {
            Self::Absent => Nullable::Absent,
            Self::Null => Nullable::Null,
            Self::Value(value) => Nullable::Value(make(value)?),
        })
    }
}

/// The members of a body that were not read yet.
#[derive(Debug)]
pub struct Fields<'a> {
    object: RawObject<'a>,
    read: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    /// Reads a JSON object in which no member is there twice: the client may have meant either.
    ///
    /// # Errors
    /// 400: the body is no JSON object, or a member is repeated.
    pub fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let object =
            readable::object(body).map_err(|message| ApiError::invalid_request(None, message))?;
        let mut seen = HashSet::new();
        if let Some((name, _)) = object.iter().find(|(name, _)| !seen.insert(*name)) {
            let name = shortened(name);
            let message = format!("The member '{name}' is there more than once.");
            return Err(ApiError::invalid_request(Some(&name), message));
        }
        Ok(Self {
            object,
            read: Vec::new(),
        })
    }

    /// A member that must be there.
    ///
    /// # Errors
    /// 400: it is not.
    pub fn required<T>(&self, name: &'static str, value: Option<T>) -> Result<T, ApiError> {
        value.ok_or_else(|| ApiError::invalid_request(Some(name), format!("'{name}' is required.")))
    }

    /// The name of a resource; `None` when the member is not there.
    ///
    /// # Errors
    /// 400: it is no text of 1 to 128 characters without control characters.
    pub fn name(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let Some(text) = self.typed::<String>(name, "a string")? else {
            return Ok(None);
        };
        let chars = text.chars().count();
        if chars == 0 || chars > NAME_CHARS_MAX {
            return Err(wrong(name, "must have 1 to 128 characters"));
        }
        if text.chars().any(char::is_control) {
            return Err(wrong(name, "must not contain control characters"));
        }
        if text.trim() != text {
            return Err(wrong(name, "must not begin or end with blanks"));
        }
        Ok(Some(text))
    }

    /// The name of a resource that is also found by its id: another one's id for a name would hide it.
    ///
    /// # Errors
    /// 400: it is no name, or looks like an id.
    pub fn name_beside_id(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let text = self.name(name)?;
        if text.as_deref().is_some_and(looks_like_id) {
            return Err(wrong(name, "must not look like an id"));
        }
        Ok(text)
    }

    /// Text of at most 4 096 characters; `None` when the member is not there.
    ///
    /// # Errors
    /// 400: it is no such text.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        let text = self.typed::<String>(name, "a string")?;
        bounded(name, text.as_deref())?;
        Ok(text)
    }

    /// The same for a member that may be `null`.
    ///
    /// # Errors
    /// 400: it is neither such text nor `null`.
    pub fn nullable_text(&mut self, name: &'static str) -> Result<Nullable<String>, ApiError> {
        self.nullable(name, |fields| fields.text(name))
    }

    /// A name, or `null`.
    ///
    /// # Errors
    /// 400: it is neither a name nor `null`.
    pub fn nullable_name(&mut self, name: &'static str) -> Result<Nullable<String>, ApiError> {
        self.nullable(name, |fields| fields.name(name))
    }

    /// A number from 1 up, or `null`.
    ///
    /// # Errors
    /// 400: it is neither a whole number from 1 to 4 294 967 295 nor `null`.
    pub fn nullable_count(&mut self, name: &'static str) -> Result<Nullable<u32>, ApiError> {
        self.nullable(name, |fields| {
            let count = fields.typed(name, "a whole number from 1 up, or null")?;
            if count == Some(0) {
                return Err(wrong(name, "must be at least 1, or null"));
            }
            Ok(count)
        })
    }

    /// A whole number in a range.
    ///
    /// # Errors
    /// 400: it is none, or outside.
    pub fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        let number = self.typed::<u64>(name, &expected)?;
        if number.is_some_and(|number| !range.contains(&number)) {
            return Err(wrong(name, &format!("must be {expected}")));
        }
        Ok(number)
    }

    /// The same, or `null`.
    ///
    /// # Errors
    /// 400: it is neither such a number nor `null`.
    pub fn nullable_number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<u64>,
    ) -> Result<Nullable<u64>, ApiError> {
        self.nullable(name, |fields| fields.number(name, range))
    }

    fn nullable<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, ApiError>,
    ) -> Result<Nullable<T>, ApiError> {
        if self.object.get(name).is_some_and(|raw| raw.get() == "null") {
            self.read.push(name);
            return Ok(Nullable::Null);
        }
        Ok(read(self)?.map_or(Nullable::Absent, Nullable::Value))
    }

    /// `cache_ttl_seconds`: how long answers may be kept, 0 for not at all, or `null`.
    ///
    /// # Errors
    /// 400: it is neither such a number nor `null`.
    pub fn cache_ttl(&mut self) -> Result<Nullable<u32>, ApiError> {
        let range = 0..=u64::from(TTL_SECONDS_MAX);
        self.nullable_number("cache_ttl_seconds", range)?
            .try_map(|seconds| {
                let fits = u32::try_from(seconds);
                fits.map_err(|_range| wrong("cache_ttl_seconds", "must be smaller"))
            })
    }

    /// A member of any type; `expected` says in words what it should be.
    ///
    /// # Errors
    /// 400: it is not that.
    pub fn typed<T: DeserializeOwned>(
        &mut self,
        name: &'static str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        self.read.push(name);
        let Some(raw) = self.object.get(name) else {
            return Ok(None);
        };
        parse(raw)
            .map(Some)
            .ok_or_else(|| wrong(name, &format!("must be {expected}")))
    }

    /// Refuses members that nobody has read: a typing error would else go unnoticed.
    ///
    /// # Errors
    /// 400: there is such a member.
    pub fn finish(self) -> Result<(), ApiError> {
        let unknown = self
            .object
            .iter()
            .find(|(name, _)| !self.read.contains(name));
        match unknown {
            None => Ok(()),
            Some((name, _)) => {
                let name = shortened(name);
                let message = format!(
                    "Unknown member '{name}'; known are: {}.",
                    self.read.join(", ")
                );
                Err(ApiError::invalid_request(Some(&name), message))
            }
        }
    }
}

/// Whether a name can be taken for an id, in any of its spellings.
pub fn looks_like_id(name: &str) -> bool {
    uuid::Uuid::parse_str(name).is_ok()
}

/// A client's own word for a member, in an error that should stay readable.
fn shortened(name: &str) -> String {
    name.chars().take(NAME_CHARS_MAX).collect()
}

fn parse<T: DeserializeOwned>(raw: &RawValue) -> Option<T> {
    serde_json::from_str(raw.get()).ok()
}

fn bounded(name: &str, text: Option<&str>) -> Result<(), ApiError> {
    if text.is_some_and(|text| text.chars().count() > TEXT_CHARS_MAX) {
        return Err(wrong(name, "must have at most 4096 characters"));
    }
    Ok(())
}

/// 400: a member is wrong; `why` goes on after its name.
pub fn wrong(name: &str, why: &str) -> ApiError {
    ApiError::invalid_request(Some(name), format!("'{name}' {why}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn param(error: &ApiError) -> Option<&str> {
        assert_eq!(error.status, http::StatusCode::BAD_REQUEST);
        error.param.as_deref()
    }

    #[test]
    fn an_error_names_the_member() {
        for body in [
            r#"{"name":""}"#,
            r#"{"name":7}"#,
            r#"{"name":"a\u0007"}"#,
            r#"{"name":null}"#,
            r#"{"name":" a"}"#,
        ] {
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            assert_eq!(
                param(&fields.name("name").unwrap_err()),
                Some("name"),
                "{body}"
            );
        }
        let long = format!(r#"{{"name":"{}"}}"#, "ä".repeat(129));
        let mut fields = Fields::parse(long.as_bytes()).unwrap();
        assert!(fields.name("name").is_err());
        for body in [
            r#"{"rate_limit":0}"#,
            r#"{"rate_limit":-1}"#,
            r#"{"rate_limit":"9"}"#,
            r#"{"rate_limit":1.5}"#,
        ] {
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            let error = fields.nullable_count("rate_limit").unwrap_err();
            assert_eq!(param(&error), Some("rate_limit"), "{body}");
        }
    }

    #[test]
    fn null_is_told_from_absence() {
        let mut fields = Fields::parse(br#"{"a":null,"b":2}"#).unwrap();
        assert_eq!(fields.nullable_count("a").unwrap(), Nullable::Null);
        assert_eq!(fields.nullable_count("b").unwrap(), Nullable::Value(2));
        assert_eq!(fields.nullable_count("c").unwrap(), Nullable::Absent);
        fields.finish().unwrap();
    }

    #[test]
    fn what_is_no_object_or_has_an_unknown_member_is_refused() {
        for body in ["", "[]", "7", "{", "{}x", "\u{0}"] {
            let error = Fields::parse(body.as_bytes()).unwrap_err();
            assert_eq!(param(&error), None, "{body}");
        }
        assert!(Fields::parse(b"{\"a\xff\":1}").is_err());
        let mut fields = Fields::parse(br#"{"name":"a","nmae":"b"}"#).unwrap();
        fields.name("name").unwrap();
        assert_eq!(param(&fields.finish().unwrap_err()), Some("nmae"));
    }
}
