//! Which backups stay: the newest 48, and the newest of each day within the retention.
//!
//! So there are never more than 48 + one a day: 231 with the default retention. Those dated in the
//! future, by a clock that was ahead, stay besides until their time has come: among the newest they
//! would leave no place for those of now.

use std::collections::BTreeSet;

use crate::manifest::Manifest;

/// The newest 48 backups stay: two days of hourly ones.
const NEWEST_KEPT: usize = 48;

/// A day in milliseconds.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// The backups that go; `backups` is ordered by age, the newest first.
pub(crate) fn superfluous(
    backups: &[Manifest],
    now_ms: i64,
    oldest_kept_ms: i64,
) -> Vec<&Manifest> {
    let mut days = BTreeSet::new();
    backups
        .iter()
        .filter(|backup| backup.created_ms <= now_ms)
        .enumerate()
        .filter(|(place, backup)| {
            let newest_of_its_day = days.insert(backup.created_ms.div_euclid(DAY_MS));
            let stays =
                *place < NEWEST_KEPT || newest_of_its_day && backup.created_ms >= oldest_kept_ms;
            !stays
        })
        .map(|(_, backup)| backup)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_MS: i64 = 60 * 60 * 1000;
    const NOW: i64 = 1_795_521_600_000;

    /// One backup each hour, the newest first.
    fn hourly(count: i64) -> Vec<Manifest> {
        (0..count)
            .map(|hours| Manifest {
                name: hours.to_string(),
                created_ms: NOW - hours * HOUR_MS,
                file: String::new(),
                bytes: 0,
                sha256: String::new(),
                positions: nexus_projector::AsOf::default(),
                apply_version: 1,
            })
            .collect()
    }

    #[test]
    fn two_days_stay_whole_and_older_days_with_one_each() {
        let backups = hourly(24 * 10);
        let gone: BTreeSet<&str> = superfluous(&backups, NOW, NOW - 5 * DAY_MS)
            .into_iter()
            .map(|backup| backup.name.as_str())
            .collect();
        let kept: Vec<i64> = backups
            .iter()
            .filter(|backup| !gone.contains(backup.name.as_str()))
            .map(|backup| (NOW - backup.created_ms) / HOUR_MS)
            .collect();
        // NOW is noon: the newest backup of an earlier day is its last hour, 13 hours before.
        let mut expected: Vec<i64> = (0..48).collect();
        expected.extend([61, 85, 109]);
        assert_eq!(kept, expected);
    }

    #[test]
    fn those_of_the_future_take_no_place_from_those_of_now() {
        let backups = hourly(100);
        let now_ms = NOW - 60 * HOUR_MS;
        assert!(superfluous(&backups, now_ms, now_ms - DAY_MS).is_empty());
    }

    #[test]
    fn the_newest_stay_however_old_they_are() {
        let backups = hourly(3);
        assert!(superfluous(&backups, NOW, NOW + 100 * DAY_MS).is_empty());
    }
}
