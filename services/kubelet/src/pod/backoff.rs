//! How long a failing container waits before its next attempt. PURE.

use std::time::Duration;

use jiff::Timestamp;

use crate::runtime::Container;

/// Doubling delays between attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackOff {
    pub first: Duration,
    pub max: Duration,
    /// A container that ran this long starts afresh.
    pub reset_after: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_secs(10), max: Duration::from_secs(300), reset_after: Duration::from_secs(600) }
    }
}

impl BackOff {
    /// The delay after `failures` failures in a row; the first attempt after a good run is free.
    pub fn delay(&self, failures: u32) -> Duration {
        match failures {
            0 => Duration::ZERO,
            n => self.first.saturating_mul(1_u32.checked_shl(n - 1).unwrap_or(u32::MAX)).min(self.max),
        }
    }

    /// When the attempt after `last` may start, and how long that is after its end.
    pub fn next_attempt(&self, last: &Container) -> (Timestamp, Duration) {
        let delay = self.delay(self.failures_in_a_row(last));
        let ended = last.finished_at.unwrap_or(last.created_at);
        (ended + delay, delay)
    }

    /// What the attempt after `last` writes down about the failures before it.
    pub fn failures_after(&self, last: &Container) -> u32 {
        self.failures_in_a_row(last).saturating_add(1)
    }

    fn failures_in_a_row(&self, last: &Container) -> u32 {
        let ran = last.finished_at.zip(last.started_at).map(|(end, start)| end.duration_since(start));
        let ran_well = ran.is_some_and(|ran| ran.unsigned_abs() >= self.reset_after);
        if ran_well { 0 } else { last.failures }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(failures: u32, ran_seconds: i64) -> Container {
        let start = Timestamp::from_second(1_000_000).unwrap();
        Container {
            failures,
            started_at: Some(start),
            finished_at: Some(start + jiff::SignedDuration::from_secs(ran_seconds)),
            ..Default::default()
        }
    }

    #[test]
    fn delays_double_from_ten_seconds_to_five_minutes() {
        let delays: Vec<u64> = (0..8).map(|n| BackOff::default().delay(n).as_secs()).collect();
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(BackOff::default().delay(u32::MAX).as_secs(), 300);
    }

    #[test]
    fn ten_good_minutes_forgive_earlier_failures() {
        let back_off = BackOff::default();
        assert_eq!(back_off.next_attempt(&container(5, 599)).1.as_secs(), 160);
        assert_eq!(back_off.next_attempt(&container(5, 600)).1.as_secs(), 0);
        assert_eq!(back_off.failures_after(&container(5, 600)), 1);
    }
}
