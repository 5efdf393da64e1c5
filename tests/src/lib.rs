//! What the tests of the whole share: a cluster of one's own, and waiting for conditions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cluster;
pub mod stores;

use std::{future::Future, time::Duration};

/// Longest wait for any condition: far beyond what a loaded machine needs, so that only a failure meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives a value.
///
/// # Panics
/// With `what` where it does not come true.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut condition: impl FnMut() -> F) -> T {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what} did not come true"))
}
