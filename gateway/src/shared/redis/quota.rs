//! The limits in Redis: one script for all that a request wants, one round trip.
//!
//! All keys carry one hash tag, because one step must see all of them; so the
//! limits of a hub lie in one slot of a Redis Cluster. A limit is a hash
//! (`parts`, `at`), a sorted set of leases by their end, or both for a month's
//! money (`since`, `before` with its `position`, `spent` with the `last` end,
//! `reserved`); there a lease is `<request>:<reserved>`, so that the one that
//! ends tells what it held. A key of its own marks that places or money of a
//! request were settled, until nobody can ask for it any more.

use nexus_events::id::{OutboxId, RequestId};
use redis::{Script, ScriptInvocation};

use super::scripts::millis;
use crate::shared::quota::{
    BUDGET_LIFE, Back, DEBT_MAX, DEBT_WINDOWS, Demand, GATEWAY_LIFE, Held, LEASE, Need,
    SETTLED_LIFE, SUM_MAX, Seed, Settlement,
};

/// What the scripts below have in common.
const COMMON: &str = r"
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function whole(number)
  return string.format('%.0f', number)
end
local function field(key, name)
  return tonumber(redis.call('HGET', key, name)) or 0
end
local function deepest(limit, window)
  return math.min(DEBT_MAX, DEBT_WINDOWS * limit * window)
end
local function refilled(key, limit, window)
  local bucket = redis.call('HMGET', key, 'parts', 'at')
  local at = tonumber(bucket[2]) or now
  local parts = tonumber(bucket[1]) or limit * window
  parts = math.max(parts, -deepest(limit, window))
  return math.min(limit * window, parts + math.max(0, now - at) * limit), math.max(at, now)
end
local function pour(key, limit, window, parts, at)
  redis.call('HSET', key, 'parts', whole(parts), 'at', whole(at))
  redis.call('PEXPIRE', key, whole(math.ceil((limit * window - parts) / limit) + 1))
end
local function sweep(set, hash)
  if hash then
    for _, member in ipairs(redis.call('ZRANGEBYSCORE', set, '-inf', whole(now))) do
      redis.call('HINCRBY', hash, 'reserved', whole(0 - tonumber(string.match(member, '%d+$'))))
    end
  end
  redis.call('ZREMRANGEBYSCORE', set, '-inf', whole(now))
end
local function lease(set, member, ms, life)
  local new = redis.call('ZADD', set, whole(now + ms), member)
  redis.call('PEXPIRE', set, life)
  return new
end
local function open(hash, life)
  redis.call('HSETNX', hash, 'since', whole(now))
  redis.call('PEXPIRE', hash, life)
end
";

