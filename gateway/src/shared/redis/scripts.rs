//! The calls as Lua scripts and their keys.
//!
//! Redis runs a script whole before it looks at anything else; each is a few
//! microseconds, [`Scripts::find`] at most 0.1 ms for 128 ids.

use std::time::Duration;

use nexus_events::{
    id::{ConversationId, KeyId},
    message_id::MessageId,
};
use redis::{Script, ScriptInvocation};

use super::{kept, quota, record};
use crate::shared::{
    AnswerKey, CONVERSATIONS_MAX, ExchangeEnd, KeptAnswer, PrefixQuery, Rate, Remembered, ScopeId,
};

/// Keys: the ids. Arguments: milliseconds to live, the conversation or nothing, bytes of a record.
/// Answers the place of the first that is known, from one, and its record.
const FIND: &str = r"
local size = tonumber(ARGV[3])
for place, known in ipairs(redis.call('MGET', unpack(KEYS))) do
  if known then
    for at = 1, #known, size do
      if ARGV[2] == '' or string.sub(known, at, at + 15) == ARGV[2] then
        for shorter = place, #KEYS do
          redis.call('PEXPIRE', KEYS[shorter], ARGV[1])
        end
        return {place, string.sub(known, at, at + size - 1)}
      end
    end
  end
end
return false";

/// Keys: the ids. Arguments: milliseconds to live, the record, `now` or `ago`, records to keep.
const REMEMBER: &str = r"
local record, size = ARGV[2], #ARGV[2]
for _, key in ipairs(KEYS) do
  local known = redis.call('GET', key) or ''
  local others = ''
  for at = 1, #known, size do
    local other = string.sub(known, at, at + size - 1)
    if string.sub(other, 1, 16) ~= string.sub(record, 1, 16) then
      others = others .. other
    end
  end
  if ARGV[3] == 'now' then
    redis.call('SET', key, string.sub(record .. others, 1, size * ARGV[4]), 'PX', ARGV[1])
  elseif known == '' then
    redis.call('SET', key, record, 'PX', ARGV[1])
  elseif known == others then
    redis.call('SET', key, string.sub(known .. record, 1, size * ARGV[4]), 'KEEPTTL')
  end
end";

/// Key: the conversation. Arguments: milliseconds to live, the claimant or nothing.
const HOLDER: &str = r"
local holder = redis.call('GET', KEYS[1])
if holder then
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
elseif ARGV[2] ~= '' then
  holder = ARGV[2]
  redis.call('SET', KEYS[1], holder, 'PX', ARGV[1])
end
return holder";

/// What is in a bucket now. Key: the bucket. Arguments: the limit, the window in milliseconds.
///
/// The same arithmetic as in memory, by the clock of Redis, which all gateways share.
macro_rules! bucket {
    () => {
        r"
local limit, one = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local bucket = redis.call('HMGET', KEYS[1], 'parts', 'at')
local at = tonumber(bucket[2]) or now
local parts = tonumber(bucket[1]) or limit * one
parts = math.min(limit * one, parts + math.max(0, now - at) * limit)
"
    };
}

/// Takes one of a bucket, if there is one.
const TAKE: &str = concat!(
    bucket!(),
    r"local allowed = 0
if parts >= one then
  allowed = 1
  parts = parts - one
end
redis.call('HSET', KEYS[1], 'parts', string.format('%.0f', parts),
  'at', string.format('%.0f', math.max(at, now)))
redis.call('PEXPIRE', KEYS[1], one)
return {allowed, parts}"
);

/// Says whether one could be taken; writes nothing.
const PEEK: &str = concat!(bucket!(), r"return {parts >= one and 1 or 0, parts}");

/// Key: the request. Answers its answer, or nothing.
const ANSWER: &str = "return redis.call('GET', KEYS[1])";

/// Key: the request. Arguments: the head of its answer, the answer, milliseconds to live.
///
/// Answers never fill a Redis that has a bound: above half of it none is kept, for what else is there
/// must not be refused room.
const KEEP_ANSWER: &str = r"
local memory = redis.call('INFO', 'memory')
local used = tonumber(string.match(memory, 'used_memory:(%d+)')) or 0
local most = tonumber(string.match(memory, 'maxmemory:(%d+)')) or 0
if most == 0 or 2 * used < most then
  redis.call('SET', KEYS[1], ARGV[1] .. ARGV[2], 'PX', ARGV[3])
