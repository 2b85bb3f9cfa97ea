//! `POST /v1/chat/completions`, and the same without `/v1`.
//!
//! The request is what `OpenAI` documents; what the hub does not know reaches
//! the provider as it came. `X-Conversation-Id` names the conversation that the
//! request goes on with, and comes back with every answer.

use axum::{
    body::Body,
    extract::State as Extract,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use nexus_events::id::ConversationId;
use tokio_util::sync::CancellationToken;

use super::{call::Call, rejected};
use crate::{
    cache::Wish,
    dialect::{Asked, Dialect, Spoken, Translated},
    error::ApiError,
    exchange::{Ask, Operation, Refused, Reply, Served},
    protocol::openai::request::BadRequest,
    state::{AppState, State},
};

/// The endpoint's path, as events name it.
const ROUTE: &str = "/v1/chat/completions";

/// The conversation of a request, both ways.
const X_CONVERSATION_ID: HeaderName = HeaderName::from_static("x-conversation-id");

/// What the cache did, where it is on.
const X_NEXUS_CACHE: HeaderName = HeaderName::from_static("x-nexus-cache");

/// Tells nginx and its like to pass every byte on at once.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// Asks a model.
pub async fn post(Extract(state): Extract<State>, call: Call) -> Response {
    serve(&state, call, Form::Chat).await
}

/// How a request is put.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Chat,
    /// Chat in other words.
    Dialect(&'static dyn Dialect),
    Embeddings,
}

impl Form {
    /// The endpoint's path, as events name it.
    fn route(self) -> &'static str {
        match self {
            Self::Chat => ROUTE,
            Self::Dialect(dialect) => dialect.route(),
            Self::Embeddings => "/v1/embeddings",
        }
    }

    const fn operation(self) -> Operation {
        match self {
            Self::Chat | Self::Dialect(_) => Operation::Chat,
            Self::Embeddings => Operation::Embeddings,
        }
    }
}

/// Asks a model.
pub(super) async fn serve(state: &AppState, call: Call, form: Form) -> Response {
    let route = form.route();
    let (request, key) = (call.request, call.principal.key.id);
    let spoken = match form {
        Form::Dialect(dialect) => Some((dialect, asked_in(&call))),
        Form::Chat | Form::Embeddings => None,
    };
    let headers = match form {
        Form::Dialect(_) => call.headers.clone(),
        Form::Chat | Form::Embeddings => HeaderMap::new(),
    };
    let served = match ask(state, call, form) {
        Ok(ask) => match form {
            Form::Dialect(dialect) => begin_spoken(state, ask, (dialect, &headers)).await,
            Form::Chat | Form::Embeddings => state.engine.begin(ask).await,
        },
        Err(error) => Err(Refused { error, model: None }),
    };
    match served {
        Ok(served) => answer(served, spoken),
        Err(refused) => {
            rejected::record(state, (request, key), route, &refused).await;
            refused.error.into_response()
        }
    }
}

/// Lets a request in and translates it then: a refusal costs what it costs with chat.
async fn begin_spoken(
    state: &AppState,
    mut ask: Ask,
    (dialect, headers): (&'static dyn Dialect, &HeaderMap),
) -> Result<Served, Refused> {
    let body = ask.body.clone();
    let spoken = Spoken::read(dialect, &body);
    let both = spoken.and_then(|spoken| Ok((spoken.outline()?, spoken)));
    let (outline, spoken) = both.map_err(|error| Refused {
        error: bad_request(error),
        model: None,
    })?;
    let mut entry = state.engine.enter(&ask, &outline).await?;
    match spoken.chat(headers, entry.candidates()) {
        Ok(chat) => {
            if !entry.narrow(|candidate| chat.is_carried_by(candidate)) {
                let error = ApiError::internal("nobody can carry what somebody could");
                return Err(entry.refuse(error).await);
            }
            ask.body = chat.body;
        }
        Err(error) => return Err(entry.refuse(bad_request(error)).await),
    }
    drop(spoken);
    state.engine.begin_entered(ask, entry).await
}

fn bad_request(error: BadRequest) -> ApiError {
    ApiError::invalid_request(error.param.as_deref(), error.message)
}

fn ask(state: &AppState, call: Call, form: Form) -> Result<Ask, ApiError> {
    let conversation = conversation(&call.headers)?;
    let snapshot = state.configuration.current();
    let body = call.body?.0;
    Ok(Ask {
        request: call.request,
        arrival: call.arrival,
        key: call.principal.key,
        operation: form.operation(),
        route: form.route(),
        traceparent: traceparent(&call.headers),
        hops: call.hops,
        conversation,
        provider: None,
        cancel: CancellationToken::new(),
        cache: Wish::of(&call.headers),
        snapshot,
        body_bytes: body.len(),
        body,
    })
}

/// The conversation that the client names.
fn conversation(headers: &HeaderMap) -> Result<Option<ConversationId>, ApiError> {
    let mut values = headers.get_all(X_CONVERSATION_ID).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    // Of two, a proxy and we might not take the same one.
    let alone = values.next().is_none().then_some(value);
    let id = alone.and_then(|value| value.to_str().ok()?.parse().ok());
    id.map(Some).ok_or_else(|| {
        ApiError::invalid_request(
            Some("X-Conversation-Id"),
            "The header 'X-Conversation-Id' must be a UUID, and there once.",
        )
    })
}

/// W3C trace context, version 00; anything else is left aside, as its specification says.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<Box<str>> {
    let text = headers.get("traceparent")?.to_str().ok()?;
    let lengths = text.split('-').map(str::len);
    let is_hex = |c: char| c == '-' || c.is_ascii_digit() || ('a'..='f').contains(&c);
    let is_valid =
        text.starts_with("00-") && lengths.eq([2, 32, 16, 2]) && text.chars().all(is_hex);
    is_valid.then(|| text.into())
}

