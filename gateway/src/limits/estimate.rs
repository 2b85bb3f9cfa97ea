//! What a request may use, guessed before it is asked: no tokenizer, a count of bytes.
//!
//! A guess on the upper side. Text has some four bytes a token, code and
//! Chinese some three; three are taken, of the messages and tools as they stand
//! in the body. Of the answer, what the client allows, or [`ANSWER_DEFAULT`].
//! What is not used comes back at the end; what is used beyond is charged then.
//!
//! What stands in base64 is no text: an image of two megabytes costs some
//! thousand tokens, and as text it would be 700 000, more than most limits have.
//! It is told by its data URL, by the member `input_audio`, or by the word `base64` that Anthropic's
//! form has beside it.

use memchr::{memchr2, memmem};
use nexus_events::raw_object::RawObject;
use serde_json::value::RawValue;

use crate::protocol::openai::request::ChatRequest;

/// Tokens of an answer that a client sets no bound for: 1 024, more than most answers have.
pub const ANSWER_DEFAULT: u64 = 1024;

/// Bytes of a prompt for one token.
const TOKEN_BYTES: u64 = 3;

/// Tokens of an image, whatever its size: 1 600, the most that Anthropic counts for one (its page on vision,
/// read 2026-11); OpenAI counts some 800 in high detail.
const IMAGE: u64 = 1600;

/// Bytes in base64 of a document or a sound for one token: 30. A page of a PDF has 1 500 to 3 000 tokens and rarely
/// less than 50 KB; a second of sound has 10 to 32 tokens and 5 KB at least.
const DOCUMENT_TOKEN_BYTES: u64 = 30;

/// What stands beside a member `data` in base64: a sound's name, or Anthropic's word for the way of
/// writing.
const BESIDE_DATA: [&str; 2] = ["\"input_audio\"", "\"base64\""];

/// How far before `data` its media type stands: 64 bytes, several times the longest one that is an image.
const MEDIA_TYPE_BYTES: usize = 64;

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
        let messages: u64 = messages.map(|message| tokens(message.get())).sum();
        let others = ["tools", "functions", "response_format"].into_iter();
        let others = others.filter_map(|name| request.members.get(name));
        let others: u64 = others.map(|value| text_tokens(value.get().len())).sum();
        let bound = number("max_completion_tokens").or_else(|| number("max_tokens"));
        let choices = number("n").unwrap_or(1).clamp(1, CHOICES_MAX);
        Self {
            input: messages.saturating_add(others),
            output: bound.unwrap_or(ANSWER_DEFAULT).saturating_mul(choices),
        }
    }

    /// The guess for a request in another form: the members that a model reads, and the one that
    /// bounds its answer.
    pub fn of_members(members: &RawObject<'_>, read: &[&str], bound: &str) -> Self {
        let read = read.iter().filter_map(|name| members.get(name));
        let bound = members.get(bound).and_then(whole);
        Self {
            input: read.map(|value| tokens(value.get())).sum(),
            output: bound.unwrap_or(ANSWER_DEFAULT),
        }
    }

    /// The guess for a request that is answered without a word: embeddings.
    pub fn of_input(members: &RawObject<'_>) -> Self {
        let bytes = members.get("input").map_or(0, |input| input.get().len());
        Self {
            input: text_tokens(bytes),
            output: 0,
        }
    }

    /// Both together, as far as a limit can count.
    pub fn total(self) -> u32 {
        let total = self.input.saturating_add(self.output);
        u32::try_from(total).unwrap_or(u32::MAX)
    }
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn text_tokens(bytes: usize) -> u64 {
    count(bytes).div_ceil(TOKEN_BYTES)
}

