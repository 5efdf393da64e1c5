//! Conditions of any kind: looked up by type, and set so that the transition time moves only with the status.

use proto::k8s::{
    core::v1::{NamespaceCondition, NodeCondition, PodCondition, ReplicationControllerCondition},
    meta::v1::{Condition as MetaCondition, Time},
};

/// A status condition; every kind that has conditions has its own message for them.
pub trait Condition: Clone + PartialEq {
    fn kind(&self) -> &str;
    fn status(&self) -> &str;
    fn reason(&self) -> &str;
    fn message(&self) -> &str;
    fn transition_time_mut(&mut self) -> &mut Option<Time>;
    /// Fields that are news only to a clock: they do not make two conditions different.
    fn heartbeat_mut(&mut self) -> Option<&mut Option<Time>> {
        None
    }
}

macro_rules! conditions {
    ($($kind:ty $(, $heartbeat:ident)?;)*) => {$(
        impl Condition for $kind {
            fn kind(&self) -> &str { &self.r#type }
            fn status(&self) -> &str { &self.status }
            fn reason(&self) -> &str { &self.reason }
            fn message(&self) -> &str { &self.message }
            fn transition_time_mut(&mut self) -> &mut Option<Time> { &mut self.last_transition_time }
            $(fn heartbeat_mut(&mut self) -> Option<&mut Option<Time>> { Some(&mut self.$heartbeat) })?
        }
    )*};
}

conditions! {
    PodCondition, last_probe_time;
    NodeCondition, last_heartbeat_time;
    NamespaceCondition;
    ReplicationControllerCondition;
    MetaCondition;
}

pub fn find<'a, C: Condition>(conditions: &'a [C], kind: &str) -> Option<&'a C> {
    conditions.iter().find(|condition| condition.kind() == kind)
}

pub fn is_true<C: Condition>(conditions: &[C], kind: &str) -> bool {
    find(conditions, kind).is_some_and(|condition| condition.status() == "True")
}

/// Sets one condition. The transition time becomes `now` where the status changes and stays otherwise.
///
/// # Guarantees
/// Gives false, and changes nothing but a heartbeat, where the condition already says the same.
pub fn set<C: Condition>(conditions: &mut Vec<C>, mut wanted: C, now: Time) -> bool {
    let Some(present) = conditions.iter_mut().find(|condition| condition.kind() == wanted.kind()) else {
        if wanted.transition_time_mut().is_none() {
            *wanted.transition_time_mut() = Some(now);
        }
        conditions.push(wanted);
        return true;
    };
    let is_transition = present.status() != wanted.status();
    *wanted.transition_time_mut() = if is_transition { Some(now) } else { *present.transition_time_mut() };
    let mut compared = wanted.clone();
    if let (Some(new), Some(old)) = (compared.heartbeat_mut(), present.heartbeat_mut()) {
        *new = *old;
    }
    let is_news = compared != *present;
    *present = wanted;
    is_news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: &str) -> PodCondition {
        PodCondition { r#type: "Ready".into(), status: status.into(), ..Default::default() }
    }

    fn at(seconds: i64) -> Time {
        Time { seconds, nanos: 0 }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        assert!(set(&mut conditions, ready("False"), at(1)));
        assert!(!set(&mut conditions, ready("False"), at(2)));
        assert_eq!(conditions[0].last_transition_time, Some(at(1)));
        assert!(set(&mut conditions, ready("True"), at(3)));
        assert_eq!(conditions[0].last_transition_time, Some(at(3)));
        assert!(is_true(&conditions, "Ready"));
        assert!(!is_true(&conditions, "Initialized"));
    }

    #[test]
    fn a_heartbeat_is_kept_but_is_no_news() {
        let mut conditions = Vec::new();
        set(&mut conditions, PodCondition { last_probe_time: Some(at(1)), ..ready("True") }, at(1));
        assert!(!set(&mut conditions, PodCondition { last_probe_time: Some(at(9)), ..ready("True") }, at(9)));
        assert_eq!(conditions[0].last_probe_time, Some(at(9)));
    }
}
