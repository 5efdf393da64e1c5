//! Resource lists: amounts that add, subtract and compare, and what a pod asks for in all.
//!
//! How an amount is read and written is `proto::quantity`'s; here they are summed by name.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, SubAssign},
};

use proto::{
    k8s::{
        core::v1::{Container, Pod, ResourceRequirements},
        resource::Quantity,
    },
    quantity::{self, Format},
};

use crate::pod::{is_sidecar, spec};

/// A `requests`, `limits`, `capacity` or `hard` list as it stands in the API.
pub type Quantities = BTreeMap<String, Quantity>;

/// An amount of one resource.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(quantity::Amount);

impl Amount {
    /// A whole number: pods, objects of a kind.
    pub fn count(count: i64) -> Self {
        Self(quantity::Amount::units(count, Format::Decimal))
    }

    /// Bytes, written in powers of 1024.
    pub fn bytes(bytes: u64) -> Self {
        Self(quantity::Amount::units(i64::try_from(bytes).unwrap_or(i64::MAX), Format::Binary))
    }

    /// Thousandths, such as millicores.
    pub fn milli(milli: i64) -> Self {
        Self(quantity::Amount::millis(milli))
    }

    /// Reads a quantity; none where it is not one.
    pub fn of(quantity: &Quantity) -> Option<Self> {
        Self::parse(&quantity.string)
    }

    /// Reads "250m", "1.5Gi", "1e3", "2".
    pub fn parse(text: &str) -> Option<Self> {
        quantity::parse(text).ok().map(Self)
    }

    pub fn is_zero(&self) -> bool {
        self.0.is_zero()
    }

    /// The whole units, rounded up.
    pub fn value(&self) -> i64 {
        self.0.value()
    }

    /// The thousandths, rounded up, as many as fit.
    pub fn milli_value(&self) -> i64 {
        self.0.milli()
    }

    /// How much of `whole` this is, in percent, rounded down; 0 of nothing.
    pub fn percent_of(&self, whole: Self) -> i64 {
        let percent = i128::from(self.value_or_milli(whole)) * 100;
        percent.checked_div(i128::from(whole.value_or_milli(whole))).map_or(0, |percent| percent as i64)
    }

    /// Thousandths, or whole units where the scale is so large that its thousandths do not fit.
    fn value_or_milli(&self, scale: Self) -> i64 {
        if scale.0.value() > i64::MAX / 1000 { self.0.value() } else { self.0.milli() }
    }

    pub fn quantity(&self) -> Quantity {
        self.0.into()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.0 -= other.0;
    }
}

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources(pub BTreeMap<String, Amount>);

impl Resources {
    /// Reads a list; entries that are not quantities were refused at the door and are left out here.
    pub fn of(list: &Quantities) -> Self {
        Self(list.iter().filter_map(|(name, quantity)| Some((name.clone(), Amount::of(quantity)?))).collect())
    }

    pub fn quantities(&self) -> Quantities {
        self.0.iter().map(|(name, amount)| (name.clone(), amount.quantity())).collect()
    }

    /// The amount of one resource; zero where it is not listed.
    pub fn get(&self, name: &str) -> Amount {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn set(&mut self, name: &str, amount: Amount) {
        self.0.insert(name.to_owned(), amount);
    }

    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() += *amount;
        }
    }

    /// May go below zero: what is missing then.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            *self.0.entry(name.clone()).or_default() -= *amount;
        }
    }

    /// Raises each amount to the other's.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let own = self.0.entry(name.clone()).or_insert(*amount);
            *own = (*own).max(*amount);
        }
    }

    /// The names of what does not fit into `room`; a resource that `room` does not list has none there.
    pub fn exceeding<'a>(&'a self, room: &'a Self) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(|(name, amount)| **amount > room.get(name).max(Amount::default()))
            .map(|(name, _)| name.as_str())
    }

    pub fn fits(&self, room: &Self) -> bool {
        self.exceeding(room).next().is_none()
    }

    /// The names whose amount is above the limit set for them; a resource without a limit is free.
    pub fn above<'a>(&'a self, limits: &'a Self) -> impl Iterator<Item = &'a str> {
        let is_above = |name: &String, amount: &Amount| limits.0.get(name).is_some_and(|limit| amount > limit);
        self.0.iter().filter(move |(name, amount)| is_above(name, amount)).map(|(name, _)| name.as_str())
    }
}

