//! Resource lists: amounts that add, subtract and compare, and what a pod asks for in all.
//!
//! Amounts are exact thousandths (`250m` of a core, a byte is 1000 of them); what is finer is rounded up, as the API does.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{AddAssign, SubAssign},
};

use proto::k8s::{
    core::v1::{Container, Pod, ResourceRequirements},
    resource::Quantity,
};

use crate::pod::{is_sidecar, spec};

/// A `requests`, `limits`, `capacity` or `hard` list as it stands in the API.
pub type Quantities = BTreeMap<String, Quantity>;

/// An amount of one resource in thousandths, with the way it wants to be written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amount {
    pub milli: i128,
    /// Written with Ki, Mi, Gi where it is whole.
    pub is_binary: bool,
}

impl PartialEq for Amount {
    fn eq(&self, other: &Self) -> bool {
        self.milli == other.milli
    }
}

impl Eq for Amount {}

impl PartialOrd for Amount {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Amount {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.milli.cmp(&other.milli)
    }
}

impl Amount {
    /// A whole number: pods, objects of a kind.
    pub fn count(count: i64) -> Self {
        Self { milli: i128::from(count) * 1000, is_binary: false }
    }

    /// Bytes, written in powers of 1024.
    pub fn bytes(bytes: u64) -> Self {
        Self { milli: i128::from(bytes) * 1000, is_binary: true }
    }

    /// Thousandths, such as millicores.
    pub fn milli(milli: i64) -> Self {
        Self { milli: milli.into(), is_binary: false }
    }

    /// Reads a quantity; none where it is not one.
    pub fn of(quantity: &Quantity) -> Option<Self> {
        Self::parse(&quantity.string)
    }

    /// Reads "250m", "1.5Gi", "1e3", "2"; what is finer than a thousandth is rounded away from zero.
    pub fn parse(text: &str) -> Option<Self> {
        const DECIMAL: [(&str, i32); 10] =
            [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
        const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        let end = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (digits, fraction_len) = digits(number)?;
        if let Some(power) = BINARY.iter().position(|binary| *binary == suffix) {
            let scaled = digits.checked_mul(1000i128.checked_mul(1i128 << (10 * (power + 1)))?)?;
            return Some(Self { milli: shift(scaled, -fraction_len)?, is_binary: true });
        }
        let exponent = match DECIMAL.iter().find(|(name, _)| *name == suffix) {
            Some((_, exponent)) => *exponent,
            None => suffix.strip_prefix(['e', 'E'])?.parse().ok().filter(|exponent: &i32| exponent.abs() <= 30)?,
        };
        Some(Self { milli: shift(digits, exponent + 3 - fraction_len)?, is_binary: false })
    }

    pub fn is_zero(&self) -> bool {
        self.milli == 0
    }

    /// The whole units, rounded up.
    pub fn value(&self) -> i64 {
        let whole = self.milli.div_euclid(1000) + i128::from(self.milli.rem_euclid(1000) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }

    /// The thousandths, as many as fit.
    pub fn milli_value(&self) -> i64 {
        i64::try_from(self.milli).unwrap_or(if self.milli < 0 { i64::MIN } else { i64::MAX })
    }

    pub fn quantity(&self) -> Quantity {
        Quantity { string: self.to_string() }
    }
}

/// The digits of a plain decimal number, and how many of them stand after the point.
fn digits(number: &str) -> Option<(i128, i32)> {
    let unsigned = number.strip_prefix(['+', '-']).unwrap_or(number);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let text = format!("{whole}{fraction}");
    if text.is_empty() || text.len() > 30 || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: i128 = text.parse().ok()?;
    Some((if number.starts_with('-') { -value } else { value }, fraction.len() as i32))
}

/// `value * 10^exponent`, rounded away from zero.
fn shift(value: i128, exponent: i32) -> Option<i128> {
    let factor = 10i128.checked_pow(exponent.unsigned_abs())?;
    if exponent >= 0 {
        return value.checked_mul(factor);
    }
    let rest = value % factor;
    Some(value / factor + rest.signum())
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.milli % 1000 != 0 {
            return write!(f, "{}m", self.milli);
        }
        let whole = self.milli / 1000;
        let (step, suffixes) = if self.is_binary {
            (1024, ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
        } else {
            (1000, ["", "k", "M", "G", "T", "P", "E"])
        };
        let (mut rest, mut at) = (whole, 0);
        while rest != 0 && rest % step == 0 && at + 1 < suffixes.len() {
            (rest, at) = (rest / step, at + 1);
        }
        write!(f, "{rest}{}", suffixes[at])
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        self.is_binary = if self.is_zero() { other.is_binary } else { self.is_binary };
        self.milli = self.milli.saturating_add(other.milli);
    }
}

impl SubAssign for Amount {
    fn sub_assign(&mut self, other: Self) {
        self.is_binary = if self.is_zero() { other.is_binary } else { self.is_binary };
        self.milli = self.milli.saturating_sub(other.milli);
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
        self.0.iter().filter(|(name, amount)| amount.milli > room.get(name).milli.max(0)).map(|(name, _)| name.as_str())
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
            ("0", "0"),
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1Gi", "1Gi"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1e3", "1k"),
            ("12E", "12E"),
            ("1u", "1m"),
            ("-1.5", "-1500m"),
            ("1000000", "1M"),
            ("500Mi", "500Mi"),
        ] {
            assert_eq!(Amount::parse(text).unwrap().to_string(), canonical, "{text}");
        }
        for text in ["", "x", "1x", "1.2.3", "1 Gi", "--1", "1e99"] {
            assert!(Amount::parse(text).is_none(), "{text}");
        }
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
