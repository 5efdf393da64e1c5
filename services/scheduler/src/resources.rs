//! Amounts of what nodes offer and pods ask for, and Kubernetes' rule for a whole pod's request.

use std::collections::BTreeMap;

use proto::k8s::{
    core::v1::{Container, PodSpec},
    resource::Quantity,
};

pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
pub const EPHEMERAL_STORAGE: &str = "ephemeral-storage";
pub const PODS: &str = "pods";

/// What scoring takes a container without a request to use: 100m of CPU and 200 MB, as in Kubernetes.
const NOMINAL_CPU_MILLI: i64 = 100;
const NOMINAL_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// An amount of every resource; what is not named is zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
    pub storage_bytes: i64,
    /// Extended resources by name ("example.com/gpu", "hugepages-2Mi"), in whole units.
    pub extended: BTreeMap<String, i64>,
}

impl Resources {
    /// Reads a resource list; "pods" is not an amount that pods ask for and is left out.
    pub fn of(list: &BTreeMap<String, Quantity>) -> Self {
        let mut sum = Self::default();
        for (name, quantity) in list {
            match name.as_str() {
                CPU => sum.cpu_milli = milli(quantity),
                MEMORY => sum.memory_bytes = units(quantity),
                EPHEMERAL_STORAGE => sum.storage_bytes = units(quantity),
                PODS => {}
                _ => {
                    sum.extended.insert(name.clone(), units(quantity));
                }
            }
        }
        sum
    }

    pub fn add(&mut self, other: &Self) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Self) {
        self.combine(other, i64::saturating_sub);
        self.extended.retain(|_, amount| *amount != 0);
    }

    /// Raises every amount to at least that of `other`.
    pub fn raise_to(&mut self, other: &Self) {
        self.combine(other, i64::max);
    }

    /// The names of what `wanted` on top of `used` would exceed here; resources not asked for are not looked at.
    pub fn lacking<'a>(&self, used: &Self, wanted: &'a Resources) -> impl Iterator<Item = &'a str> {
        let over = |wanted: i64, used: i64, offered: i64| wanted > 0 && used.saturating_add(wanted) > offered;
        let cpu = over(wanted.cpu_milli, used.cpu_milli, self.cpu_milli).then_some(CPU);
        let memory = over(wanted.memory_bytes, used.memory_bytes, self.memory_bytes).then_some(MEMORY);
        let storage = over(wanted.storage_bytes, used.storage_bytes, self.storage_bytes).then_some(EPHEMERAL_STORAGE);
        let mut extended = Vec::new();
        for (name, amount) in &wanted.extended {
            let of = |list: &BTreeMap<String, i64>| list.get(name).copied().unwrap_or_default();
            if over(*amount, of(&used.extended), of(&self.extended)) {
                extended.push(name.as_str());
            }
        }
        cpu.into_iter().chain(memory).chain(storage).chain(extended)
    }

    fn combine(&mut self, other: &Self, rule: impl Fn(i64, i64) -> i64) {
        self.cpu_milli = rule(self.cpu_milli, other.cpu_milli);
        self.memory_bytes = rule(self.memory_bytes, other.memory_bytes);
        self.storage_bytes = rule(self.storage_bytes, other.storage_bytes);
        for (name, amount) in &other.extended {
            let own = self.extended.entry(name.clone()).or_default();
            *own = rule(*own, *amount);
        }
    }
}

/// CPU and memory as scoring sees them: a container that asks for nothing still counts as a little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nominal {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
}

impl Nominal {
    pub fn add(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
    }

    pub fn subtract(&mut self, other: Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(other.cpu_milli);
        self.memory_bytes = self.memory_bytes.saturating_sub(other.memory_bytes);
    }
}

/// What a pod occupies while it lives.
///
/// Init containers run one after another before the containers, so only the largest counts; those that restart
/// always (sidecars) stay, and count beside everything that starts after them. Overhead comes on top. A request on the
/// pod itself replaces the sum of its containers.
pub fn requests(spec: &PodSpec) -> Resources {
    let (mut staying, mut peak) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let asked = asked(container);
        if is_sidecar(container) {
            staying.add(&asked);
            peak.raise_to(&staying);
        } else {
            let mut step = staying.clone();
            step.add(&asked);
            peak.raise_to(&step);
        }
    }
    for container in &spec.containers {
        staying.add(&asked(container));
    }
    staying.raise_to(&peak);
    if let Some(whole) = &spec.resources {
        let whole = Resources::of(&whole.requests);
        let replace = |own: &mut i64, by: i64| *own = if by > 0 { by } else { *own };
        replace(&mut staying.cpu_milli, whole.cpu_milli);
        replace(&mut staying.memory_bytes, whole.memory_bytes);
    }
    staying.add(&Resources::of(&spec.overhead));
    staying
}

/// The pod's CPU and memory for scoring.
pub fn nominal(spec: &PodSpec, requests: &Resources) -> Nominal {
    let running = || spec.containers.iter().chain(spec.init_containers.iter().filter(|c| is_sidecar(c)));
    let silent = |name: &str| running().filter(|container| !is_asked(container, name)).count() as i64;
    Nominal {
        cpu_milli: requests.cpu_milli + silent(CPU) * NOMINAL_CPU_MILLI,
        memory_bytes: requests.memory_bytes + silent(MEMORY) * NOMINAL_MEMORY_BYTES,
    }
}

fn asked(container: &Container) -> Resources {
    container.resources.as_ref().map(|resources| Resources::of(&resources.requests)).unwrap_or_default()
}

fn is_asked(container: &Container, name: &str) -> bool {
    container.resources.as_ref().is_some_and(|resources| resources.requests.contains_key(name))
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Thousandths, rounded up.
pub fn milli(quantity: &Quantity) -> i64 {
    quantity.milli()
}

/// Whole units, rounded up.
pub fn units(quantity: &Quantity) -> i64 {
    quantity.value()
}
