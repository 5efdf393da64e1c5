//! Channels to kubelets: one per node, found through the Node and Pod objects.

use std::collections::HashMap;

use parking_lot::Mutex;
use prost::Message;
use proto::{
    forestay::node::v1::{Container, node_client::NodeClient},
    k8s::core::v1::{Node, Pod},
};
use tonic::transport::Channel;

use crate::{
    api::{Api, RequestContext, Target},
    gate::authz::Verb,
    refusal::{Refusal, Result},
    storage::keys,
};

/// Largest message of a kubelet's streams.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const PORT_MAX: i32 = 65_535;

/// Open channels by address.
#[derive(Default)]
pub struct NodeChannels(Mutex<HashMap<String, Channel>>);

/// A pod's kubelet, and the pod as it is to be named there.
pub struct OnNode {
    pub client: NodeClient<Channel>,
    pub target: Container,
    pub node: String,
}

impl Api {
    /// The kubelet of a pod, for a subresource of it: log, exec, attach, portforward.
    ///
    /// # Errors
    /// 400 where the pod is not on a node or has no such container, 403, 404, 503 where the node has no address.
    pub async fn node_of(&self, context: &RequestContext, target: Target<'_>, container: &str) -> Result<OnNode> {
        let verb = if target.subresource == "log" { Verb::Get } else { Verb::Create };
        self.authorize(context, verb, &target)?;
        let key = keys::object(target.resource, target.namespace, target.name);
        let entry = self.objects.get(&key).await?.ok_or_else(|| Refusal::not_found(target.resource, target.name))?;
        let pod = Pod::decode(entry.raw).map_err(Refusal::internal)?;
        let container = container_of(&pod, container)?;
        let node = pod.spec.as_ref().map(|spec| spec.node_name.clone()).unwrap_or_default();
        if node.is_empty() {
            return Err(Refusal::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        let target = Container {
            namespace: target.namespace.to_owned(),
            pod: target.name.to_owned(),
            uid: proto::Kind::meta(&pod).uid.clone(),
            container,
        };
        Ok(OnNode { client: self.kubelet(&node).await?, target, node })
    }

    /// The kubelet of a node.
    ///
    /// # Errors
    /// 404, 503 where it does not say how it is reached.
    pub async fn kubelet(&self, node: &str) -> Result<NodeClient<Channel>> {
        let nodes = self.catalog.find("", "nodes").ok_or_else(Refusal::unknown_resource)?;
        let key = keys::object(nodes.info, "", node);
        let entry = self.objects.get(&key).await?.ok_or_else(|| Refusal::not_found(nodes.info, node))?;
        let object = Node::decode(entry.raw).map_err(Refusal::internal)?;
        let address = address(&object).ok_or_else(|| {
            Refusal::unavailable(format!(
                "node {node:?} has no InternalIP or kubelet port in its status: is its kubelet running?"
            ))
        })?;
        let tls = self.options.kubelets.as_ref().ok_or_else(|| {
            Refusal::unavailable("this apiserver was started without a client certificate for kubelets")
        })?;
        let mut channels = self.nodes.0.lock();
        let channel = match channels.get(&address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = kit::tls::channel(std::slice::from_ref(&address), tls)
                    .map_err(|error| Refusal::unavailable(format!("reach node {node:?} at {address}: {error}")))?;
                channels.insert(address, channel.clone());
                channel
            }
        };
        Ok(NodeClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX))
    }
}

fn address(node: &Node) -> Option<String> {
    let status = node.status.as_ref()?;
    let port = status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref()?.port;
    let host = &status.addresses.iter().find(|address| address.r#type == "InternalIP")?.address;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    (1..=PORT_MAX).contains(&port).then(|| format!("https://{host}:{port}"))
}

/// The container that is meant: the named one, or the pod's default.
fn container_of(pod: &Pod, name: &str) -> Result<String> {
    let pod_name = &proto::Kind::meta(pod).name;
    if !name.is_empty() {
        return match model::pod::container(pod, name) {
            Some(_) => Ok(name.to_owned()),
            None => Err(Refusal::bad_request(format!("container {name} is not valid for pod {pod_name}"))),
        };
    }
    if let Some(container) = model::pod::default_container(pod) {
        return Ok(container.name.clone());
    }
    let names: Vec<&str> = model::pod::containers(pod).map(|container| container.name.as_str()).collect();
    Err(Refusal::bad_request(format!(
        "a container name must be specified for pod {pod_name}, choose one of: [{}]",
        names.join(" ")
    )))
}

/// What a kubelet's error is to the caller of the API.
pub fn refused(node: &str, status: tonic::Status) -> Refusal {
    use tonic::Code;
    match status.code() {
        Code::NotFound => Refusal::new(404, "NotFound", status.message()),
        Code::InvalidArgument | Code::FailedPrecondition => Refusal::bad_request(status.message()),
        Code::Unavailable => Refusal::unavailable(format!("node {node:?} does not answer: {}", status.message())),
        Code::Unimplemented => Refusal::new(405, "MethodNotAllowed", status.message()),
        _ => Refusal::internal(format!("node {node:?}: {}", status.message())),
    }
}
