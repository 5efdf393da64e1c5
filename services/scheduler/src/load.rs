//! A node's measured use, as its kubelet writes it on the node's Lease at each renewal.

use proto::{Kind, k8s::coordination::v1::Lease};

/// `cpu=<milli>m,memory=<bytes>`
pub const ANNOTATION: &str = "forestay.dev/measured-use";
/// Where the node Leases live; each has its node's name.
pub const NAMESPACE: &str = "kube-node-lease";

/// What a node was measured to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    pub cpu_milli: i64,
    pub memory_bytes: i64,
}

/// The use a node's Lease carries; none where it carries none that can be read.
pub fn measured(lease: &Lease) -> Option<Load> {
    parse(lease.meta().annotations.get(ANNOTATION)?)
}

fn parse(text: &str) -> Option<Load> {
    let (mut cpu_milli, mut memory_bytes) = (None, None);
    for part in text.split(',') {
        match part.trim().split_once('=')? {
            ("cpu", amount) => cpu_milli = Some(amount.strip_suffix('m')?.parse().ok()?),
            ("memory", amount) => memory_bytes = Some(amount.parse().ok()?),
            // A later kubelet may measure more.
            _ => {}
        }
    }
    Some(Load { cpu_milli: cpu_milli?, memory_bytes: memory_bytes? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_read_from_the_annotation() {
        assert_eq!(parse("cpu=1500m,memory=1048576"), Some(Load { cpu_milli: 1500, memory_bytes: 1_048_576 }));
    }

    #[test]
    fn an_unknown_measure_is_passed_over() {
        assert_eq!(parse("cpu=1m,disk=7,memory=2"), Some(Load { cpu_milli: 1, memory_bytes: 2 }));
    }

    #[test]
    fn a_damaged_measurement_counts_as_none() {
        for text in ["", "cpu=1m", "cpu=one,memory=2", "memory=2,cpu=3"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
