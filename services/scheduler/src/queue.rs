//! Pods that wait for a node: those to look at now, those to look at later, and those nothing can be done for yet.
//!
//! A pod no node fits is looked at again when something changes that may let it fit, not on a timer; one that keeps
//! failing is held back a little longer each time. Time comes in from outside.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::demand::{Demand, PodKey};

/// How long a pod is held back after its first failure; doubles with each further one.
pub const BACKOFF_FIRST: Duration = Duration::from_secs(1);
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Highest priority first, then who came first.
type Turn = (Reverse<i32>, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Active(Turn),
    /// Handed out; comes back by [`Queue::refused`] or [`Queue::failed`], or leaves by [`Queue::remove`].
    Taken,
    /// Looked at again at this time.
    HeldBack(Instant),
    /// Looked at again after a change that may help, but not before this time.
    Unschedulable(Instant),
}

#[derive(Debug)]
struct Entry {
    demand: Arc<Demand>,
    state: State,
    /// Failed tries in a row.
    failures: u32,
    turn: u64,
}

/// The pods that wait. Each pod is in it at most once.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<PodKey, Entry>,
    active: BTreeMap<Turn, PodKey>,
    held_back: BTreeSet<(Instant, PodKey)>,
    unschedulable: BTreeSet<PodKey>,
    turns: u64,
}

impl Queue {
    /// Takes in a pod without a node. A pod that is known keeps its place unless what it asks for has changed.
    pub fn offer(&mut self, demand: Demand) {
        if let Some(entry) = self.entries.get_mut(&demand.key) {
            if *entry.demand == demand {
                return;
            }
            let was_taken = entry.state == State::Taken;
            entry.demand = Arc::new(demand);
            if was_taken {
                return;
            }
            entry.failures = 0;
            let key = entry.demand.key.clone();
            self.enter_active(&key);
            return;
        }
        self.turns += 1;
        let key = demand.key.clone();
        let entry = Entry { demand: Arc::new(demand), state: State::Taken, failures: 0, turn: self.turns };
        self.entries.insert(key.clone(), entry);
        self.enter_active(&key);
    }

    /// Lets go of a pod that has a node, ended or is gone.
    pub fn remove(&mut self, key: &PodKey) {
        self.leave_state(key);
        self.entries.remove(key);
    }

    /// Hands out the pod whose turn it is.
    pub fn take(&mut self) -> Option<Arc<Demand>> {
        let (_, key) = self.active.pop_first()?;
        let entry = self.entries.get_mut(&key).expect("an active pod has an entry");
        entry.state = State::Taken;
        Some(entry.demand.clone())
    }

    /// Takes back a pod that no node fits: it waits for a change.
    pub fn refused(&mut self, key: &PodKey, now: Instant) {
        if let Some(entry) = self.taken(key) {
            entry.failures += 1;
            entry.state = State::Unschedulable(now + backoff(entry.failures));
            self.unschedulable.insert(key.clone());
        }
    }

    /// Takes back a pod whose binding did not work out: it is tried again after a while.
    pub fn failed(&mut self, key: &PodKey, now: Instant) {
        if let Some(entry) = self.taken(key) {
            entry.failures += 1;
            let until = now + backoff(entry.failures);
            entry.state = State::HeldBack(until);
            self.held_back.insert((until, key.clone()));
        }
    }

    /// Looks again at every unschedulable pod that `may_fit` now.
    pub fn wake(&mut self, now: Instant, may_fit: impl Fn(&Demand) -> bool) {
        let woken: Vec<PodKey> =
            self.unschedulable.iter().filter(|key| may_fit(&self.entries[*key].demand)).cloned().collect();
        for key in woken {
            let State::Unschedulable(until) = self.entries[&key].state else { continue };
            if until <= now {
                self.enter_active(&key);
            } else {
                self.unschedulable.remove(&key);
                self.held_back.insert((until, key.clone()));
                self.entries.get_mut(&key).expect("a woken pod has an entry").state = State::HeldBack(until);
            }
        }
    }

