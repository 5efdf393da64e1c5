//! bind and evict: the two creates that change a pod.

use bytes::Bytes;
use futures::StreamExt;
use model::condition;
use prost::Message;
use proto::k8s::{
    core::v1::{Binding, Pod, PodCondition},
    meta::v1::{ObjectMeta, Time},
    policy::v1::Eviction,
};

use super::writer::{Change, Mode};
use crate::{
    api::{Api, Form, PodBinding, RequestContext, Stored, Target, WriteOptions, Written},
    gate::authz::Verb,
    refusal::{Refusal, Result},
    registry::{Causes, meta},
};

/// Bindings of one call that are proposed side by side: the store shares one append and one fsync among them.
const SIDE_BY_SIDE: usize = 64;

impl Api {
    /// Binds pods to nodes; each stands or falls by itself. Answers in the order asked.
    pub async fn bind(&self, context: &RequestContext, bindings: Vec<PodBinding>) -> Vec<Result<()>> {
        let Some(pods) = self.catalog.find("", "pods") else { return Vec::new() };
        let answers = futures::stream::iter(bindings).map(|binding| async move {
            let target = Target {
                resource: pods.info,
                namespace: &binding.namespace,
                name: &binding.name,
                subresource: "binding",
            };
            self.authorize(context, Verb::Create, &target)?;
            self.bind_pod(&target, &binding, false).await.map(drop)
        });
        answers.buffered(SIDE_BY_SIDE).collect().await
    }

    pub(super) async fn create_binding(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        raw: &[u8],
        options: &WriteOptions,
    ) -> Result<Written> {
        self.authorize(context, Verb::Create, &target)?;
        let mut sent = Binding::decode(raw)
            .map_err(|error| Refusal::bad_request(format!("the object is not a v1 Binding: {error}")))?;
        meta::place(sent.metadata.get_or_insert_default(), &target)?;
        let node = bound_to(&sent)?;
        let place = sent.metadata.clone().unwrap_or_default();
        let binding = PodBinding { namespace: place.namespace, name: place.name.clone(), uid: place.uid, node };
        let target = Target { name: &place.name, ..target };
        let pod = self.bind_pod(&target, &binding, options.dry_run).await?;
        let form = self.form_of(target.resource, "binding").unwrap_or(Form::of(target.resource));
        let object = Stored::of_form(target.resource, form, pod.revision, Bytes::from(sent.encode_to_vec()));
        Ok(Written { object, created: true, warnings: Vec::new() })
    }

    async fn bind_pod(&self, target: &Target<'_>, binding: &PodBinding, dry_run: bool) -> Result<Stored> {
        let served = self.served(target)?;
        if binding.name.is_empty() || binding.node.is_empty() {
            return Err(Refusal::bad_request("a binding needs the names of the pod and of the node"));
        }
        let now = self.now();
        let change = Change { served, namespace: target.namespace, name: target.name, mode: Mode::Internal, dry_run };
        self.change(change, |old, _| {
            let mut new = old.duplicate();
            new.meta_mut().uid.clone_from(&binding.uid);
            if let Some(pod) = new.as_kind_mut::<Pod>() {
                bound(pod, binding, now).map_err(|why| Refusal::conflict(target.resource, target.name, &why))?;
            }
            Ok(new)
        })
        .await
    }

    /// Deletes a pod in an orderly way.
    pub(super) async fn create_eviction(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        raw: &[u8],
        options: &WriteOptions,
    ) -> Result<Written> {
        self.authorize(context, Verb::Create, &target)?;
        let mut sent = Eviction::decode(raw)
            .map_err(|error| Refusal::bad_request(format!("the object is not a policy/v1 Eviction: {error}")))?;
        meta::place(sent.metadata.get_or_insert_default(), &target)?;
        let mut wish = sent.delete_options.clone().unwrap_or_default();
        if options.dry_run {
            wish.dry_run = vec!["All".to_owned()];
        }
        let own = RequestContext::own();
        let deleted = self.delete(&own, Target { subresource: "", ..target }, &wish).await?;
        let form = self.form_of(target.resource, "eviction").unwrap_or(Form::of(target.resource));
        let object = Stored::of_form(target.resource, form, deleted.object.revision, Bytes::from(sent.encode_to_vec()));
        Ok(Written { object, created: true, warnings: Vec::new() })
    }
}

/// The node a binding names.
///
/// # Errors
/// 422 where it names none, or something else than a node.
fn bound_to(binding: &Binding) -> Result<String> {
    let target = binding.target.clone().unwrap_or_default();
    let mut causes = Causes::default();
    if !matches!(target.kind.as_str(), "" | "Node") {
        causes.not_supported("target.kind", &target.kind, &["Node", "<empty>"]);
    }
    if target.name.is_empty() {
        causes.required("target.name", "");
    }
    if causes.is_empty() {
        return Ok(target.name);
    }
    let name = binding.metadata.as_ref().map(|meta| meta.name.as_str()).unwrap_or_default();
    Err(Refusal::invalid_kind("", "Binding", name, causes.into_causes()))
}

/// Puts a pod on a node, once.
fn bound(pod: &mut Pod, binding: &PodBinding, now: Time) -> Result<(), String> {
    let name = pod.metadata.as_ref().map(|meta: &ObjectMeta| meta.name.clone()).unwrap_or_default();
    if model::pod::is_deleting(pod) {
        return Err(format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.spec.get_or_insert_default();
    if !spec.node_name.is_empty() {
        return Err(format!("pod {name} is already assigned to node {:?}", spec.node_name));
    }
    if !spec.scheduling_gates.is_empty() {
        return Err(format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name.clone_from(&binding.node);
    let scheduled = PodCondition {
        r#type: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(now),
        ..PodCondition::default()
    };
    condition::set(&mut pod.status.get_or_insert_default().conditions, scheduled, now);
    Ok(())
}
