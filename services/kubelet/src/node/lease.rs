//! The node's sign of life: a Lease, renewed cheaply and often.

use std::time::Duration;

use client::Client;
use jiff::Timestamp;
use kit::life::Shutdown;
use proto::{
    Kind,
    k8s::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
        meta::v1::{MicroTime, OwnerReference},
    },
};
use tracing::{debug, warn};

use super::usage::{self, Meter};

const NAMESPACE: &str = "kube-node-lease";
/// A failed renewal is tried again this soon, well inside the lease's duration.
const RETRY: Duration = Duration::from_millis(1000);

/// Whose lease, how often, and whether with measured use.
pub struct Renewal {
    pub node: String,
    pub interval: Duration,
    pub duration: Duration,
    /// Hollow nodes have no machine of their own to measure.
    pub measures: bool,
}

/// Renews the node's lease until shutdown.
pub async fn renew(renewal: Renewal, client: Client, shutdown: Shutdown) {
    let mut meter = Meter::default();
    let mut held: Option<Lease> = None;
    loop {
        let outcome = once(&renewal, &client, &mut meter, held.take()).await;
        let pause = match outcome {
            Ok(lease) => {
                held = Some(lease);
                renewal.interval
            }
            Err(error) if error.is_conflict() => RETRY.min(renewal.interval),
            Err(error) if error.is_not_found() => {
                debug!(%error, "the namespace of node leases is not there yet");
                RETRY.min(renewal.interval)
            }
            Err(error) => {
                warn!(node = renewal.node, %error, "renewal of the node's lease failed");
                RETRY.min(renewal.interval)
            }
        };
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Writes the lease once: from the one last written, the one that is there, or a new one.
async fn once(
    renewal: &Renewal,
    client: &Client,
    meter: &mut Meter,
    held: Option<Lease>,
) -> Result<Lease, client::Error> {
    let mut lease = match held {
        Some(lease) => lease,
        None => match client.get::<Lease>(NAMESPACE, &renewal.node).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let lease = fill(Lease::default(), renewal, meter);
                return client.create(&owned(lease, client, renewal).await).await;
            }
            Err(error) => return Err(error),
        },
    };
    lease = fill(lease, renewal, meter);
    client.update(&lease).await
}

/// The lease goes with its node.
async fn owned(mut lease: Lease, client: &Client, renewal: &Renewal) -> Lease {
    if let Ok(node) = client.get::<Node>("", &renewal.node).await {
        lease.meta_mut().owner_references = vec![OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: renewal.node.clone(),
            uid: node.meta().uid.clone(),
            ..Default::default()
        }];
    }
    lease
}

fn fill(mut lease: Lease, renewal: &Renewal, meter: &mut Meter) -> Lease {
    let now = Timestamp::now();
    let meta = lease.meta_mut();
    meta.name = renewal.node.clone();
    meta.namespace = NAMESPACE.to_owned();
    if renewal.measures {
        meta.annotations.insert(usage::ANNOTATION.to_owned(), meter.read().annotation());
    }
    let known = lease.spec.take().unwrap_or_default();
    let micros = now.subsec_nanosecond() / 1000 * 1000;
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(renewal.node.clone()),
        lease_duration_seconds: Some(i32::try_from(renewal.duration.as_secs()).unwrap_or(40)),
        renew_time: Some(MicroTime { seconds: now.as_second(), nanos: micros }),
        ..known
    });
    lease
}
