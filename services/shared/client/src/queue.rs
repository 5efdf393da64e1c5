//! [`Queue`]: keys that want work, each worked on by one worker at a time, and later again after failures.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    hash::Hash,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::backoff::delay;

const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// A set of keys to work on. Cheap to clone.
///
/// # Guarantees
/// A key is handed out once at a time; one added while it is worked on is handed out again afterwards. Bounded by the
/// number of distinct keys, since a key waits at most once.
pub struct Queue<K>(Arc<Shared<K>>);

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    retry_min: Duration,
    retry_max: Duration,
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there once its work is done.
    wanted: HashSet<K>,
    working: HashSet<K>,
    /// By due time; the number keeps equal times apart.
    delayed: BTreeMap<(Instant, u64), K>,
    due: HashMap<K, (Instant, u64)>,
    sequence: u64,
    failures: HashMap<K, u32>,
    is_closed: bool,
}

impl<K: Clone + Eq + Hash> Default for Queue<K> {
    fn default() -> Self {
        Self::with_retries(RETRY_MIN, RETRY_MAX)
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub fn new() -> Self {
        Self::default()
    }

    /// A queue whose failed keys come back after `shortest`, then twice that, up to `longest`.
    pub fn with_retries(shortest: Duration, longest: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            working: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            is_closed: false,
        };
        let (state, changed) = (Mutex::new(state), Notify::new());
        Self(Arc::new(Shared { state, changed, retry_min: shortest, retry_max: longest }))
    }

    /// Wants work on a key as soon as possible.
    pub fn add(&self, key: K) {
        if self.0.state.lock().add(key) {
            self.0.changed.notify_one();
        }
    }

    /// Wants work on a key after a while; the earliest wish counts.
    pub fn add_after(&self, key: K, wait: Duration) {
        if wait.is_zero() {
            return self.add(key);
        }
        self.0.state.lock().add_at(key, Instant::now() + wait);
        self.0.changed.notify_one();
    }

    /// Wants work on a key whose work failed, later each time until [`Queue::forget`].
    pub fn retry(&self, key: K) {
        let mut state = self.0.state.lock();
        let failures = state.failures.entry(key.clone()).or_default();
        let wait = delay(self.0.retry_min, self.0.retry_max, *failures);
        *failures = failures.saturating_add(1);
        state.add_at(key, Instant::now() + wait);
        drop(state);
        self.0.changed.notify_one();
    }

    /// The key's work succeeded: its next failure is the first again.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// The next key; `None` once the queue is closed. Give it back with [`Queue::done`].
    pub async fn get(&self) -> Option<K> {
        loop {
            let changed = self.0.changed.notified();
            let due = {
                let mut state = self.0.state.lock();
                if state.is_closed {
                    // Each worker wakes the next one.
                    self.0.changed.notify_one();
                    return None;
                }
                state.move_due(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.wanted.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.0.changed.notify_one();
                    }
                    return Some(key);
                }
                state.delayed.first_key_value().map(|((due, _), _)| *due)
            };
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, changed).await;
                }
                None => changed.await,
            }
        }
    }

    /// Ends the work on a key handed out by [`Queue::get`].
    pub fn done(&self, key: &K) {
        let mut state = self.0.state.lock();
        state.working.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.changed.notify_one();
        }
    }

    /// Ends all waiting.
    pub fn close(&self) {
        self.0.state.lock().is_closed = true;
        self.0.changed.notify_one();
    }

    /// Keys that wait for a worker now; delayed ones are not counted.
    pub fn len(&self) -> usize {
        self.0.state.lock().wanted.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long until a delayed key is due.
    pub fn due_in(&self, key: &K) -> Option<Duration> {
        let state = self.0.state.lock();
        state.due.get(key).map(|(due, _)| due.saturating_duration_since(Instant::now()))
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// Whether a worker has something new to do.
    fn add(&mut self, key: K) -> bool {
        if self.is_closed || !self.wanted.insert(key.clone()) {
            return false;
        }
        let is_ready = !self.working.contains(&key);
        if is_ready {
            self.ready.push_back(key);
        }
        is_ready
    }

    fn add_at(&mut self, key: K, due: Instant) {
        match self.due.get(&key) {
            Some((present, _)) if *present <= due => return,
            Some(present) => {
                self.delayed.remove(&present.clone());
            }
            None => {}
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (due, self.sequence));
        self.delayed.insert((due, self.sequence), key);
    }

    fn move_due(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry() {
            if first.key().0 > now {
                return;
            }
            let key = first.remove();
            self.due.remove(&key);
            self.add(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_handed_out_once_at_a_time() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, Some("a"));
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.get().await, Some("b"));
        assert!(!queue.is_empty(), "a waits until its work is done");
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("a"));
    }

    #[test]
    fn failures_wait_longer_each_time_until_forgotten() {
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        let queue = Queue::with_retries(hours(1), hours(3));
        let mut waits = Vec::new();
        for _ in 0..4 {
            queue.retry("a");
            let wait = queue.due_in(&"a").unwrap();
            waits.push(wait.as_secs_f64().div_euclid(3599.0));
            queue.0.state.lock().move_due(Instant::now() + hours(9));
        }
        queue.forget(&"a");
        queue.retry("a");
        waits.push(queue.due_in(&"a").unwrap().as_secs_f64().div_euclid(3599.0));
        assert_eq!(waits, [1.0, 2.0, 3.0, 3.0, 1.0]);
    }

    #[tokio::test]
    async fn the_earliest_of_two_delays_counts() {
        let queue = Queue::new();
        for seconds in [9000, 1, 5000] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        assert!(queue.due_in(&"a").unwrap() <= Duration::from_secs(1));
        assert_eq!(queue.get().await, Some("a"));
        assert_eq!(queue.due_in(&"a"), None);
    }

    #[tokio::test]
    async fn closing_ends_every_worker() {
        let queue = Queue::<u8>::new();
        let workers: Vec<_> = (0..4)
            .map(|_| {
                tokio::spawn({
                    let queue = queue.clone();
                    async move { queue.get().await }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.close();
        for worker in workers {
            assert_eq!(worker.await.unwrap(), None);
        }
    }
}
