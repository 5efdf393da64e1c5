use expect_test::expect;

use super::super::{
    snapshot::{FailureReason, Target, Verdict, Verdicts},
    world::{World, pod},
};
use crate::runtime::Phase;

fn check(world: &World, expected: expect_test::Expect) {
    expected.assert_eq(&world.status());
}

#[test]
fn a_new_pod_is_pending_and_its_containers_are_being_created() {
    check(
        &pod(&["a"]),
        expect![[r#"
        Pending
        PodReadyToStartContainers=False
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ContainerCreating; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_running_pod_is_ready_when_all_its_containers_are() {
    check(
        &pod(&["a"]).sandbox().running("a"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=True
        ContainersReady=True
        PodScheduled=True
        a: running; last -; ready=true restarts=0"#]],
    );
    check(
        &pod(&["a", "b"]).readiness("b").sandbox().running("a").running("b"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [b]
        ContainersReady=False ContainersNotReady containers with unready status: [b]
        PodScheduled=True
        a: running; last -; ready=true restarts=0
        b: running; last -; ready=false restarts=0"#]],
    );
    check(
        &pod(&["a", "b"]).readiness("b").sandbox().running("a").running("b").ready("b0"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=True
        ContainersReady=True
        PodScheduled=True
        a: running; last -; ready=true restarts=0
        b: running; last -; ready=true restarts=0"#]],
    );
}

#[test]
fn a_pod_waiting_for_its_init_containers_says_which() {
    check(
        &pod(&["a"]).init("i").init("j").sandbox().running("i"),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=False ContainersNotInitialized containers with incomplete status: [i j]
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        i: running; last -; ready=false restarts=0
        j: waiting PodInitializing; last -; ready=false restarts=0
        a: waiting PodInitializing; last -; ready=false restarts=0"#]],
    );
    check(
        &pod(&["a"]).init("i").sandbox().exited("i", 0).running("a"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=True
        ContainersReady=True
        PodScheduled=True
        i: terminated 0 Completed; last -; ready=true restarts=0
        a: running; last -; ready=true restarts=0"#]],
    );
}

#[test]
fn a_failing_init_container_fails_the_pod_only_with_policy_never() {
    check(
        &pod(&["a"]).policy("Never").init("i").sandbox().exited("i", 3),
        expect![[r#"
        Failed
        PodReadyToStartContainers=True
        Initialized=False ContainersNotInitialized containers with incomplete status: [i]
        Ready=False PodFailed
        ContainersReady=False PodFailed
        PodScheduled=True
        i: terminated 3 Error; last -; ready=false restarts=0
        a: waiting PodInitializing; last -; ready=false restarts=0"#]],
    );
    check(
        &pod(&["a"]).init("i").sandbox().exited("i", 3).exited("i", 3).seen_at(25),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=False ContainersNotInitialized containers with incomplete status: [i]
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        i: waiting CrashLoopBackOff back-off 10s restarting failed container=i pod=web_shop(u1); last terminated 3 Error; ready=false restarts=1
        a: waiting PodInitializing; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_crashing_container_backs_off_and_the_pod_keeps_running() {
    check(
        &pod(&["a"]).sandbox().exited("a", 1).exited("a", 1).seen_at(25),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting CrashLoopBackOff back-off 10s restarting failed container=a pod=web_shop(u1); last terminated 1 Error; ready=false restarts=1"#]],
    );
    check(
        &pod(&["a"]).sandbox().exited("a", 1).running("a"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=True
        ContainersReady=True
        PodScheduled=True
        a: running; last terminated 1 Error; ready=true restarts=1"#]],
    );
}

#[test]
fn an_image_that_cannot_be_had_is_told_as_a_failure_then_as_a_wait() {
    let world = |reason, second| pod(&["a"]).sandbox().failed("a", reason, "no such image", 95).seen_at(second);
    check(
        &world(FailureReason::ImagePull, 96),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ErrImagePull no such image; last -; ready=false restarts=0"#]],
    );
    check(
        &world(FailureReason::ImagePull, 101),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ImagePullBackOff Back-off pulling image "img:1": no such image; last -; ready=false restarts=0"#]],
    );
    check(
        &world(FailureReason::ImageNeverPull, 101),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ErrImageNeverPull no such image; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_job_succeeds_or_fails_by_its_exit_codes() {
    check(
        &pod(&["a"]).policy("Never").sandbox().exited("a", 0),
        expect![[r#"
        Succeeded
        PodReadyToStartContainers=True
        Initialized=True PodCompleted
        Ready=False PodCompleted
        ContainersReady=False PodCompleted
        PodScheduled=True
        a: terminated 0 Completed; last -; ready=false restarts=0"#]],
    );
    check(
        &pod(&["a", "b"]).policy("Never").sandbox().exited("a", 0).exited("b", 2),
        expect![[r#"
        Failed
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False PodFailed
        ContainersReady=False PodFailed
        PodScheduled=True
        a: terminated 0 Completed; last -; ready=false restarts=0
        b: terminated 2 Error; last -; ready=false restarts=0"#]],
    );
    check(
        &pod(&["a"]).policy("OnFailure").sandbox().oom_killed("a"),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: terminated 137 OOMKilled; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_startup_probe_holds_back_readiness() {
    let mut world = pod(&["a"]).sandbox().running("a");
    world.spec().containers[0].startup_probe = Some(Default::default());
    assert!(world.status().contains("ready=false"));
    let started = world.probed("a0", Verdicts { startup: Verdict::Success, ..Default::default() });
    assert!(started.status().contains("ready=true"));
}

#[test]
fn a_deadline_fails_the_pod_with_its_reason() {
    let mut world = pod(&["a"]).sandbox().exited("a", 143).started(10).seen_at(80);
    world.spec().active_deadline_seconds = Some(60);
    check(
        &world,
        expect![[r#"
        Failed DeadlineExceeded
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False PodFailed
        ContainersReady=False PodFailed
        PodScheduled=True
        a: terminated 143 Error; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_terminal_phase_never_changes_again() {
    let mut world = pod(&["a"]).sandbox().running("a");
    world.pod.status.as_mut().unwrap().phase = "Failed".into();
    assert!(world.status().starts_with("Failed"));
}

#[test]
fn transition_times_move_only_with_their_condition() {
    let mut world = pod(&["a"]).sandbox().running("a");
    world.pod.status = Some(super::status(&world.snapshot()));
    world = world.seen_at(500);
    assert_eq!(Some(super::status(&world.snapshot())), world.pod.status);
    world = world.exited("a", 1);
    let later = super::status(&world.snapshot());
    let time = |status: &super::PodStatus, kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.r#type == kind);
        found.unwrap().last_transition_time.unwrap().seconds
    };
    let before = world.pod.status.as_ref().unwrap();
    assert_eq!(time(&later, "PodScheduled"), time(before, "PodScheduled"));
    assert_eq!(time(&later, "Ready") - time(before, "Ready"), 400);
}

#[test]
fn a_container_is_not_running_before_its_post_start_hook_has_ended() {
    check(
        &pod(&["a"]).sandbox().running("a").hooked("a"),
        expect![[r#"
        Pending
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ContainerCreating; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_pod_is_not_over_while_its_sidecar_runs() {
    let world = || pod(&["a"]).policy("Never").sidecar("s").sandbox();
    check(
        &world().running("s").exited("a", 0),
        expect![[r#"
        Running
        PodReadyToStartContainers=True
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        s: running; last -; ready=true restarts=0
        a: terminated 0 Completed; last -; ready=false restarts=0"#]],
    );
    assert!(world().exited("s", 143).exited("a", 0).status().starts_with("Succeeded"));
}

#[test]
fn a_program_that_cannot_run_ends_a_pod_that_is_not_restarted() {
    let world = |policy: &str| {
        let mut world = pod(&["a"]).policy(policy).sandbox().exited("a", 127);
        let container = &mut world.state.containers[0];
        (container.phase, container.started_at, container.error) = (Phase::Created, None, "no such file".into());
        world.failed("a", FailureReason::Run, "no such file", 99)
    };
    let told = |policy| world(policy).status().lines().last().unwrap().to_owned();
    assert_eq!(told("Never"), "a: terminated 127 ContainerCannotRun; last -; ready=false restarts=0");
    assert_eq!(
        told("Always"),
        "a: waiting RunContainerError no such file; last terminated 127 ContainerCannotRun; ready=false restarts=0"
    );
}

/// Every restart of a kubelet took all probed pods out of their services for a moment.
#[test]
fn a_new_kubelet_believes_what_was_known_of_probes_until_it_has_asked_itself() {
    let mut world = pod(&["a", "b"]).readiness("a").readiness("b").sandbox().running("a").running("b").ready("a0");
    world.spec().containers[0].startup_probe = Some(Default::default());
    world.probes.get_mut("a0").unwrap().startup = Verdict::Success;
    let known = super::status(&world.snapshot());
    world.pod.status = Some(known.clone());
    world.probes = super::known_verdicts(&world.pod, &world.state);
    assert_eq!(super::status(&world.snapshot()), known);
    // Of another attempt nothing is known.
    world = world.exited("a", 1).running("a");
    assert!(!super::known_verdicts(&world.pod, &world.state).contains_key("a2"));
}

/// Once its containers were removed, a deleted pod was told to create them, for the moment before it vanished.
#[test]
fn a_deleted_pod_whose_containers_are_gone_keeps_their_ends() {
    let ended = pod(&["a"]).sandbox().exited("a", 143).deleted(1).told();
    check(
        &ended.gone(),
        expect![[r#"
            Failed
            PodReadyToStartContainers=False
            Initialized=True
            Ready=False PodFailed
            ContainersReady=False PodFailed
            PodScheduled=True
            a: terminated 143 Error; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_container_that_nobody_saw_end_is_told_as_unknown() {
    check(
        &pod(&["a"]).sandbox().running("a").told().deleted(1).gone(),
        expect![[r#"
            Failed
            PodReadyToStartContainers=False
            Initialized=True
            Ready=False PodFailed
            ContainersReady=False PodFailed
            PodScheduled=True
            a: terminated 137 ContainerStatusUnknown; last -; ready=false restarts=0"#]],
    );
    // One that never ran has no end.
    check(
        &pod(&["a"]).told().deleted(1).gone(),
        expect![[r#"
        Pending
        PodReadyToStartContainers=False
        Initialized=True
        Ready=False ContainersNotReady containers with unready status: [a]
        ContainersReady=False ContainersNotReady containers with unready status: [a]
        PodScheduled=True
        a: waiting ContainerCreating; last -; ready=false restarts=0"#]],
    );
}

#[test]
fn a_pod_has_its_address_once_it_is_wired_and_keeps_it_to_its_end() {
    let told = |world: &World| {
        let status = super::status(&world.snapshot());
        format!("{} {} {}", status.conditions[0].status, status.phase, status.pod_ip).trim().to_owned()
    };
    assert_eq!(told(&pod(&["a"]).sandbox().busy(Target::Sandbox)), "False Pending");
    assert_eq!(told(&pod(&["a"]).sandbox()), "True Pending 10.244.0.5");
    let ending = pod(&["a"]).policy("Never").sandbox().exited("a", 0).busy(Target::Sandbox);
    assert_eq!(told(&ending), "True Succeeded 10.244.0.5");
}
