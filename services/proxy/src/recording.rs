//! A backend without a kernel: it holds the rules for tests and hollow nodes to look at.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{backend::Backend, diff::Changes, rules::RuleSet};

/// The rules a recording proxy has in force. Clones share them.
#[derive(Clone, Debug)]
pub struct Recording(Arc<watch::Sender<RuleSet>>);

impl Default for Recording {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(RuleSet::new())))
    }
}

impl Recording {
    pub fn rules(&self) -> RuleSet {
        self.0.borrow().clone()
    }

    /// Resolves once the rules meet a condition.
    pub async fn until(&self, is_met: impl FnMut(&RuleSet) -> bool) -> RuleSet {
        let mut rules = self.0.subscribe();
        rules.wait_for(is_met).await.map(|rules| rules.clone()).expect("the sender lives in this handle")
    }
}

#[async_trait]
impl Backend for Recording {
    fn name(&self) -> &'static str {
        "recording"
    }

    async fn rebuild(&mut self, rules: &RuleSet) -> anyhow::Result<()> {
        self.0.send_replace(rules.clone());
        Ok(())
    }

    async fn apply(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.0.send_modify(|rules| {
            for (key, change) in &changes.0 {
                match &change.after {
                    Some(rule) => rules.insert(*key, rule.clone()),
                    None => rules.remove(key),
                };
            }
        });
        Ok(())
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        self.0.send_replace(RuleSet::new());
        Ok(())
    }
}
