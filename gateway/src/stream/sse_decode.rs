//! An incremental decoder of server-sent events, as the HTML standard has them.
//!
//! *What it is.* Bytes go in as the network cut them, events come out. Lines
//! end in LF, CR or CRLF; comments and unknown fields are skipped; several
//! `data` lines of one event are joined by LF; a byte order mark at the start
//! is dropped; an event that the end of the stream cuts off is not an event.
//!
//! *Why not a library.* This sits on the path of every chunk. An event that
//! lies within one network read, which nearly all do, is handed out as a slice
//! of it: nothing is copied. The crates at hand decode into owned strings.
//!
//! *What it promises.* However the bytes are cut, the events are the same. A
//! byte is looked at once and copied at most twice. Memory is bounded by
//! [`EVENT_BYTES_MAX`] and the network read at hand.

use bytes::{Buf, Bytes, BytesMut};
use memchr::memchr2;

/// Bytes of one event, and of one line: 8 MiB.
///
/// A chunk of text is a few hundred bytes; one that carries a whole image in
/// base64 has one to three megabytes. What is larger is no chunk.
pub const EVENT_BYTES_MAX: usize = 8 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SseEvent {
    /// Its `event` field; empty when it has none.
    pub name: Bytes,
    /// Its `data` lines, joined by LF.
    pub data: Bytes,
}

/// An event or a line is larger than [`EVENT_BYTES_MAX`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("read an event: it is larger than {EVENT_BYTES_MAX} bytes")]
pub struct EventTooLarge;

/// The decoder of one stream.
#[derive(Debug, Default)]
pub struct SseDecoder {
    /// What the network delivered and nobody has looked at.
    input: Bytes,
    /// The beginning of a line whose end has not come yet.
    partial: BytesMut,
    /// The last line ended in CR at the end of a read: an LF that follows belongs to it.
    after_cr: bool,
    /// Whether the first line is behind us.
    begun: bool,
    name: Bytes,
    data: Data,
    last_id: Bytes,
}

/// The `data` lines so far.
#[derive(Debug, Default)]
enum Data {
    #[default]
    None,
    One(Bytes),
    Many(BytesMut),
}

impl SseDecoder {
    /// Takes what the network delivered; call [`Self::next_event`] until it gives `None` first.
    pub fn push(&mut self, bytes: Bytes) {
        if self.input.is_empty() {
            self.input = bytes;
        } else {
            let mut joined = BytesMut::from(self.input.as_ref());
            joined.extend_from_slice(&bytes);
            self.input = joined.freeze();
        }
    }

    /// The next event; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`EventTooLarge`]; the stream is of no use after it.
    pub fn next_event(&mut self) -> Result<Option<SseEvent>, EventTooLarge> {
        while let Some(line) = self.next_line()? {
            if line.is_empty() {
                if let Some(event) = self.dispatch() {
                    return Ok(Some(event));
                }
            } else {
                self.field(&line)?;
            }
        }
        Ok(None)
    }

    /// The last `id` field so far, as the standard's "last event id"; empty when there was none.
    pub const fn last_id(&self) -> &Bytes {
        &self.last_id
    }

    /// Whether the stream, if it ended here, would cut off an event.
    pub fn inside_event(&self) -> bool {
        !self.partial.is_empty() || !matches!(self.data, Data::None)
    }

    fn next_line(&mut self) -> Result<Option<Bytes>, EventTooLarge> {
        if self.after_cr && !self.input.is_empty() {
            self.after_cr = false;
            if self.input.first() == Some(&b'\n') {
                self.input.advance(1);
            }
        }
        let Some(end) = memchr2(b'\n', b'\r', &self.input) else {
            let rest = std::mem::take(&mut self.input);
            self.partial.extend_from_slice(&rest);
            return within_bounds(self.partial.len()).map(|()| None);
        };
        let mut line = self.input.split_to(end);
        // The terminator itself; an LF after a CR is skipped when it is seen.
        self.after_cr = self.input.first() == Some(&b'\r');
        self.input.advance(1);
        if !self.partial.is_empty() {
            self.partial.extend_from_slice(&line);
            line = self.partial.split().freeze();
        }
        within_bounds(line.len())?;
        if !self.begun {
            self.begun = true;
            if line.starts_with(BYTE_ORDER_MARK) {
                line.advance(BYTE_ORDER_MARK.len());
            }
        }
        Ok(Some(line))
    }

