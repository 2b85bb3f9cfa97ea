//! A request in a dialect out of the log, for the translation of its answer once more.

use std::collections::BTreeMap;

use bytes::Bytes;
use nexus_events::{id::RequestId, raw_object::RawObject};
use serde_json::value::RawValue;

use super::{Asked, Dialect, completions::Completions, messages::Messages, responses::Responses};

/// Parameters of chat that have another form in the dialects: they are not told back.
const OF_ANOTHER_FORM: [&str; 2] = ["tools", "tool_choice"];

/// The dialect that a request of that route was made in, and what the log has of it; `None` for
/// chat.
///
/// The log has the chat request, not the body in the dialect. So a response tells back those
/// members of its request that have the same name and form in chat, and stands otherwise as if
/// they had not been given.
pub(crate) fn asked_again(
    (request, route): (RequestId, &str),
    parameters: &RawObject<'_>,
) -> Option<(&'static dyn Dialect, Asked)> {
    let dialects: [&'static dyn Dialect; 3] = [&Completions, &Messages, &Responses];
    let dialect = dialects.into_iter().find(|one| one.route() == route)?;
    let body: BTreeMap<&str, &RawValue> = parameters
        .iter()
        .filter(|(name, _)| !OF_ANOTHER_FORM.contains(name))
        .collect();
    let asked = Asked {
        id: request,
        time: request.drawn_at(),
        // Names and JSON: there is nothing in it that JSON could refuse.
        body: Bytes::from(serde_json::to_vec(&body).unwrap_or_default()),
    };
    Some((dialect, asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_same_form_in_chat_is_told_back() {
        let request: RequestId = "0199c0de-0000-7000-8000-000000000001".parse().unwrap();
        let text = br#"{"temperature":0.5,"tools":[],"stream_options":{"include_usage":true}}"#;
        let parameters = RawObject::parse(text).unwrap();
        let again = |route| asked_again((request, route), &parameters);
        let (dialect, asked) = again("/v1/responses").unwrap();
        assert_eq!(dialect.route(), "/v1/responses");
        let body = br#"{"stream_options":{"include_usage":true},"temperature":0.5}"#;
        assert_eq!(asked.body, body.as_slice());
        assert_eq!(asked.time, request.drawn_at());
        assert!(again("/v1/messages").is_some() && again("/v1/completions").is_some());
        assert!(again("/v1/chat/completions").is_none() && again("/ws/chat").is_none());
    }
}
