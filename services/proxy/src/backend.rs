//! What carries rules into effect.

use async_trait::async_trait;

use crate::{diff::Changes, rules::RuleSet};

/// A way to put rules into the kernel, or to pretend to.
///
/// # Guarantees
/// Each call takes effect as a whole or not at all. After a failure the next call is [`Backend::rebuild`].
#[async_trait]
pub trait Backend: Send {
    /// "nftables", "recording"
    fn name(&self) -> &'static str;
    /// Puts exactly these rules into effect, whatever is there.
    async fn rebuild(&mut self, rules: &RuleSet) -> anyhow::Result<()>;
    /// Puts a change of what the last call left into effect.
    async fn apply(&mut self, changes: &Changes) -> anyhow::Result<()>;
    /// Takes everything out.
    async fn remove(&mut self) -> anyhow::Result<()>;
}
