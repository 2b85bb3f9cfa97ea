//! Who can carry what a request says: members that only some kinds of providers understand.
//!
//! The form of chat completions has places for them that other gateways use as well, but a
//! provider that does not know such a place refuses it, or passes it over in silence. So whoever
//! cannot carry a member is no candidate for the request, and when nobody is left, the request is
//! refused by that member's name.
//!
//! Four of them are left out where nobody can carry them, because nothing is lost of what is said
//! or of how the answer comes about: marks for Anthropic's cache (other providers cache by
//! themselves or not at all, whatever a client marks), reasoning in plain text of an earlier
//! answer, the signature that only Gemini wants to see again with its own call, and the names of
//! Anthropic's betas, which by themselves ask for nothing. That a tool failed is said in words
//! where nobody has a member for it.

use super::fields::no_candidate;
use crate::{configuration::Candidate, protocol::openai::request::BadRequest, provider::openai};

/// A member of a chat request that is no part of OpenAI's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extension {
    /// `thinking_blocks`: Anthropic's reasoning with its signatures.
    ThinkingBlocks,
    /// `thinking`: whether, and for how long, a model is to think.
    Thinking,
    /// `top_k`.
    TopK,
    /// `cache_control`: marks for Anthropic's cache.
    CacheControl,
    /// `reasoning_content` or `reasoning`: what an earlier answer told of its reasoning.
    Reasoning,
    /// `extra_content` of a tool call: Gemini's signature of it.
    ExtraContent,
    /// `is_error` of a tool's result: the tool failed.
    ToolError,
    /// Content parts that are Anthropic's blocks as they came: documents and search results.
    Blocks,
    /// `service_tier` with Anthropic's value for its standard tier.
    StandardTier,
    /// `context_management`: what Anthropic is to leave out of a long conversation.
    ContextManagement,
    /// `anthropic_beta`: what the client wants to use of what is not for everybody yet.
    Betas,
}

/// Providers that take the same members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaker {
    Anthropic,
    Gemini,
    /// Version 1 of ERNIE, with a form of its own.
    ErnieV1,
    /// OpenAI itself, which refuses what it does not know, and `max_tokens` with newer models.
    OpenAi,
    /// A server of OpenAI's form, which gets every member as it came.
    Compatible,
}

impl Speaker {
    pub(super) fn of(candidate: &Candidate) -> Self {
        let provider = &candidate.provider.resource;
        match provider.kind.as_str() {
            "anthropic" => Self::Anthropic,
            "gemini" => Self::Gemini,
            "ernie_v1" => Self::ErnieV1,
            "azure" => Self::OpenAi,
            _ if openai::is_openai(&provider.server_url) => Self::OpenAi,
            _ => Self::Compatible,
        }
    }

    /// Whether it understands a member, or gets it as it came.
    const fn takes(self, extension: Extension) -> bool {
        match extension {
            Extension::ThinkingBlocks
            | Extension::CacheControl
            | Extension::Blocks
            | Extension::StandardTier
            | Extension::ContextManagement
            | Extension::Betas => matches!(self, Self::Anthropic),
            Extension::ToolError => matches!(self, Self::Anthropic | Self::Gemini),
            Extension::Thinking => matches!(self, Self::Anthropic | Self::Compatible),
            Extension::TopK => matches!(self, Self::Anthropic | Self::Gemini | Self::Compatible),
            // The adapters of the others know it for what it is and hand it to nobody.
            Extension::Reasoning => !matches!(self, Self::OpenAi),
            Extension::ExtraContent => matches!(self, Self::Gemini | Self::Compatible),
        }
    }
}

/// Those who can carry a request, as far as it has been read.
#[derive(Clone, Debug)]
pub(crate) struct Carriers {
    /// Empty only where nobody offers the model, which the engine says better.
    speakers: Vec<Speaker>,
    needs: Vec<Extension>,
}

