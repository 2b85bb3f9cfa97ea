//! Secrets in a request's parameters, which no event may hold.
//!
//! Some parameters carry keys of other services: Azure's `data_sources`, the `headers` and the
//! `authorization` of an MCP tool, an `api_key` that was meant for somebody else. The provider
//! gets them as they came; the log, which nobody can un-write, gets [`REDACTED`] in their place.
//!
//! What a secret is, its name says: one that ends like a listed one, in any case, with or without
//! `-` and `_`; a `key` or `token` of an authentication; every value below `headers`. Only texts
//! and numbers are replaced, so a JSON Schema with a property `password` stays as it was.
//!
//! All else is copied as it was written. A value is walked through once, without recursion: its
//! depth is its client's choice.

use nexus_events::raw_object::RawObject;
use serde_json::value::RawValue;

/// What stands in an event in place of a secret, as JSON.
const REDACTED: &str = r#""[redacted]""#;

/// Endings of the names of secrets, in lower case, without `-` and `_`.
const SECRETS: [&[u8]; 21] = [
    b"accesskey",
    b"accesstoken",
    b"apikey",
    b"authorization",
    b"authorizationtoken",
    b"authtoken",
    b"bearertoken",
    b"connectionstring",
    b"cookie",
    b"credential",
    b"credentials",
    b"passphrase",
    b"passwd",
    b"password",
    b"privatekey",
    b"refreshtoken",
    b"secret",
    b"secretkey",
    b"securitytoken",
    b"sessiontoken",
    b"subscriptionkey",
];

/// Members of a JSON Schema whose own members have names that it describes.
const SCHEMAS: [&[u8]; 7] = [
    b"$defs",
    b"definitions",
    b"dependencies",
    b"dependentrequired",
    b"dependentschemas",
    b"patternproperties",
    b"properties",
];

/// Letters of a name that are looked at, from its end: 24, more than any listed one has.
const LETTERS: usize = 24;

/// The parameters that hold secrets, rewritten.
pub(super) struct Redacted {
    values: Vec<(usize, Box<RawValue>)>,
}

impl Redacted {
    /// Looks through all parameters; allocates nothing where there are none to rewrite.
    pub(super) fn of(parameters: &RawObject<'_>) -> Self {
        let rewritten = |(place, (name, value)): (usize, (&str, &RawValue))| {
            let text = Walk::of(value.get()).rewritten(name)?;
            // Texts in place of texts and numbers: it is JSON as before.
            Some((place, RawValue::from_string(text).unwrap_or_default()))
        };
        let members = parameters.iter().enumerate();
        let values = members.filter_map(rewritten).collect();
        Self { values }
    }

    /// The parameters as an event may have them.
    pub(super) fn parameters<'b>(&'b self, parameters: &'b RawObject<'_>) -> RawObject<'b> {
        let mut redacted = RawObject::default();
        let mut values = self.values.iter().peekable();
        for (place, (name, value)) in parameters.iter().enumerate() {
            let rewritten = values.next_if(|(at, _)| *at == place);
            redacted.push(name, rewritten.map_or(value, |(_, value)| value));
        }
        redacted
    }
}

/// What an object's members are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Members with names that say what they are.
    Plain,
    /// Members that a JSON Schema describes, whatever their names.
    Schema,
    /// Members of what authenticates.
    Authentication,
    /// Headers: nobody knows which of them are secret.
    Headers,
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place {
    /// What its members are, if it has any.
    inside: Inside,
    /// Whether it is a secret, if it is a text or a number.
    is_secret: bool,
}

impl Place {
    /// The place of that member.
    fn of_member(around: Inside, name: &str) -> Self {
        let mut letters = [0; LETTERS];
        let name = normal(name, &mut letters);
        let is_secret = SECRETS.iter().any(|secret| name.ends_with(secret));
        let (inside, is_secret) = match (around, name) {
            (Inside::Headers, _) => (Inside::Headers, true),
            (Inside::Schema, _) => (Inside::Plain, is_secret),
            (Inside::Plain | Inside::Authentication, b"headers" | b"extraheaders") => {
                (Inside::Headers, true)
            }
            (Inside::Authentication, b"key" | b"token" | b"value") => (around, true),
            (_, b"authentication" | b"auth") => (Inside::Authentication, is_secret),
            (_, name) if SCHEMAS.contains(&name) => (Inside::Schema, is_secret),
            _ if is_secret => (Inside::Authentication, true),
            _ => (around, false),
        };
        Self { inside, is_secret }
    }
}

