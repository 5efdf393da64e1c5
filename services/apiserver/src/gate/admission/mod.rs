//! Admission: what the cluster adds to an object and demands of it, beyond its kind's own rules.
//!
//! Namespace lifecycle stands in `registry/verb/create.rs`, beside the transaction that relies on it.

mod quota;
mod service_account;

pub(crate) use quota::{Charge, QuotaLocks};

use crate::registry::Record;

/// Changes a new object the way the cluster wants it, before it is validated.
pub(crate) fn mutate(record: &mut dyn Record) {
    service_account::mutate(record);
}
