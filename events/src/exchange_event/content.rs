//! Message content: what was asked and answered, apart from everything that statistics need.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{id::RequestId, raw_object::RawObject};

/// What a request said: enough to put it together again.
///
/// The full request is the path of messages from the root to `parent`, then
/// `messages`, with the system and developer messages at their places, and the
/// parameters beside it: equal to what was sent but for null and empty members, the
/// spelling of the arguments of tool calls, and whether a single text stands in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RequestContent<'a> {
    /// The messages that come after `parent`, system and developer ones left aside.
    #[serde(borrow)]
    pub messages: Vec<&'a RawValue>,
    /// System and developer messages.
    #[serde(borrow)]
    pub system: SystemMessages<'a>,
    /// By place in the request's message list (from 0, as text): members that are no part of
    /// a message's id, such as reasoning that a client sends back.
    #[serde(borrow, default, skip_serializing_if = "RawObject::is_empty")]
    pub extras: RawObject<'a>,
    /// Every other member of the request's body.
    #[serde(borrow)]
    pub parameters: RawObject<'a>,
}

/// System and developer messages of a request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SystemMessages<'a> {
    /// The same, at the same places, as those of that earlier request.
    SameAs(RequestId),
    /// In full, each with its place in the request's message list, from 0.
    #[serde(borrow)]
    Full(Vec<(u32, &'a RawValue)>),
}

/// What a provider answered, whole or as far as it came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerContent<'a> {
    /// The choices, in the order of their index.
    #[serde(borrow)]
    pub choices: Vec<AnswerChoice<'a>>,
    /// What a whole answer says beside its choices and its usage, such as `system_fingerprint`; written only.
    #[serde(flatten, skip_deserializing)]
    pub rest: RawObject<'a>,
}

/// One choice of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerChoice<'a> {
    /// Its index.
    pub index: u32,
    /// Why the provider stopped, if it said so.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<Cow<'a, str>>,
    /// The assistant's message.
    #[serde(borrow)]
    pub message: &'a RawValue,
    /// What a whole answer says beside the message, such as `logprobs`; written only.
    #[serde(flatten, skip_deserializing)]
    pub rest: RawObject<'a>,
}