/// The end of a name, without `-` and `_`, in lower case.
fn normal<'l>(name: &str, letters: &'l mut [u8; LETTERS]) -> &'l [u8] {
    let mut free = LETTERS;
    let said = name
        .bytes()
        .rev()
        .filter(|byte| !matches!(byte, b'-' | b'_'));
    for (letter, byte) in letters.iter_mut().rev().zip(said) {
        *letter = byte.to_ascii_lowercase();
        free -= 1;
    }
    letters.get(free..).unwrap_or_default()
}

/// An object or list that is not closed yet.
struct Open {
    is_object: bool,
    /// Of an object what its members are; of a list the place of each item.
    place: Place,
}

/// One walk through a value, which is JSON.
struct Walk<'t> {
    text: &'t str,
    open: Vec<Open>,
    /// Bytes that were copied or replaced.
    done: usize,
    copy: String,
}

impl<'t> Walk<'t> {
    const fn of(text: &'t str) -> Self {
        Self {
            text,
            open: Vec::new(),
            done: 0,
            copy: String::new(),
        }
    }

    /// The value of that member without its secrets; `None` if it has none.
    fn rewritten(mut self, name: &str) -> Option<String> {
        let mut place = Place::of_member(Inside::Plain, name);
        let (mut at, mut is_name) = (0, false);
        while let Some(byte) = self.text.as_bytes().get(at) {
            let begins = at;
            at += 1;
            match byte {
                b'{' | b'[' => {
                    is_name = *byte == b'{';
                    place = self.opened(is_name, place);
                }
                b'}' | b']' => drop(self.open.pop()),
                b',' => {
                    if let Some(open) = self.open.last() {
                        (is_name, place) = (open.is_object, open.place);
                    }
                }
                b'"' if is_name => {
                    at = self.end_of_text(at);
                    is_name = false;
                    place = Place::of_member(place.inside, &self.name(begins, at));
                }
                b'"' => {
                    at = self.end_of_text(at);
                    self.scalar(place, begins, at);
                }
                b'-' | b'0'..=b'9' => {
                    at = self.end_of_number(at);
                    self.scalar(place, begins, at);
                }
                // Blanks, colons, and the letters of `true`, `false` and `null`.
                _ => {}
            }
        }
        if self.done == 0 {
            return None;
        }
        self.copy.push_str(self.text.get(self.done..)?);
        Some(self.copy)
    }

    /// Notes what begins; gives the place of its first value.
    fn opened(&mut self, is_object: bool, mut place: Place) -> Place {
        let around = self.open.last().map(|open| open.place.inside);
        if !is_object && around == Some(Inside::Schema) {
            // Names that a property requires.
            place.is_secret = false;
        }
        self.open.push(Open { is_object, place });
        place
    }

    fn scalar(&mut self, place: Place, begins: usize, ends: usize) {
        if place.is_secret {
            let before = self.text.get(self.done..begins);
            self.copy.push_str(before.unwrap_or_default());
            self.copy.push_str(REDACTED);
            self.done = ends;
        }
    }

