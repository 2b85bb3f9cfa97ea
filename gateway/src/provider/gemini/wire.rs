//! An answer as Gemini sends it, whole or piece by piece.

use nexus_events::id::RequestId;
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;

use super::{
    super::{
        Asked, ProviderError,
        translate::{
            answer::{
                ExtraContent, FinishReason, FunctionCall, GoogleContent, Head, Logprobs,
                TokenLogprob, ToolCall, Usage,
            },
            read,
        },
    },
    error::Reported,
};
use crate::protocol::{
    at_most,
    openai::{
        Text,
        response::{CHOICES_MAX, ErrorObject},
    },
};

/// Parts of one candidate, or of one event of it: 4 096. An answer has some ten, and each takes a
/// hundred times its text.
const PARTS_MAX: usize = 4_096;

/// An answer; in a stream, each event is one that carries what is new.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Response<'a> {
    #[serde(borrow, default)]
    pub(super) error: Option<Reported<'a>>,
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::optional::<_, _, CHOICES_MAX>"
    )]
    pub(super) candidates: Option<Vec<Candidate<'a>>>,
    #[serde(borrow, default)]
    prompt_feedback: Option<PromptFeedback<'a>>,
    #[serde(default)]
    usage_metadata: Option<UsageMetadata>,
    #[serde(borrow, default)]
    model_version: Option<Text<'a>>,
    #[serde(borrow, default, rename = "responseId")]
    id: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromptFeedback<'a> {
    #[serde(borrow, default)]
    block_reason: Option<Text<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    content: Option<Content<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Text<'a>>,
    #[serde(borrow, default)]
    finish_message: Option<Text<'a>>,
    #[serde(borrow, default)]
    logprobs_result: Option<LogprobsResult<'a>>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(
        borrow,
        default,
        deserialize_with = "at_most::optional::<_, _, PARTS_MAX>"
    )]
    parts: Option<Vec<Part<'a>>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Part<'a> {
    #[serde(borrow, default)]
    text: Option<Text<'a>>,
    #[serde(default)]
    thought: Option<bool>,
    #[serde(borrow, default)]
    thought_signature: Option<Text<'a>>,
    #[serde(borrow, default)]
    function_call: Option<Called<'a>>,
    // What nobody can have asked for, and OpenAI's form has no place for.
    #[serde(default)]
    inline_data: Option<IgnoredAny>,
    #[serde(default)]
    file_data: Option<IgnoredAny>,
    #[serde(default)]
    executable_code: Option<IgnoredAny>,
    #[serde(default)]
    code_execution_result: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Called<'a> {
    #[serde(borrow, default)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    name: Text<'a>,
    #[serde(borrow, default)]
    args: Option<&'a RawValue>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LogprobsResult<'a> {
    #[serde(borrow, default)]
    chosen_candidates: Vec<Chosen<'a>>,
    #[serde(borrow, default)]
    top_candidates: Vec<Top<'a>>,
}

#[derive(Deserialize)]
struct Top<'a> {
    #[serde(borrow, default)]
    candidates: Vec<Chosen<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Chosen<'a> {
    #[serde(borrow, default)]
    token: Option<Text<'a>>,
    /// Left out where it is zero.
    #[serde(default)]
    log_probability: f64,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "the names are Google's")]
struct UsageMetadata {
    prompt_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
}

