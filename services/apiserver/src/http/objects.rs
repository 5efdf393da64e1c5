//! Requests about objects: method and path become a verb, the body a message, the answer the client's form.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{Method, StatusCode, header, request::Parts};
use prost::Message;
use proto::k8s::meta::v1::{DeleteOptions, Preconditions, Status, StatusDetails};

use super::{
    answer::{self, Wanted},
    body, exec, logs,
    path::ObjectPath,
    query::{self, Query, Reading},
    text, watch,
};
use crate::{
    api::{Api, Deleted, Form, Listed, Patch, PatchKind, RequestContext, Target, WatchSet, WriteOptions, Written},
    refusal::{Refusal, Result},
};

/// One request about objects, read.
struct Asked<'a> {
    api: &'a Api,
    context: &'a RequestContext,
    path: &'a ObjectPath,
    parts: Parts,
    query: Query,
    wanted: Wanted,
    /// What is read and written at this path.
    form: Form,
}

pub async fn serve(
    api: &Api,
    context: &RequestContext,
    path: &ObjectPath,
    parts: Parts,
    body: &mut Body,
) -> Result<Response> {
    let named = &path.resource.resource;
    if api.resource(&named.group, &named.version, &named.plural).is_none() {
        return Err(Refusal::unknown_resource());
    }
    let verb = verb(&parts.method, path)?;
    let query = Query::of(&parts.uri)?;
    match path.subresource.as_str() {
        "log" => return logs::serve(api, context, path.target(), &query).await,
        "exec" | "attach" => return exec::serve(api, context, path, parts, &query).await,
        _ => {}
    }
    let wanted = Wanted::of(&parts.headers, &query, super::now(api))?;
    let form = api.form_of(path.resource, &path.subresource).ok_or_else(Refusal::unknown_resource)?;
    let asked = Asked { api, context, path, parts, query, wanted, form };
    match verb {
        Verb::Get => asked.get().await,
        Verb::List => asked.read_collection().await,
        Verb::Create => asked.create(body).await,
        Verb::Update => asked.update(body).await,
        Verb::Patch => asked.patch(body).await,
        Verb::Delete => asked.delete(body).await,
        Verb::DeleteCollection => asked.delete_collection(body).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Get,
    List,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
}

/// The verb a method stands for at a path; 405 where the resource does not have it there.
fn verb(method: &Method, path: &ObjectPath) -> Result<Verb> {
    let is_object = !path.name.is_empty();
    let verb = match (method.as_str(), is_object) {
        ("GET", true) => Verb::Get,
        ("GET", false) => Verb::List,
        ("POST", false) => Verb::Create,
        ("POST", true) if !path.subresource.is_empty() => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) => Verb::Delete,
        ("DELETE", false) => Verb::DeleteCollection,
        _ => return Err(Refusal::method_not_supported(path.resource, &method.as_str().to_lowercase())),
    };
    let resource = &path.resource.resource;
    let verbs = match path.subresource.as_str() {
        "" => &resource.verbs,
        name => {
            &resource.subresources.iter().find(|part| part.name == name).ok_or_else(Refusal::unknown_resource)?.verbs
        }
    };
    // Objects of a namespaced kind are made, and deleted together, in one namespace.
    let is_everywhere = resource.namespaced && path.namespace.is_empty() && verb != Verb::List;
    if is_everywhere || !verbs.iter().any(|served| served == verb.name()) {
        return Err(Refusal::method_not_supported(path.resource, verb.name()));
    }
    Ok(verb)
}

impl ObjectPath {
    pub fn target(&self) -> Target<'_> {
        Target { resource: self.resource, namespace: &self.namespace, name: &self.name, subresource: &self.subresource }
    }
}

