//! The open requests, and the head of a segment that tells them.
//!
//! The head makes older segments dispensable: whoever adopts the incarnation
//! knows from the oldest segment that is left which requests were open when it
//! began, and follows the records from there.

use std::collections::HashMap;

use uuid::Uuid;

use crate::{
    id::RequestId,
    outbox::{adopted::OpenState, segment::Mark},
};

/// Keeps the table of open requests.
pub(super) fn track(open: &mut HashMap<RequestId, OpenState>, mark: Mark, request: RequestId) {
    match mark {
        Mark::Plain => {}
        Mark::Opens => {
            open.insert(request, OpenState::Answering);
        }
        Mark::ClosesUncounted => {
            open.insert(request, OpenState::Uncounted);
        }
        Mark::Closes => {
            open.remove(&request);
        }
        // A count follows the terminal event: of a request that has none, the damage had it.
        Mark::Counts => {
            if open.get(&request) == Some(&OpenState::Uncounted) {
                open.remove(&request);
            }
        }
    }
}

/// Size of the head's content with so many open requests.
pub(super) const fn encoded_bytes(open: usize) -> usize {
    24 + 17 * open
}

/// The head's content: three positions, then 17 bytes for each open request.
pub(super) fn encode_head(positions: [u64; 3], open: &HashMap<RequestId, OpenState>) -> Vec<u8> {
    let mut head = Vec::with_capacity(encoded_bytes(open.len()));
    for position in positions {
        head.extend_from_slice(&position.to_le_bytes());
    }
    for (request, state) in open {
        head.push(match state {
            OpenState::Answering => 1,
            OpenState::Uncounted => 2,
        });
        head.extend_from_slice(request.as_uuid().as_bytes());
    }
    head
}

/// Reads a head's content.
pub(super) fn decode_head(head: &[u8]) -> Option<([u64; 3], HashMap<RequestId, OpenState>)> {
    let mut positions = [0; 3];
    let mut rest = head;
    for position in &mut positions {
        let (bytes, tail) = rest.split_first_chunk::<8>()?;
        *position = u64::from_le_bytes(*bytes);
        rest = tail;
    }
    let (requests, []) = rest.as_chunks::<17>() else {
        return None;
    };
    let mut open = HashMap::with_capacity(requests.len());
    for [state, id @ ..] in requests {
        let state = match state {
            1 => OpenState::Answering,
            2 => OpenState::Uncounted,
            _ => return None,
        };
        open.insert(RequestId::from_uuid(Uuid::from_bytes(*id)), state);
    }
    Some((positions, open))
}
