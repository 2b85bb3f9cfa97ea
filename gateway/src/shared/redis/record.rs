//! The end of an exchange as bytes: conversation, `full_in`, digest, 16 each.
//!
//! `full_in` is the nil UUID where the system messages are not known. A value
//! in Redis is up to [`CONVERSATIONS_MAX`](crate::shared::CONVERSATIONS_MAX) of
//! them, the latest first.

use nexus_events::id::{ConversationId, RequestId};
use uuid::Uuid;

use crate::shared::{ExchangeEnd, StoredSystem, SystemDigest};

/// Bytes of one record.
pub(super) const BYTES: usize = 48;

pub(super) fn write(end: &ExchangeEnd) -> [u8; BYTES] {
    let (full_in, digest) = end
        .system
        .as_ref()
        .map_or((Uuid::nil(), [0; 16]), |system| {
            (system.full_in.as_uuid(), *system.digest.as_bytes())
        });
    let parts = [
        *end.conversation.as_uuid().as_bytes(),
        *full_in.as_bytes(),
        digest,
    ];
    let mut bytes = [0; BYTES];
    for (to, from) in bytes.iter_mut().zip(parts.as_flattened()) {
        *to = *from;
    }
    bytes
}

/// `None` for bytes that are no record: those of another version.
pub(super) fn read(bytes: &[u8]) -> Option<ExchangeEnd> {
    let ([conversation, full_in, digest], []) = bytes.as_chunks::<16>() else {
        return None;
    };
    let full_in = Uuid::from_bytes(*full_in);
    Some(ExchangeEnd {
        conversation: ConversationId::from_uuid(Uuid::from_bytes(*conversation)),
        system: (!full_in.is_nil()).then(|| StoredSystem {
            digest: SystemDigest::from_bytes(*digest),
            full_in: RequestId::from_uuid(full_in),
        }),
    })
}

#[cfg(test)]
mod tests {
    use nexus_events::clock::SystemClock;

    use super::*;

    #[test]
    fn a_record_reads_back() {
        let conversation = ConversationId::draw(&SystemClock);
        let system = StoredSystem {
            digest: SystemDigest::from_bytes([7; 16]),
            full_in: RequestId::draw(&SystemClock),
        };
        for system in [None, Some(system)] {
            let end = ExchangeEnd {
                conversation,
                system,
            };
            assert_eq!(read(&write(&end)), Some(end));
        }
        assert_eq!(read(&[0; 47]), None);
        assert_eq!(read(&[0; 64]), None);
    }
}
