//! How much of what a provider says about its answer goes into the events.
//!
//! Only content may be moved to the object store. Everything beside it has to
//! fit into one message of the broker, whatever the provider sends: a terminal
//! event that is too large for that would be missing from the log.

use nexus_events::{
    envelope::Record,
    exchange_event::{Failure, FailureReason},
};

/// Id and model of an answer: 256 bytes, several times the longest in use.
pub(super) const RESPONSE_NAME_BYTES_MAX: usize = 256;

/// A finish reason: 64 bytes. There are as many as choices, 128 at most.
pub(super) const FINISH_REASON_BYTES_MAX: usize = 64;

/// A usage block: 8 KiB, several times the largest in use. A larger one is left out whole.
pub(super) const USAGE_BYTES_MAX: usize = 8 * 1024;

/// The message of a failure: 2 KiB. The client gets the whole of it.
pub(super) const MESSAGE_BYTES_MAX: usize = 2 * 1024;

/// A terminal event without its content: 64 KiB, a small part of what any broker takes.
const TERMINAL_BYTES_MAX: usize = 64 * 1024;

/// The beginning of a text, at most so many bytes.
pub(super) fn shortened(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max))
        .unwrap_or_default()
}

/// A failure as events tell it.
pub(super) fn failure(reason: FailureReason, message: &str) -> Failure {
    Failure {
        reason,
        message: shortened(message, MESSAGE_BYTES_MAX).to_owned(),
    }
}

/// Whether a terminal event can be shipped once its content is moved.
pub(super) fn can_be_shipped(terminal: &Record) -> bool {
    let content_at = usize::try_from(terminal.content_at).unwrap_or(0);
    let beside = if content_at > 0 {
        content_at
    } else {
        terminal.payload.len()
    };
    beside <= TERMINAL_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_two_characters() {
        assert_eq!(shortened("aé", 3), "aé");
        assert_eq!(shortened("aé", 2), "a");
        assert_eq!(shortened("", 2), "");
    }

    #[test]
    fn a_failure_tells_the_beginning_of_a_long_message() {
        let told = failure(FailureReason::UpstreamStatus, &"no ".repeat(30_000));
        assert_eq!(told.message.len(), MESSAGE_BYTES_MAX);
        assert!(told.message.starts_with("no no"));
    }
}