impl Carriers {
    /// Everybody who offers the model.
    pub(crate) fn of<'c>(candidates: impl Iterator<Item = &'c Candidate>) -> Self {
        Self::speaking(candidates.map(Speaker::of).collect())
    }

    pub(super) const fn speaking(speakers: Vec<Speaker>) -> Self {
        Self {
            speakers,
            needs: Vec::new(),
        }
    }

    /// Leaves out who cannot carry a member.
    ///
    /// # Errors
    /// [`BadRequest`], naming the member: nobody is left.
    pub(super) fn must(&mut self, extension: Extension, param: &str) -> Result<(), BadRequest> {
        if self.wish(extension) || self.speakers.is_empty() {
            Ok(())
        } else {
            Err(no_candidate(param))
        }
    }

    /// Leaves out who cannot carry a member, unless nobody can: then `false`.
    pub(super) fn wish(&mut self, extension: Extension) -> bool {
        if self.needs.contains(&extension) {
            return true;
        }
        let is_carried = self.speakers.iter().any(|one| one.takes(extension));
        if is_carried {
            self.needs.push(extension);
            self.speakers.retain(|one| one.takes(extension));
        }
        is_carried
    }

    /// Whether one of them is OpenAI itself, and whether one is another.
    pub(super) fn openai_and_others(&self) -> (bool, bool) {
        let is_openai = |one: &Speaker| *one == Speaker::OpenAi;
        let has_others = !self.speakers.iter().all(is_openai);
        (self.speakers.iter().any(is_openai), has_others)
    }

    /// Whether a candidate is one of them.
    pub(crate) fn has(&self, candidate: &Candidate) -> bool {
        let speaker = Speaker::of(candidate);
        self.needs.iter().all(|need| speaker.takes(*need))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Speaker; 5] = [
        Speaker::Anthropic,
        Speaker::Gemini,
        Speaker::ErnieV1,
        Speaker::OpenAi,
        Speaker::Compatible,
    ];

    #[test]
    fn each_member_leaves_those_who_can_carry_it() {
        use Speaker::{Anthropic, Compatible, ErnieV1, Gemini};
        for (extension, left) in [
            (Extension::ThinkingBlocks, vec![Anthropic]),
            (Extension::CacheControl, vec![Anthropic]),
            (Extension::Thinking, vec![Anthropic, Compatible]),
            (Extension::TopK, vec![Anthropic, Gemini, Compatible]),
            (
                Extension::Reasoning,
                vec![Anthropic, Gemini, ErnieV1, Compatible],
            ),
            (Extension::ExtraContent, vec![Gemini, Compatible]),
            (Extension::ToolError, vec![Anthropic, Gemini]),
            (Extension::Blocks, vec![Anthropic]),
            (Extension::StandardTier, vec![Anthropic]),
            (Extension::ContextManagement, vec![Anthropic]),
            (Extension::Betas, vec![Anthropic]),
        ] {
            let mut carriers = Carriers::speaking(ALL.to_vec());
            carriers.must(extension, "x").unwrap();
            assert_eq!(carriers.speakers, left, "{extension:?}");
        }
    }

    #[test]
    fn the_member_is_named_with_which_nobody_is_left() {
        let mut carriers = Carriers::speaking(vec![Speaker::Gemini, Speaker::Anthropic]);
        carriers.must(Extension::TopK, "top_k").unwrap();
        carriers
            .must(Extension::ThinkingBlocks, "messages[1]")
            .unwrap();
        assert!(!carriers.wish(Extension::ExtraContent), "it is left out");
        assert_eq!(carriers.speakers, [Speaker::Anthropic]);
        let mut carriers = Carriers::speaking(vec![Speaker::OpenAi]);
        let error = carriers.must(Extension::TopK, "top_k").unwrap_err();
        assert_eq!(error.param.as_deref(), Some("top_k"));
    }

    #[test]
    fn a_model_that_nobody_offers_is_not_refused_for_a_member() {
        let mut carriers = Carriers::speaking(Vec::new());
        carriers.must(Extension::TopK, "top_k").unwrap();
    }
}
