//! How much of the machine is in use, measured between two looks at /proc.

use std::{fs, time::Instant};

use super::facts::meminfo;

/// What the scheduler reads from the lease, beside what pods request.
pub const ANNOTATION: &str = "forestay.dev/measured-use";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_milli: u64,
    pub memory_bytes: u64,
}

impl Usage {
    /// `cpu=250m,memory=1048576`
    pub fn annotation(&self) -> String {
        format!("cpu={}m,memory={}", self.cpu_milli, self.memory_bytes)
    }
}

/// Remembers the last look, so that the next one gives a mean over the time between.
pub struct Meter {
    busy_ticks: u64,
    at: Instant,
    last: Usage,
}

impl Default for Meter {
    fn default() -> Self {
        Self { busy_ticks: busy_ticks(), at: Instant::now(), last: Usage::default() }
    }
}

/// Kernel ticks per second in /proc: fixed at 100 in the interface, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;
/// Between two closer looks a mean says nothing.
const WINDOW_SECONDS_MIN: f64 = 0.5;

impl Meter {
    pub fn read(&mut self) -> Usage {
        let memory_bytes = meminfo("MemTotal").saturating_sub(meminfo("MemAvailable"));
        let seconds = self.at.elapsed().as_secs_f64();
        if seconds < WINDOW_SECONDS_MIN {
            return Usage { memory_bytes, ..self.last };
        }
        let busy = busy_ticks();
        let cores = busy.saturating_sub(self.busy_ticks) as f64 / TICKS_PER_SECOND / seconds;
        (self.busy_ticks, self.at) = (busy, Instant::now());
        self.last = Usage { cpu_milli: (cores * 1000.0).round() as u64, memory_bytes };
        self.last
    }
}

fn busy_ticks() -> u64 {
    busy_ticks_in(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// All time that was neither idle nor waiting for disks; guests are counted in user time already.
fn busy_ticks_in(stat: &str) -> u64 {
    let Some(line) = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")) else { return 0 };
    let times: Vec<u64> = line.split_whitespace().filter_map(|time| time.parse().ok()).collect();
    const IDLE: usize = 3;
    const IO_WAIT: usize = 4;
    const GUEST: usize = 8;
    times.iter().take(GUEST).enumerate().filter(|(at, _)| *at != IDLE && *at != IO_WAIT).map(|(_, time)| time).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_leaves_out_idling_and_guests() {
        assert_eq!(busy_ticks_in("cpu  100 1 20 9000 500 3 4 5 70 0\ncpu0 1 2 3 4\n"), 133);
        assert_eq!(busy_ticks_in(""), 0);
    }

    #[test]
    fn use_is_written_as_the_scheduler_reads_it() {
        assert_eq!(Usage { cpu_milli: 1250, memory_bytes: 42 }.annotation(), "cpu=1250m,memory=42");
    }
}