    /// Ends the wait of the pods that were held back long enough.
    pub fn release(&mut self, now: Instant) {
        while let Some((until, key)) = self.held_back.first().cloned() {
            if until > now {
                break;
            }
            self.enter_active(&key);
        }
    }

    /// When [`Queue::release`] has something to do next.
    pub fn next_release(&self) -> Option<Instant> {
        self.held_back.first().map(|(until, _)| *until)
    }

    pub fn has_active(&self) -> bool {
        !self.active.is_empty()
    }

    pub fn has_unschedulable(&self) -> bool {
        !self.unschedulable.is_empty()
    }

    pub fn get(&self, key: &PodKey) -> Option<&Arc<Demand>> {
        self.entries.get(key).map(|entry| &entry.demand)
    }

    fn taken(&mut self, key: &PodKey) -> Option<&mut Entry> {
        self.entries.get_mut(key).filter(|entry| entry.state == State::Taken)
    }

    fn enter_active(&mut self, key: &PodKey) {
        self.leave_state(key);
        let entry = self.entries.get_mut(key).expect("a pod that becomes active has an entry");
        let turn = (Reverse(entry.demand.priority), entry.turn);
        entry.state = State::Active(turn);
        self.active.insert(turn, key.clone());
    }

    fn leave_state(&mut self, key: &PodKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        match std::mem::replace(&mut entry.state, State::Taken) {
            State::Active(turn) => {
                self.active.remove(&turn);
            }
            State::HeldBack(until) => {
                self.held_back.remove(&(until, key.clone()));
            }
            State::Unschedulable(_) => {
                self.unschedulable.remove(key);
            }
            State::Taken => {}
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << (failures.saturating_sub(1)).min(16)).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(name: &str, priority: i32) -> Demand {
        let pod = crate::testing::pod(name).priority(priority).build();
        Demand::of(&pod)
    }

    fn taken(queue: &mut Queue) -> Vec<String> {
        std::iter::from_fn(|| queue.take()).map(|demand| demand.key.name.to_string()).collect()
    }

    #[test]
    fn higher_priority_goes_first_then_who_came_first() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10)] {
            queue.offer(demand(name, priority));
        }
        assert_eq!(taken(&mut queue), ["b", "d", "a", "c"]);
    }

    #[test]
    fn an_unschedulable_pod_stays_until_a_change_may_help() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.offer(demand("a", 0));
        let pod = queue.take().unwrap();
        queue.refused(&pod.key, start);

        let later = start + BACKOFF_MAX;
        queue.release(later);
        queue.wake(later, |_| false);
        assert!(!queue.has_active());
        queue.wake(later, |_| true);
        assert_eq!(taken(&mut queue), ["a"]);
    }

    #[test]
    fn a_pod_woken_too_early_is_held_back_first() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.offer(demand("a", 0));
        let pod = queue.take().unwrap();
        queue.refused(&pod.key, start);

        queue.wake(start, |_| true);
        assert!(!queue.has_active());
        assert_eq!(queue.next_release(), Some(start + BACKOFF_FIRST));
        queue.release(start + BACKOFF_FIRST);
        assert_eq!(taken(&mut queue), ["a"]);
    }

    #[test]
    fn repeated_failures_wait_longer_up_to_a_bound() {
        let waits: Vec<u64> = (1..8).map(|failures| backoff(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10, 10]);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }

    #[test]
    fn a_pod_that_asks_for_something_else_is_looked_at_at_once() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.offer(demand("a", 0));
        let pod = queue.take().unwrap();
        queue.refused(&pod.key, start);

        queue.offer(demand("a", 0));
        assert!(!queue.has_active());
        queue.offer(demand("a", 5));
        assert_eq!(taken(&mut queue), ["a"]);
    }

    #[test]
    fn a_removed_pod_never_comes_back() {
        let (mut queue, start) = (Queue::default(), Instant::now());
        queue.offer(demand("a", 0));
        let pod = queue.take().unwrap();
        queue.remove(&pod.key);
        queue.refused(&pod.key, start);
        queue.failed(&pod.key, start);
        queue.wake(start + BACKOFF_MAX, |_| true);
        assert_eq!((taken(&mut queue), queue.next_release()), (Vec::new(), None));
    }
}
