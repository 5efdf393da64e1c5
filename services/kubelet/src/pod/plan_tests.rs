use expect_test::expect;
use proptest::prelude::*;

use super::super::{
    snapshot::{FailureReason, Target, Verdict, Verdicts},
    world::{World, pod},
};

fn check(world: &World, expected: expect_test::Expect) {
    expected.assert_eq(&world.plan());
}

#[test]
fn a_new_pod_gets_its_sandbox_before_its_containers() {
    check(&pod(&["a", "b"]), expect!["start sandbox 0"]);
    check(
        &pod(&["a", "b"]).sandbox(),
        expect![[r#"
        start a 0 after 0
        start b 0 after 0"#]],
    );
    check(&pod(&["a", "b"]).sandbox().running("a").running("b"), expect![""]);
}

#[test]
fn containers_wait_until_the_sandbox_is_wired() {
    check(&pod(&["a"]).sandbox().busy(Target::Sandbox), expect![""]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let world = || pod(&["a"]).init("i").init("j").sandbox();
    check(&world(), expect!["start i 0 after 0"]);
    check(&world().running("i"), expect![""]);
    check(&world().exited("i", 0), expect!["start j 0 after 0"]);
    check(&world().exited("i", 0).exited("j", 0), expect!["start a 0 after 0"]);
}

#[test]
fn a_failed_init_container_is_tried_again_unless_the_policy_is_never() {
    let world = || pod(&["a"]).init("i").sandbox().exited("i", 1);
    check(&world(), expect!["start i 1 after 1"]);
    check(&world().policy("Never"), expect!["stop sandbox"]);
}

#[test]
fn sidecars_start_in_order_and_stop_last() {
    let world = || pod(&["a"]).sidecar("s").init("i").sandbox();
    check(&world(), expect!["start s 0 after 0"]);
    check(&world().running("s"), expect!["start i 0 after 0"]);
    check(&world().running("s").exited("i", 0).running("a").deleted(30), expect!["stop a in 30s Deleted"]);
    check(&world().running("s").exited("i", 0).exited("a", 0).deleted(30), expect!["stop s in 30s Deleted"]);
}

#[test]
fn the_first_restart_is_free_and_later_ones_wait() {
    let once = pod(&["a"]).sandbox().exited("a", 1);
    check(&once, expect!["start a 1 after 1"]);
    let twice = || pod(&["a"]).sandbox().exited("a", 1).exited("a", 1);
    check(&twice().seen_at(25), expect!["wake at 30"]);
    check(&twice().seen_at(30), expect!["start a 2 after 2"]);
}

#[test]
fn restart_policies_decide_by_exit_code() {
    let ended = |policy: &str, code| pod(&["a", "b"]).policy(policy).sandbox().running("b").exited("a", code);
    check(&ended("Never", 1), expect![""]);
    check(&ended("OnFailure", 0), expect![""]);
    check(&ended("OnFailure", 1), expect!["start a 1 after 1"]);
    check(&ended("Always", 0), expect!["start a 1 after 1"]);
}

#[test]
fn a_finished_pod_frees_its_sandbox_and_keeps_its_dead() {
    check(&pod(&["a"]).policy("Never").sandbox().exited("a", 0), expect!["stop sandbox"]);
    let mut done = pod(&["a"]).policy("Never").sandbox().exited("a", 0);
    done.state.sandboxes[0].running = false;
    check(&done, expect![""]);
}

#[test]
fn a_failed_liveness_probe_stops_the_container_for_a_restart() {
    let sick = Verdicts { liveness: Verdict::Failure, ..Default::default() };
    check(
        &pod(&["a"]).liveness("a").sandbox().running("a").probed("a0", sick),
        expect!["stop a in 30s FailedLiveness"],
    );
}

#[test]
fn a_changed_image_replaces_the_container() {
    let mut world = pod(&["a"]).sandbox().running("a");
    world.spec().containers[0].image = "img:2".into();
    check(&world, expect!["stop a in 30s Changed"]);
}

#[test]
fn a_lost_sandbox_takes_its_containers_with_it() {
    let lost = || {
        let mut world = pod(&["a"]).sandbox().running("a");
        world.state.sandboxes[0].running = false;
        world
    };
    check(&lost(), expect!["stop a in 30s LostSandbox"]);
    let mut stopped = lost();
    stopped.state.containers[0].phase = crate::runtime::Phase::Exited;
    check(&stopped, expect!["start sandbox 1"]);
    check(&stopped.sandbox(), expect!["start a 1 after 1\nremove s0"]);
}

#[test]
fn deletion_stops_containers_then_removes_the_pod() {
    let world = || pod(&["a", "b"]).sandbox().deleted(7);
    check(
        &world().running("a").running("b"),
        expect![[r#"
        stop b in 7s Deleted
        stop a in 7s Deleted"#]],
    );
    check(&world().running("a").busy(Target::Container("a".into())), expect![""]);
    check(&world().exited("a", 0).exited("b", 137), expect!["remove pod"]);
}

#[test]
fn a_forced_deletion_takes_the_grace_back() {
    let world = pod(&["a"]).sandbox().running("a").busy(Target::Container("a".into()));
    check(&world.deleted(0), expect!["kill a0"]);
}

#[test]
fn what_stops_later_shares_the_pods_grace_period() {
    let world = || pod(&["a"]).sidecar("s").sandbox().running("s").exited("a", 0).deleted(30);
    check(&world().killed_at(107), expect!["stop s in 7s Deleted"]);
    check(&world().killed_at(95), expect!["stop s in 2s Deleted"]);
}

/// A second, shorter deletion did not reach a container whose stop was under way.
#[test]
fn a_shortened_grace_period_ends_a_stop_under_way() {
    let world = || pod(&["a"]).sandbox().running("a").busy(Target::Container("a".into())).deleted(5);
    check(&world().killed_at(105), expect!["wake at 108"]);
    check(&world().killed_at(97), expect!["kill a0"]);
}

#[test]
fn a_failed_pull_waits_and_is_tried_again() {
    let world = |second| {
        let failed = pod(&["a"]).sandbox().failed("a", FailureReason::ImagePull, "no such image", 95);
        failed.seen_at(second)
    };
    check(&world(96), expect!["wake at 100"]);
    check(&world(101), expect!["wake at 105"]);
    check(&world(105), expect!["start a 0 after 0"]);
}

#[test]
fn trouble_with_the_sandbox_does_not_hold_up_deletion() {
    let world = pod(&["a"]).failed(super::SANDBOX, FailureReason::Mount, "configmap \"x\" not found", 99);
    check(&world.deleted(30), expect!["remove pod"]);
}

#[test]
fn only_the_attempt_before_the_newest_is_kept() {
    let world = pod(&["a"]).sandbox().exited("a", 1).exited("a", 1).exited("a", 1).running("a");
    check(&world, expect!["remove a1\nremove a0"]);
}

#[test]
fn a_deadline_ends_the_pod() {
    let world = |second| {
        let mut world = pod(&["a"]).sandbox().running("a").started(10).seen_at(second);
        world.spec().active_deadline_seconds = Some(60);
        world
    };
    check(&world(69), expect!["wake at 70"]);
    check(&world(70), expect!["stop a in 30s Over"]);
}

#[test]
fn a_container_made_but_not_started_is_started_under_its_name() {
    let mut world = pod(&["a"]).sandbox().running("a");
    world.state.containers[0].phase = crate::runtime::Phase::Created;
    world.state.containers[0].started_at = None;
    check(&world, expect!["start a 0 after 0"]);
}

fn any_world() -> impl Strategy<Value = World> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    let steps = prop::collection::vec((0..5_u8, 0..3_usize, 0..2_i32), 0..8);
    (policy, any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), steps).prop_map(
        |(policy, has_init, has_sidecar, is_deleted, is_orphaned, steps)| {
            let mut world = pod(&["a", "b"]).policy(policy);
            if has_sidecar {
                world = world.sidecar("s");
            }
            if has_init {
                world = world.init("i");
            }
            for (step, which, code) in steps {
                let name = ["a", "b", "i"][which];
                let lives = world.state.newest(name).is_some_and(|newest| newest.is_running());
                let is_known = name != "i" || has_init;
                world = match step {
                    0 => world.sandbox(),
                    1 if !world.state.sandboxes.is_empty() && is_known && !lives => world.running(name),
                    2 | 3 if !world.state.sandboxes.is_empty() && is_known && !lives => world.exited(name, code),
                    4 => {
                        world.state.sandboxes.iter_mut().for_each(|sandbox| sandbox.running = false);
                        world
                    }
                    _ => world,
                };
            }
            if is_deleted {
                world = world.deleted(30);
            }
            if is_orphaned {
                world = world.orphaned();
            }
            world
        },
    )
}

proptest! {
    #[test]
    fn every_plan_settles(world in any_world()) {
        let mut world = world;
        for _ in 0..12 {
            world.pod.status = Some(super::super::status::status(&world.snapshot()));
            // Init containers that were started end well, or nothing would follow them.
            for container in world.state.containers.iter_mut().filter(|c| c.name == "i" && c.is_running()) {
                container.phase = crate::runtime::Phase::Exited;
                container.finished_at = Some(world.now);
            }
            if world.orphaned && world.state.is_empty() {
                return Ok(());
            }
            world = world.after(1000);
        }
        let left = world.plan();
        prop_assert!(left.is_empty(), "still planned after 12 rounds: {left}\n{}", world.status());
    }

    #[test]
    fn a_target_has_one_action_at_a_time(world in any_world()) {
        let actions = super::plan(&world.snapshot());
        let mut targets: Vec<_> = actions.iter().filter_map(super::Action::target).collect();
        let all = targets.len();
        targets.sort();
        targets.dedup();
        prop_assert_eq!(all, targets.len());
    }
}
