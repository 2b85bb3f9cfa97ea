//! Answers kept in process: bounded by bytes, the longest unused goes first.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hashlink::LinkedHashMap;
use nexus_events::{clock::UnixMillis, id::ProviderId};
use serde::{Deserialize, Serialize};

use super::AnswerKey;

/// Bytes of all answers: 64 MiB, some ten thousand answers of a usual length.
const ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What an answer costs beside its text and its names: 256 bytes.
const ENTRY_BYTES: usize = 256;

/// Who gave an answer, by the names that they had then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answerer {
    /// The provider.
    pub provider: ProviderId,
    /// Its name.
    pub provider_name: String,
    /// The configured model.
    pub model: String,
}

/// An answer that may be given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Who gave it.
    pub by: Arc<Answerer>,
    /// What was said, as the client got it.
    pub body: Bytes,
}

impl KeptAnswer {
    fn bytes(&self) -> usize {
        let names = self.by.provider_name.len() + self.by.model.len();
        self.body.len() + names + ENTRY_BYTES
    }
}

/// Answers, each with its end.
#[derive(Debug, Default)]
pub(super) struct Answers {
    entries: LinkedHashMap<AnswerKey, (UnixMillis, KeptAnswer)>,
    bytes: usize,
}

impl Answers {
    /// An answer that has not ended.
    pub(super) fn get(&mut self, key: &AnswerKey, now: UnixMillis) -> Option<KeptAnswer> {
        let (ends, answer) = self.entries.to_back(key)?;
        if *ends > now {
            return Some(answer.clone());
        }
        self.remove(key);
        None
    }

    /// Keeps an answer for that time.
    pub(super) fn insert(
        &mut self,
        key: AnswerKey,
        answer: KeptAnswer,
        now: UnixMillis,
        ttl: Duration,
    ) {
        self.remove(&key);
        self.bytes += answer.bytes();
        self.entries.insert(key, (now.plus(ttl), answer));
        while self.bytes > ANSWERS_BYTES_MAX
            || self
                .entries
                .front()
                .is_some_and(|(_, (ends, _))| *ends <= now)
        {
            let Some(oldest) = self.entries.front().map(|(key, _)| *key) else {
                return;
            };
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &AnswerKey) {
        if let Some((_, answer)) = self.entries.remove(key) {
            self.bytes -= answer.bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> AnswerKey {
        AnswerKey::from_bytes([number; 32])
    }

    fn answer(body: Bytes) -> KeptAnswer {
        let by = Answerer {
            provider: ProviderId::from_uuid(uuid::Uuid::from_u128(1)),
            provider_name: "p".to_owned(),
            model: "m".to_owned(),
        };
        KeptAnswer {
            by: Arc::new(by),
            body,
        }
    }

    #[test]
    fn an_answer_is_there_until_its_end() {
        let mut answers = Answers::default();
        let at = UnixMillis::from_millis;
        let kept = answer(Bytes::from_static(b"a"));
        answers.insert(key(1), kept.clone(), at(0), Duration::from_secs(1));
        assert_eq!(answers.get(&key(1), at(999)), Some(kept));
        assert_eq!(answers.get(&key(2), at(999)), None);
        assert_eq!(answers.get(&key(1), at(1000)), None);
        assert_eq!((answers.bytes, answers.entries.len()), (0, 0));
    }

    #[test]
    fn the_longest_unused_gives_way() {
        let mut answers = Answers::default();
        let now = UnixMillis::from_millis(0);
        let names = "pm".len();
        let third = vec![0; ANSWERS_BYTES_MAX / 3 - ENTRY_BYTES - names];
        let third = answer(third.into());
        for number in 1..=3 {
            answers.insert(key(number), third.clone(), now, Duration::from_secs(1));
        }
        answers.get(&key(1), now).unwrap();
        answers.insert(key(4), third.clone(), now, Duration::from_secs(1));
        let known = [1, 2, 3, 4].map(|number| answers.get(&key(number), now).is_some());
        assert_eq!(known, [true, false, true, true]);
        // The same again takes no more room.
        answers.insert(key(4), third.clone(), now, Duration::from_secs(1));
        assert_eq!(answers.bytes, 3 * third.bytes());
    }
}
