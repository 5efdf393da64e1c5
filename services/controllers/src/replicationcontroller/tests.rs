use expect_test::expect;
use proptest::prelude::*;
use proto::k8s::core::v1::PodTemplateSpec;

use super::*;
use crate::testing::{World, acting, ago, check, labels, named, now, pod, ready, running, settles};

fn web(replicas: i32) -> ReplicationController {
    let mut controller: ReplicationController = named("web");
    let spec = controller.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = labels(&[("app", "web")]);
    let mut template = PodTemplateSpec::default();
    template.metadata.get_or_insert_default().labels = labels(&[("app", "web")]);
    spec.template = Some(template);
    controller
}

fn owned(mut pod: Pod) -> Pod {
    pod.meta_mut().owner_references = vec![model::meta::controlled_by(&web(0))];
    pod
}

fn member(name: &str) -> Pod {
    owned(running(pod(name, &[("app", "web")]), "n1", "10.0.0.1"))
}

fn snapshot(controller: ReplicationController, pods: Vec<Pod>) -> Snapshot {
    Snapshot { controller: Arc::new(controller), pods: pods.into_iter().map(Arc::new).collect(), now: now() }
}

#[test]
fn too_few_pods_are_made_up_for() {
    check(
        plan(&snapshot(web(2), vec![])),
        expect![[r#"
        status replicationcontroller/web replicas=0 ready=0 available=0
        create pod/web-*
        create pod/web-*
    "#]],
    );
}

#[test]
fn a_burst_bounds_what_one_plan_creates() {
    let created = plan(&snapshot(web(1000), vec![])).into_iter().filter(|it| matches!(it, Action::Create(_))).count();
    assert_eq!(created, plan::BURST);
}

#[test]
fn surplus_removes_unready_pods_first() {
    let pods = vec![ready(member("a"), 60), member("b")];
    check(
        plan(&snapshot(web(1), pods)),
        expect![[r#"
        status replicationcontroller/web replicas=2 ready=1 available=1
        delete pod/b
    "#]],
    );
}

#[test]
fn surplus_is_ranked_by_what_is_lost() {
    let mut old = ready(member("old"), 500);
    old.meta_mut().creation_timestamp = Some(ago(9000));
    let mut restarted = ready(member("restarted"), 500);
    restarted
        .status
        .as_mut()
        .unwrap()
        .container_statuses
        .push(proto::k8s::core::v1::ContainerStatus { restart_count: 3, ..Default::default() });
    let pods = vec![
        old,
        restarted,
        ready(member("young"), 500),
        ready(member("fresh"), 5),
        member("unready"),
        owned(pod("unscheduled", &[("app", "web")])),
    ];
    let order: Vec<String> = (0..6)
        .map(|replicas| {
            let plan = plan(&snapshot(web(replicas), pods.clone()));
            plan.iter().filter(|it| matches!(it, Action::Delete(_))).last().unwrap().to_string()
        })
        .collect();
    assert_eq!(
        order,
        [
            "delete pod/old",
            "delete pod/young",
            "delete pod/restarted",
            "delete pod/fresh",
            "delete pod/unready",
            "delete pod/unscheduled"
        ]
    );
}

#[test]
fn a_pod_that_is_over_or_leaving_is_replaced() {
    let mut failed = member("failed");
    failed.status.as_mut().unwrap().phase = "Failed".into();
    let mut leaving = member("leaving");
    leaving.meta_mut().deletion_timestamp = Some(ago(0));
    check(
        plan(&snapshot(web(2), vec![failed, leaving])),
        expect![[r#"
        status replicationcontroller/web replicas=0 ready=0 available=0
        create pod/web-*
        create pod/web-*
    "#]],
    );
}

#[test]
fn a_stray_pod_is_adopted_where_one_is_missing_and_removed_where_none_is() {
    let stray = pod("stray", &[("app", "web")]);
    check(
        plan(&snapshot(web(1), vec![stray.clone()])),
        expect![[r#"
        status replicationcontroller/web replicas=0 ready=0 available=0
        update pod/stray adopted
    "#]],
    );
    check(
        plan(&snapshot(web(1), vec![member("a"), stray])),
        expect![[r#"
        status replicationcontroller/web replicas=1 ready=0 available=0
        delete pod/stray
    "#]],
    );
}

#[test]
fn a_pod_that_lost_its_labels_is_released_and_replaced() {
    let mut lost = member("lost");
    lost.meta_mut().labels = labels(&[("app", "debug")]);
    check(
        plan(&snapshot(web(1), vec![lost])),
        expect![[r#"
        status replicationcontroller/web replicas=0 ready=0 available=0
        update pod/lost released
        create pod/web-*
    "#]],
    );
}

#[test]
fn a_controller_being_deleted_only_counts() {
    let mut leaving = web(3);
    leaving.meta_mut().deletion_timestamp = Some(ago(1));
    check(
        plan(&snapshot(leaving, vec![member("a")])),
        expect![[r#"
        status replicationcontroller/web replicas=1 ready=0 available=0
    "#]],
    );
}

#[test]
fn a_ready_pod_is_available_after_the_wait_asked_for() {
    let mut patient = web(1);
    patient.spec.as_mut().unwrap().min_ready_seconds = 10;
    check(
        plan(&snapshot(patient, vec![ready(member("a"), 4)])),
        expect![[r#"
        wake at 1970-01-12T13:46:46Z
        status replicationcontroller/web replicas=1 ready=1 available=0
    "#]],
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn replication_controllers_settle(
        replicas in 0i32..700,
        kinds in proptest::collection::vec((0u8..6, any::<bool>(), 0i64..900), 0..40),
    ) {
        let pods = kinds.into_iter().enumerate().map(|(at, (kind, is_ready, age))| {
            let name = format!("p{at}");
            let mut made = match kind {
                0 => pod(&name, &[("app", "web")]),
                1 => owned(pod(&name, &[("app", "other")])),
                _ => member(&name),
            };
            if kind == 5 {
                made.status.as_mut().unwrap().phase = "Failed".into();
            }
            if is_ready { ready(made, age) } else { made }
        });
        let mut world = World::default().with([web(replicas)]).with(pods);
        let observe = |world: &World| {
            let controller = world.get::<ReplicationController>("web").unwrap();
            let mine = |pod: &Arc<Pod>| match model::meta::controller_of(pod.meta()) {
                Some(owner) => owner.uid == controller.meta().uid,
                None => plan::matches(&controller, pod),
            };
            let pods = world.list::<Pod>().into_iter().filter(mine).collect();
            Snapshot { pods, controller, now: now() }
        };
        settles(&mut world, 8, |world| plan(&observe(world)), &[acting::<Pod>, acting::<ReplicationController>]);
        let end = observe(&world);
        let live = end.pods.iter().filter(|pod| model::pod::is_live(pod)).count();
        prop_assert_eq!(live as i32, replicas);
        prop_assert_eq!(end.controller.status.as_ref().unwrap().replicas, replicas);
    }
}
