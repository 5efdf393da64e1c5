//! Rules of all services together, and what a change of some means for the whole. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::rules::{Key, Rule, RuleSet, ServiceKey};

/// What became of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    pub before: Option<Rule>,
    pub after: Option<Rule>,
}

/// Keys whose rule changed; a key that ended as it began is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(pub BTreeMap<Key, Change>);

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, key: Key, before: Option<Rule>, after: Option<Rule>) {
        let before = self.0.remove(&key).map_or(before, |earlier| earlier.before);
        if before != after {
            self.0.insert(key, Change { before, after });
        }
    }
}

/// What turns `old` into `new`.
pub fn diff(old: &RuleSet, new: &RuleSet) -> Changes {
    let mut changes = Changes::default();
    for (key, rule) in old {
        changes.note(*key, Some(rule.clone()), new.get(key).cloned());
    }
    for (key, rule) in new.iter().filter(|(key, _)| !old.contains_key(key)) {
        changes.note(*key, None, Some(rule.clone()));
    }
    changes
}

/// The rules of every service.
///
/// Two services may claim one key (an external address given twice): the first by namespace and name has it, whatever
/// the order they came in, and the other gets it when the first lets go.
#[derive(Debug, Default)]
pub struct Claims {
    by_key: HashMap<Key, BTreeMap<ServiceKey, Rule>>,
    by_service: HashMap<ServiceKey, BTreeSet<Key>>,
    rules: RuleSet,
}

impl Claims {
    /// What is in force.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Every service that has rules.
    pub fn services(&self) -> impl Iterator<Item = &ServiceKey> {
        self.by_service.keys()
    }

    /// Puts a service's present rules in the place of its former ones and notes what that changes.
    pub fn replace(&mut self, service: &ServiceKey, rules: RuleSet, changes: &mut Changes) {
        let former = self.by_service.remove(service).unwrap_or_default();
        let touched: BTreeSet<Key> = former.iter().chain(rules.keys()).copied().collect();
        if !rules.is_empty() {
            self.by_service.insert(service.clone(), rules.keys().copied().collect());
        }
        let mut rules = rules;
        for key in touched {
            let claims = self.by_key.entry(key).or_default();
            match rules.remove(&key) {
                Some(rule) => claims.insert(service.clone(), rule),
                None => claims.remove(service),
            };
            let after = claims.values().next().cloned();
            if after.is_none() {
                self.by_key.remove(&key);
            }
            let before = match after.clone() {
                Some(rule) => self.rules.insert(key, rule),
                None => self.rules.remove(&key),
            };
            changes.note(key, before, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{any_rules, apply, key, rule, service};

    #[test]
    fn of_two_claims_the_first_service_by_name_wins_and_the_other_follows() {
        let (mut claims, mut changes) = (Claims::default(), Changes::default());
        let shared = key("192.0.2.1", 80);
        let claim = |name: &str, port| RuleSet::from([(shared, rule(name, &[("10.244.0.1", port)]))]);
        claims.replace(&service("b"), claim("b", 2), &mut changes);
        claims.replace(&service("a"), claim("a", 1), &mut changes);
        assert_eq!(claims.rules()[&shared].service, service("a"));
        claims.replace(&service("a"), RuleSet::new(), &mut changes);
        assert_eq!(claims.rules()[&shared].service, service("b"));
        claims.replace(&service("b"), RuleSet::new(), &mut changes);
        assert!(claims.rules().is_empty() && changes.is_empty());
    }

    proptest! {
        #[test]
        fn a_difference_turns_the_old_into_the_new(old in any_rules(), new in any_rules()) {
            let mut rules = old.clone();
            apply(&mut rules, &diff(&old, &new));
            prop_assert_eq!(rules, new);
        }

        #[test]
        fn changes_of_services_add_up_to_the_difference(steps in prop::collection::vec((0..3u8, any_rules()), 0..8)) {
            let (mut claims, mut changes) = (Claims::default(), Changes::default());
            for (name, rules) in steps {
                let service = service(&format!("s{name}"));
                let rules = rules.into_iter().map(|(key, rule)| (key, Rule { service: service.clone(), ..rule }));
                claims.replace(&service, rules.collect(), &mut changes);
            }
            let all = diff(&RuleSet::new(), claims.rules());
            prop_assert_eq!(changes, all);
        }
    }
}
