//! Lists whose length is bounded while they are read.
//!
//! A body of 32 MiB holds ten million tiny items, and each costs many times its
//! text in memory. So what is beyond a bound is read and not kept; one item
//! more than the bound is, for whoever refuses the list to see.

use std::{borrow::Cow, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};

use super::openai::Text;

/// Words that end an answer: 64, four times what any provider takes.
pub const STOPS_MAX: usize = 64;

/// A list, of which `MAX` + 1 items are kept at most.
#[derive(Debug)]
pub struct AtMost<T, const MAX: usize>(pub Vec<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for AtMost<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items<T, const MAX: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Items<T, MAX> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                items::<A, T, MAX>(seq)
            }
        }
        deserializer
            .deserialize_seq(Items::<T, MAX>(PhantomData))
            .map(Self)
    }
}

/// Reads such a list where a type wants the items alone.
///
/// # Errors
/// It is no list of those items.
pub fn list<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    AtMost::<T, MAX>::deserialize(deserializer).map(|list| list.0)
}

/// The same of a list that may be null.
///
/// # Errors
/// It is neither null nor a list of those items.
pub fn optional<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Option::<AtMost<T, MAX>>::deserialize(deserializer)?;
    Ok(list.map(|list| list.0))
}

/// One text or a list of texts, of which `MAX` + 1 are kept at most.
#[derive(Debug)]
pub struct Texts<'a, const MAX: usize>(pub Vec<Cow<'a, str>>);

impl<'de: 'a, 'a, const MAX: usize> Deserialize<'de> for Texts<'a, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct One<const MAX: usize>;
        impl<'de, const MAX: usize> Visitor<'de> for One<MAX> {
            type Value = Vec<Cow<'de, str>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or an array of strings")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(vec![Cow::Borrowed(text)])
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(vec![Cow::Owned(text.to_owned())])
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                let texts = items::<A, Text<'de>, MAX>(seq)?;
                Ok(texts.into_iter().map(|text| text.0).collect())
            }
        }
        deserializer.deserialize_any(One::<MAX>).map(Self)
    }
}

fn items<'de, A: SeqAccess<'de>, T: Deserialize<'de>, const MAX: usize>(
    mut seq: A,
) -> Result<Vec<T>, A::Error> {
    let mut items = Vec::new();
    while items.len() <= MAX {
        match seq.next_element()? {
            Some(item) => items.push(item),
            None => return Ok(items),
        }
    }
    while seq.next_element::<IgnoredAny>()?.is_some() {}
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_item_more_than_the_bound_is_kept_and_the_rest_is_read() {
        let read = |json: &str| serde_json::from_str::<AtMost<u8, 2>>(json).map(|list| list.0);
        assert!(read("[]").unwrap().is_empty());
        assert_eq!(read("[1,2]").unwrap(), [1, 2]);
        assert_eq!(read("[1,2,3,4,5]").unwrap(), [1, 2, 3]);
        assert!(read("[1,2,3,4").is_err() && read("{}").is_err() && read("7").is_err());
    }

    #[test]
    fn one_text_or_several() {
        let read = |json: &'static str| {
            let texts = serde_json::from_str::<Texts<'static, 2>>(json);
            texts.map(|texts| texts.0.join("|"))
        };
        assert_eq!(read(r#""a\n""#).unwrap(), "a\n");
        assert_eq!(read(r#"["a","b"]"#).unwrap(), "a|b");
        assert_eq!(read(r#"["a","b","c","d"]"#).unwrap(), "a|b|c");
        assert!(read("[1]").is_err() && read("7").is_err() && read("null").is_err());
    }
}
