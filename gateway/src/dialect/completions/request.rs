//! From a completion request to a chat request.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::{
    candidate::Carriers,
    chat::{Content, Message, Request},
    fields::{Fields, no_counterpart, wrong},
};
use crate::protocol::{
    at_most::{STOPS_MAX, Texts},
    openai::request::BadRequest,
};

const MEMBERS: &[&str] = &[
    "model",
    "prompt",
    "suffix",
    "max_tokens",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "logprobs",
    "echo",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "best_of",
    "logit_bias",
    "seed",
    "user",
];

/// Members that chat completions have under the same name.
const SAME: [&str; 5] = [
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
];

/// The chat request that says the same.
pub(super) fn to_chat(fields: &Fields<'_>, carriers: &mut Carriers) -> Result<Bytes, BadRequest> {
    fields.only(MEMBERS)?;
    for name in ["n", "best_of"] {
        if fields.count(name)?.is_some_and(|count| count > 1) {
            return Err(no_counterpart(name));
        }
    }
    if fields.flag("echo")? == Some(true) {
        return Err(no_counterpart("echo"));
    }
    if fields.get("logprobs").is_some() {
        return Err(no_counterpart("logprobs"));
    }
    if fields
        .text("suffix")?
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(no_counterpart("suffix"));
    }
    let mut request = Request {
        model: fields.required_text("model")?,
        messages: vec![Message::new("user", Content::Text(prompt(fields)?))],
        stop: stop(fields)?,
        user: fields.text("user")?,
        ..Request::default()
    };
    request.streamed(fields.flag("stream")?.unwrap_or(false));
    for name in SAME {
        request.same(name, fields.number(name)?);
    }
    if fields.object("logit_bias")?.is_some() {
        request.same("logit_bias", fields.get("logit_bias"));
    }
    let mut wants_usage = false;
    if let Some(options) = fields.object("stream_options")? {
        options.only(&["include_usage"])?;
        wants_usage = options.flag("include_usage")?.unwrap_or(false);
    }
    // As the client asked: so the log knows it, too, when the answer is given out again.
    request.stream_options = request.stream_options.filter(|_| wants_usage);
    request.carried_by(carriers, fields.count("max_tokens")?);
    request.write()
}

/// Whether a client asked for a chunk with the usage.
pub(super) fn wants_usage(body: &[u8]) -> bool {
    let options = Fields::of_body(body).and_then(|fields| fields.object("stream_options"));
    matches!(options, Ok(Some(options)) if options.flag("include_usage") == Ok(Some(true)))
}

/// One text: several prompts would be several exchanges, and tokens are of one vocabulary only.
fn prompt<'a>(fields: &Fields<'a>) -> Result<Cow<'a, str>, BadRequest> {
    let expected = "a string or an array of one string";
    let prompt: Option<Texts<'a, 1>> = fields.value("prompt", expected)?;
    let prompts = prompt.map_or_else(Vec::new, |prompt| prompt.0);
    <[_; 1]>::try_from(prompts)
        .map(|[prompt]| prompt)
        .map_err(|_others| wrong("prompt", expected))
}

fn stop<'a>(fields: &Fields<'a>) -> Result<Option<Vec<Cow<'a, str>>>, BadRequest> {
    let expected = format!("a string or an array of at most {STOPS_MAX} strings");
    let stop: Option<Texts<'a, STOPS_MAX>> = fields.value("stop", &expected)?;
    if stop.as_ref().is_some_and(|stop| stop.0.len() > STOPS_MAX) {
        return Err(wrong("stop", &expected));
    }
    Ok(stop.map(|stop| stop.0))
}
