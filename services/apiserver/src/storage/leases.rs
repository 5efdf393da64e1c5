//! Leases by which the store forgets objects by itself: events, after an hour.

use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use super::{Store, refused};
use crate::refusal::Result;

/// Objects written in this time share one lease, and end at most so much later than asked.
const SHARED_FOR: Duration = Duration::from_secs(60);

/// The lease that new objects with a time to live are given.
#[derive(Default)]
pub(crate) struct ExpiryLeases(Mutex<Option<Shared>>);

struct Shared {
    id: i64,
    ttl_seconds: i64,
    until: Instant,
}

impl ExpiryLeases {
    /// A lease that lives at least `ttl_seconds` from now; 0 (none) where that is 0.
    pub async fn expiry(&self, store: &std::sync::Arc<dyn Store>, ttl_seconds: i64) -> Result<i64> {
        if ttl_seconds == 0 {
            return Ok(0);
        }
        let mut shared = self.0.lock().await;
        if let Some(shared) =
            shared.as_ref().filter(|known| known.ttl_seconds == ttl_seconds && Instant::now() < known.until)
        {
            return Ok(shared.id);
        }
        let extra = i64::try_from(SHARED_FOR.as_secs()).unwrap_or(0);
        let id = store.lease_grant(ttl_seconds + extra).await.map_err(refused)?;
        *shared = Some(Shared { id, ttl_seconds, until: Instant::now() + SHARED_FOR });
        Ok(id)
    }
}
