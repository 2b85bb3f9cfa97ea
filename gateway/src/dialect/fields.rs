//! Objects of a request whose members must all be accounted for.

use std::borrow::Cow;

use nexus_events::raw_object::RawObject;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::protocol::{
    at_most::AtMost,
    openai::{
        Text, is_null,
        request::{self, BadRequest, MESSAGES_MAX},
    },
};

/// An object, and where in the request it stands.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    path: String,
    raw: &'a RawValue,
    members: RawObject<'a>,
}

impl<'a> Fields<'a> {
    /// A request's body.
    pub(super) fn of_body(body: &'a [u8]) -> Result<Self, BadRequest> {
        Ok(Self {
            path: String::new(),
            raw: RawValue::NULL,
            members: request::members(body)?,
        })
    }

    /// Its members.
    pub(super) const fn members(&self) -> &RawObject<'a> {
        &self.members
    }

    pub(super) fn read(path: String, raw: &'a RawValue) -> Result<Self, BadRequest> {
        match RawObject::parse(raw.get().as_bytes()) {
            Ok(members) => Ok(Self { path, raw, members }),
            Err(_) => Err(wrong(&path, "an object")),
        }
    }

    /// Where a member stands in the request.
    pub(super) fn at(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    /// The object as it came.
    pub(super) const fn raw(&self) -> &'a RawValue {
        self.raw
    }

    /// A member; null is the same as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).filter(|raw| !is_null(raw))
    }

    /// A member of a type that serde knows.
    pub(super) fn value<T: Deserialize<'a>>(
        &self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, BadRequest> {
        let raw = self.get(name);
        raw.map(|raw| serde_json::from_str(raw.get()))
            .transpose()
            .map_err(|_rust_names: serde_json::Error| wrong(&self.at(name), expected))
    }

    /// A member that is a string.
    pub(super) fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, BadRequest> {
        let text = self.value::<Text<'a>>(name, "a string")?;
        Ok(text.map(|text| text.0))
    }

    /// A member that is a string and must be there.
    pub(super) fn required_text(&self, name: &str) -> Result<Cow<'a, str>, BadRequest> {
        let text = self.text(name)?;
        text.ok_or_else(|| wrong(&self.at(name), "a string"))
    }

    /// A member that is `true` or `false`.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, BadRequest> {
        self.value(name, "a boolean")
    }

    /// A member that counts something, of one at least.
    pub(super) fn count(&self, name: &str) -> Result<Option<u64>, BadRequest> {
        let expected = "a whole number above zero";
        match self.value(name, expected)? {
            Some(0) => Err(wrong(&self.at(name), expected)),
            count => Ok(count),
        }
    }

    /// A member that is a number, passed on as it came.
    pub(super) fn number(&self, name: &str) -> Result<Option<&'a RawValue>, BadRequest> {
        self.value::<f64>(name, "a number")?;
        Ok(self.get(name))
    }

    /// A member that is an object.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, BadRequest> {
        let raw = self.get(name);
        raw.map(|raw| Self::read(self.at(name), raw)).transpose()
    }

    /// A member that is an object and must be there.
    pub(super) fn required_object(&self, name: &str) -> Result<Self, BadRequest> {
        let object = self.object(name)?;
        object.ok_or_else(|| wrong(&self.at(name), "an object"))
    }

    /// A member that is an array of objects.
    pub(super) fn objects(&self, name: &str) -> Result<Vec<Self>, BadRequest> {
        let items: Option<AtMost<&RawValue, MESSAGES_MAX>> =
            self.value(name, "an array of objects")?;
        let items = items.map_or_else(Vec::new, |items| items.0);
        let at = self.at(name);
        if items.len() > MESSAGES_MAX {
            let expected = format!("an array of at most {MESSAGES_MAX} objects");
            return Err(wrong(&at, &expected));
        }
        let items = items.into_iter().enumerate();
        items
            .map(|(index, raw)| Self::read(format!("{at}[{index}]"), raw))
            .collect()
    }

    /// Refuses members beside the known ones, unless they say nothing.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), BadRequest> {
        for (name, value) in self.members.iter() {
            if !known.contains(&name) && !is_void(value) {
                return Err(no_counterpart(&self.at(name)));
            }
        }
        Ok(())
    }
}

/// Whether a value says nothing.
fn is_void(raw: &RawValue) -> bool {
    matches!(raw.get(), "null" | "[]" | "{}" | "\"\"")
}

pub(super) fn wrong(param: &str, expected: &str) -> BadRequest {
    BadRequest::new(param, format!("`{param}` must be {expected}."))
}

pub(super) fn no_counterpart(param: &str) -> BadRequest {
    let message = format!("The hub has no counterpart for `{param}` here.");
    BadRequest::new(param, message)
}

/// No provider that offers the model can carry a member.
pub(super) fn no_candidate(param: &str) -> BadRequest {
    let message = format!("No provider of this model can take `{param}`.");
    BadRequest::new(param, message)
}
