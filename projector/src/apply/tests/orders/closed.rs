//! Days that chance closes: in one part or several, at a second try, or half.

use nexus_events::rollup_event::{Begun, DayClosed, UsageHour};
use proptest::prelude::*;

use super::generated::conversations;
use crate::testing::{DAY, MemoryLog, TODAY, day_name, key};

/// How a day is closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rollup {
    /// Counted back from today.
    day: i64,
    parts: u32,
    /// A try before it died after its first part, which said something else.
    again: bool,
    /// The last part never comes.
    dies: bool,
    /// The conversation without a time of its own began on the day.
    begun: bool,
}

pub(super) fn rollup() -> impl Strategy<Value = Rollup> {
    (0..4_i64, 1..4_u32, any::<[bool; 3]>()).prop_map(|(day, parts, [again, dies, begun])| Rollup {
        day,
        parts,
        again,
        dies,
        begun,
    })
}

impl Rollup {
    /// A day, counted back from today, that is closed at once.
    pub(super) const fn plain(day: i64) -> Self {
        Self {
            day,
            parts: 1,
            again: false,
            dies: false,
            begun: false,
        }
    }

    pub(super) fn publish(self, log: &mut MemoryLog) {
        let day_ms = TODAY - self.day * DAY;
        if self.again {
            log.rollup(&part(day_ms, (1, true), 77));
        }
        for number in 1..self.parts {
            log.rollup(&part(day_ms, (number, true), 10));
        }
        if self.dies {
            return;
        }
        let mut last = part(day_ms, (self.parts, false), 10);
        if self.begun {
            last.begun.push(Begun {
                conversation: conversations()[2],
                began_ms: day_ms + 1,
            });
        }
        log.rollup(&last);
    }
}

/// A part of a rollup: two hours, the second one of its own.
fn part(day_ms: i64, (part, more): (u32, bool), requests: i64) -> DayClosed {
    let hour = |hour: i64, requests| UsageHour {
        hour_ms: day_ms + hour * 3_600_000,
        model: "gpt".into(),
        provider: "openai".into(),
        key: key().to_string(),
        user: String::new(),
        requests,
        errors: 1,
        prompt_tokens: 1000,
        completion_tokens: 2000,
        duration_ms: 5,
    };
    DayClosed {
        day: day_name(day_ms),
        part,
        more,
        usage: vec![hour(0, requests), hour(i64::from(part), 20)],
        conversations: if more { 0 } else { 4 },
        begun: Vec::new(),
    }
}
