//! Objects of a request whose members must all be accounted for.

use std::borrow::Cow;

use nexus_events::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    protocol::openai::{Text, is_null},
    provider::ProviderError,
};

/// An object, and where in the request it stands.
#[derive(Debug)]
pub(in crate::provider) struct Members<'a> {
    path: String,
    members: RawObject<'a>,
}

impl<'a> Members<'a> {
    pub(in crate::provider) fn read(
        path: impl Into<String>,
        raw: &'a RawValue,
    ) -> Result<Self, ProviderError> {
        let path = path.into();
        match RawObject::parse(raw.get().as_bytes()) {
            Ok(members) => Ok(Self { path, members }),
            Err(error) => Err(wrong(&path, "an object").caused_by(error)),
        }
    }

    /// Where a member stands in the request.
    pub(in crate::provider) fn at(&self, name: &str) -> String {
        format!("{}.{name}", self.path)
    }

    /// A member; null is the same as absent.
    pub(in crate::provider) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).filter(|raw| !is_null(raw))
    }

    /// A member that is an object.
    pub(in crate::provider) fn object(&self, name: &str) -> Result<Option<Self>, ProviderError> {
        let raw = self.get(name);
        raw.map(|raw| Self::read(self.at(name), raw)).transpose()
    }

    /// A member that is a string.
    pub(in crate::provider) fn text(
        &self,
        name: &str,
    ) -> Result<Option<Cow<'a, str>>, ProviderError> {
        let raw = self.get(name);
        raw.map(|raw| text(&self.at(name), raw)).transpose()
    }

    /// A member that is a string and must be there.
    pub(in crate::provider) fn required_text(
        &self,
        name: &str,
    ) -> Result<Cow<'a, str>, ProviderError> {
        self.text(name)?
            .ok_or_else(|| wrong(&self.at(name), "a string"))
    }

    /// Refuses members beside the known ones, unless they say nothing.
    pub(in crate::provider) fn only(&self, known: &[&str]) -> Result<(), ProviderError> {
        for (name, value) in self.members.iter() {
            if !known.contains(&name) && !is_void(value) {
                return Err(no_counterpart(&self.at(name)));
            }
        }
        Ok(())
    }
}

/// A value of a type that serde knows.
pub(in crate::provider) fn value<'a, T: Deserialize<'a>>(
    param: &str,
    raw: &'a RawValue,
    expected: &str,
) -> Result<T, ProviderError> {
    serde_json::from_str(raw.get()).map_err(|error| wrong(param, expected).caused_by(error))
}

pub(in crate::provider) fn text<'a>(
    param: &str,
    raw: &'a RawValue,
) -> Result<Cow<'a, str>, ProviderError> {
    value::<Text<'a>>(param, raw, "a string").map(|text| text.0)
}

/// Whether a value says nothing: clients send answers back with members such as `"audio": null`.
pub(in crate::provider) fn is_void(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "[]" | "{}" | "\"\"")
}

pub(in crate::provider) fn wrong(param: &str, expected: &str) -> ProviderError {
    ProviderError::unsupported(param, format!("`{param}` must be {expected}."))
}

pub(in crate::provider) fn no_counterpart(param: &str) -> ProviderError {
    let message = format!("The provider of this model has no counterpart for `{param}`.");
    ProviderError::unsupported(param, message)
}
