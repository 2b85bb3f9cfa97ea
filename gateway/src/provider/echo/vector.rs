//! Embeddings of the echo provider: a vector of length one that depends on the input alone.

use sha2::{Digest, Sha256};

use crate::protocol::openai::embeddings::Input;

/// Numbers of a vector where the client wants no other count: 256.
const DIMENSIONS: usize = 256;

/// The most that are made: 1 536. The vectors of the most inputs then come near the bound of an
/// answer, 31 MiB, and not far above it.
pub(super) const DIMENSIONS_MAX: u64 = 1536;

/// The vector of an input: the bytes of a hash, spread around zero and brought to length one.
#[expect(
    clippy::float_arithmetic,
    reason = "an embedding is numbers; nothing is counted or billed by them"
)]
pub(super) fn of(input: &Input<'_>, dimensions: Option<u64>) -> Vec<f32> {
    let count = dimensions.and_then(|count| usize::try_from(count).ok());
    let count = count.unwrap_or(DIMENSIONS);
    let mut numbers = Vec::with_capacity(count);
    for block in 0_u32.. {
        if numbers.len() >= count {
            break;
        }
        let mut hash = Sha256::new();
        hash.update(block.to_be_bytes());
        match input {
            Input::Text(text) => hash.update(text.as_bytes()),
            Input::Tokens(tokens) => {
                for token in tokens {
                    hash.update(token.to_be_bytes());
                }
            }
        }
        let bytes = hash.finalize();
        numbers.extend(bytes.iter().map(|byte| f32::from(*byte) - 127.5));
    }
    numbers.truncate(count);
    let length = numbers
        .iter()
        .map(|number| number * number)
        .sum::<f32>()
        .sqrt();
    numbers.iter().map(|number| number / length).collect()
}

/// A word is a token.
pub(super) fn tokens(input: &Input<'_>) -> u64 {
    let count = match input {
        Input::Text(text) => text.split_whitespace().count(),
        Input::Tokens(tokens) => tokens.len(),
    };
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_depends_on_its_input_and_has_length_one() {
        let text = |text: &'static str| Input::Text(text.into());
        let vector = of(&text("a b"), None);
        assert_eq!(vector.len(), DIMENSIONS);
        assert_eq!(vector, of(&text("a b"), None));
        assert_ne!(vector, of(&text("a c"), None));
        for count in [1, 33, DIMENSIONS_MAX] {
            let vector = of(&text("a"), Some(count));
            let length: f32 = vector.iter().map(|number| number * number).sum();
            assert_eq!(u64::try_from(vector.len()).unwrap(), count);
            assert!((length - 1.0).abs() < 1e-4, "{length}");
        }
        assert_eq!(tokens(&text("a b")), 2);
        assert_eq!(tokens(&Input::Tokens(vec![7, 8, 9])), 3);
    }
}
