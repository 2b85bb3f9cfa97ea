//! What a log line says of an error: each error's own sentence, and nothing that it quotes.
//!
//! A reader of JSON quotes the value that it did not expect, and that may be what somebody said. So
//! of its errors the kind and the place remain, wherever in a chain they stand.

use std::{error::Error, fmt};

use serde_json::error::Category;
use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::{RecordFields, VisitOutput},
    fmt::{
        FormatFields,
        format::{DefaultVisitor, Writer},
    },
};

/// Of an error and all behind it a line says so many characters at most: 2 048.
const CHARS_MAX: usize = 2048;

/// An error and everything behind it, as one sentence on one line.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = sentence(error);
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&sentence(error));
        source = error.source();
    }
    let shown = |character: char| {
        if character.is_control() {
            ' '
        } else {
            character
        }
    };
    text.chars().take(CHARS_MAX).map(shown).collect()
}

fn sentence(error: &(dyn Error + 'static)) -> String {
    let Some(json) = error.downcast_ref::<serde_json::Error>() else {
        return error.to_string();
    };
    let what = match json.classify() {
        Category::Io => "JSON could not be read or written",
        Category::Syntax => "not JSON",
        Category::Data => "JSON that is not what was expected",
        Category::Eof => "JSON that ends too early",
    };
    match json.line() {
        0 => what.to_owned(),
        line => format!("{what}, at line {line} column {}", json.column()),
    }
}

/// The fields of a line of text; of errors what [`chain`] says.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlainFields;

impl<'writer> FormatFields<'writer> for PlainFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'writer>, fields: R) -> fmt::Result {
        let mut visitor = Plain(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

/// Writes fields as usual, errors excepted.
struct Plain<'writer>(DefaultVisitor<'writer>);

impl Visit for Plain<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.record_str(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.0
            .record_debug(field, &format_args!("{}", chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.record_debug(field, value);
    }
}

#[cfg(test)]
mod tests {
    use nexus_events::envelope::{DecodeError, Envelope};

    use super::*;

    #[test]
    fn what_a_reader_of_json_quotes_is_not_said() {
        let read = serde_json::from_str::<Vec<u32>>(r#"["my secret plan"]"#);
        let quoting = read.unwrap_err();
        assert!(quoting.to_string().contains("my secret plan"), "{quoting}");
        let error = DecodeError::Data {
            kind: "a.b.v1".to_owned(),
            source: quoting,
        };
        assert_eq!(
            chain(&error),
            "the data is not what a.b.v1 promises: JSON that is not what was expected, at line 1 column 17"
        );
        let broken = Envelope::decode(b"{").unwrap_err();
        assert!(
            chain(&broken).contains("ends too early"),
            "{}",
            chain(&broken)
        );
    }

    #[test]
    fn a_line_stays_one_line_and_has_a_bound() {
        let long = std::io::Error::other(format!("one\ntwo\u{1b}[31m{}", "x".repeat(9000)));
        let said = chain(&long);
        assert!(said.starts_with("one two [31mx"), "{said}");
        assert_eq!(said.chars().count(), CHARS_MAX);
    }
}
