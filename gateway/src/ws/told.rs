//! What HTTP tells in headers, as members of frames.

use http::HeaderMap;
use serde::{Serialize, Serializer};

/// What the names of the headers about limits begin with.
const PREFIX: &str = "x-ratelimit-";

/// How the limits stand: each header `x-ratelimit-…` as a member, numbers as numbers.
#[derive(Debug)]
pub(super) struct Limits<'a>(pub(super) Option<&'a HeaderMap>);

impl Limits<'_> {
    /// Whether no limit holds.
    pub(super) fn is_empty(&self) -> bool {
        self.members().next().is_none()
    }

    fn members(&self) -> impl Iterator<Item = (String, &str)> {
        self.0.into_iter().flatten().filter_map(|(name, value)| {
            let name = name.as_str().strip_prefix(PREFIX)?;
            Some((name.replace('-', "_"), value.to_str().ok()?))
        })
    }
}

impl Serialize for Limits<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Value<'a> {
            Number(u64),
            Text(&'a str),
        }
        serializer.collect_map(self.members().map(|(name, text)| {
            let value = text.parse().map_or(Value::Text(text), Value::Number);
            (name, value)
        }))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn headers_about_limits_are_members_and_others_are_not() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("retry-after", "3"),
            ("x-ratelimit-remaining-requests", "7"),
            ("x-ratelimit-reset-requests", "1.5s"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let limits = Limits(Some(&headers));
        assert!(!limits.is_empty());
        let told = serde_json::to_value(limits).unwrap();
        let expected = serde_json::json!({"remaining_requests": 7, "reset_requests": "1.5s"});
        assert_eq!(told, expected);
        headers.clear();
        assert!(Limits(Some(&headers)).is_empty() && Limits(None).is_empty());
    }
}
