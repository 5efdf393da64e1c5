//! The verbs, each once, for every kind and both doors.

mod bind;
mod create;
mod delete;
mod patch;
mod read;
mod review;
mod scale;
mod update;
mod watch;
pub(crate) mod writer;

use proto::codec::ResourceInfo;

use super::Served;
use crate::{
    api::{Api, Form, RequestContext, Target},
    gate::authz::{Attributes, Verb, Verdict},
    refusal::{Refusal, Result},
};

impl Api {
    /// Every resource served, in the order of arm numbers: what discovery tells.
    pub fn resources(&self) -> impl Iterator<Item = &'static ResourceInfo> + '_ {
        proto::codec::schema().resources().iter().filter(|info| self.serves(info))
    }

    /// Finds a served resource by its path.
    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&'static ResourceInfo> {
        self.find(group, plural).filter(|info| info.resource.version == version)
    }

    /// Finds a served resource by group ("" for core) and plural.
    pub fn find(&self, group: &str, plural: &str) -> Option<&'static ResourceInfo> {
        match self.catalog.find(group, plural) {
            Some(served) => Some(served.info),
            None => review::resources().find(|info| info.resource.plural == plural && info.resource.group == group),
        }
    }

    /// Finds a served resource by the arm of its kind in `forestay.api.v1.Object`.
    pub fn resource_of_arm(&self, arm: u32) -> Option<&'static ResourceInfo> {
        match self.catalog.of_arm(arm) {
            Some(served) => Some(served.info),
            None => review::resources().find(|info| info.arm == arm),
        }
    }

    /// Whether the caller may ask for a path that is no resource: health, version, discovery, schemas.
    ///
    /// # Errors
    /// 403.
    pub fn authorize_path(&self, context: &RequestContext, verb: &str, path: &str) -> Result<()> {
        crate::gate::authz::decide_path(context, verb, path)
    }

    /// Whether the store answers: without it nothing can be served.
    ///
    /// # Errors
    /// 503 or 504, with what the store said.
    pub async fn store_answers(&self) -> Result<()> {
        self.objects.revision().await.map(drop)
    }

    /// Seconds since 1970, by the server's clock.
    pub fn now_seconds(&self) -> i64 {
        self.clock.now().as_second()
    }

    fn serves(&self, info: &ResourceInfo) -> bool {
        self.catalog.of(info).is_some() || review::is_review(info)
    }

    /// What a resource's subresource speaks; its own kind where that differs in nothing.
    pub fn form_of(&self, resource: &'static ResourceInfo, subresource: &str) -> Option<Form> {
        if subresource.is_empty() {
            return Some(Form::of(resource));
        }
        let found = resource.resource.subresources.iter().find(|found| found.name == subresource)?;
        if subresource == "binding" {
            return proto::ARMS.iter().find(|(.., kind)| *kind == "Binding").and_then(|(arm, ..)| Form::of_arm(*arm));
        }
        if found.kind.is_empty() {
            return Some(Form::of(resource));
        }
        let api_version =
            if found.group.is_empty() { found.version.clone() } else { format!("{}/{}", found.group, found.version) };
        let arm = proto::ARMS.iter().find(|(_, _, version, kind)| *version == api_version && *kind == found.kind)?;
        Form::of_arm(arm.0)
    }

    fn served(&self, target: &Target<'_>) -> Result<&Served> {
        let served = self.catalog.of(target.resource).ok_or_else(Refusal::unknown_resource)?;
        if served.info.resource.namespaced && target.namespace.is_empty() && !target.name.is_empty() {
            return Err(Refusal::bad_request(format!(
                "an object of {} is in a namespace: name it in the request",
                served.info.resource.plural
            )));
        }
        Ok(served)
    }

    pub(crate) fn authorize(&self, context: &RequestContext, verb: Verb, target: &Target<'_>) -> Result<Verdict> {
        crate::gate::authz::decide(context, &Attributes::of(verb, target))
    }

    fn now(&self) -> proto::k8s::meta::v1::Time {
        proto::k8s::meta::v1::Time { seconds: self.now_seconds(), nanos: 0 }
    }
}
