//! Versions of events: a stored event is never edited, its reader is.
//!
//! A change of shape is a new `vN` of a type, with a pure function that makes
//! the data of `vN-1` into that of `vN`. Reading goes through [`upcast`], which
//! applies them one after another until the type is one that this version
//! writes. Every type is at `v1` so far, so there is no step yet; each event in
//! `testdata/`, one for every version ever written, is read by the test below.
//!
//! Adding a member that readers may miss needs no new version. Changing what a
//! member means, its unit or its name does.

use std::borrow::Cow;

use serde_json::value::RawValue;

/// Makes the data of one version into that of the next: the type it reads, the type it gives.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The type that it reads, with its version.
    pub from: &'static str,
    /// The type that it gives, one version later.
    pub to: &'static str,
    /// The change itself: no clock, no randomness, no environment.
    pub change: fn(&RawValue) -> Result<Box<RawValue>, serde_json::Error>,
}

/// Every step ever needed.
pub const STEPS: &[Step] = &[];

/// The newest form of some data: its type, and the data, changed only where a step applies.
///
/// # Errors
/// The data is not what its type promises.
pub fn upcast<'a>(
    kind: &'a str,
    data: &'a RawValue,
    steps: &[Step],
) -> Result<(Cow<'a, str>, Cow<'a, RawValue>), serde_json::Error> {
    let mut kind = Cow::Borrowed(kind);
    let mut data = Cow::Borrowed(data);
    while let Some(step) = steps.iter().find(|step| step.from == kind) {
        data = Cow::Owned((step.change)(&data)?);
        kind = Cow::Borrowed(step.to);
    }
    Ok((kind, data))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use proptest::prelude::*;
    use serde_json::{Value, json, value::to_raw_value};

    use super::*;
    use crate::{
        audit_event::AuditEvent,
        chunk_event,
        config_event::ConfigEvent,
        envelope::{Attributes, Envelope, EventData, Stamp, encode_direct},
        exchange_event::ExchangeEvent,
        rollup_event::DayClosed,
    };

    #[test]
    fn steps_are_applied_one_after_another() {
        let renamed = Step {
            from: "t.v1",
            to: "t.v2",
            change: |data| {
                let mut data: Value = serde_json::from_str(data.get())?;
                data["new"] = data["old"].take();
                to_raw_value(&data)
            },
        };
        let doubled = Step {
            from: "t.v2",
            to: "t.v3",
            change: |data| {
                let mut data: Value = serde_json::from_str(data.get())?;
                data["new"] = json!(data["new"].as_u64().unwrap_or(0) * 2);
                to_raw_value(&data)
            },
        };
        let data = to_raw_value(&json!({"old": 21})).unwrap();
        let (kind, data) = upcast("t.v1", &data, &[doubled, renamed]).unwrap();
        assert_eq!(kind, "t.v3");
        let data: Value = serde_json::from_str(data.get()).unwrap();
        assert_eq!(data["new"], 42);
    }

    /// The stored samples: one of every version ever written.
    fn samples() -> Vec<(String, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
        let files = fs::read_dir(folder).unwrap().map(|file| {
            let path = file.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        });
        files.collect()
    }

    /// The data of an event without its content, which is carried raw.
    fn data_of(envelope: &Envelope<'_>) -> Value {
        let mut data: Value = serde_json::from_str(envelope.data.get()).unwrap();
        data.as_object_mut().unwrap().remove("content");
        data
    }

    /// Every version ever written is read, what is read is all that was written, and this version
    /// writes the same again, byte for byte.
    #[test]
    fn every_stored_version_reads_back() {
        let mut read = BTreeSet::new();
        for (name, text) in samples() {
            let stored = Envelope::decode(&text).unwrap();
            // `<type>.json`, and `<type>+<what>.json` for members that were added later.
            let of_type = name.split('+').next();
            assert_eq!(
                of_type,
                Some(&*stored.kind),
                "a sample is named by its type"
            );
            let (kind, newest) = upcast(&stored.kind, stored.data, STEPS).unwrap();
            let written = again(&stored).unwrap_or_else(|| panic!("{kind} is not read"));
            let envelope = Envelope::decode(&written).unwrap();
            assert_eq!(envelope.kind, kind, "this version writes the newest form");
            assert_eq!(
                (envelope.id, envelope.moment().unwrap(), &envelope.source),
                (stored.id, stored.moment().unwrap(), &stored.source),
                "{kind}"
            );
            assert_eq!(envelope.subject, stored.subject, "{kind}");
            let mut newest: Value = serde_json::from_str(newest.get()).unwrap();
            newest.as_object_mut().unwrap().remove("content");
            assert_eq!(data_of(&envelope), newest, "{kind}");
            assert_eq!(again(&envelope).unwrap(), written, "{kind}");
            read.insert(stored.kind.into_owned());
        }
        assert_eq!(read.len(), 24, "{read:#?}");
        for step in STEPS {
            assert!(read.contains(step.from), "no sample of {}", step.from);
        }
    }

    /// A reader leaves a type of a future to whoever knows it.
    #[test]
    fn a_version_of_a_future_is_nobodys() {
        for (name, text) in samples() {
            let kind = name.split('+').next().unwrap();
            let (name, _version) = kind.rsplit_once(".v").unwrap();
            let future = String::from_utf8(text).unwrap();
            let future = future.replace(&format!("\"{kind}\""), &format!("\"{name}.v99\""));
            let envelope = Envelope::decode(future.as_bytes()).unwrap();
            assert_eq!(again(&envelope), None, "{kind}");
        }
    }

    proptest! {
        /// Members that this version does not know change nothing of what it reads.
        #[test]
        fn members_of_a_future_are_left_aside(
            sample in any::<prop::sample::Index>(),
            name in "[a-z.]{1,12}",
            value in prop::sample::select(vec!["null", "0", "\"x\"", "[]", "{\"a\":{}}"]),
            first in any::<bool>(),
        ) {
            let samples = samples();
            let (kind, text) = sample.get(&samples);
            let envelope = Envelope::decode(text).unwrap();
            // No member of ours begins like this.
            let member = format!("\"future.{name}\":{value}");
            let insert = |object: &str| {
                let inside = object.trim().strip_prefix('{').unwrap().strip_suffix('}').unwrap();
                if first { format!("{{{member},{inside}}}") } else { format!("{{{inside},{member}}}") }
            };
            let text = std::str::from_utf8(text).unwrap();
            let extended = insert(&text.replace(envelope.data.get(), &insert(envelope.data.get())));
            let extended = Envelope::decode(extended.as_bytes()).unwrap();
            prop_assert_eq!(again(&extended), again(&envelope), "{}", kind);
        }
    }

    /// The event as this version writes it, after having been read; without its content.
    fn again(envelope: &Envelope<'_>) -> Option<Vec<u8>> {
        let family = envelope.kind.split('.').nth(2)?;
        Some(match family {
            "exchange" | "log" => match ExchangeEvent::decode(envelope).unwrap()? {
                ExchangeEvent::Received(data) => written(envelope, &data),
                ExchangeEvent::AttemptStarted(data) => written(envelope, &data),
                ExchangeEvent::AttemptEnded(data) => written(envelope, &data),
                ExchangeEvent::Terminal(data) => written(envelope, &data),
                ExchangeEvent::Rejected(data) => written(envelope, &data),
                ExchangeEvent::PresumedLost(data) => written(envelope, &data),
                ExchangeEvent::TokensCounted(data) => written(envelope, &data),
                ExchangeEvent::Unshippable(data) => written(envelope, &data),
            },
            "chunk" => written(envelope, &chunk_event::decode(envelope).unwrap()?.0),
            "config" => match ConfigEvent::decode(envelope).unwrap()? {
                ConfigEvent::Provider(data) => written(envelope, &data),
                ConfigEvent::Model(data) => written(envelope, &data),
                ConfigEvent::Route(data) => written(envelope, &data),
                ConfigEvent::Key(data) => written(envelope, &data),
                ConfigEvent::Setting(data) => written(envelope, &data),
                ConfigEvent::User(data) => written(envelope, &data),
                ConfigEvent::Price(data) => written(envelope, &data),
            },
            "audit" => match AuditEvent::decode(envelope).unwrap()? {
                AuditEvent::ManagementCall(data) => written(envelope, &data),
                AuditEvent::AccessRefused(data) => written(envelope, &data),
                AuditEvent::UnauthenticatedCalls(data) => written(envelope, &data),
                AuditEvent::BackupTaken(data) => written(envelope, &data),
                AuditEvent::BreakerChanged(data) => written(envelope, &data),
                AuditEvent::RetentionApplied(data) => written(envelope, &data),
                AuditEvent::Unshippable(data) => written(envelope, &data),
            },
            "rollup" => written(envelope, &DayClosed::decode(envelope).unwrap()?),
            _ => return None,
        })
    }

    fn written<D: EventData>(envelope: &Envelope<'_>, data: &D) -> Vec<u8> {
        let attributes = Attributes {
            stamp: Stamp {
                id: envelope.id,
                time: envelope.moment().unwrap(),
            },
            source: &envelope.source,
            subject: &envelope.subject,
            traceparent: envelope.traceparent.as_deref(),
        };
        encode_direct(attributes, data).unwrap()
    }
}