    fn field(&mut self, line: &Bytes) -> Result<(), EventTooLarge> {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value_at = match line.get(colon + 1) {
            Some(b' ') => colon + 2,
            Some(_) => colon + 1,
            None => line.len(),
        };
        match line.get(..colon).unwrap_or_default() {
            b"data" => self.data.push(line.slice(value_at..))?,
            b"event" => self.name = line.slice(value_at..),
            b"id" => self.last_id = line.slice(value_at..),
            // `retry` serves reconnection, which no provider offers; an empty name is a comment;
            // the standard ignores the rest.
            _ => {}
        }
        Ok(())
    }

    fn dispatch(&mut self) -> Option<SseEvent> {
        let name = std::mem::take(&mut self.name);
        let data = match std::mem::take(&mut self.data) {
            Data::None => return None,
            Data::One(data) => data,
            Data::Many(data) => data.freeze(),
        };
        Some(SseEvent { name, data })
    }
}

impl Data {
    fn push(&mut self, line: Bytes) -> Result<(), EventTooLarge> {
        *self = match std::mem::take(self) {
            Self::None => Self::One(line),
            Self::One(first) => Self::Many(BytesMut::from(first.as_ref())).joined(&line)?,
            many @ Self::Many(_) => many.joined(&line)?,
        };
        Ok(())
    }

    fn joined(mut self, line: &[u8]) -> Result<Self, EventTooLarge> {
        if let Self::Many(data) = &mut self {
            within_bounds(data.len() + 1 + line.len())?;
            data.extend_from_slice(b"\n");
            data.extend_from_slice(line);
        }
        Ok(self)
    }
}

