use std::{collections::HashSet, sync::Arc};

use expect_test::expect;
use proptest::prelude::*;
use proto::k8s::{
    core::v1::{Container, ContainerPort, EndpointAddress, EndpointSubset, ServicePort},
    intstr::IntOrString,
};

use super::*;
use crate::testing::{World, acting, ago, check, labels, named, pod, ready, running, settles};

fn service() -> Service {
    let mut service: Service = named("web");
    let spec = service.spec.get_or_insert_default();
    spec.selector = labels(&[("app", "web")]);
    spec.ports = vec![ServicePort {
        name: "http".into(),
        protocol: "TCP".into(),
        port: 80,
        target_port: Some(IntOrString { r#type: 0, int_val: 8080, str_val: String::new() }),
        ..Default::default()
    }];
    service
}

fn member(number: usize) -> Pod {
    let ip = format!("10.244.{}.{}", number / 250, number % 250 + 1);
    ready(running(pod(&format!("p{number}"), &[("app", "web")]), "n1", &ip), 5)
}

fn snapshot(world: &World) -> Snapshot {
    let service: Option<Arc<Service>> = world.get("web");
    let is_mine = |pod: &Arc<Pod>| service.as_ref().is_some_and(|service| backend::selects(service, pod));
    Snapshot {
        pods: world.list::<Pod>().into_iter().filter(is_mine).collect(),
        endpoints: world.get("web"),
        slices: world.list(),
        service,
    }
}

const ACTING: &[fn(&mut World, &Action)] = &[acting::<Endpoints>, acting::<EndpointSlice>];

fn settled(service: Service, pods: impl IntoIterator<Item = Pod>) -> World {
    let mut world = World::default().with([service]).with(pods);
    settles(&mut world, 3, |world| plan(&snapshot(world)), ACTING);
    world
}

#[test]
fn a_service_without_pods_has_empty_endpoints_and_one_empty_slice() {
    let world = World::default().with([service()]);
    check(
        plan(&snapshot(&world)),
        expect![[r#"
        create endpoints/web ready=0 notReady=0
        create endpointslice/web-* endpoints=0 ready=0
    "#]],
    );
}

#[test]
fn only_ready_pods_get_traffic() {
    let unready = running(pod("unready", &[("app", "web")]), "n1", "10.244.0.9");
    let mut leaving = member(3);
    leaving.meta_mut().deletion_timestamp = Some(ago(0));
    let world = settled(service(), [member(1), unready, leaving]);
    let endpoints: Arc<Endpoints> = world.get("web").unwrap();
    let ips = |addresses: &[EndpointAddress]| addresses.iter().map(|it| it.ip.clone()).collect::<Vec<_>>();
    assert_eq!(ips(&endpoints.subsets[0].addresses), ["10.244.0.2"]);
    assert_eq!(ips(&endpoints.subsets[0].not_ready_addresses), ["10.244.0.9"]);
    assert_eq!(endpoints.subsets[0].ports[0].port, 8080);
    let slices = world.list::<EndpointSlice>();
    let said: Vec<String> = slices[0]
        .endpoints
        .iter()
        .map(|endpoint| {
            let conditions = endpoint.conditions.unwrap();
            format!(
                "{} ready={} serving={} terminating={}",
                endpoint.target_ref.clone().unwrap().name,
                conditions.ready(),
                conditions.serving(),
                conditions.terminating()
            )
        })
        .collect();
    assert_eq!(
        said,
        [
            "p1 ready=true serving=true terminating=false",
            "p3 ready=false serving=true terminating=true",
            "unready ready=false serving=false terminating=false",
        ]
    );
}

#[test]
fn unready_addresses_are_published_where_asked_for() {
    let mut eager = service();
    eager.spec.as_mut().unwrap().publish_not_ready_addresses = true;
    let world = settled(eager, [running(pod("unready", &[("app", "web")]), "n1", "10.244.0.9")]);
    assert_eq!(world.get::<Endpoints>("web").unwrap().subsets[0].addresses.len(), 1);
}

#[test]
fn a_named_port_is_what_each_pod_calls_so() {
    let mut by_name = service();
    by_name.spec.as_mut().unwrap().ports[0].target_port =
        Some(IntOrString { r#type: 1, int_val: 0, str_val: "web".into() });
    let offering = |mut pod: Pod, number: i32| {
        pod.spec.as_mut().unwrap().containers.push(Container {
            ports: vec![ContainerPort { name: "web".into(), container_port: number, ..Default::default() }],
            ..Default::default()
        });
        pod
    };
    let world = settled(by_name, [offering(member(1), 8080), offering(member(2), 9090), member(3)]);
    let ports: Vec<i32> = world.get::<Endpoints>("web").unwrap().subsets.iter().map(|it| it.ports[0].port).collect();
    assert_eq!(ports, [8080, 9090]);
    assert_eq!(world.list::<EndpointSlice>().len(), 2);
}

#[test]
fn one_new_pod_rewrites_one_slice() {
    let mut world = settled(service(), (0..250).map(member));
    assert_eq!(world.list::<EndpointSlice>().len(), 3);
    world.put(&member(250));
    check(
        plan(&snapshot(&world)),
        expect![[r#"
            update endpoints/web ready=251 notReady=0
            update endpointslice/web-8 endpoints=51 ready=51
        "#]],
    );
}

#[test]
fn the_old_form_is_cut_at_a_thousand_addresses() {
    let world = settled(service(), (0..1100).map(member));
    let endpoints = world.get::<Endpoints>("web").unwrap();
    assert_eq!(endpoints.subsets[0].addresses.len(), 1000);
    assert_eq!(endpoints.meta().annotations["endpoints.kubernetes.io/over-capacity"], "truncated");
    let all: usize = world.list::<EndpointSlice>().iter().map(|slice| slice.endpoints.len()).sum();
    assert_eq!(all, 1100);
}

#[test]
fn what_was_made_goes_with_the_service_and_what_was_not_stays() {
    let world = settled(service(), [member(1)]);
    let mut gone = snapshot(&world);
    gone.service = None;
    check(
        plan(&gone),
        expect![[r#"
            delete endpoints/web
            delete endpointslice/web-4
        "#]],
    );
    gone.slices.clear();
    gone.endpoints = Some(Arc::new(named("web")));
    check(plan(&gone), expect![""]);
}

#[test]
fn endpoints_written_by_hand_are_mirrored_into_slices() {
    let mut manual = service();
    manual.spec.as_mut().unwrap().selector.clear();
    let mut endpoints: Endpoints = named("web");
    endpoints.subsets.push(EndpointSubset {
        addresses: vec![EndpointAddress { ip: "192.0.2.1".into(), ..Default::default() }],
        ports: vec![proto::k8s::core::v1::EndpointPort { port: 5432, ..Default::default() }],
        ..Default::default()
    });
    let mut world = World::default().with([manual]).with([endpoints]);
    check(
        plan(&snapshot(&world)),
        expect![[r#"
        create endpointslice/web-* endpoints=1 ready=1
    "#]],
    );
    settles(&mut world, 2, |world| plan(&snapshot(world)), ACTING);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn endpoints_settle(before in proptest::collection::hash_set(0usize..400, 0..300), after in proptest::collection::hash_set(0usize..400, 0..300)) {
        let mut world = settled(service(), before.iter().copied().map(member));
        let names: HashSet<String> = before.iter().map(|number| format!("p{number}")).collect();
        let mut changed = World::default().with([service()]).with(after.iter().copied().map(member));
        for slice in world.list::<EndpointSlice>() {
            changed.put(slice.as_ref());
        }
        changed.put(world.get::<Endpoints>("web").unwrap().as_ref());
        world = changed;
        settles(&mut world, 3, |world| plan(&snapshot(world)), ACTING);
        let slices = world.list::<EndpointSlice>();
        let found: HashSet<String> =
            slices.iter().flat_map(|slice| &slice.endpoints).map(|it| it.target_ref.clone().unwrap().name).collect();
        prop_assert_eq!(found.len(), after.len());
        prop_assert!(slices.iter().all(|slice| slice.endpoints.len() <= slices::SLICE_MAX));
        prop_assert!(names.len() == before.len());
    }
}