/// What a part says.
pub(super) enum Spoken<'a> {
    Text(&'a str),
    Thought(&'a str),
    Call(Call<'a>),
    Nothing,
}

/// A function that the model wants to be called.
pub(super) struct Call<'a> {
    id: String,
    name: &'a str,
    arguments: &'a str,
    signature: Option<&'a str>,
}

impl<'a> Response<'a> {
    /// Reads an answer, or an event of a stream.
    pub(super) fn read(json: &'a [u8]) -> Result<Self, ProviderError> {
        let response: Self = read(json)?;
        match &response.error {
            Some(error) => Err(error.in_disguise()),
            None if response.is_too_large() => Err(ProviderError::too_many_parts()),
            None => Ok(response),
        }
    }

    fn is_too_large(&self) -> bool {
        let candidates = self.candidates.as_deref().unwrap_or_default();
        let is_large = |candidate: &Candidate<'_>| candidate.parts().count() > PARTS_MAX;
        candidates.len() > CHOICES_MAX || candidates.iter().any(is_large)
    }

    pub(super) fn head(&self, asked: Asked<'_>) -> Head {
        let id = self.id.as_ref().map(Text::as_str);
        Head::new(asked, id, self.model_version.as_ref().map(Text::as_str))
    }

    /// Why there is no answer at all.
    pub(super) fn blocked(&self) -> Option<String> {
        let reason = self.prompt_feedback.as_ref()?.block_reason.as_ref()?;
        let none = self.candidates.as_ref().is_none_or(Vec::is_empty);
        none.then(|| format!("The provider blocked the prompt: {}.", reason.as_str()))
    }

    /// The tokens; what the model thought is part of the answer, as with OpenAI.
    pub(super) fn usage(&self) -> Option<Usage> {
        let counted = self.usage_metadata?;
        let prompt = counted
            .prompt_token_count?
            .saturating_add(counted.tool_use_prompt_token_count.unwrap_or(0));
        let cached = counted.cached_content_token_count.unwrap_or(0);
        let completion = counted
            .candidates_token_count
            .unwrap_or(0)
            .saturating_add(counted.thoughts_token_count.unwrap_or(0));
        let usage = Usage::new(prompt, cached, completion);
        Some(usage.with_reasoning(counted.thoughts_token_count))
    }
}

impl Candidate<'_> {
    pub(super) fn index(&self) -> u32 {
        self.index.unwrap_or(0)
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = &Part<'_>> {
        let parts = self
            .content
            .as_ref()
            .and_then(|content| content.parts.as_ref());
        parts.into_iter().flatten()
    }

    /// Why the model stopped, if it did; `called` says whether it called functions.
    pub(super) fn finish_reason(
        &self,
        called: bool,
    ) -> Result<Option<FinishReason>, ProviderError> {
        let Some(reason) = self.finish_reason.as_ref().map(Text::as_str) else {
            return Ok(None);
        };
        match reason {
            "STOP" if called => Ok(Some(FinishReason::ToolCalls)),
            "STOP" => Ok(Some(FinishReason::Stop)),
            "MAX_TOKENS" => Ok(Some(FinishReason::Length)),
            // The answer is of no use, and OpenAI's form has no word for it.
            "MALFORMED_FUNCTION_CALL"
            | "UNEXPECTED_TOOL_CALL"
            | "TOO_MANY_TOOL_CALLS"
            | "MISSING_THOUGHT_SIGNATURE"
            | "MALFORMED_RESPONSE" => {
                let message = self.finish_message.as_ref().map(Text::as_str);
                let message = message.unwrap_or("The model broke its answer off.");
                Err(ProviderError::reported(ErrorObject {
                    message: message.to_owned(),
                    code: Some(reason.to_owned()),
                    ..ErrorObject::default()
                }))
            }
            // `SAFETY`, `RECITATION`, `BLOCKLIST`, `OTHER`, …: somebody other than the model.
            _ => Ok(Some(FinishReason::ContentFilter)),
        }
    }

    pub(super) fn logprobs(&self) -> Option<Logprobs<'_>> {
        let result = self.logprobs_result.as_ref()?;
        let mut tops = result.top_candidates.iter();
        let content = result.chosen_candidates.iter().map(|chosen| {
            let top = tops.next().map_or(&[][..], |top| &top.candidates);
            let top = top.iter().map(|chosen| chosen.logprob(None)).collect();
            chosen.logprob(Some(top))
        });
        let content = content.collect();
        Some(Logprobs { content })
    }
}

impl Chosen<'_> {
    fn logprob<'a>(&'a self, top_logprobs: Option<Vec<TokenLogprob<'a>>>) -> TokenLogprob<'a> {
        let token = self.token.as_ref().map_or("", Text::as_str);
        TokenLogprob {
            token,
            logprob: self.log_probability,
            bytes: token.as_bytes(),
            top_logprobs,
        }
    }
}

impl Part<'_> {
    /// What it says, as the call of that number of a candidate if it is one.
    pub(super) fn spoken(
        &self,
        request: RequestId,
        (candidate, call): (u32, u32),
    ) -> Result<Spoken<'_>, ProviderError> {
        if let Some(called) = &self.function_call {
            let arguments = called.args.map_or("{}", RawValue::get);
            let id = called.id.as_ref().map(Text::as_str);
            // Older models give calls no id; the client needs one to answer it.
            let id = id.filter(|id| !id.is_empty()).map_or_else(
                || format!("call_{request}_{candidate}_{call}"),
                str::to_owned,
            );
            return Ok(Spoken::Call(Call {
                id,
                name: called.name.as_str(),
                arguments,
                signature: self.thought_signature.as_ref().map(Text::as_str),
            }));
        }
        let others = [
            &self.inline_data,
            &self.file_data,
            &self.executable_code,
            &self.code_execution_result,
        ];
        if others.iter().any(|other| other.is_some()) {
            let message = "The provider's answer holds more than text and function calls.";
            return Err(ProviderError::malformed(message));
        }
        Ok(match self.text.as_ref().map(Text::as_str) {
            None | Some("") => Spoken::Nothing,
            Some(text) if self.thought == Some(true) => Spoken::Thought(text),
            Some(text) => Spoken::Text(text),
        })
    }
}

impl Call<'_> {
    /// In OpenAI's form; with its index where it is part of a stream.
    pub(super) fn to_openai(&self, index: Option<u32>) -> ToolCall<'_> {
        let extra = |thought_signature| ExtraContent {
            google: GoogleContent { thought_signature },
        };
        ToolCall {
            index,
            id: Some(&self.id),
            kind: Some("function"),
            function: FunctionCall {
                name: Some(self.name),
                arguments: self.arguments,
            },
            extra_content: self.signature.map(extra),
        }
    }
}
