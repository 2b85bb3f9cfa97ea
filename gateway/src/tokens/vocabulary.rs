//! The vocabularies: which one a model has, and how many tokens a text comes to.

use std::fmt;

use tiktoken_rs::{
    CoreBPE, bpe_for_tokenizer,
    tokenizer::{Tokenizer, get_tokenizer},
};

/// Longest text that is cut into tokens at once: 64 KiB.
///
/// The splitting expression looks back and gives up after a million steps, so
/// a text must stay well below that. Where a longer one is cut after a word, as
/// all but contrived ones can be, it comes to the same tokens as the whole;
/// elsewhere a cut costs one token at most.
const PIECE_BYTES_MAX: usize = 64 * 1024;

/// The tokens of a family of models.
#[derive(Clone, Copy)]
pub struct Vocabulary {
    tokens: &'static CoreBPE,
    tokenizer: Tokenizer,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Vocabulary {
    /// The vocabulary of a model, `o200k_base` for one that is not `OpenAI`'s; loads it at first.
    ///
    /// `None` when it cannot be loaded: a defect of the library, which holds it.
    pub fn of_model(model: &str) -> Option<Self> {
        // Resellers put the vendor's name in front: `openai/gpt-4o`.
        let bare = model.rsplit('/').next().unwrap_or(model);
        let tokenizer = get_tokenizer(bare).unwrap_or(Tokenizer::O200kBase);
        let tokens = bpe_for_tokenizer(tokenizer).ok()?;
        Some(Self { tokens, tokenizer })
    }

    /// Its published name.
    pub const fn name(self) -> &'static str {
        match self.tokenizer {
            Tokenizer::O200kHarmony => "o200k_harmony",
            Tokenizer::O200kBase => "o200k_base",
            Tokenizer::Cl100kBase => "cl100k_base",
            Tokenizer::P50kBase => "p50k_base",
            Tokenizer::R50kBase => "r50k_base",
            Tokenizer::P50kEdit => "p50k_edit",
            Tokenizer::Gpt2 => "gpt2",
        }
    }

    /// Whether it is one of the older chat models', whose tools cost more.
    pub const fn is_before_o200k(self) -> bool {
        !matches!(
            self.tokenizer,
            Tokenizer::O200kBase | Tokenizer::O200kHarmony
        )
    }

    /// Number of tokens of a text; what looks like a special token is text.
    pub fn count(self, text: &str) -> u64 {
        let count = |piece| u64::try_from(self.tokens.count_ordinary(piece)).unwrap_or(u64::MAX);
        Pieces(text).map(count).sum()
    }
}

/// A text in pieces of [`PIECE_BYTES_MAX`] at most, cut after a word where there is one, else before
/// a blank.
struct Pieces<'a>(&'a str);

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        if self.0.is_empty() {
            return None;
        }
        let longest = self.0.floor_char_boundary(PIECE_BYTES_MAX);
        let (longest_piece, _) = self.0.split_at_checked(longest)?;
        let cut = if longest == self.0.len() {
            longest
        } else {
            after_word(longest_piece)
                .or_else(|| longest_piece.rfind(char::is_whitespace))
                .filter(|cut| *cut > 0)
                .unwrap_or(longest)
        };
        let (piece, rest) = self.0.split_at_checked(cut)?;
        self.0 = rest;
        Some(piece)
    }
}

/// The last place between a letter and a blank or a full-width mark.
///
/// The splitting expressions end a word there, whatever comes before and after: only letters,
/// combining marks and an apostrophe go on with it, and nothing in them looks back.
fn after_word(text: &str) -> Option<usize> {
    let mut next = None;
    for (at, c) in text.char_indices().rev() {
        if is_letter(c) && next.is_some() {
            return next;
        }
        next = ends_words(c).then_some(at);
    }
    None
}

/// Letters that nobody doubts: a combining mark is alphabetic, too, and does not end a word.
const fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7a3}')
}

const fn ends_words(c: char) -> bool {
    matches!(
        c,
        ' ' | '\n' | '，' | '。' | '、' | '；' | '：' | '！' | '？'
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_model_has_its_vocabulary() {
        for (model, name) in [
            ("gpt-4o-mini", "o200k_base"),
            ("openai/gpt-4.1", "o200k_base"),
            ("gpt-oss-120b", "o200k_harmony"),
            ("gpt-4-0613", "cl100k_base"),
            ("gpt-3.5-turbo", "cl100k_base"),
            ("ft:gpt-3.5-turbo:acme::1", "cl100k_base"),
            ("ernie-4.0", "o200k_base"),
            ("", "o200k_base"),
        ] {
            assert_eq!(Vocabulary::of_model(model).unwrap().name(), name, "{model}");
        }
    }

    #[test]
    fn texts_come_to_the_tokens_that_are_published_for_them() {
        let (old, new) = (
            Vocabulary::of_model("gpt-4").unwrap(),
            Vocabulary::of_model("gpt-4o").unwrap(),
        );
        assert_eq!((old.count(""), new.count("")), (0, 0));
        assert_eq!((old.count("hello world"), new.count("hello world")), (2, 2));
        // The larger vocabulary knows more of other languages.
        let greeting = "こんにちは、お元気ですか";
        assert!(old.count(greeting) > new.count(greeting));
        assert!(
            new.count("<|endoftext|>") > 1,
            "typed text is no special token"
        );
    }

    #[test]
    fn a_long_text_is_counted_in_pieces_and_comes_to_the_same() {
        let vocabulary = Vocabulary::of_model("gpt-4o").unwrap();
        let line = "The quick brown fox jumps over the lazy dog.\n";
        let lines = 10_000;
        let whole = line.repeat(lines);
        assert!(Pieces(&whole).count() > 5);
        let expected = vocabulary.count(line) * u64::try_from(lines).unwrap();
        assert_eq!(vocabulary.count(&whole), expected);
    }

    #[test]
    fn hostile_texts_are_counted_too() {
        let vocabulary = Vocabulary::of_model("gpt-4o").unwrap();
        for unit in ["a", "A", " ", "\n", "\t ", "0", "é", "🦀", "'s", "=", "漢"] {
            let text = unit.repeat(300_000);
            assert!(vocabulary.count(&text) > 0, "{unit:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_are_short_and_lose_nothing(
            text in "[a-z é🦀\n]{0,40}", times in 1_usize..20_000,
        ) {
            let text = text.repeat(times);
            let pieces: Vec<&str> = Pieces(&text).collect();
            prop_assert!(pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
            prop_assert!(pieces.iter().all(|piece| !piece.is_empty()));
            prop_assert_eq!(pieces.concat(), text);
        }
    }
}