fn within_bounds(bytes: usize) -> Result<(), EventTooLarge> {
    if bytes > EVENT_BYTES_MAX {
        Err(EventTooLarge)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut decoder = SseDecoder::default();
        let mut events = Vec::new();
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            while let Some(event) = decoder.next_event().unwrap() {
                let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
                events.push((text(&event.name), text(&event.data)));
            }
        }
        events
    }

    fn data(events: &[(String, String)]) -> Vec<&str> {
        events.iter().map(|(_, data)| data.as_str()).collect()
    }

    #[test]
    fn lines_end_in_lf_cr_or_crlf() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("data: a{end}{end}data:b{end}data: c{end}{end}");
            assert_eq!(data(&decode(&[text.as_bytes()])), ["a", "b\nc"], "{end:?}");
        }
    }

    #[test]
    fn comments_marks_and_unknown_fields_are_no_data() {
        let text = b"\xEF\xBB\xBF: hello\n\ndata: 1\nid: 7\nretry: 3\nwhat\n\nevent: error\ndata:  2\n\nevent: lone\n\ndata\n\n";
        let events = decode(&[text]);
        assert_eq!(data(&events), ["1", " 2", ""]);
        assert_eq!(events[1].0, "error");
        assert_eq!(
            events[2].0, "",
            "an event without data leaves no name behind"
        );
    }

    #[test]
    fn an_event_that_is_cut_off_is_not_an_event() {
        let mut decoder = SseDecoder::default();
        decoder.push(Bytes::from_static(b"data: 1\n\ndata: {\"ha"));
        assert_eq!(decoder.next_event().unwrap().unwrap().data, "1");
        assert_eq!(decoder.next_event().unwrap(), None);
        assert!(decoder.inside_event());
        decoder.push(Bytes::from_static(b"lf\"}\n"));
        assert_eq!(decoder.next_event().unwrap(), None);
        assert!(decoder.inside_event());
        decoder.push(Bytes::from_static(b"\n"));
        assert_eq!(decoder.next_event().unwrap().unwrap().data, "{\"half\"}");
        assert!(!decoder.inside_event());
    }

    #[test]
    fn an_event_within_one_read_is_a_slice_of_it() {
        let read = Bytes::from_static(b"data: one\n\ndata: two\n\n");
        let mut decoder = SseDecoder::default();
        decoder.push(read.clone());
        let first = decoder.next_event().unwrap().unwrap();
        assert_eq!(first.data.as_ptr(), read.slice(6..).as_ptr());
    }

    #[test]
    fn what_is_too_large_is_refused() {
        let line = vec![b'x'; EVENT_BYTES_MAX / 2];
        let mut decoder = SseDecoder::default();
        decoder.push(Bytes::from(line.clone()));
        assert_eq!(decoder.next_event(), Ok(None));
        decoder.push(Bytes::from(line.clone()));
        assert_eq!(decoder.next_event(), Ok(None));
        decoder.push(Bytes::from_static(b"x"));
        assert_eq!(decoder.next_event(), Err(EventTooLarge));

        let whole = [b"data:".as_slice(), &line, &line, b"\n\n"].concat();
        let mut decoder = SseDecoder::default();
        decoder.push(Bytes::from(whole));
        assert_eq!(decoder.next_event(), Err(EventTooLarge));

        let lines = [b"data:".as_slice(), &line, b"\n"].concat();
        let mut decoder = SseDecoder::default();
        decoder.push(Bytes::from(lines.repeat(3)));
        assert_eq!(decoder.next_event(), Err(EventTooLarge));
    }

    /// The pieces of a text between the places at which it is cut.
    fn cut<'a>(text: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts {
            pieces.push(&text[from..cut]);
            from = cut;
        }
        pieces.push(&text[from..]);
        pieces
    }

    /// The data of the events, and whether one was too large.
    fn sizes(pieces: &[&[u8]]) -> (Vec<usize>, bool) {
        let (mut decoder, mut sizes) = (SseDecoder::default(), Vec::new());
        for piece in pieces {
            decoder.push(Bytes::copy_from_slice(piece));
            loop {
                match decoder.next_event() {
                    Ok(Some(event)) => sizes.push(event.data.len()),
                    Ok(None) => break,
                    Err(EventTooLarge) => return (sizes, true),
                }
            }
        }
        (sizes, false)
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_events_are_the_same(
            text in proptest::collection::vec(
                prop_oneof![
                    Just("data: a"), Just("data:"), Just("data"), Just("event: e"), Just(": c"),
                    Just("\n"), Just("\r"), Just("\r\n"), Just("\n\n"), Just("\u{feff}"),
                    Just("data: {\"x\":\"\u{e9}\"}\n\n"), Just("x"),
                ],
                0..40,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let text = text.concat().into_bytes();
            let whole = decode(&[&text]);
            for place in 0..text.len() {
                let (before, after) = text.split_at(place);
                prop_assert_eq!(&decode(&[before, after]), &whole, "cut at {}", place);
            }
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            prop_assert_eq!(&decode(&bytes), &whole);
            prop_assert_eq!(&decode(&cut(&text, &cuts)), &whole);
        }
    }

    proptest! {
        // A case moves some megabytes.
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn however_it_is_cut_the_same_event_is_too_large(
            lines in proptest::collection::vec(
                (
                    prop::sample::select(vec![
                        1, EVENT_BYTES_MAX / 2, EVENT_BYTES_MAX - 7, EVENT_BYTES_MAX - 6,
                        EVENT_BYTES_MAX - 5, EVENT_BYTES_MAX, 2 * EVENT_BYTES_MAX,
                    ]),
                    prop::sample::select(vec!["\n", "\n\n", "\r\n\r\n"]),
                ),
                1..5,
            ),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut text = Vec::new();
            for (size, end) in lines {
                text.extend_from_slice(b"data: ");
                text.resize(text.len() + size, b'x');
                text.extend_from_slice(end.as_bytes());
            }
            prop_assert_eq!(sizes(&cut(&text, &cuts)), sizes(&[&text]));
        }
    }
}