/// What a pod needs at its widest moment: its containers and sidecars together or its largest init container, and its overhead.
pub fn pod_requests(pod: &Pod) -> Resources {
    pod_total(pod, |requirements| {
        let mut requests = Resources::of(&requirements.limits);
        requests.0.extend(Resources::of(&requirements.requests).0);
        requests
    })
}

/// What a pod may use at its widest moment.
pub fn pod_limits(pod: &Pod) -> Resources {
    pod_total(pod, |requirements| Resources::of(&requirements.limits))
}

fn pod_total(pod: &Pod, of: impl Fn(&ResourceRequirements) -> Resources) -> Resources {
    let spec = spec(pod);
    let of_container = |container: &Container| container.resources.as_ref().map(&of).unwrap_or_default();
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&of_container(container));
    }
    // A sidecar runs on while later init containers and the containers run.
    let (mut sidecars, mut widest_init) = (Resources::default(), Resources::default());
    for container in &spec.init_containers {
        let own = of_container(container);
        let mut at_start = sidecars.clone();
        at_start.add(&own);
        widest_init.raise_to(&at_start);
        if is_sidecar(container) {
            total.add(&own);
            sidecars = at_start;
        }
    }
    total.raise_to(&widest_init);
    if let Some(whole) = &spec.resources {
        // What is said for the pod as a whole stands above the sum of its parts.
        total.0.extend(of(whole).0);
    }
    total.add(&Resources::of(&spec.overhead));
    total
}

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::PodSpec;

    use super::*;

    fn list(pairs: &[(&str, &str)]) -> Quantities {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Quantity { string: (*text).to_owned() })).collect()
    }

    fn container(cpu: &str, restart_policy: Option<&str>) -> Container {
        Container {
            resources: Some(ResourceRequirements { requests: list(&[("cpu", cpu)]), ..Default::default() }),
            restart_policy: restart_policy.map(str::to_owned),
            ..Default::default()
        }
    }

    #[test]
    fn amounts_read_and_print_canonically() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("2000m", "2"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000000", "1M"),
            ("-1.5", "-1500m"),
        ] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        assert!(Amount::parse("1 Gi").is_none());
        assert_eq!(Amount::milli(250).percent_of(Amount::count(2)), 12);
        assert_eq!(Amount::bytes(1 << 30).percent_of(Amount::default()), 0);
    }

    #[test]
    fn lists_add_subtract_and_compare() {
        let mut used = Resources::of(&list(&[("cpu", "500m"), ("memory", "512Mi")]));
        used.add(&Resources::of(&list(&[("cpu", "600m"), ("pods", "1")])));
        assert_eq!(used.quantities(), list(&[("cpu", "1100m"), ("memory", "512Mi"), ("pods", "1")]));
        let room = Resources::of(&list(&[("cpu", "1"), ("memory", "1Gi")]));
        assert_eq!(used.exceeding(&room).collect::<Vec<_>>(), ["cpu", "pods"]);
        assert_eq!(used.above(&room).collect::<Vec<_>>(), ["cpu"]);
        used.subtract(&Resources::of(&list(&[("cpu", "1100m")])));
        assert!(used.get("cpu").is_zero());
    }

    #[test]
    fn a_pods_request_is_its_widest_moment() {
        let spec = PodSpec {
            init_containers: vec![container("2", None), container("100m", Some("Always")), container("500m", None)],
            containers: vec![container("1", None), container("300m", None)],
            overhead: list(&[("cpu", "50m")]),
            ..Default::default()
        };
        // init: 2, then 100m + 500m; then 1 + 300m + 100m.
        let pod = Pod { spec: Some(spec), ..Default::default() };
        assert_eq!(pod_requests(&pod).get("cpu").to_string(), "2050m");
    }

    #[test]
    fn a_limit_without_a_request_is_requested() {
        let resources = ResourceRequirements { limits: list(&[("memory", "1Gi")]), ..Default::default() };
        let container = Container { resources: Some(resources), ..Default::default() };
        let pod =
            Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() };
        assert_eq!(pod_requests(&pod).get("memory").to_string(), "1Gi");
    }
}
