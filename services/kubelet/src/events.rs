//! What users read under `describe`: one line for each thing the kubelet did to a pod.

use client::events::{NORMAL, Recorder, WARNING};
use proto::{
    Kind,
    k8s::core::v1::{Container, Node, Pod},
};

use crate::pod::{snapshot::spec, status::CRASH_LOOP};

/// Tells events of pods and their containers; on hollow nodes only warnings.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    is_quiet: bool,
}

impl Events {
    pub fn new(recorder: Recorder, is_quiet: bool) -> Self {
        Self { recorder, is_quiet }
    }

    pub fn node(&self, node: &Node, reason: &str, message: &str) {
        self.recorder.event(node, NORMAL, reason, message);
    }

    pub fn warning(&self, pod: &Pod, reason: &str, message: &str) {
        self.recorder.event(pod, WARNING, reason, message);
    }

    pub fn container(&self, pod: &Pod, container: &Container, reason: &str, message: &str) {
        if !self.is_quiet {
            self.record(pod, container, NORMAL, reason, message);
        }
    }

    pub fn container_warning(&self, pod: &Pod, container: &Container, reason: &str, message: &str) {
        self.record(pod, container, WARNING, reason, message);
    }

    /// A container waits for its next try, for this reason of its waiting state.
    pub fn back_off(&self, pod: &Pod, container: &Container, reason: &str) {
        let name = &container.name;
        if reason == CRASH_LOOP {
            let message = format!("Back-off restarting failed container {name} in pod {}", full_name(pod));
            return self.container_warning(pod, container, "BackOff", &message);
        }
        self.container(pod, container, "BackOff", &format!("Back-off pulling image \"{}\"", container.image));
        self.container_warning(pod, container, "Failed", &format!("Error: {reason}"));
    }

    fn record(&self, pod: &Pod, container: &Container, r#type: &str, reason: &str, message: &str) {
        let is_init = spec(pod).init_containers.iter().any(|init| init.name == container.name);
        let list = if is_init { "initContainers" } else { "containers" };
        let mut note = client::action::Note::new(pod, r#type, reason, message);
        note.regarding.field_path = format!("spec.{list}{{{}}}", container.name);
        self.recorder.record(note);
    }
}

/// "web_shop(uid)", as events name a pod in their text.
fn full_name(pod: &Pod) -> String {
    let meta = pod.meta();
    format!("{}_{}({})", meta.name, meta.namespace, meta.uid)
}
