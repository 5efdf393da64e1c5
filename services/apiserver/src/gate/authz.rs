//! Whether they may: masters everything, components what their work needs, a node what its own pods need, all else no.

use proto::{
    codec::ResourceInfo,
    k8s::{
        authorization::v1::ResourceAttributes,
        core::v1::{Node, Pod},
    },
};

use crate::{
    api::{RequestContext, Target},
    refusal::{Refusal, Result},
    registry::Record,
    storage::partial,
};

const MASTERS: &str = "system:masters";
pub(super) const UNAUTHENTICATED: &str = "system:unauthenticated";
const NODES: &str = "system:nodes";
const NODE_USER: &str = "system:node:";
/// Leases by which nodes say that they live.
const NODE_LEASES: &str = "kube-node-lease";
/// `spec.nodeName` in a Pod's message.
const POD_NODE_NAME: &[u32] = &[2, 10];

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// A request as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
}

impl<'a> Attributes<'a> {
    pub fn of(verb: Verb, target: &Target<'a>) -> Self {
        Self {
            verb: verb.as_str(),
            group: &target.resource.resource.group,
            resource: &target.resource.resource.plural,
            subresource: target.subresource,
            namespace: target.namespace,
            name: target.name,
        }
    }

    pub fn named(wish: &'a ResourceAttributes) -> Self {
        Self {
            verb: &wish.verb,
            group: &wish.group,
            resource: &wish.resource,
            subresource: &wish.subresource,
            namespace: &wish.namespace,
            name: &wish.name,
        }
    }

    fn reads(&self) -> bool {
        matches!(self.verb, "get" | "list" | "watch")
    }

    fn writes(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch")
    }
}

/// A yes, and what it depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Yes,
    /// Only objects of this name.
    OnlyNamed(String),
    /// Only pods that are bound to this node.
    OnlyOnNode(String),
}

impl Verdict {
    /// Whether the yes covers the object with these bytes.
    ///
    /// # Errors
    /// 403 for a pod of another node.
    pub fn check(&self, resource: &ResourceInfo, name: &str, raw: &[u8]) -> Result<()> {
        match self {
            Self::OnlyOnNode(node) if partial::text(raw, POD_NODE_NAME) != node => {
                let why = format!("the pod is not bound to node {node:?}");
                Err(Refusal::forbidden(resource, name, &why))
            }
            _ => Ok(()),
        }
    }

    /// Whether the yes covers the name that is asked for.
    ///
    /// # Errors
    /// 403 for another name.
    pub fn check_name(&self, target: &Target<'_>) -> Result<()> {
        match self {
            Self::OnlyNamed(name) if !target.name.is_empty() && target.name != name => {
                let why = format!("only {name:?} belongs to this node");
                Err(Refusal::forbidden(target.resource, target.name, &why))
            }
            _ => Ok(()),
        }
    }
}

/// Nobody knows who asks.
pub fn is_anonymous(context: &RequestContext) -> bool {
    context.groups.iter().any(|group| group == UNAUTHENTICATED)
}

pub fn is_master(context: &RequestContext) -> bool {
    context.groups.iter().any(|group| group == MASTERS)
}

/// The node that asks, where a node does.
pub fn node_of(context: &RequestContext) -> Option<&str> {
    let node = context.user.strip_prefix(NODE_USER).filter(|name| !name.is_empty())?;
    context.groups.iter().any(|group| group == NODES).then_some(node)
}

/// Decides about a request for a resource.
///
/// # Errors
/// 403, saying who may not do what where.
pub fn decide(context: &RequestContext, wish: &Attributes<'_>) -> Result<Verdict> {
    if is_master(context) {
        return Ok(Verdict::Yes);
    }
    let verdict = match (context.user.as_str(), node_of(context)) {
        (_, Some(node)) => of_node(node, wish),
        ("system:apiserver" | "system:kube-controller-manager", _) => Some(Verdict::Yes),
        ("system:kube-scheduler", _) if may_schedule(wish) => Some(Verdict::Yes),
        ("system:kube-proxy", _) if may_proxy(wish) => Some(Verdict::Yes),
        _ => None,
    };
    verdict.ok_or_else(|| refused(context, wish))
}