impl Asked<'_> {
    async fn get(&self) -> Result<Response> {
        let is_watch = self.path.is_watch || self.query.flag("watch")? == Some(true);
        if self.path.subresource.is_empty() && is_watch {
            return self.read_collection().await;
        }
        let stored = self.api.get(self.context, self.path.target()).await?;
        answer::object(StatusCode::OK, &stored, self.wanted)
    }

    async fn read_collection(&self) -> Result<Response> {
        match query::reading(&self.query, self.path.is_watch)? {
            Reading::List(options) => {
                let listed = self.api.list(self.context, self.path.target(), options).await?;
                answer::list(self.form, &listed, self.wanted)
            }
            Reading::Watch(watch) => {
                let set = WatchSet {
                    resource: self.path.resource,
                    namespace: self.path.namespace.clone(),
                    name: self.path.name.clone(),
                    selection: watch.selection.clone(),
                    from: watch.from,
                };
                let watching = self.api.watch(self.context, vec![set]).await?;
                Ok(watch::response(watching, &watch, self.form, self.wanted, self.api.clock.clone()))
            }
        }
    }

    async fn create(self, body: &mut Body) -> Result<Response> {
        let options = self.query.write_options()?;
        let received = self.received(body, &options).await?;
        let written = self.api.create(self.context, self.path.target(), received.raw, &options).await?;
        self.written(&written, received.warnings)
    }

    async fn update(self, body: &mut Body) -> Result<Response> {
        let options = self.query.write_options()?;
        let received = self.received(body, &options).await?;
        let written = self.api.update(self.context, self.path.target(), received.raw, &options).await?;
        self.written(&written, received.warnings)
    }

    async fn received(&self, body: &mut Body, options: &WriteOptions) -> Result<body::Received> {
        let bytes = body::read(&self.parts.headers, body).await?;
        let content_type = text(&self.parts.headers, header::CONTENT_TYPE);
        body::object(content_type, &bytes, self.form, options.field_validation)
    }

    async fn patch(self, body: &mut Body) -> Result<Response> {
        let kind = patch_kind(text(&self.parts.headers, header::CONTENT_TYPE))?;
        let options = self.query.write_options()?;
        let force = self.query.flag("force")?.unwrap_or_default();
        let bytes = body::read(&self.parts.headers, body).await?;
        let patch = Patch { kind, body: &bytes, force };
        let written = self.api.patch(self.context, self.path.target(), patch, &options).await?;
        self.written(&written, Vec::new())
    }

    fn written(&self, written: &Written, mut warnings: Vec<String>) -> Result<Response> {
        let code = if written.created { StatusCode::CREATED } else { StatusCode::OK };
        let mut response = answer::object(code, &written.object, self.wanted)?;
        warnings.extend(written.warnings.iter().cloned());
        answer::warn(&mut response, &warnings);
        Ok(response)
    }

    async fn delete(self, body: &mut Body) -> Result<Response> {
        let options = self.delete_options(body).await?;
        let deleted = self.api.delete(self.context, self.path.target(), &options).await?;
        if !deleted.gone {
            return answer::object(StatusCode::OK, &deleted.object, self.wanted);
        }
        Ok(answer::status(StatusCode::OK, &self.gone(&deleted)?, self.wanted.encoding))
    }

    fn gone(&self, deleted: &Deleted) -> Result<Status> {
        let meta = deleted.object.metadata()?;
        let resource = &self.path.resource.resource;
        let details = StatusDetails {
            name: meta.name,
            group: resource.group.clone(),
            kind: resource.plural.clone(),
            uid: meta.uid,
            ..StatusDetails::default()
        };
        Ok(Status { status: "Success".to_owned(), details: Some(details), ..Status::default() })
    }

    async fn delete_collection(self, body: &mut Body) -> Result<Response> {
        let options = self.delete_options(body).await?;
        let selection = self.query.selection();
        let items = self.api.delete_collection(self.context, self.path.target(), &selection, &options).await?;
        let revision = items.iter().map(|item| item.revision).max().unwrap_or_default();
        let listed = Listed { revision, items, continue_: String::new(), remaining: None };
        answer::list(self.form, &listed, self.wanted)
    }

    /// Options may come in the body or, where that is empty, in the query.
    async fn delete_options(&self, body: &mut Body) -> Result<DeleteOptions> {
        let bytes = body::read(&self.parts.headers, body).await?;
        if bytes.is_empty() {
            return self.query_delete_options();
        }
        let raw: Bytes = body::options(text(&self.parts.headers, header::CONTENT_TYPE), &bytes, "DeleteOptions")?;
        let mut options = DeleteOptions::decode(raw)
            .map_err(|error| Refusal::bad_request(format!("read the DeleteOptions: {error}")))?;
        if self.query.dry_run()? && options.dry_run.is_empty() {
            options.dry_run.push("All".to_owned());
        }
        Ok(options)
    }

    fn query_delete_options(&self) -> Result<DeleteOptions> {
        let owned = |name: &str| self.query.get(name).map(str::to_owned);
        let (uid, resource_version) = (owned("preconditions.uid"), owned("preconditions.resourceVersion"));
        let has_preconditions = uid.is_some() || resource_version.is_some();
        Ok(DeleteOptions {
            grace_period_seconds: self.query.number("gracePeriodSeconds")?,
            orphan_dependents: self.query.flag("orphanDependents")?,
            propagation_policy: owned("propagationPolicy"),
            dry_run: if self.query.dry_run()? { vec!["All".to_owned()] } else { Vec::new() },
            preconditions: has_preconditions.then_some(Preconditions { uid, resource_version }),
            ..DeleteOptions::default()
        })
    }
}

/// The kind of a patch; 415 for what is none.
fn patch_kind(content_type: Option<&str>) -> Result<PatchKind> {
    let media_type = content_type.map_or("", |text| text.split(';').next().unwrap_or_default().trim());
    match media_type {
        "application/json-patch+json" => Ok(PatchKind::Json),
        "application/merge-patch+json" => Ok(PatchKind::Merge),
        "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
        "application/apply-patch+yaml" => Ok(PatchKind::Apply),
        other => Err(Refusal::unsupported_media_type(format!(
            "the body of the request was in an unknown format {other:?} - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, \
             application/apply-patch+yaml"
        ))),
    }
}
