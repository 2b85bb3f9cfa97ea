//! Server-sent events as they go to a client: `data` frames with their names and numbers.

use bytes::BytesMut;
use memchr::{memchr_iter, memmem};

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

/// Gives the last of the frames from a place on that `id`; nothing where there are none.
///
/// What is made of one chunk may be several frames. The number stands at the last of them: who
/// has that has all of them, and who was cut off before gets all of them again.
pub fn number_last(out: &mut BytesMut, from: usize, number: u32) {
    let Some(frames) = out.get(from..).and_then(|all| all.strip_suffix(b"\n\n")) else {
        return;
    };
    let last = memmem::rfind(frames, b"\n\n").map_or(0, |end| end + 2);
    let last = out.split_off(from + last);
    let mut digits = itoa::Buffer::new();
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(digits.format(number).as_bytes());
    out.extend_from_slice(b"\n");
    out.extend_from_slice(&last);
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

    #[test]
    fn the_number_stands_at_the_last_frame_of_a_chunk() {
        let mut out = BytesMut::from("data: before\n\n");
        let from = out.len();
        number_last(&mut out, from, 6);
        assert_eq!(out, "data: before\n\n", "nothing was made of it");
        named(&mut out, "a", b"1");
        named(&mut out, "b", b"2\n\n3");
        number_last(&mut out, from, 7);
        let rest = "event: a\ndata: 1\n\nid: 7\nevent: b\ndata: 2\ndata: \ndata: 3\n\n";
        assert_eq!(out, format!("data: before\n\n{rest}"));
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