/// Decides about a path that is no resource: health, version, discovery, schemas.
///
/// # Errors
/// 403.
pub fn decide_path(context: &RequestContext, verb: &str, path: &str) -> Result<()> {
    let is_public = matches!(path, "/healthz" | "/livez" | "/readyz" | "/version" | "/version/");
    let is_discovery = ["/api", "/apis", "/openapi"]
        .iter()
        .any(|root| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')));
    let is_known = !is_anonymous(context);
    if is_master(context) || (verb == "get" && (is_public || (is_known && is_discovery))) {
        return Ok(());
    }
    Err(Refusal::forbidden_path(&context.user, verb, path))
}

fn may_schedule(wish: &Attributes<'_>) -> bool {
    let is_core = wish.group.is_empty();
    match (wish.resource, wish.subresource) {
        ("secrets", _) => false,
        ("pods", "binding") | ("bindings", "") if is_core => wish.verb == "create",
        ("pods", "status") if is_core => wish.writes() || wish.reads(),
        ("pods", "") if is_core => wish.reads() || wish.verb == "delete",
        ("events", "") => wish.reads() || wish.writes(),
        // Node leases carry measured use; its own leadership lies in kube-system.
        ("leases", "") => wish.reads() || (wish.namespace == "kube-system" && wish.writes()),
        _ => wish.reads(),
    }
}

fn may_proxy(wish: &Attributes<'_>) -> bool {
    match (wish.group, wish.resource, wish.subresource) {
        ("" | "events.k8s.io", "events", "") => wish.writes(),
        ("", "services" | "endpoints" | "nodes" | "namespaces" | "pods", "") => wish.reads(),
        ("discovery.k8s.io", "endpointslices", "") => wish.reads(),
        _ => false,
    }
}

fn of_node(node: &str, wish: &Attributes<'_>) -> Option<Verdict> {
    let own = || Verdict::OnlyNamed(node.to_owned());
    let bound = || Verdict::OnlyOnNode(node.to_owned());
    let (reads, writes) = (wish.reads(), wish.writes());
    match (wish.group, wish.resource, wish.subresource) {
        ("", "pods", "") if reads || wish.verb == "delete" => Some(bound()),
        ("", "pods", "status") if wish.verb == "get" || (writes && wish.verb != "create") => Some(bound()),
        ("", "nodes", "") if reads => Some(Verdict::Yes),
        ("", "nodes", "") if writes => Some(own()),
        ("", "nodes", "status") if wish.verb == "get" || (writes && wish.verb != "create") => Some(own()),
        ("coordination.k8s.io", "leases", "") if wish.namespace == NODE_LEASES => {
            (wish.verb == "get" || writes || wish.verb == "delete").then(own)
        }
        ("" | "events.k8s.io", "events", "") if writes => Some(Verdict::Yes),
        ("", "services" | "endpoints" | "namespaces" | "configmaps" | "secrets" | "serviceaccounts", "") if reads => {
            Some(Verdict::Yes)
        }
        ("", "persistentvolumeclaims" | "persistentvolumes", "") if reads => Some(Verdict::Yes),
        ("discovery.k8s.io", "endpointslices", "") if reads => Some(Verdict::Yes),
        ("node.k8s.io", "runtimeclasses", "") if reads => Some(Verdict::Yes),
        _ => None,
    }
}

/// Whether a node may make this object.
///
/// # Errors
/// 403 for a node or lease of another name.
pub fn check_new(context: &RequestContext, record: &dyn Record, resource: &ResourceInfo) -> Result<()> {
    let Some(node) = node_of(context).filter(|_| !is_master(context)) else { return Ok(()) };
    let is_own_kind = matches!(resource.resource.plural.as_str(), "nodes" | "leases");
    if is_own_kind && record.meta().name != node {
        let why = format!("node {node:?} may only make {} of its own name", resource.resource.plural);
        return Err(Refusal::forbidden(resource, &record.meta().name, &why));
    }
    Ok(())
}

/// Whether a node may change this object in this way.
///
/// # Errors
/// 403 where a node would change its own taints, or the labels of the pods on it.
pub fn check_changed(
    context: &RequestContext,
    new: &dyn Record,
    old: &dyn Record,
    resource: &ResourceInfo,
) -> Result<()> {
    let Some(node) = node_of(context).filter(|_| !is_master(context)) else { return Ok(()) };
    if let (Some(new), Some(old)) = (new.as_kind::<Node>(), old.as_kind::<Node>()) {
        let taints = |node: &Node| node.spec.as_ref().map(|spec| spec.taints.clone()).unwrap_or_default();
        if taints(new) != taints(old) {
            let why = format!("node {node:?} is not allowed to modify taints");
            return Err(Refusal::forbidden(resource, node, &why));
        }
    }
    if new.as_kind::<Pod>().is_some() && new.meta().labels != old.meta().labels {
        let why = format!("node {node:?} cannot update labels through pod status");
        return Err(Refusal::forbidden(resource, &old.meta().name, &why));
    }
    Ok(())
}

fn refused(context: &RequestContext, wish: &Attributes<'_>) -> Refusal {
    let resource = if wish.subresource.is_empty() {
        wish.resource.to_owned()
    } else {
        format!("{}/{}", wish.resource, wish.subresource)
    };
    let place = if wish.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace {:?}", wish.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {resource:?} in API group {:?} {place}",
        context.user, wish.verb, wish.group
    );
    let known = proto::codec::schema().resource(wish.group, wish.resource);
    match known {
        Some(resource) => Refusal::forbidden(resource, wish.name, &why),
        None => Refusal::new(403, "Forbidden", format!("{} is forbidden: {why}", wish.resource)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(user: &str, groups: &[&str]) -> RequestContext {
        RequestContext { user: user.into(), groups: groups.iter().map(|group| (*group).to_owned()).collect() }
    }

    fn wish<'a>(verb: &'a str, resource: &'a str, namespace: &'a str, name: &'a str) -> Attributes<'a> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let group = match resource {
            "leases" => "coordination.k8s.io",
            "endpointslices" => "discovery.k8s.io",
            _ => "",
        };
        Attributes { verb, group, resource, subresource, namespace, name }
    }

    #[test]
    fn strangers_may_nothing_and_are_told_so() {
        let refusal = decide(&context("eve", &[]), &wish("get", "pods", "default", "web")).unwrap_err();
        assert_eq!(refusal.code(), 403);
        assert_eq!(
            refusal.message(),
            "pods \"web\" is forbidden: User \"eve\" cannot get resource \"pods\" in API group \"\" in the namespace \
             \"default\""
        );
    }

    #[test]
    fn masters_may_everything() {
        let admin = context("admin", &["system:masters"]);
        assert_eq!(decide(&admin, &wish("delete", "nodes", "", "n1")), Ok(Verdict::Yes));
        assert!(decide_path(&admin, "get", "/metrics").is_ok());
    }

    #[test]
    fn a_node_sees_and_changes_only_its_own() {
        let node = context("system:node:n1", &["system:nodes"]);
        assert_eq!(decide(&node, &wish("get", "pods", "a", "p")), Ok(Verdict::OnlyOnNode("n1".into())));
        assert_eq!(decide(&node, &wish("patch", "pods/status", "a", "p")), Ok(Verdict::OnlyOnNode("n1".into())));
        assert_eq!(decide(&node, &wish("patch", "nodes/status", "", "n2")), Ok(Verdict::OnlyNamed("n1".into())));
        assert!(decide(&node, &wish("create", "pods", "a", "p")).is_err());
        assert!(decide(&node, &wish("delete", "nodes", "", "n1")).is_err());
        assert!(decide(&node, &wish("update", "secrets", "a", "s")).is_err());
        assert!(decide(&node, &wish("update", "leases", "kube-system", "n1")).is_err());
        assert!(decide(&node, &wish("update", "leases", "kube-node-lease", "n1")).is_ok());
        // The name alone makes no node.
        assert!(decide(&context("system:node:n1", &[]), &wish("get", "pods", "a", "p")).is_err());
    }

    #[test]
    fn the_scheduler_binds_but_reads_no_secrets() {
        let scheduler = context("system:kube-scheduler", &[]);
        assert!(decide(&scheduler, &wish("create", "pods/binding", "a", "p")).is_ok());
        assert!(decide(&scheduler, &wish("watch", "nodes", "", "")).is_ok());
        assert!(decide(&scheduler, &wish("watch", "leases", "kube-node-lease", "")).is_ok());
        assert!(decide(&scheduler, &wish("update", "leases", "kube-node-lease", "n1")).is_err());
        assert!(decide(&scheduler, &wish("list", "secrets", "a", "")).is_err());
        assert!(decide(&scheduler, &wish("create", "pods", "a", "p")).is_err());
    }

    #[test]
    fn the_anonymous_see_health_but_not_discovery() {
        let nobody = RequestContext::anonymous();
        assert!(decide_path(&nobody, "get", "/healthz").is_ok());
        assert!(decide_path(&nobody, "get", "/apis").is_err());
        assert!(decide_path(&context("system:node:n1", &["system:nodes"]), "get", "/apis").is_ok());
    }
}
