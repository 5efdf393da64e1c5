//! Time as a value that can be handed in: the wall clock in production, one moved by hand in tests.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use parking_lot::Mutex;

/// Tells the wall-clock time.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's clock, shared.
pub fn system() -> Arc<dyn Clock> {
    Arc::new(System)
}

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub struct Manual(Arc<Mutex<Timestamp>>);

impl Manual {
    pub fn at(now: Timestamp) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }
}

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}
