//! Server-sent events as they go to a client: `data` frames, nothing else.

use bytes::BytesMut;
use memchr::memchr_iter;

/// The data of the frame that ends a stream, in OpenAI's protocol.
pub const DONE: &[u8] = b"[DONE]";

/// Appends one event to what is to be sent.
///
/// Data that holds line feeds, as pretty-printed JSON does, becomes one `data`
/// line for each of its lines, which a decoder joins again.
pub fn frame(out: &mut BytesMut, data: &[u8]) {
    out.reserve(data.len() + 8);
    let mut from = 0;
    for end in memchr_iter(b'\n', data) {
        line(out, data.get(from..end).unwrap_or_default());
        from = end + 1;
    }
    line(out, data.get(from..).unwrap_or_default());
    out.extend_from_slice(b"\n");
}

/// The same for a chunk, with its number as the event's `id`: who is cut off comes back with it.
pub fn numbered(out: &mut BytesMut, number: u32, data: &[u8]) {
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(digits.format(number).as_bytes());
    out.extend_from_slice(b"\n");
    frame(out, data);
}

/// The same with the name of the event, which is one line.
pub fn named(out: &mut BytesMut, name: &str, data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\n");
    frame(out, data);
}

fn line(out: &mut BytesMut, data: &[u8]) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stream::sse_decode::SseDecoder;

    #[test]
    fn a_frame_is_a_line_and_a_blank_line() {
        let mut out = BytesMut::new();
        frame(&mut out, b"{}");
        frame(&mut out, DONE);
        assert_eq!(out, "data: {}\n\ndata: [DONE]\n\n");
    }

    proptest! {
        #[test]
        fn a_decoder_reads_what_was_sent(data in proptest::collection::vec("[^\r]{0,20}", 1..5)) {
            let mut out = BytesMut::new();
            for data in &data {
                frame(&mut out, data.as_bytes());
            }
            let mut decoder = SseDecoder::default();
            decoder.push(out.freeze());
            for data in &data {
                let event = decoder.next_event().unwrap().unwrap();
                prop_assert_eq!(&event.data, data.as_bytes());
            }
            prop_assert_eq!(decoder.next_event().unwrap(), None);
        }
    }
}
