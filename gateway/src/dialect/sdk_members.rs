//! Every member that the official SDKs can send, to every kind of provider: carried or refused.
//!
//! `testdata/sdk-members.json` has for each way of asking the members of its SDK's types, each with
//! values that say something. A member is put into a request and that is encoded: either it is
//! refused with a 400 that names a member, or the provider gets another request than without it.
//! Whatever is neither was dropped in silence, unless [`IDLE`] says why it makes no difference. That
//! the file has all members of the SDKs is checked against the installed ones by the test
//! `dialects::sdk_members`.

mod base;
mod idle;

use std::collections::BTreeMap;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::Value;

use self::{base::base_for, idle::IDLE};
use super::{
    Dialect,
    candidate::Speaker,
    completions::Completions,
    messages::Messages,
    responses::Responses,
    testing::{params, to_chat_with},
};
use crate::{
    protocol::openai::{embeddings::EmbeddingsRequest, request::ChatRequest},
    provider::{
        Target, UpstreamRequest, adapter,
        embeddings::EmbeddingsCall,
        translate::testing::{encode, target},
    },
};

/// Kinds of providers: what each is, where it is, and who it is to the dialects.
const PROVIDERS: [(&str, &str, Speaker); 7] = [
    ("openai", "https://api.openai.com/v1", Speaker::OpenAi),
    ("openai", "http://provider.test", Speaker::Compatible),
    ("azure", "http://provider.test", Speaker::OpenAi),
    ("ernie", "http://provider.test", Speaker::Compatible),
    ("ernie_v1", "http://provider.test", Speaker::ErnieV1),
    ("anthropic", "http://provider.test", Speaker::Anthropic),
    ("gemini", "http://provider.test", Speaker::Gemini),
];

fn set(body: &mut Value, path: &str, value: &Value) {
    let mut place = body;
    for step in path.split('.') {
        place = match step.parse::<usize>() {
            Ok(index) => &mut place[index],
            Err(_) => &mut place[step],
        };
    }
    *place = value.clone();
}

/// All that a provider gets, or the member that the request is refused for.
fn sent(way: &str, body: &Value, provider: (&str, &str, Speaker)) -> Result<String, String> {
    let (kind, url, speaker) = provider;
    let body = Bytes::from(body.to_string());
    let target = Target {
        server_key: Some("api:secret"),
        ..target(url)
    };
    let request = if way == "embeddings" {
        embeddings(kind, &body, target)?
    } else {
        let dialect: Option<&'static dyn Dialect> = match way {
            "responses" => Some(&Responses),
            "completions" => Some(&Completions),
            "messages" => Some(&Messages),
            _ => None,
        };
        let chat = match dialect {
            None => body,
            Some(dialect) => {
                let headers = HeaderMap::new();
                to_chat_with(dialect, (&body, &headers), &[speaker]).map_err(params)?
            }
        };
        if let Err(error) = ChatRequest::parse(&chat) {
            return Err(params(error));
        }
        encode(kind, &chat, target).map_err(|error| {
            assert_eq!(error.client_status(), 400, "{error:?}");
            error
                .object
                .and_then(|object| object.param)
                .expect("a member")
        })?
    };
    let said = String::from_utf8(request.body.to_vec()).unwrap();
    Ok(format!("{} {:?} {said}", request.url, request.headers))
}

fn embeddings(
    kind: &str,
    body: &Bytes,
    target: Target<'_>,
) -> Result<crate::provider::HttpRequest, String> {
    let request = EmbeddingsRequest::parse(body).map_err(params)?;
    let call = EmbeddingsCall {
        id: "0199c0de-0000-7000-8000-000000000001".parse().unwrap(),
        request: &request,
        body,
        target,
    };
    match adapter(kind).unwrap().encode_embeddings(call) {
        Ok(UpstreamRequest::Http(request)) => Ok(request),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error
            .object
            .and_then(|object| object.param)
            .expect("a member")),
    }
}

fn members() -> BTreeMap<String, BTreeMap<String, Vec<Value>>> {
    serde_json::from_str(include_str!("testdata/sdk-members.json")).unwrap()
}

fn is_idle(way: &str, path: &str, kind: &str) -> bool {
    IDLE.iter().any(|(of, member, kinds, _)| {
        (*of == "*" || *of == way) && *member == path && kinds.contains(&kind)
    })
}

#[test]
fn no_member_is_dropped_in_silence() {
    let mut dropped = Vec::new();
    for (way, members) in members() {
        for (path, values) in members {
            assert!(!values.is_empty(), "{way} {path}");
            for (value, provider) in values
                .iter()
                .flat_map(|value| PROVIDERS.map(|one| (value, one)))
            {
                let base = base_for(&way, &path);
                let mut body = base.clone();
                set(&mut body, &path, value);
                let Ok(got) = sent(&way, &body, provider) else {
                    continue;
                };
                let without = sent(&way, &base, provider);
                let (kind, url, _) = provider;
                if without.as_ref() == Ok(&got) && !is_idle(&way, &path, kind) {
                    dropped.push(format!("{way} {path} {value} at {kind} {url}"));
                }
            }
        }
    }
    assert!(
        dropped.is_empty(),
        "dropped in silence:\n{}",
        dropped.join("\n")
    );
}

/// An exception that is none any more would hide the next drop.
#[test]
fn what_makes_no_difference_makes_none() {
    for (of, member, kinds, why) in IDLE {
        let makes_none = members().iter().any(|(way, members)| {
            let values = members.get(*member).filter(|_| *of == "*" || of == way);
            values.into_iter().flatten().any(|value| {
                let providers = PROVIDERS.iter().filter(|(kind, ..)| kinds.contains(kind));
                providers.into_iter().any(|provider| {
                    let base = base_for(way, member);
                    let mut body = base.clone();
                    set(&mut body, member, value);
                    let got = sent(way, &body, *provider);
                    got.is_ok() && got == sent(way, &base, *provider)
                })
            })
        });
        assert!(makes_none, "{of} {member}: {why}");
    }
}

/// What OpenAI's protocol says reaches its servers as it came.
#[test]
fn servers_of_openais_protocol_get_every_member_of_chat() {
    let all = members();
    for (path, values) in &all["chat"] {
        // Two names of one bound, of which servers get the one that they know.
        if path == "model" || path.starts_with("stream_options") {
            continue;
        }
        for value in values {
            let mut body = base_for("chat", path);
            set(&mut body, path, value);
            for (kind, url, _) in PROVIDERS {
                if !matches!(kind, "openai" | "azure" | "ernie") {
                    continue;
                }
                let bytes = Bytes::from(body.to_string());
                let request = encode(kind, &bytes, target(url)).unwrap();
                let got: Value = serde_json::from_slice(&request.body).unwrap();
                let name = path.split('.').next().unwrap();
                assert_eq!(got[name], body[name], "{kind} {path}");
            }
        }
    }
}
