//! update: a whole object, its status, its scale or its finalizers in place of the stored one.

use bytes::Bytes;
use proto::k8s::core::v1::Namespace;

use super::writer::{Change, Mode};
use crate::{
    api::{Api, RequestContext, Target, WriteOptions, Written},
    gate::authz::Verb,
    refusal::{Refusal, Result},
    registry::{Record, meta},
};

impl Api {
    /// Replaces an object, or the half of it that the subresource names.
    ///
    /// # Errors
    /// 400, 403, 404, 409 where resourceVersion or uid is not the stored one, 413, 422.
    pub async fn update(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        raw: Bytes,
        options: &WriteOptions,
    ) -> Result<Written> {
        let served = self.served(&target)?;
        let verdict = self.authorize(context, Verb::Update, &target)?;
        verdict.check_name(&target)?;
        if target.subresource == "scale" {
            return self.update_scale(served, &target, &raw, options).await;
        }
        let mode = self.mode(&target)?;
        let mut sent = self.decoded(served, &raw)?;
        meta::place(sent.meta_mut(), &target)?;
        let change = Change {
            served,
            namespace: target.namespace,
            name: &sent.meta().name.clone(),
            mode,
            dry_run: options.dry_run,
        };
        if change.name.is_empty() {
            return Err(Refusal::bad_request("name must be provided"));
        }
        let object = self
            .change(change, |old, entry| {
                verdict.check(target.resource, target.name, &entry.raw)?;
                crate::gate::authz::check_changed(context, &*sent, old, target.resource)?;
                if target.subresource == "finalize" { finalized(&*sent, old) } else { Ok(sent.duplicate()) }
            })
            .await?;
        Ok(Written { object, created: false, warnings: Vec::new() })
    }

    /// The half of an object that a subresource stands for.
    pub(super) fn mode(&self, target: &Target<'_>) -> Result<Mode> {
        match target.subresource {
            "" => Ok(Mode::Main),
            "status" if self.catalog.of(target.resource).is_some_and(|served| served.rules.has_status()) => {
                Ok(Mode::Status)
            }
            "finalize" if target.resource.resource.plural == "namespaces" => Ok(Mode::Internal),
            "resize" | "ephemeralcontainers" | "approval" | "proxy" => {
                Err(Refusal::method_not_supported(target.resource, target.subresource))
            }
            _ => Err(Refusal::unknown_resource()),
        }
    }
}

/// The stored namespace with the sent one's `spec.finalizers`: the last one gone ends a namespace that is terminating.
pub(super) fn finalized(sent: &dyn Record, old: &dyn Record) -> Result<Box<dyn Record>> {
    let sent: &Namespace =
        sent.as_kind().ok_or_else(|| Refusal::bad_request("only a Namespace has the subresource finalize"))?;
    let mut new = old.duplicate();
    if let Some(namespace) = new.as_kind_mut::<Namespace>() {
        let finalizers = sent.spec.as_ref().map(|spec| spec.finalizers.clone()).unwrap_or_default();
        namespace.spec.get_or_insert_default().finalizers = finalizers;
        let meta = proto::Kind::meta_mut(namespace);
        let sent_meta = proto::Kind::meta(sent);
        meta.resource_version.clone_from(&sent_meta.resource_version);
        meta.uid.clone_from(&sent_meta.uid);
    }
    Ok(new)
}