/// Keys: of each limit one, of a budget two. Arguments: the lease, milliseconds of a lease and of a
/// budget; then of each limit its sort and three numbers.
/// Room at a provider, the last one, is taken where all fit and refuses nothing.
/// Answers whether all fit; then of each limit whether it fits, and what is left.
const ADMIT: &str = r"
local all, list = 1, {}
local key, arg = 1, 4
while ARGV[arg] do
  local sort = ARGV[arg]
  local a, b, c = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  local one = {sort = sort, key = KEYS[key], a = a, b = b}
  if sort == 'rate' or sort == 'room' then
    one.left, one.at = refilled(one.key, a, b)
    one.wants = c * b
  elseif sort == 'place' then
    sweep(one.key)
    one.left, one.wants = a - redis.call('ZCARD', one.key), 1
  else
    key = key + 1
    one.held = KEYS[key]
    sweep(one.held, one.key)
    one.left = a - field(one.key, 'before') - field(one.key, 'spent') - field(one.key, 'reserved')
    one.wants = b
  end
  one.fits = one.left >= one.wants and 1 or 0
  if sort ~= 'room' then
    all = all * one.fits
  end
  list[#list + 1] = one
  key, arg = key + 1, arg + 4
end
local answer = {all}
for _, one in ipairs(list) do
  if all == 1 and one.fits == 1 then
    one.left = one.left - one.wants
    if one.sort == 'rate' or one.sort == 'room' then
      pour(one.key, one.a, one.b, one.left, one.at)
    elseif one.sort == 'place' then
      lease(one.key, ARGV[1], ARGV[2], ARGV[2])
    else
      open(one.key, ARGV[3])
      redis.call('HINCRBY', one.key, 'reserved', whole(one.b))
      lease(one.held, ARGV[1] .. ':' .. whole(one.b), ARGV[2], ARGV[3])
    end
  end
  answer[#answer + 1] = one.fits
  answer[#answer + 1] = one.left
end
return answer";

/// Keys: the marks of places and of money, then as above. Arguments: the lease, when it ended, milliseconds
/// of a budget, of the marks of places and of money, the largest sum; then of each limit its sort and
/// three numbers. Answers whether money was left to be read.
const SETTLE: &str = r"
local ended, most = tonumber(ARGV[2]), tonumber(ARGV[6])
local key, arg, late, first = 3, 7, 0, nil
while ARGV[arg] do
  local sort = ARGV[arg]
  local a, b, c = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  if sort == 'rate' then
    local parts, at = refilled(KEYS[key], a, b)
    parts = math.max(-deepest(a, b), math.min(a * b, parts + c))
    pour(KEYS[key], a, b, parts, at)
  elseif sort == 'place' then
    redis.call('SET', KEYS[1], '', 'PX', ARGV[4])
    redis.call('ZREM', KEYS[key], ARGV[1])
  else
    if first == nil then
      first = redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[5])
    end
    local hash = KEYS[key]
    key = key + 1
    sweep(KEYS[key], hash)
    open(hash, ARGV[3])
    if redis.call('ZREM', KEYS[key], ARGV[1] .. ':' .. whole(a)) == 1 then
      redis.call('HINCRBY', hash, 'reserved', whole(0 - a))
    end
    if first and b > 0 then
      if ended < field(hash, 'since') then
        late = 1
      else
        redis.call('HSET', hash, 'spent', whole(math.min(most, field(hash, 'spent') + b)),
          'last', whole(math.max(field(hash, 'last'), ended)))
      end
    end
  end
  key, arg = key + 1, arg + 4
end
return late";

/// Keys: of each limit the mark, then as above. Arguments: milliseconds of a lease and of a budget; then of
/// each limit the lease and what is reserved, empty for a place.
const RENEW: &str = r"
local key, arg = 1, 3
while ARGV[arg] do
  local ended = redis.call('EXISTS', KEYS[key]) == 1
  key = key + 1
  if ARGV[arg + 1] == '' then
    if not ended then
      lease(KEYS[key], ARGV[arg], ARGV[1], ARGV[1])
    end
  else
    local hash = KEYS[key]
    key = key + 1
    if not ended then
      open(hash, ARGV[2])
      if lease(KEYS[key], ARGV[arg] .. ':' .. ARGV[arg + 1], ARGV[1], ARGV[2]) == 1 then
        redis.call('HINCRBY', hash, 'reserved', ARGV[arg + 1])
      end
    end
  end
  key, arg = key + 1, arg + 2
end";

/// Key: the set of gateways. Arguments: this one, milliseconds that it counts as living. Answers how many do.
const BEAT: &str = r"
sweep(KEYS[1])
lease(KEYS[1], ARGV[1], ARGV[2], ARGV[2])
return redis.call('ZCARD', KEYS[1])";

/// Keys: budgets. Arguments: their milliseconds, whether afresh, the largest sum. Answers since when each
/// is counted.
const OPEN: &str = r"
local answer = {}
for place, hash in ipairs(KEYS) do
  open(hash, ARGV[1])
  if ARGV[2] == '1' then
    local before = math.min(tonumber(ARGV[3]), field(hash, 'before') + field(hash, 'spent'))
    redis.call('HSET', hash, 'since', whole(math.max(now, field(hash, 'last') + 1)),
      'before', whole(before), 'position', '0', 'spent', '0')
  end
  answer[place] = field(hash, 'since')
end
return answer";

/// Key: the budget. Arguments: its milliseconds, since when it is counted, what was spent before, what of
/// the log that was read from, whether that is all.
const SEED: &str = r"
open(KEYS[1], ARGV[1])
if field(KEYS[1], 'since') == tonumber(ARGV[2]) then
  if ARGV[5] == '0' then
    redis.call('HSET', KEYS[1], 'before', whole(math.max(field(KEYS[1], 'before'), tonumber(ARGV[3]))))
  elseif tonumber(ARGV[4]) >= field(KEYS[1], 'position') then
    redis.call('HSET', KEYS[1], 'before', ARGV[3], 'position', ARGV[4])
  end
end";

/// The scripts of the limits.
#[derive(Debug)]
pub(super) struct QuotaScripts {
    admit: Script,
    settle: Script,
    renew: Script,
    beat: Script,
    open: Script,
    seed: Script,
}

impl QuotaScripts {
    pub(super) fn new() -> Self {
        let common = COMMON
            .replace("DEBT_MAX", &DEBT_MAX.to_string())
            .replace("DEBT_WINDOWS", &DEBT_WINDOWS.to_string());
        let script = |text: &str| Script::new(&format!("{common}{text}"));
        Self {
            admit: script(ADMIT),
            settle: script(SETTLE),
            renew: script(RENEW),
            beat: script(BEAT),
            open: script(OPEN),
            seed: script(SEED),
        }
    }

    pub(super) fn admit(&self, demand: &Demand) -> ScriptInvocation<'_> {
        let mut call = self.admit.prepare_invoke();
        call.arg(demand.lease.to_string())
            .arg(millis(LEASE))
            .arg(millis(BUDGET_LIFE));
        for share in &demand.shares {
            call.key(key(&share.bucket));
            match share.need {
                Need::Rate { rate, amount } => call
                    .arg("rate")
                    .arg(rate.limit)
                    .arg(rate.window_ms())
                    .arg(amount.min(rate.limit)),
                Need::Place { limit } => call.arg("place").arg(limit).arg(0).arg(0),
                Need::Budget { limit, amount } => {
                    call.key(held_key(&share.bucket));
                    call.arg("budget").arg(limit).arg(amount).arg(0)
                }
            };
        }
        if let Some(room) = &demand.room {
            call.key(key(&room.bucket))
                .arg("room")
                .arg(room.rate.limit)
                .arg(room.rate.window_ms())
                .arg(1);
        }
        call
    }

    pub(super) fn settle(&self, settlement: &Settlement) -> ScriptInvocation<'_> {
        let mut call = self.settle.prepare_invoke();
        let marks = [PLACES, MONEY].map(|what| mark_key(settlement.lease, what));
        call.key(&marks)
            .arg(settlement.lease.to_string())
            .arg(settlement.ended.as_millis())
            .arg(millis(BUDGET_LIFE))
            .arg(millis(LEASE))
            .arg(millis(SETTLED_LIFE))
            .arg(SUM_MAX);
        for (bucket, back) in &settlement.shares {
            call.key(key(bucket));
            match *back {
                Back::Rate { rate, amount } => call
                    .arg("rate")
                    .arg(rate.limit)
                    .arg(rate.window_ms())
                    .arg(rate.signed_parts(amount)),
                Back::Place => call.arg("place").arg(0).arg(0).arg(0),
                Back::Budget { reserved, spent } => {
                    call.key(held_key(bucket));
                    call.arg("budget").arg(reserved).arg(spent).arg(0)
                }
            };
        }
        call
    }

    pub(super) fn renew(&self, held: &[Held]) -> ScriptInvocation<'_> {
        let mut call = self.renew.prepare_invoke();
        call.arg(millis(LEASE)).arg(millis(BUDGET_LIFE));
        for one in held {
            for (bucket, reserved) in &one.shares {
                let what = reserved.map_or(PLACES, |_| MONEY);
                call.key(mark_key(one.lease, what)).key(key(bucket));
                if reserved.is_some() {
                    call.key(held_key(bucket));
                }
                let amount = reserved.map(|amount| amount.to_string());
                call.arg(one.lease.to_string())
                    .arg(amount.unwrap_or_default());
            }
        }
        call
    }

    pub(super) fn beat(&self, gateway: OutboxId) -> ScriptInvocation<'_> {
        let mut call = self.beat.prepare_invoke();
        call.key(key("gateways"))
            .arg(gateway.to_string())
            .arg(millis(GATEWAY_LIFE));
        call
    }

    pub(super) fn open(&self, buckets: &[String], afresh: bool) -> ScriptInvocation<'_> {
        let mut call = self.open.prepare_invoke();
        for bucket in buckets {
            call.key(key(bucket));
        }
        call.arg(millis(BUDGET_LIFE))
            .arg(i32::from(afresh))
            .arg(SUM_MAX);
        call
    }

    pub(super) fn seed(&self, seed: &Seed) -> ScriptInvocation<'_> {
        let mut call = self.seed.prepare_invoke();
        call.key(key(&seed.bucket))
            .arg(millis(BUDGET_LIFE))
            .arg(seed.since.as_millis())
            .arg(seed.spent.min(SUM_MAX))
            .arg(seed.position)
            .arg(i32::from(seed.is_whole));
        call
    }
}

/// The mark that the places of a request were settled.
const PLACES: &str = "places";

/// The mark that its money was.
const MONEY: &str = "money";

fn mark_key(lease: RequestId, what: &str) -> String {
    format!("nexus:{{limits}}:settled:{lease}:{what}")
}

/// The key of a limit.
pub(super) fn key(bucket: &str) -> String {
    format!("nexus:{{limits}}:{bucket}")
}

fn held_key(bucket: &str) -> String {
    format!("nexus:{{limits}}:{bucket}:held")
}