/// Tokens of a message: its text, and what it has in base64.
fn tokens(message: &str) -> u64 {
    let (mut opaque_bytes, mut tokens) = (0, 0_u64);
    for data_url in memmem::find_iter(message.as_bytes(), ";base64,") {
        let (before, run) = message.as_bytes().split_at(data_url);
        let bytes = run_bytes(run);
        opaque_bytes += bytes;
        // The media type stands before, in a few bytes: `data:image/svg+xml`.
        let media_type = memchr::memrchr(b'"', before).and_then(|quote| before.get(quote + 1..));
        let is_image = media_type.is_some_and(|text| text.starts_with(b"data:image"));
        tokens += if is_image {
            IMAGE
        } else {
            count(bytes).div_ceil(DOCUMENT_TOKEN_BYTES)
        };
    }
    let has = |name: &&str| memmem::find(message.as_bytes(), name.as_bytes()).is_some();
    if BESIDE_DATA.iter().any(has) {
        for data in memmem::find_iter(message.as_bytes(), "\"data\"") {
            let (before, value) = message.as_bytes().split_at(data);
            let near = before.len().saturating_sub(MEDIA_TYPE_BYTES);
            let near = before.get(near..).unwrap_or_default();
            let opens = value.iter().skip(6).position(|byte| *byte == b'"');
            let run = opens.and_then(|quote| value.get(6 + quote + 1..));
            let bytes = run.map_or(0, run_bytes);
            opaque_bytes += bytes;
            tokens += if memmem::find(near, b"\"image/").is_some() {
                IMAGE
            } else {
                count(bytes).div_ceil(DOCUMENT_TOKEN_BYTES)
            };
        }
    }
    tokens + text_tokens(message.len().saturating_sub(opaque_bytes))
}

/// Bytes up to the end of a text, or to its first blank: base64 has none.
fn run_bytes(run: &[u8]) -> usize {
    memchr2(b'"', b' ', run).unwrap_or(run.len())
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
    fn what_stands_in_base64_is_no_text() {
        let base64 = "QUJD".repeat(500_000);
        let of = |part: &str| {
            let message = format!(r#"{{"role":"user","content":[{part}]}}"#);
            tokens(&message)
        };
        let near = |found: u64, expected: u64| (expected..expected + 60).contains(&found);
        let image = format!(
            r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{base64}"}}}}"#
        );
        assert!(near(of(&image), IMAGE), "{}", of(&image));
        let two = of(&format!("{image},{image}"));
        assert!(near(two, 2 * IMAGE + 40), "{two}");
        let file = format!(
            r#"{{"type":"file","file":{{"file_data":"data:application/pdf;base64,{base64}"}}}}"#
        );
        assert!(near(of(&file), 66_667), "{}", of(&file));
        let sound = format!(
            r#"{{"type":"input_audio","input_audio":{{"format":"wav","data" : "{base64}"}}}}"#
        );
        assert!(near(of(&sound), 66_667), "{}", of(&sound));
        // What only begins like an image is text.
        let text = format!(
            r#"{{"type":"text","text":"data:image/png;base64, {}"}}"#,
            "and so on ".repeat(3000)
        );
        assert!(near(of(&text), 10_000 + IMAGE), "{}", of(&text));
        // As Anthropic has it.
        let source = |kind: &str, media: &str| {
            format!(
                r#"{{"type":"{kind}","source":{{"type":"base64","media_type":"{media}","data":"{base64}"}}}}"#
            )
        };
        let image = of(&source("image", "image/jpeg"));
        assert!(near(image, IMAGE), "{image}");
        let document = of(&source("document", "application/pdf"));
        assert!(near(document, 66_667), "{document}");
    }

    #[test]
    fn a_request_in_another_form_is_guessed_by_what_a_model_reads_of_it() {
        let body = r#"{"input":"123","x":"1234","tools":[1,2],"most":7}"#;
        let members = RawObject::parse(body.as_bytes()).unwrap();
        let guess = |bound| Estimate::of_members(&members, &["input", "tools", "y"], bound);
        let (input, output) = (4, 7);
        assert_eq!(guess("most"), Estimate { input, output });
        assert_eq!(guess("x").output, ANSWER_DEFAULT);
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
