//! Events as they lie in the log: one sample of every version ever written, and types of a future.

use std::{fs, path::Path};

use nexus_events::{envelope::Envelope, subject::Stream};

use crate::testing::{Database, MemoryLog};

/// The stored samples that the projector reads, each with the stream that it belongs to.
fn samples() -> Vec<(Stream, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../events/testdata");
    let mut samples = Vec::new();
    for file in fs::read_dir(folder).unwrap() {
        let text = fs::read_to_string(file.unwrap().path()).unwrap();
        let kind = Envelope::decode(text.as_bytes()).unwrap().kind.into_owned();
        let stream = match kind.split('.').nth(2) {
            Some("exchange" | "log") => Stream::Exchanges,
            Some("config") => Stream::Config,
            Some("audit") => Stream::Audit,
            Some("rollup") => Stream::Rollups,
            // Not projected.
            Some("chunk") => continue,
            _ => panic!("{kind} belongs to no stream"),
        };
        samples.push((stream, kind, text));
    }
    assert!(samples.len() >= 19, "{} samples", samples.len());
    samples
}

async fn dead_letters(database: &mut Database) -> Vec<(String, Vec<u8>)> {
    sqlx::query_as("SELECT reason, payload FROM dead_letter ORDER BY stream, sequence")
        .fetch_all(database.writer.connection())
        .await
        .unwrap()
}

#[tokio::test]
async fn every_version_ever_written_is_applied() {
    for (stream, kind, text) in samples() {
        let mut log = MemoryLog::new();
        log.push(stream, "nexus.stored", text.clone().into_bytes());
        let mut database = Database::of(&log).await;
        let dead = dead_letters(&mut database).await;
        if kind == "ai.nexus.log.unshippable.v1" {
            // It stands for an event that never came, and is shown as what cannot be applied.
            assert!(dead[0].0.starts_with("unshippable: 1400000 bytes"));
        } else if text.contains("\"part\": 2") {
            // The second part of a day waits for its first, and none came.
            assert!(dead[0].0.starts_with("part 2 does not follow"));
        } else {
            assert_eq!(dead, [], "{kind}");
        }
    }
}

#[tokio::test]
async fn a_version_of_a_future_is_kept_whole_and_counted() {
    for (stream, kind, text) in samples() {
        let (name, _version) = kind.rsplit_once(".v").unwrap();
        let future = text.replace(&format!("\"{kind}\""), &format!("\"{name}.v99\""));
        assert_ne!(future, text);
        let mut log = MemoryLog::new();
        log.push(stream, "nexus.future", future.clone().into_bytes());
        let mut database = Database::new().await;
        let applied = database.apply(stream, log.of(stream)).await;
        assert_eq!((applied.events, applied.dead_letters), (1, 1), "{kind}");
        let reason = format!("unknown type {name}.v99");
        let kept = dead_letters(&mut database).await;
        assert_eq!(kept, [(reason, future.into_bytes())], "{kind}");
    }
}
