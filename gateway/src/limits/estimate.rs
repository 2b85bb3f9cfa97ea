//! What a request may use, guessed before it is asked: no tokenizer, a count of bytes.
//!
//! A guess on the upper side. Text has some four bytes a token, code and
//! Chinese some three; three are taken, of the messages and tools as they stand
//! in the body. Of the answer, what the client allows, or [`ANSWER_DEFAULT`].
//! What is not used comes back at the end; what is used beyond is charged then.

use nexus_events::raw_object::RawObject;
use serde_json::value::RawValue;

use crate::protocol::openai::request::ChatRequest;

/// Tokens of an answer that a client sets no bound for: 1 024, more than most answers have.
pub const ANSWER_DEFAULT: u64 = 1024;

/// Bytes of a prompt for one token.
const TOKEN_BYTES: u64 = 3;

/// Choices at most, as the API has it.
const CHOICES_MAX: u64 = 128;

/// Tokens that a request may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Estimate {
    /// Of the prompt.
    pub input: u64,
    /// Of the answer.
    pub output: u64,
}

impl Estimate {
    /// The guess for a request.
    pub fn of(request: &ChatRequest<'_>) -> Self {
        let number = |name: &str| request.members.get(name).and_then(whole);
        let messages = request.messages.iter();
        let messages: usize = messages.map(|message| message.get().len()).sum();
        let others = ["tools", "functions", "response_format"].into_iter();
        let others = others.filter_map(|name| request.members.get(name));
        let others: usize = others.map(|value| value.get().len()).sum();
        let bytes = u64::try_from(messages.saturating_add(others)).unwrap_or(u64::MAX);
        let bound = number("max_completion_tokens").or_else(|| number("max_tokens"));
        let choices = number("n").unwrap_or(1).clamp(1, CHOICES_MAX);
        Self {
            input: bytes.div_ceil(TOKEN_BYTES),
            output: bound.unwrap_or(ANSWER_DEFAULT).saturating_mul(choices),
        }
    }

    /// The guess for a request that is answered without a word: embeddings.
    pub fn of_input(members: &RawObject<'_>) -> Self {
        let bytes = members.get("input").map_or(0, |input| input.get().len());
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Self {
            input: bytes.div_ceil(TOKEN_BYTES),
            output: 0,
        }
    }

    /// Both together, as far as a limit can count.
    pub fn total(self) -> u32 {
        let total = self.input.saturating_add(self.output);
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

/// A number from 0 up; what is none is the provider's to refuse.
fn whole(value: &RawValue) -> Option<u64> {
    serde_json::from_str(value.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(members: &str) -> Estimate {
        let body = format!(r#"{{"model":"m","messages":[{{"role":"user"}}]{members}}}"#);
        Estimate::of(&ChatRequest::parse(body.as_bytes()).unwrap())
    }

    #[test]
    fn the_prompt_is_counted_by_its_bytes_and_the_answer_by_its_bound() {
        let guess = |input, output| Estimate { input, output };
        assert_eq!(of(""), guess(5, 1024));
        assert_eq!(of(r#","max_tokens":7"#), guess(5, 7));
        assert_eq!(of(r#","max_tokens":7,"n":3"#), guess(5, 21));
        let both = r#","max_tokens":7,"max_completion_tokens":9"#;
        assert_eq!(of(both), guess(5, 9));
        assert_eq!(of(r#","tools":["123456789"]"#), guess(10, 1024));
        // What makes no sense is not ours to refuse.
        for odd in [
            r#","max_tokens":null"#,
            r#","max_tokens":-1"#,
            r#","n":"many""#,
            r#","n":0"#,
        ] {
            assert_eq!(of(odd), guess(5, 1024), "{odd}");
        }
        let huge = of(r#","max_tokens":18446744073709551615,"n":9"#);
        assert_eq!(huge.total(), u32::MAX);
    }
}