end";

/// The scripts, with their hashes: the text goes to Redis once.
#[derive(Debug)]
pub(super) struct Scripts {
    find: Script,
    remember: Script,
    holder: Script,
    take: Script,
    peek: Script,
    answer: Script,
    keep_answer: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            find: Script::new(FIND),
            remember: Script::new(REMEMBER),
            holder: Script::new(HOLDER),
            take: Script::new(TAKE),
            peek: Script::new(PEEK),
            answer: Script::new(ANSWER),
            keep_answer: Script::new(KEEP_ANSWER),
        }
    }

    pub(super) fn find(&self, query: PrefixQuery<'_>, window: Duration) -> ScriptInvocation<'_> {
        let mut call = self.find.prepare_invoke();
        for id in query.ids {
            call.key(end_key(query.scope, *id));
        }
        call.arg(millis(window));
        match &query.conversation {
            Some(conversation) => call.arg(conversation.as_uuid().as_bytes().as_slice()),
            None => call.arg(""),
        };
        call.arg(record::BYTES);
        call
    }

    /// `None` when it is over already.
    pub(super) fn remember(
        &self,
        scope: ScopeId,
        ids: &[MessageId],
        end: ExchangeEnd,
        (at, window): (Remembered, Duration),
    ) -> Option<ScriptInvocation<'_>> {
        let (age, word) = match at {
            Remembered::Now => (Duration::ZERO, "now"),
            Remembered::Ago(age) => (age, "ago"),
        };
        let left_ms = millis(window.checked_sub(age)?);
        if left_ms == 0 {
            return None;
        }
        let mut call = self.remember.prepare_invoke();
        for id in ids {
            call.key(end_key(scope, *id));
        }
        call.arg(left_ms)
            .arg(record::write(&end).as_slice())
            .arg(word)
            .arg(CONVERSATIONS_MAX);
        Some(call)
    }

    pub(super) fn holder(
        &self,
        conversation: ConversationId,
        claimant: Option<KeyId>,
        window: Duration,
    ) -> ScriptInvocation<'_> {
        let mut call = self.holder.prepare_invoke();
        call.key(format!("nexus:{{conversation:{conversation}}}:holder"))
            .arg(millis(window))
            .arg(claimant.map(|key| key.to_string()).unwrap_or_default());
        call
    }

    pub(super) fn answer(&self, key: AnswerKey) -> ScriptInvocation<'_> {
        let mut call = self.answer.prepare_invoke();
        call.key(answer_key(key));
        call
    }

    pub(super) fn keep_answer(
        &self,
        key: AnswerKey,
        answer: &KeptAnswer,
        ttl: Duration,
    ) -> ScriptInvocation<'_> {
        let mut call = self.keep_answer.prepare_invoke();
        call.key(answer_key(key))
            .arg(kept::head(&answer.by))
            .arg(&*answer.body)
            .arg(millis(ttl));
        call
    }

    pub(super) fn take(&self, bucket: &str, rate: Rate) -> ScriptInvocation<'_> {
        on_bucket(&self.take, bucket, rate)
    }

    pub(super) fn peek(&self, bucket: &str, rate: Rate) -> ScriptInvocation<'_> {
        on_bucket(&self.peek, bucket, rate)
    }
}

fn on_bucket<'a>(script: &'a Script, bucket: &str, rate: Rate) -> ScriptInvocation<'a> {
    let mut call = script.prepare_invoke();
    // Where an admission finds it as well.
    call.key(quota::key(bucket))
        .arg(rate.limit)
        .arg(rate.window_ms());
    call
}

/// With the version of the value, so that a gateway of another version neither finds nor gives it.
fn answer_key(key: AnswerKey) -> String {
    format!("nexus:{{answer:{key}}}:v{}", kept::VERSION)
}

fn end_key(scope: ScopeId, id: MessageId) -> String {
    format!("nexus:{{{scope}}}:end:{id}")
}

/// Whole milliseconds; longer than 292 million years is that.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
