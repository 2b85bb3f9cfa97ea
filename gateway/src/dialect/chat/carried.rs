//! A request for those who can carry it: what nobody of them takes is left out, see `candidate.rs`.

use super::{
    super::candidate::{Carriers, Extension},
    request::{Content, Message, Part, Request},
};

/// What the result of a tool that failed begins with.
const FAILED: &str = "Error:\n";

impl Request<'_> {
    /// The last step: who can carry all that must be carried is known.
    ///
    /// `tokens_max` is the most tokens that the answer may have, for the member that they know.
    pub(in crate::dialect) fn carried_by(
        &mut self,
        carriers: &mut Carriers,
        tokens_max: Option<u64>,
    ) {
        if self.has_marks() && !carriers.wish(Extension::CacheControl) {
            self.forget_marks();
        }
        if self.has_failed_tools() && !carriers.wish(Extension::ToolError) {
            self.say_failures();
        }
        if !self.anthropic_beta.is_empty() && !carriers.wish(Extension::Betas) {
            self.anthropic_beta.clear();
        }
        if self.has_reasoning() && !carriers.wish(Extension::Reasoning) {
            self.forget_reasoning();
        }
        if self.has_signed_calls() && !carriers.wish(Extension::ExtraContent) {
            let calls = self.messages.iter_mut();
            for call in calls.flat_map(|message| &mut message.tool_calls) {
                call.extra_content = None;
            }
        }
        // By both names where both kinds may be asked: each gets the one that it knows.
        let (has_openai, has_others) = carriers.openai_and_others();
        self.max_completion_tokens = tokens_max.filter(|_| has_openai);
        self.max_tokens = tokens_max.filter(|_| has_others || !has_openai);
    }

    fn has_failed_tools(&self) -> bool {
        self.messages.iter().any(|message| message.is_error)
    }

    /// Says in words what nobody has a member for.
    fn say_failures(&mut self) {
        for message in self.messages.iter_mut().filter(|message| message.is_error) {
            message.is_error = false;
            message.content = Some(match message.content.take() {
                Some(Content::Text(text)) => Content::Text(format!("{FAILED}{text}").into()),
                Some(Content::Parts(mut parts)) => {
                    parts.insert(0, Part::text(FAILED));
                    Content::Parts(parts)
                }
                None => Content::Text(FAILED.into()),
            });
        }
    }

    fn has_marks(&self) -> bool {
        self.same.contains_key("cache_control")
            || self.tools.iter().any(|tool| tool.cache_control.is_some())
            || self.messages.iter().any(Message::has_marks)
    }

    fn forget_marks(&mut self) {
        self.same.remove("cache_control");
        for tool in &mut self.tools {
            tool.cache_control = None;
        }
        for message in &mut self.messages {
            message.cache_control = None;
            if let Some(Content::Parts(parts)) = &mut message.content {
                let mut parts = std::mem::take(parts);
                for part in &mut parts {
                    part.cache_control = None;
                }
                message.content = Some(Content::of(parts));
            }
        }
    }

    fn forget_reasoning(&mut self) {
        for message in &mut self.messages {
            message.reasoning_content = None;
            message.reasoning = None;
        }
        // What was nothing but reasoning is nothing now.
        self.messages.retain(|message| {
            message.content.is_some()
                || !message.tool_calls.is_empty()
                || !message.thinking_blocks.is_empty()
        });
    }

    fn has_reasoning(&self) -> bool {
        let mut messages = self.messages.iter();
        messages.any(|message| message.reasoning_content.is_some() || message.reasoning.is_some())
    }

    fn has_signed_calls(&self) -> bool {
        let mut calls = self.messages.iter().flat_map(|one| &one.tool_calls);
        calls.any(|call| call.extra_content.is_some())
    }
}

impl Message<'_> {
    fn has_marks(&self) -> bool {
        let is_marked = |part: &Part<'_>| part.cache_control.is_some();
        let parts = match &self.content {
            Some(Content::Parts(parts)) => parts.as_slice(),
            Some(Content::Text(_)) | None => &[],
        };
        self.cache_control.is_some() || parts.iter().any(is_marked)
    }
}
