//! Leases: who holds what, and for how long.

use proto::k8s::coordination::v1::Lease;

use crate::registry::{Causes, Strategy};

pub(super) struct Leases;

impl Strategy for Leases {
    type Object = Lease;

    fn validate(&self, lease: &Lease, causes: &mut Causes) {
        let Some(spec) = &lease.spec else { return };
        if let Some(seconds) = spec.lease_duration_seconds.filter(|seconds| *seconds <= 0) {
            causes.invalid_number("spec.leaseDurationSeconds", i64::from(seconds), "must be greater than 0");
        }
        if let Some(transitions) = spec.lease_transitions.filter(|transitions| *transitions < 0) {
            let detail = "must be greater than or equal to 0";
            causes.invalid_number("spec.leaseTransitions", i64::from(transitions), detail);
        }
    }
}
