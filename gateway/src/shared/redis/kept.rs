//! A kept answer as bytes: its version, who gave it as JSON on the rest of the line, and the answer.
//!
//! Version 1 was the answer alone.

use std::sync::Arc;

use bytes::Bytes;

use crate::shared::{Answerer, KeptAnswer};

/// The version that is written, and the only one that is read.
pub(super) const VERSION: u8 = 2;

/// What stands before the answer.
pub(super) fn head(by: &Answerer) -> Vec<u8> {
    let mut head = vec![VERSION];
    // Ids and names are always JSON; a head that is none would be read by nobody.
    head.extend(serde_json::to_vec(by).unwrap_or_default());
    head.push(b'\n');
    head
}

/// `None` for bytes of another version: the answer is asked for again.
pub(super) fn read(mut value: Bytes) -> Option<KeptAnswer> {
    let line = value.iter().position(|byte| *byte == b'\n')?;
    let head = value.split_to(line);
    let (version, by) = head.split_first()?;
    let by = serde_json::from_slice(by).ok()?;
    (*version == VERSION).then(|| KeptAnswer {
        by: Arc::new(by),
        body: value.slice(1..),
    })
}

#[cfg(test)]
mod tests {
    use nexus_events::id::ProviderId;

    use super::*;

    #[test]
    fn an_answer_reads_back_with_who_gave_it() {
        let by = Answerer {
            provider: ProviderId::from_uuid(uuid::Uuid::from_u128(7)),
            provider_name: "two\nlines".to_owned(),
            model: "模型".to_owned(),
        };
        for body in ["", "data: {}\n\ndata: [DONE]\n\n", r#"{"id":"a"}"#] {
            let value = [&head(&by), body.as_bytes()].concat();
            let kept = read(value.into()).unwrap();
            assert_eq!((&*kept.by, &*kept.body), (&by, body.as_bytes()));
        }
    }

    #[test]
    fn what_another_version_wrote_is_no_answer() {
        for old in [
            "",
            r#"{"id":"a","choices":[]}"#,
            "{\n}",
            "data: {\"id\":\"a\"}\n\n",
            "\u{2}{\"provider\":7}\n{}",
            "\u{2}\n{}",
        ] {
            assert_eq!(read(old.into()), None, "{old:?}");
        }
        let by = r#"{"provider":"00000000-0000-0000-0000-000000000007","provider_name":"p","model":"m"}"#;
        for version in ["\u{1}", "\u{3}", ""] {
            assert_eq!(read(format!("{version}{by}\n{{}}").into()), None);
        }
    }
}
