//! Reading Server-Sent Events as they come off the wire.
//!
//! A second, deliberately plain reading of the format (WHATWG HTML, "Server-sent events", read
//! 2026-11-24), so that the hub's own decoder is not checked with itself.
//! Splits anywhere, also inside a character; all three line ends; comments skipped; an event that
//! was not closed by an empty line is not an event, and [`Decoder::rest`] shows it.

/// One event, complete.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field, empty if there was none.
    pub name: String,
    /// The `data:` lines, joined with a line feed.
    pub data: String,
    /// The `id:` field, empty if there was none.
    pub id: String,
}

/// Puts bytes in, takes events out.
#[derive(Debug, Default)]
pub struct Decoder {
    line: Vec<u8>,
    after_carriage_return: bool,
    event: Event,
    has_data: bool,
}

impl Decoder {
    /// All events of a complete body.
    pub fn decode_all(body: &[u8]) -> Vec<Event> {
        Self::default().feed(body)
    }

    /// Takes the next bytes and returns the events that they complete.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for &byte in bytes {
            let follows_carriage_return = std::mem::take(&mut self.after_carriage_return);
            match byte {
                b'\n' if follows_carriage_return => {}
                b'\n' => events.extend(self.end_line()),
                b'\r' => {
                    self.after_carriage_return = true;
                    events.extend(self.end_line());
                }
                other => self.line.push(other),
            }
        }
        events
    }

    /// What was received of an event that is not complete.
    pub fn rest(&self) -> String {
        let line = String::from_utf8_lossy(&self.line);
        match (self.has_data, line.is_empty()) {
            (false, _) => line.into_owned(),
            (true, true) => format!("data: {}", self.event.data),
            (true, false) => format!("data: {}\n{line}", self.event.data),
        }
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).into_owned();
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            return std::mem::take(&mut self.has_data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => {
                if self.has_data {
                    self.event.data.push('\n');
                }
                self.has_data = true;
                self.event.data.push_str(value);
            }
            "event" => value.clone_into(&mut self.event.name),
            "id" => value.clone_into(&mut self.event.id),
            // A comment (no field name) or a field that we have no use for.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = ": hello\r\n\r\nid: 7\r\nevent: x\r\ndata: {\"a\":\"é\"}\r\n\r\ndata:one\ndata: two\n\ndata: half";

    #[test]
    fn reads_the_same_events_however_the_bytes_are_split() {
        let whole = Decoder::decode_all(BODY.as_bytes());
        assert_eq!(whole.len(), 2);
        assert_eq!(whole[0].id, "7");
        assert_eq!(whole[0].name, "x");
        assert_eq!(whole[0].data, "{\"a\":\"é\"}");
        assert_eq!(whole[1].data, "one\ntwo");
        for split in 0..BODY.len() {
            let (left, right) = BODY.as_bytes().split_at(split);
            let mut decoder = Decoder::default();
            let mut events = decoder.feed(left);
            events.extend(decoder.feed(right));
            assert_eq!(events, whole, "split at byte {split}");
            assert_eq!(decoder.rest(), "data: half");
        }
    }
}
