//! When single answers add up to a verdict. PURE.

use proto::k8s::core::v1::Probe;

use crate::pod::snapshot::Verdict;

/// Counts answers of one probe.
#[derive(Clone, Debug)]
pub struct Counter {
    successes_needed: u32,
    failures_needed: u32,
    last: Option<bool>,
    in_a_row: u32,
    verdict: Verdict,
}

impl Counter {
    pub fn new(probe: &Probe) -> Self {
        let at_least = |value: i32, default: u32| match u32::try_from(value) {
            Ok(0) | Err(_) => default,
            Ok(value) => value,
        };
        Self {
            successes_needed: at_least(probe.success_threshold, 1),
            failures_needed: at_least(probe.failure_threshold, 3),
            last: None,
            in_a_row: 0,
            verdict: Verdict::Unknown,
        }
    }

    /// Takes one answer; a verdict where it is a new one.
    pub fn count(&mut self, is_success: bool) -> Option<Verdict> {
        self.in_a_row = if self.last == Some(is_success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(is_success);
        let (needed, verdict) = match is_success {
            true => (self.successes_needed, Verdict::Success),
            false => (self.failures_needed, Verdict::Failure),
        };
        if self.in_a_row < needed || self.verdict == verdict {
            return None;
        }
        self.verdict = verdict;
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_their_threshold_in_a_row() {
        let mut counter = Counter::new(&Probe { success_threshold: 2, failure_threshold: 3, ..Default::default() });
        let answers = [true, true, false, false, true, false, false, false, false, true, true];
        let verdicts: Vec<Option<Verdict>> = answers.into_iter().map(|answer| counter.count(answer)).collect();
        let told: Vec<usize> = (0..verdicts.len()).filter(|at| verdicts[*at].is_some()).collect();
        assert_eq!(told, [1, 7, 10]);
        assert_eq!(verdicts[7], Some(Verdict::Failure));
    }
}
