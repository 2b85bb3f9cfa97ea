//! Entries that end, in a map with a bound.

use std::{hash::Hash, time::Duration};

use hashlink::LinkedHashMap;
use nexus_events::clock::UnixMillis;

/// A bounded map whose entries end; the one that was used longest ago goes first.
#[derive(Debug)]
pub(super) struct Expiring<K, V> {
    entries: LinkedHashMap<K, (UnixMillis, V)>,
    max: usize,
}

impl<K: Eq + Hash, V> Expiring<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self {
            entries: LinkedHashMap::new(),
            max,
        }
    }

    pub(super) fn get<Q>(&mut self, key: &Q, now: UnixMillis) -> Option<&mut V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.entries
            .get_mut(key)
            .filter(|(ends, _)| *ends > now)
            .map(|(_, value)| value)
    }

    pub(super) fn renew<Q>(&mut self, key: &Q, now: UnixMillis, left: Duration)
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some((ends, _)) = self.entries.to_back(key)
            && *ends > now
        {
            *ends = now.plus(left);
        }
    }

    /// The value, put in where there is none; its time begins again.
    pub(super) fn get_or_insert(
        &mut self,
        key: K,
        now: UnixMillis,
        left: Duration,
        new: impl FnOnce() -> V,
    ) -> &mut V {
        if self.get(&key, now).is_none() {
            self.entries.remove(&key);
        }
        self.entries.to_back(&key);
        self.sweep(now, self.max.saturating_sub(1));
        let entry = self.entries.entry(key).or_insert_with(|| (now, new()));
        entry.0 = now.plus(left);
        &mut entry.1
    }

    pub(super) fn insert(&mut self, key: K, value: V, now: UnixMillis, left: Duration) {
        self.entries.insert(key, (now.plus(left), value));
        self.sweep(now, self.max);
    }

    /// Two out for one in, so that what has ended does not pile up.
    fn sweep(&mut self, now: UnixMillis, max: usize) {
        for _ in 0..2 {
            match self.entries.front() {
                Some((_, (ends, _))) if *ends <= now || self.entries.len() > max => {
                    self.entries.pop_front();
                }
                _ => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_map_drops_what_was_used_longest_ago() {
        let now = UnixMillis::from_millis(0);
        let minute = Duration::from_mins(1);
        let mut map = Expiring::new(2);
        map.insert("a", 1, now, minute);
        map.insert("b", 2, now, minute);
        map.renew(&"a", now, minute);
        map.insert("c", 3, now, minute);
        assert_eq!(map.get("a", now), Some(&mut 1));
        assert_eq!(map.get("b", now), None);
        assert_eq!(map.get("c", now), Some(&mut 3));
    }

    #[test]
    fn what_has_ended_is_swept_out() {
        let mut map = Expiring::new(1000);
        for millis in 0..100 {
            let now = UnixMillis::from_millis(millis);
            map.insert(millis, (), now, Duration::from_millis(10));
        }
        assert_eq!(map.entries.len(), 10);
    }
}
