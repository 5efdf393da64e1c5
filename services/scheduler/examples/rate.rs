//! Decisions per second on a backlog, without the API: `cargo run --release -p scheduler --example rate`.

use std::{collections::BTreeMap, time::Instant};

use proto::{
    Kind,
    k8s::{
        core::v1::{Container, Node, NodeStatus, Pod, PodSpec, ResourceRequirements},
        resource::Quantity,
    },
};
use scheduler::{
    demand::Demand,
    schedule::{Decision, Sample, schedule},
    view::ClusterView,
};

fn main() {
    for (nodes, pods) in [(100, 10_000), (5_000, 100_000)] {
        let mut view = ClusterView::default();
        for n in 0..nodes {
            view.observe_node(&node(n));
        }
        let pods: Vec<Pod> = (0..pods).map(pod).collect();
        let began = Instant::now();
        let (mut start, mut bound) = (0, 0);
        for pod in &pods {
            let demand = Demand::of(pod);
            if let Decision::Bind { node, examined } = schedule(&view, &demand, Sample { start, ..Sample::default() }) {
                start = (start + examined + 1) % nodes;
                view.assume(&demand, &node);
                bound += 1;
            }
        }
        let took = began.elapsed();
        println!("{nodes} nodes: {bound} pods placed in {took:?}, {:.0} per second", bound as f64 / took.as_secs_f64());
    }
}

fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, text)| (name.to_string(), Quantity { string: text.to_string() })).collect()
}

fn node(n: usize) -> Node {
    let allocatable = amounts(&[("cpu", "16"), ("memory", "64Gi"), ("pods", "110")]);
    let mut node = Node { status: Some(NodeStatus { allocatable, ..Default::default() }), ..Default::default() };
    node.meta_mut().name = format!("node-{n}");
    for label in
        ["kubernetes.io/os", "kubernetes.io/arch", "topology.kubernetes.io/zone", "node.kubernetes.io/instance-type"]
    {
        node.meta_mut().labels.insert(label.to_owned(), format!("{}", n % 3));
    }
    node
}

fn pod(n: usize) -> Pod {
    let resources =
        ResourceRequirements { requests: amounts(&[("cpu", "100m"), ("memory", "128Mi")]), ..Default::default() };
    let container = Container { name: "c".to_owned(), resources: Some(resources), ..Default::default() };
    let mut pod =
        Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() };
    pod.meta_mut().namespace = "default".to_owned();
    pod.meta_mut().name = format!("pod-{n}");
    pod.meta_mut().uid = format!("uid-{n}");
    pod
}