/// A request in a dialect, for the translation of its answer.
fn asked_in(call: &Call) -> Asked {
    Asked {
        id: call.request,
        time: call.arrival.time,
        body: call
            .body
            .as_ref()
            .map_or_else(|_| Bytes::new(), |body| body.0.clone()),
    }
}

fn answer(served: Served, spoken: Option<(&'static dyn Dialect, Asked)>) -> Response {
    let (conversation, cache) = (served.conversation, served.cache);
    let mut response = match spoken {
        None => reply(served.reply),
        Some(spoken) => translated(served.reply, spoken, 0),
    };
    response.headers_mut().extend(served.limits);
    // A UUID is a header value.
    if let Some(conversation) = conversation
        && let Ok(conversation) = HeaderValue::try_from(conversation.to_string())
    {
        response
            .headers_mut()
            .insert(X_CONVERSATION_ID, conversation);
    }
    if let Some(outcome) = cache {
        let outcome = HeaderValue::from_static(outcome.as_str());
        response.headers_mut().insert(X_NEXUS_CACHE, outcome);
    }
    response
}

pub(super) fn reply(reply: Result<Reply, ApiError>) -> Response {
    match reply {
        Ok(Reply::Whole(body)) => json(body.into()),
        Ok(Reply::Stream(body)) => event_stream(Body::new(body)),
        Err(error) => error.into_response(),
    }
}

/// An answer in a dialect; of a streamed one, what is made of the chunks from `next` on.
pub(super) fn translated(
    reply: Result<Reply, ApiError>,
    (dialect, asked): (&'static dyn Dialect, Asked),
    next: u32,
) -> Response {
    match reply {
        Ok(Reply::Whole(chat)) => match dialect.answer(&asked, &chat) {
            Ok(body) => json(body.into()),
            Err(error) => ApiError::internal(error).into_response(),
        },
        Ok(Reply::Stream(chat)) => {
            let events = Translated::new(chat, dialect.events(asked));
            event_stream(Body::new(events.beginning_at(next)))
        }
        Err(error) => error.into_response(),
    }
}

fn json(body: Body) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(CONTENT_TYPE, json)], body).into_response()
}

fn event_stream(body: Body) -> Response {
    let headers = [
        (CONTENT_TYPE, "text/event-stream; charset=utf-8"),
        (CACHE_CONTROL, "no-cache"),
        (X_ACCEL_BUFFERING, "no"),
    ];
    let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
    (headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        )])
    }

    #[test]
    fn a_conversation_is_named_by_a_uuid() {
        assert!(conversation(&HeaderMap::new()).unwrap().is_none());
        let id = "0199c0de-0000-7000-8000-000000000001";
        let named = conversation(&headers("x-conversation-id", id)).unwrap();
        assert_eq!(named.unwrap().to_string(), id);
        let error = conversation(&headers("x-conversation-id", "mine")).unwrap_err();
        assert_eq!(
            (error.status.as_u16(), error.param.as_deref()),
            (400, Some("X-Conversation-Id"))
        );
        let mut two = headers("x-conversation-id", id);
        two.append(X_CONVERSATION_ID, HeaderValue::from_static(id));
        assert!(conversation(&two).is_err());
    }

    #[test]
    fn only_trace_context_is_taken_for_it() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            traceparent(&headers("traceparent", good)).as_deref(),
            Some(good)
        );
        for bad in [
            "",
            "00-x",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert!(traceparent(&headers("traceparent", bad)).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_failed_exchange_still_names_its_conversation() {
        let id: ConversationId = "0199c0de-0000-7000-8000-000000000001".parse().unwrap();
        let served = Served {
            cache: None,
            conversation: Some(id),
            reply: Err(ApiError::internal("x")),
            limits: HeaderMap::new(),
        };
        let response = answer(served, None);
        assert_eq!(response.status(), 500);
        assert_eq!(response.headers()[X_CONVERSATION_ID], id.to_string());
    }
}
