//! What a waiting pod's status says about it. Pure.

use proto::k8s::{
    core::v1::{Pod, PodCondition},
    meta::v1::Time,
};

const SCHEDULED: &str = "PodScheduled";
const UNSCHEDULABLE: &str = "Unschedulable";

/// The pod with the condition that no node fits it; nothing where it says exactly that already.
pub fn unschedulable(pod: &Pod, message: &str, now: Time) -> Option<Pod> {
    let mut pod = pod.clone();
    let status = pod.status.get_or_insert_default();
    let at = status.conditions.iter().position(|condition| condition.r#type == SCHEDULED);
    let at = at.unwrap_or_else(|| {
        status.conditions.push(PodCondition { r#type: SCHEDULED.to_owned(), ..PodCondition::default() });
        status.conditions.len() - 1
    });
    let condition = &mut status.conditions[at];
    let was_false = condition.status == "False";
    if was_false && condition.reason == UNSCHEDULABLE && condition.message == message {
        return None;
    }
    if !was_false {
        condition.last_transition_time = Some(now);
    }
    condition.status = "False".to_owned();
    condition.reason = UNSCHEDULABLE.to_owned();
    condition.message = message.to_owned();
    Some(pod)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn at(seconds: i64) -> Time {
        Time { seconds, ..Time::default() }
    }

    #[test]
    fn the_same_reason_is_written_once() {
        let told = unschedulable(&pod("a").build(), "0/1 nodes", at(1)).unwrap();
        assert_eq!(unschedulable(&told, "0/1 nodes", at(2)), None);
    }

    #[test]
    fn another_message_keeps_the_time_of_the_transition() {
        let told = unschedulable(&pod("a").build(), "0/1 nodes", at(1)).unwrap();
        let told = unschedulable(&told, "0/2 nodes", at(2)).unwrap();
        let conditions = told.status.unwrap().conditions;
        assert_eq!(conditions.len(), 1);
        assert_eq!(
            (conditions[0].message.as_str(), conditions[0].last_transition_time.unwrap().seconds),
            ("0/2 nodes", 1)
        );
    }
}
