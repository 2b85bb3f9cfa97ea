//! Bodies of provider calls: what they may say, checked member by member.

use crate::{
    admin::fields::{Fields, Nullable, wrong},
    error::ApiError,
    provider::{KINDS, default_url, ernie_v1},
    settings::Secret,
};

/// The body of a creation.
#[derive(Debug)]
pub(crate) struct New {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) server_url: String,
    pub(crate) server_key: Option<Secret>,
    pub(crate) rate_limit: Option<u32>,
}

impl New {
    pub(crate) fn parse(body: &[u8]) -> Result<(Self, Vec<&'static str>), ApiError> {
        let mut fields = Fields::parse(body)?;
        let change = Change::read(&mut fields)?;
        let mut changed = vec!["name", "kind", "server_url"];
        let name = fields.required("name", change.name)?;
        let kind = change.kind.unwrap_or_else(|| "openai".to_owned());
        let server_url = change
            .server_url
            .or_else(|| default_url(&kind).map(str::to_owned));
        let server_url = fields.required("server_url", server_url)?;
        check_url(&kind, &server_url)?;
        let server_key = change.server_key.value();
        check_key(&kind, server_key.as_ref())?;
        changed.extend(server_key.as_ref().map(|_| "server_key"));
        let rate_limit = change.rate_limit.value();
        changed.extend(rate_limit.map(|_| "rate_limit"));
        fields.finish()?;
        let new = Self {
            name,
            kind,
            server_url,
            server_key,
            rate_limit,
        };
        Ok((new, changed))
    }
}

/// The body of a change: what it names.
pub(super) struct Change {
    pub(super) name: Option<String>,
    pub(super) kind: Option<String>,
    pub(super) server_url: Option<String>,
    pub(super) server_key: Nullable<Secret>,
    pub(super) rate_limit: Nullable<u32>,
}

impl Change {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let change = Self::read(&mut fields)?;
        fields.finish()?;
        Ok(change)
    }

    fn read(fields: &mut Fields<'_>) -> Result<Self, ApiError> {
        let name = fields.name_beside_id("name")?;
        let kind = fields.text("kind")?;
        if kind.as_deref().is_some_and(|kind| !KINDS.contains(&kind)) {
            return Err(wrong(
                "kind",
                &format!("must be one of: {}", KINDS.join(", ")),
            ));
        }
        let server_url = fields.text("server_url")?;
        let server_key = fields.nullable_text("server_key")?;
        if let Nullable::Value(key) = &server_key
            && (key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            // It goes into a header as it is.
            return Err(wrong(
                "server_key",
                "must be printable ASCII without blanks, or null",
            ));
        }
        Ok(Self {
            name,
            kind,
            server_url,
            server_key: server_key.try_map(|key| Ok::<_, ApiError>(Secret::new(key)))?,
            rate_limit: fields.nullable_count("rate_limit")?,
        })
    }
}

/// Parameters of an address that are secrets at the providers there are.
const SECRETS: [&str; 6] = [
    "key",
    "api_key",
    "api-key",
    "apikey",
    "token",
    "access_token",
];

/// An absolute http or https address; the built-in echo has none.
pub(super) fn check_url(kind: &str, text: &str) -> Result<(), ApiError> {
    if kind == "echo" && text.is_empty() {
        return Ok(());
    }
    let url = url::Url::parse(text).ok().filter(|url| {
        let has_user = !url.username().is_empty() || url.password().is_some();
        matches!(url.scheme(), "http" | "https") && url.has_host() && !has_user
    });
    let url = url.ok_or_else(|| {
        wrong(
            "server_url",
            "must be an absolute http or https URL without user information",
        )
    })?;
    // The address is shown and stands in the log.
    let names_secret = |name: &str| SECRETS.contains(&name.to_ascii_lowercase().as_str());
    if url.query_pairs().any(|(name, _)| names_secret(&name)) {
        return Err(wrong(
            "server_url",
            "must not carry a secret in its query: give it as server_key",
        ));
    }
    Ok(())
}

/// A key of the form that the kind wants, where it wants one.
pub(super) fn check_key(kind: &str, key: Option<&Secret>) -> Result<(), ApiError> {
    let is_pair = |key: &Secret| ernie_v1::key_pair(key.expose()).is_some();
    if kind == "ernie_v1" && !key.is_some_and(is_pair) {
        return Err(wrong("server_key", "must be API_KEY:SECRET_KEY"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn wrong_member(body: &str) -> String {
        let error = New::parse(body.as_bytes()).expect_err(body);
        assert_eq!(error.status, StatusCode::BAD_REQUEST, "{body}");
        error.param.unwrap_or_default()
    }

    #[test]
    fn a_body_that_is_wrong_is_refused_by_the_name_of_its_member() {
        let cases = [
            (r"{}", "name"),
            (r#"{"name":"a"}"#, "server_url"),
            (r#"{"name":"a","server_url":"ftp://x"}"#, "server_url"),
            (r#"{"name":"a","server_url":"/v1"}"#, "server_url"),
            (r#"{"name":"a","server_url":"http://u:p@x"}"#, "server_url"),
            (r#"{"name":"a","server_url":"http://:p@x"}"#, "server_url"),
            (
                r#"{"name":"a","server_url":"http://x?API_KEY=p"}"#,
                "server_url",
            ),
            (r#"{"name":"a","server_url":7}"#, "server_url"),
            (r#"{"name":"a","kind":"ernie_v1"}"#, "server_key"),
            (
                r#"{"name":"a","kind":"ernie_v1","server_key":"one"}"#,
                "server_key",
            ),
            (
                r#"{"name":"a","server_url":"http://x","kind":"grpc"}"#,
                "kind",
            ),
            (
                r#"{"name":"a","server_url":"http://x","rate_limit":0}"#,
                "rate_limit",
            ),
            (
                r#"{"name":"a","server_url":"http://x","server_key":"a\nb"}"#,
                "server_key",
            ),
            (r#"{"name":"a","server_url":"http://x","id":"1"}"#, "id"),
            (
                r#"{"name":"0199c0de-0000-7000-8000-000000000001","server_url":"http://x"}"#,
                "name",
            ),
        ];
        for (body, member) in cases {
            assert_eq!(wrong_member(body), member, "{body}");
        }
    }

    #[test]
    fn a_kind_with_one_address_for_everybody_needs_none() {
        for kind in KINDS {
            let body = format!(r#"{{"name":"a","kind":"{kind}","server_key":"a:b"}}"#);
            let url = New::parse(body.as_bytes()).map(|(new, _)| new.server_url);
            assert_eq!(url.ok().as_deref(), default_url(kind), "{kind}");
        }
    }

    #[test]
    fn a_body_says_what_it_sets() {
        let body = br#"{"name":"a","server_url":"https://x/v1","server_key":"sk-1"}"#;
        let (new, changed) = New::parse(body).unwrap();
        assert_eq!(new.kind, "openai");
        assert_eq!(changed, ["name", "kind", "server_url", "server_key"]);
        let change = Change::parse(br#"{"server_key":null,"rate_limit":5}"#).unwrap();
        assert_eq!(change.server_key, Nullable::Null);
        assert_eq!(change.rate_limit, Nullable::Value(5));
        assert_eq!(change.name, None);
    }
}