    /// A name, without its quotes.
    fn name(&self, begins: usize, ends: usize) -> std::borrow::Cow<'t, str> {
        let quoted = self.text.get(begins..ends).unwrap_or_default();
        if quoted.contains('\\') {
            return serde_json::from_str(quoted).unwrap_or_default();
        }
        quoted.trim_matches('"').into()
    }

    /// The byte after a text that has begun.
    fn end_of_text(&self, mut at: usize) -> usize {
        let bytes = self.text.as_bytes();
        while let Some(found) = memchr::memchr2(b'"', b'\\', bytes.get(at..).unwrap_or_default()) {
            at += found + 1;
            if bytes.get(at - 1) == Some(&b'"') {
                return at;
            }
            at += 1;
        }
        bytes.len()
    }

    /// The byte after a number that has begun.
    fn end_of_number(&self, at: usize) -> usize {
        let rest = self.text.as_bytes().get(at..).unwrap_or_default();
        let is_over = |byte: &u8| !matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        at + rest.iter().position(is_over).unwrap_or(rest.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(body: &str) -> String {
        let parameters = RawObject::parse(body.as_bytes()).unwrap();
        let redacted = Redacted::of(&parameters);
        serde_json::to_string(&redacted.parameters(&parameters)).unwrap()
    }

    /// Every `SECRET` is replaced, and nothing else is touched.
    fn hides(body: &str) {
        let expected = body
            .replace("\"SECRET\"", REDACTED)
            .replace("-13.5e1", REDACTED);
        assert_ne!(expected, body);
        assert_eq!(redacted(body), expected);
    }

    fn keeps(body: &str) {
        assert_eq!(redacted(body), body);
    }

    #[test]
    fn keys_of_data_sources_are_hidden() {
        hides(
            r#"{"data_sources":[{"type":"azure_search","parameters":{"top_n":1.10,"authentication":
            {"type":"api_key", "key":"SECRET"},"index_name":"key"}}],"temperature":1.0}"#,
        );
        hides(
            r#"{"data_sources":[{"authentication":{"connection_string":"SECRET","key_id":"a"}}]}"#,
        );
        hides(r#"{"data_sources":[{"authentication":{"encoded_api_key":"SECRET"}}]}"#);
        hides(r#"{"data_sources":[{"authentication":{"oauth":{"access_token":"SECRET"}}}]}"#);
    }

    #[test]
    fn headers_and_authorization_of_tools_are_hidden() {
        hides(
            r#"{"tools":[{"type":"mcp","server_url":"https://a/b","headers":{"Authorization":"SECRET",
            "X-Mine":"SECRET","Accept":["SECRET"]},"allowed_tools":["a","b"]}]}"#,
        );
        hides(r#"{"tools":[{"type":"mcp","authorization":"SECRET","server_label":"a"}]}"#);
        hides(
            r#"{"mcp_servers":[{"authorization_token":"SECRET"}],"extra_headers":{"a":"SECRET"}}"#,
        );
        hides(r#"{"tools":[{"authorization":{"type":"bearer","token":"SECRET"}}],"seed":1}"#);
    }

    #[test]
    fn names_of_secrets_are_known_in_every_spelling() {
        for name in [
            "authorization",
            "Proxy-Authorization",
            "api_key",
            "API-Key",
            "x-api-key",
            "apikey",
            "apiKey",
            "OPENAI_API_KEY",
            "x-goog-api-key",
            "Ocp-Apim-Subscription-Key",
            "access_token",
            "refresh_token",
            "client_secret",
            "password",
            "secret_key",
            "aws_secret_access_key",
            "aws_session_token",
            "private_key",
            r"api\u005fkey",
        ] {
            let inner = format!(r#"{{"metadata":{{"a":"\"","{name}" : "SECRET","b":"c\\"}}}}"#);
            let hidden = inner.replace("\"SECRET\"", REDACTED);
            assert_eq!(redacted(&inner), hidden, "{name}");
        }
        hides(r#"{"api_key":"SECRET","top_p":0.50}"#);
        hides(r#"{"top_p":0.50,"password":-13.5e1}"#);
        hides(r#"{"a":{"password":-13.5e1,"api_key":["SECRET","SECRET"]}}"#);
    }

    #[test]
    fn what_a_schema_describes_is_kept() {
        keeps(
            r#"{"tools":[{"type":"function","function":{"name":"log_in","description":"password: a",
            "parameters":{"type":"object","properties":{"password":{"type":"string"},
            "headers":{"type":"object","description":"of the call"},
            "properties":{"type":"string","enum":["api_key"]},
            "authentication":{"type":"object","properties":{"key":{"type":"string"}}}},
            "$defs":{"authorization":{"title":"token","type":"string"}},
            "dependentRequired":{"password":["user"]},"required":["password","api_key"]}}}]}"#,
        );
        keeps(r#"{"functions":[{"parameters":{"password":{"type":"string"}}}]}"#);
    }

    #[test]
    fn what_is_no_secret_is_kept() {
        keeps(
            r#"{"max_tokens":10,"prompt_cache_key":"a","user":"password","stop":["api_key",":"]}"#,
        );
        keeps(r#"{"password":null,"api_key":true,"metadata":{"key":"a","token":"b"},"n":1}"#);
        keeps(r#"{"input":["\"password\":\"a\"","\\"],"tools":[],"logit_bias":{"50256":-100}}"#);
    }

    #[test]
    fn depth_is_no_danger() {
        let depth = 500_000;
        let body = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        keeps(&body);
    }
}
