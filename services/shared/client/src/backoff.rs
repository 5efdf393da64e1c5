//! [`Backoff`]: waiting longer after each failure, within bounds.

use std::time::Duration;

use rand::Rng;

/// Doubles from a shortest to a longest wait, a little off each time so that many do not come back at once.
#[derive(Debug, Clone)]
pub struct Backoff {
    shortest: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub fn new(shortest: Duration, longest: Duration) -> Self {
        Self { shortest, longest, failures: 0 }
    }

    /// Counts one more failure; how long to wait after it.
    pub fn wait(&mut self) -> Duration {
        let wait = delay(self.shortest, self.longest, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(rand::rng().random_range(0.8..=1.0))
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait after `failures` earlier failures.
pub(crate) fn delay(shortest: Duration, longest: Duration, failures: u32) -> Duration {
    shortest.saturating_mul(1 << failures.min(20)).min(longest)
}
