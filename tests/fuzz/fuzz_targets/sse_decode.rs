//! However a provider's stream is cut, the events are the same, and no event is larger than the bound.
//!
//! *Why.* The network cuts where it likes: between CR and LF, within the byte order mark, within a
//! character. A decoder that holds or loses a byte there loses a piece of an answer, once in a
//! thousand streams and never on the machine of whoever looks for it.
//!
//! *The input.* Its first byte tells the number of cuts (a digit), two bytes tell the place of each, and
//! the rest is the stream. With a letter in place of the digit, a byte 0 in the stream and the byte
//! that follows stand for a long run of one letter: the bounds lie beyond the size of any input.

#![no_main]

use std::sync::LazyLock;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use nexus_gateway::stream::sse_decode::{EVENT_BYTES_MAX, EventTooLarge, SseDecoder, SseEvent};

/// Lengths of the runs: around the bound, with and without `data: ` before them.
const RUNS: [usize; 6] = [
    EVENT_BYTES_MAX / 2,
    EVENT_BYTES_MAX - 7,
    EVENT_BYTES_MAX - 6,
    EVENT_BYTES_MAX - 5,
    EVENT_BYTES_MAX,
    EVENT_BYTES_MAX + 1,
];

/// Long runs in one input: two are too large together, more would only make it slow.
const RUNS_MAX: usize = 2;

static LONGEST_RUN: LazyLock<Vec<u8>> = LazyLock::new(|| vec![b'x'; EVENT_BYTES_MAX + 1]);

/// Streams up to this size are also fed byte by byte.
const SINGLE_BYTES_MAX: usize = 4096;

fuzz_target!(|input: &[u8]| {
    let Some((count, rest)) = input.split_first() else {
        return;
    };
    let (places, text) = rest.split_at(usize::from(count % 8 * 2).min(rest.len()));
    let stream = if count & 0x40 == 0 {
        text.to_vec()
    } else {
        expand(text)
    };

    let whole = decode(&[&stream]);
    assert_eq!(decode(&cut(&stream, places)), whole, "cut at some places");
    if stream.len() <= SINGLE_BYTES_MAX {
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(decode(&single), whole, "byte by byte");
    }
    if stream.len() > EVENT_BYTES_MAX {
        let mut lines = stream.split(|byte| matches!(byte, b'\n' | b'\r'));
        let is_within = lines.all(|line| line.len() <= EVENT_BYTES_MAX);
        assert!(
            is_within || whole.1.is_err(),
            "a line is larger than the bound"
        );
    } else {
        assert!(whole.1.is_ok(), "nothing is too large");
    }
});

/// The events, and how the stream ended: whether within an event, or by one that is too large.
type Decoded = (Vec<SseEvent>, Result<bool, EventTooLarge>);

fn decode(pieces: &[&[u8]]) -> Decoded {
    let (mut decoder, mut events) = (SseDecoder::default(), Vec::new());
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_event() {
                Ok(Some(event)) => {
                    assert!(event.data.len() <= EVENT_BYTES_MAX, "the data is bounded");
                    assert!(event.name.len() <= EVENT_BYTES_MAX, "the name is bounded");
                    events.push(event);
                }
                Ok(None) => break,
                Err(error) => return (events, Err(error)),
            }
        }
    }
    (events, Ok(decoder.inside_event()))
}

fn expand(text: &[u8]) -> Vec<u8> {
    let (mut stream, mut runs) = (Vec::with_capacity(text.len()), 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match (byte, bytes.as_slice().first()) {
            (0, Some(which)) if runs < RUNS_MAX => {
                bytes.next();
                runs += 1;
                stream.extend_from_slice(&LONGEST_RUN[..RUNS[usize::from(*which) % RUNS.len()]]);
            }
            _ => stream.push(*byte),
        }
    }
    stream
}

fn cut<'a>(stream: &'a [u8], places: &[u8]) -> Vec<&'a [u8]> {
    let (places, _) = places.as_chunks::<2>();
    let mut cuts: Vec<usize> = places
        .iter()
        // From the beginning and from the end: a long run has its ends at both.
        .map(|place| match i16::from_le_bytes(*place) {
            place @ 0.. => usize::from(place.unsigned_abs()) % (stream.len() + 1),
            place => stream.len() - usize::from(place.unsigned_abs()) % (stream.len() + 1),
        })
        .collect();
    cuts.sort_unstable();
    let (mut pieces, mut from) = (Vec::new(), 0);
    for cut in cuts {
        pieces.push(&stream[from..cut]);
        from = cut;
    }
    pieces.push(&stream[from..]);
    pieces
}
