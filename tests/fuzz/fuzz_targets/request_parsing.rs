//! A body is a chat request that can be written again, or is refused with a reason that helps.
//!
//! *Why.* The hub authorises and records what it read of a body, and the provider acts on what it was sent.
//! If the two differed, a client could use a model that it may not, or leave a record of something
//! that it did not ask. And bodies come from whoever reaches the port.
//!
//! *The input* is the body.

#![no_main]

use std::collections::BTreeSet;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nexus_gateway::protocol::openai::request::{
    BadRequest, ChatRequest, MEMBERS_MAX, MESSAGES_MAX, NAME_CHARS_MAX,
};

fuzz_target!(|input: &[u8]| {
    match ChatRequest::parse(input) {
        Ok(request) => check_request(&Bytes::copy_from_slice(input), &request),
        Err(error) => check_refusal(&error),
    }
});

fn check_refusal(error: &BadRequest) {
    assert!(!error.message.is_empty(), "the client is told a reason");
    if let Some(param) = &error.param {
        assert!(error.message.contains(param.as_str()), "{error:?}");
    } else {
        assert!(error.message.starts_with("The body"), "{error:?}");
    }
}

fn check_request(body: &Bytes, request: &ChatRequest<'_>) {
    assert!((1..=NAME_CHARS_MAX).contains(&request.model.chars().count()));
    assert!((1..=MESSAGES_MAX).contains(&request.messages.len()));
    let names: Vec<&str> = request.members.iter().map(|(name, _)| name).collect();
    let distinct: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(names.len(), distinct.len(), "a name that comes twice");
    assert!(names.len() <= MEMBERS_MAX);

    // What was read can be written, and is read the same.
    let written = serde_json::to_vec(&request.members).expect("members are JSON");
    let again = ChatRequest::parse(&written).expect("what was parsed is parsed again");
    assert_eq!(seen(&again, &[]), seen(request, &[]));

    // A provider is asked for the model by the name that it knows, and for nothing else.
    let other: String = "\"é".chars().chain(request.model.chars()).collect();
    let other: String = other.chars().take(NAME_CHARS_MAX).collect();
    for model in [&*request.model, &other] {
        let sent = request.body_for(body, model);
        let sent = ChatRequest::parse(&sent).expect("what is sent is a chat request");
        assert_eq!(sent.model, model);
        assert_eq!(sent.include_usage, request.include_usage || request.stream);
        let changed = ["model", "stream_options"];
        let (mut expected, mut found) = (seen(request, &changed), seen(&sent, &changed));
        (expected.usage, found.usage) = (false, false);
        assert_eq!(found, expected);
    }

    // Where nothing has to change, the client's bytes are sent.
    if !request.stream || request.include_usage {
        assert_eq!(request.body_for(body, &request.model), body);
    }
}

/// What the hub sees of a request.
#[derive(Debug, PartialEq, Eq)]
struct Seen<'a> {
    members: Vec<(&'a str, &'a str)>,
    messages: Vec<&'a str>,
    stream: bool,
    usage: bool,
    user: Option<&'a str>,
}

fn seen<'a>(request: &'a ChatRequest<'_>, without: &[&str]) -> Seen<'a> {
    let members = request.members.iter();
    Seen {
        members: members
            .filter(|(name, _)| !without.contains(name))
            .map(|(name, value)| (name, value.get()))
            .collect(),
        messages: request
            .messages
            .iter()
            .map(|message| message.get())
            .collect(),
        stream: request.stream,
        usage: request.include_usage,
        user: request.user.as_deref(),
    }
}
