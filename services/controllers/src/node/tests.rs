use std::sync::Arc;

use expect_test::expect;
use jiff::SignedDuration;
use proptest::prelude::*;
use proto::k8s::core::v1::{NodeCondition, Toleration};

use super::*;
use crate::testing::{World, acting, ago, check, named, now, pod, ready, running, settles};

const PATIENCE: Patience =
    Patience { grace: SignedDuration::from_secs(40), eviction_after: SignedDuration::from_secs(300) };

fn node(ready: &str) -> Node {
    let mut node: Node = named("n1");
    let conditions = &mut node.status.get_or_insert_default().conditions;
    for (name, status) in
        [("Ready", ready), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")]
    {
        conditions.push(NodeCondition {
            r#type: name.into(),
            status: status.into(),
            last_transition_time: Some(ago(999)),
            ..Default::default()
        });
    }
    node
}

fn silent_for(seconds: i64, node: Option<Node>, pods: Vec<Pod>) -> Snapshot {
    Snapshot {
        node: node.map(Arc::new),
        pods: pods.into_iter().map(Arc::new).collect(),
        heard_at: now() - SignedDuration::from_secs(seconds),
        now: now(),
        patience: PATIENCE,
    }
}

fn tainted(since: i64) -> Node {
    let mut node = node("Unknown");
    for name in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        let conditions = &mut node.status.as_mut().unwrap().conditions;
        conditions.iter_mut().filter(|it| it.r#type == name).for_each(|it| it.status = "Unknown".into());
    }
    for effect in ["NoSchedule", "NoExecute"] {
        node.spec.get_or_insert_default().taints.push(proto::k8s::core::v1::Taint {
            key: "node.kubernetes.io/unreachable".into(),
            effect: effect.into(),
            time_added: (effect == "NoExecute").then(|| ago(since)),
            ..Default::default()
        });
    }
    node
}

fn member(name: &str) -> Pod {
    running(pod(name, &[]), "n1", "10.0.0.1")
}

#[test]
fn a_node_that_reports_is_left_alone_until_its_grace_ends() {
    check(
        plan(&silent_for(10, Some(node("True")), vec![ready(member("a"), 5)])),
        expect![[r#"
        wake at 1970-01-12T13:47:10Z
    "#]],
    );
}

#[test]
fn a_silent_node_becomes_unknown() {
    check(
        plan(&silent_for(41, Some(node("True")), vec![member("a")])),
        expect![[r#"
        status node/n1 Ready=Unknown
        event node/n1 Normal NodeNotReady: Node n1 status is now: NodeNotReady
    "#]],
    );
}

#[test]
fn an_unknown_node_is_tainted_and_its_pods_are_not_ready() {
    let mut unknown = tainted(0);
    unknown.spec.as_mut().unwrap().taints.clear();
    check(
        plan(&silent_for(60, Some(unknown), vec![ready(member("a"), 5)])),
        expect![[r#"
        update node/n1 taints=[node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute]
        status pod/a Ready=False
    "#]],
    );
}

#[test]
fn an_unreachable_node_evicts_after_the_wait() {
    check(
        plan(&silent_for(400, Some(tainted(299)), vec![member("a")])),
        expect![[r#"
        wake at 1970-01-12T13:46:41Z
    "#]],
    );
    check(
        plan(&silent_for(400, Some(tainted(300)), vec![member("a")])),
        expect![[r#"
        event pod/a Warning TaintManagerEviction: Marking for deletion Pod default/a
        delete pod/a
    "#]],
    );
}

#[test]
fn a_pod_says_itself_how_long_it_tolerates_silence() {
    let tolerating = |name: &str, seconds: Option<i64>| {
        let mut pod = member(name);
        pod.spec.as_mut().unwrap().tolerations.push(Toleration {
            key: "node.kubernetes.io/unreachable".into(),
            operator: "Exists".into(),
            toleration_seconds: seconds,
            ..Default::default()
        });
        pod
    };
    let pods = vec![tolerating("impatient", Some(5)), tolerating("patient", Some(1000)), tolerating("eternal", None)];
    check(
        plan(&silent_for(400, Some(tainted(10)), pods)),
        expect![[r#"
        event pod/impatient Warning TaintManagerEviction: Marking for deletion Pod default/impatient
        delete pod/impatient
        wake at 1970-01-12T14:03:10Z
    "#]],
    );
}

#[test]
fn a_taint_set_by_hand_drives_out_at_once_or_when_a_pods_tolerance_ends() {
    let mut taken = node("True");
    taken.spec.get_or_insert_default().taints.push(proto::k8s::core::v1::Taint {
        key: "repair".into(),
        effect: "NoExecute".into(),
        ..Default::default()
    });
    let mut tolerant = member("tolerant");
    tolerant.spec.as_mut().unwrap().tolerations.push(Toleration {
        key: "repair".into(),
        operator: "Exists".into(),
        toleration_seconds: Some(60),
        ..Default::default()
    });
    let first = plan(&silent_for(1, Some(taken), vec![member("strict"), tolerant.clone()]));
    check(
        first.clone(),
        expect![[r#"
        wake at 1970-01-12T13:47:19Z
        update node/n1 taints=[repair:NoExecute]
        event pod/strict Warning TaintManagerEviction: Marking for deletion Pod default/strict
        delete pod/strict
        wake at 1970-01-12T13:47:39Z
    "#]],
    );
    // The node lives on: its signs of life do not move the end.
    let Some(Action::Update(write)) = first.iter().find(|it| matches!(it, Action::Update(_))) else {
        panic!("{first:?}")
    };
    let stamped: Node = write.object.decode_as().unwrap();
    let later = Snapshot {
        now: now() + SignedDuration::from_secs(60),
        heard_at: now() + SignedDuration::from_secs(59),
        ..silent_for(0, Some(stamped), vec![tolerant])
    };
    check(
        plan(&later),
        expect![[r#"
        wake at 1970-01-12T13:48:19Z
        event pod/tolerant Warning TaintManagerEviction: Marking for deletion Pod default/tolerant
        delete pod/tolerant
    "#]],
    );
}

#[test]
fn a_node_that_is_back_loses_our_taints_and_keeps_others() {
    let mut back = tainted(100);
    back.status = node("True").status;
    back.spec.as_mut().unwrap().taints.push(proto::k8s::core::v1::Taint {
        key: "gpu".into(),
        effect: "NoSchedule".into(),
        ..Default::default()
    });
    check(
        plan(&silent_for(1, Some(back), vec![])),
        expect![[r#"
        wake at 1970-01-12T13:47:19Z
        update node/n1 taints=[gpu:NoSchedule]
    "#]],
    );
}

#[test]
fn a_cordoned_node_is_tainted() {
    let mut cordoned = node("True");
    cordoned.spec.get_or_insert_default().unschedulable = true;
    check(
        plan(&silent_for(1, Some(cordoned), vec![])),
        expect![[r#"
        wake at 1970-01-12T13:47:19Z
        update node/n1 taints=[node.kubernetes.io/unschedulable:NoSchedule]
    "#]],
    );
}

#[test]
fn pods_of_a_deleted_node_are_removed_after_the_grace() {
    check(
        plan(&silent_for(10, None, vec![member("a")])),
        expect![[r#"
        wake at 1970-01-12T13:47:10Z
    "#]],
    );
    check(
        plan(&silent_for(41, None, vec![member("a")])),
        expect![[r#"
        delete pod/a now
    "#]],
    );
}

proptest! {
    #[test]
    fn nodes_settle(status in "True|False|Unknown", silent in 0i64..900, since in 0i64..900, pods in 0usize..5, by_hand: bool) {
        let mut start = tainted(since);
        start.status = node(&status).status;
        if by_hand {
            let taint =
                proto::k8s::core::v1::Taint { key: "repair".into(), effect: "NoExecute".into(), ..Default::default() };
            start.spec.as_mut().unwrap().taints.push(taint);
        }
        let pods = (0..pods).map(|at| ready(member(&format!("p{at}")), 5));
        let mut world = World::default().with([start]).with(pods);
        let observe = |world: &World| Snapshot {
            node: world.get("n1"),
            pods: world.list(),
            ..silent_for(silent, None, vec![])
        };
        settles(&mut world, 6, |world| plan(&observe(world)), &[acting::<Node>, acting::<Pod>]);
    }
}
