//! What a gRPC request is about.

use proto::{codec::ResourceInfo, forestay::api::v1 as wire};

use crate::{
    api::{Api, Selection, Target},
    refusal::{Refusal, Result},
};

/// An owned [`Target`].
pub struct Named {
    pub resource: &'static ResourceInfo,
    namespace: String,
    name: String,
    subresource: String,
}

impl Named {
    pub fn target(&self) -> Target<'_> {
        Target { resource: self.resource, namespace: &self.namespace, name: &self.name, subresource: &self.subresource }
    }

    /// Reads a request's target.
    pub fn read(api: &Api, target: Option<wire::Target>) -> Result<Self> {
        let target =
            target.ok_or_else(|| Refusal::bad_request("target is required: group, resource, namespace, name"))?;
        let resource = find(api, &target.group, &target.resource)?;
        let namespace = if resource.resource.namespaced { target.namespace } else { String::new() };
        Ok(Self { resource, namespace, name: target.name, subresource: target.subresource })
    }

    /// Reads a target that must name one object.
    pub fn one(api: &Api, target: Option<wire::Target>) -> Result<Self> {
        let named = Self::read(api, target)?;
        if named.name.is_empty() {
            return Err(Refusal::bad_request("target.name is required"));
        }
        Ok(named)
    }

    /// Reads a write's target: what it leaves out, the object itself says.
    pub fn of_write(api: &Api, target: Option<wire::Target>, object: &proto::Object) -> Result<Self> {
        let target = target.unwrap_or_default();
        let resource = if target.resource.is_empty() {
            api.resource_of_arm(object.arm)
                .ok_or_else(|| Refusal::bad_request("the object's kind has no resource: name one in target.resource"))?
        } else {
            find(api, &target.group, &target.resource)?
        };
        let spoken = api.form_of(resource, &target.subresource).ok_or_else(Refusal::unknown_resource)?;
        if object.arm != spoken.arm {
            return Err(Refusal::bad_request(format!(
                "{} takes a {}, the request carries {:?} (arm {})",
                resource.resource.plural, spoken.kind, object.kind, object.arm
            )));
        }
        let mut named =
            Self { resource, namespace: target.namespace, name: target.name, subresource: target.subresource };
        if !resource.resource.namespaced {
            named.namespace.clear();
        } else if named.namespace.is_empty() || named.name.is_empty() {
            let meta = proto::envelope::metadata(&object.raw)
                .map_err(|error| Refusal::bad_request(format!("the object cannot be read: {error}")))?;
            if named.namespace.is_empty() {
                named.namespace = meta.namespace;
            }
        }
        Ok(named)
    }
}

pub fn find(api: &Api, group: &str, plural: &str) -> Result<&'static ResourceInfo> {
    api.find(group, plural).ok_or_else(|| {
        let shown = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        Refusal::new(404, "NotFound", format!("the server has no resource {shown:?}: name a plural, such as \"pods\""))
    })
}

pub fn selection(selection: Option<wire::Selection>) -> Selection {
    let selection = selection.unwrap_or_default();
    Selection { labels: selection.labels, fields: selection.fields }
}
