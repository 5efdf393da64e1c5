//! `forestay.api.v1.Objects`: the registry's verbs, typed.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream::BoxStream};
use proto::{
    Object, codec,
    forestay::api::v1::{self as wire, View, objects_server::Objects, patch_request, watch_event},
    k8s::meta::v1::Status as Outcome,
};
use tonic::{Request, Response, Status};

use super::{
    answer::{object, status},
    caller,
    target::{Named, find, selection},
};
use crate::{
    api::{
        self, Api, Batch, ChangeKind, FieldValidation, ListOptions, Listed, Patch, PatchKind, WatchSet, WriteOptions,
    },
    refusal::{Refusal, Result},
};

/// Objects in one message of a list.
const CHUNK_OBJECTS: usize = 500;
/// Bytes of one message of a list, roughly.
const CHUNK_BYTES: usize = 2 << 20;

pub struct Door {
    api: Arc<Api>,
}

impl Door {
    pub fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

type Answer<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, std::result::Result<T, Status>>;

#[tonic::async_trait]
impl Objects for Door {
    async fn get(&self, request: Request<wire::GetRequest>) -> Answer<Object> {
        let context = caller(&request);
        let request = request.into_inner();
        let view = request.view();
        let named = Named::one(&self.api, request.target).map_err(status)?;
        let stored = self.api.get(&context, named.target()).await.map_err(status)?;
        Ok(Response::new(object(&stored, view).map_err(status)?))
    }

    type ListStream = Answers<wire::ListResponse>;

    async fn list(&self, request: Request<wire::ListRequest>) -> Answer<Self::ListStream> {
        let context = caller(&request);
        let request = request.into_inner();
        let view = request.view();
        let named = Named::read(&self.api, request.target).map_err(status)?;
        let options = ListOptions {
            selection: selection(request.selection),
            limit: request.limit.max(0),
            continue_: request.r#continue,
            revision: request.revision,
            exact: request.exact,
        };
        let listed = self.api.list(&context, named.target(), options).await.map_err(status)?;
        Ok(Response::new(chunks(listed, view).boxed()))
    }

    type WatchStream = Answers<wire::WatchResponse>;

    async fn watch(&self, request: Request<wire::WatchRequest>) -> Answer<Self::WatchStream> {
        let context = caller(&request);
        let request = request.into_inner();
        let views: Vec<View> = request.sets.iter().map(wire::WatchSet::view).collect();
        let sets = request.sets.into_iter().map(|set| watch_set(&self.api, set)).collect::<Result<Vec<_>>>();
        let batches = self.api.watch(&context, sets.map_err(status)?).await.map_err(status)?;
        let messages = batches.map(move |batch| batch.and_then(|batch| message(batch, &views)).map_err(status));
        Ok(Response::new(messages.boxed()))
    }

    async fn create(&self, request: Request<wire::CreateRequest>) -> Answer<Object> {
        let context = caller(&request);
        let request = request.into_inner();
        let sent = sent(request.object).map_err(status)?;
        let named = Named::of_write(&self.api, request.target, &sent).map_err(status)?;
        let options = write_options(request.options);
        let written = self.api.create(&context, named.target(), sent.raw, &options).await.map_err(status)?;
        Ok(Response::new(object(&written.object, View::Full).map_err(status)?))
    }

    async fn update(&self, request: Request<wire::UpdateRequest>) -> Answer<Object> {
        self.replace(request, None).await
    }

    async fn update_status(&self, request: Request<wire::UpdateRequest>) -> Answer<Object> {
        self.replace(request, Some("status")).await
    }

    async fn patch(&self, request: Request<wire::PatchRequest>) -> Answer<Object> {
        let context = caller(&request);
        let request = request.into_inner();
        let kind = patch_kind(request.r#type()).map_err(status)?;
        let named = Named::one(&self.api, request.target).map_err(status)?;
        let options = write_options(request.options);
        let patch = Patch { kind, body: &request.patch, force: request.force };
        let written = self.api.patch(&context, named.target(), patch, &options).await.map_err(status)?;
        Ok(Response::new(object(&written.object, View::Full).map_err(status)?))
    }

    async fn delete(&self, request: Request<wire::DeleteRequest>) -> Answer<wire::DeleteResponse> {
        let context = caller(&request);
        let request = request.into_inner();
        let named = Named::one(&self.api, request.target).map_err(status)?;
        let options = request.options.unwrap_or_default();
        let deleted = self.api.delete(&context, named.target(), &options).await.map_err(status)?;
        let last = object(&deleted.object, View::Full).map_err(status)?;
        Ok(Response::new(wire::DeleteResponse { object: Some(last), gone: deleted.gone }))
    }

    async fn delete_collection(
        &self,
        request: Request<wire::DeleteCollectionRequest>,
    ) -> Answer<wire::DeleteCollectionResponse> {
        let context = caller(&request);
        let request = request.into_inner();
        let named = Named::read(&self.api, request.target).map_err(status)?;
        let (selection, options) = (selection(request.selection), request.options.unwrap_or_default());
        let deleted =
            self.api.delete_collection(&context, named.target(), &selection, &options).await.map_err(status)?;
        let deleted = i64::try_from(deleted.len()).unwrap_or(i64::MAX);
        Ok(Response::new(wire::DeleteCollectionResponse { deleted }))
    }

    async fn bind(&self, request: Request<wire::BindRequest>) -> Answer<wire::BindResponse> {
        let context = caller(&request);
        let bindings = request.into_inner().bindings.into_iter().map(|binding| api::PodBinding {
            namespace: binding.namespace,
            name: binding.name,
            uid: binding.uid,
            node: binding.node,
        });
        let results = self.api.bind(&context, bindings.collect()).await;
        let success = || Outcome { status: "Success".to_owned(), code: 200, ..Outcome::default() };
        let results = results.into_iter().map(|result| result.map_or_else(Refusal::into_status, |()| success()));
        Ok(Response::new(wire::BindResponse { results: results.collect() }))
    }

    async fn resources(&self, request: Request<wire::ResourcesRequest>) -> Answer<wire::ResourcesResponse> {
        self.api.authorize_path(&caller(&request), "get", "/apis").map_err(status)?;
        let resources = self.api.resources().map(|info| info.resource.clone()).collect();
        Ok(Response::new(wire::ResourcesResponse { resources }))
    }

    async fn version(&self, _request: Request<wire::VersionRequest>) -> Answer<wire::VersionResponse> {
        Ok(Response::new(wire::VersionResponse {
            major: crate::VERSION_MAJOR.to_owned(),
            minor: crate::VERSION_MINOR.to_owned(),
            git_version: crate::git_version(),
        }))
    }
}

impl Door {
    async fn replace(&self, request: Request<wire::UpdateRequest>, subresource: Option<&str>) -> Answer<Object> {
        let context = caller(&request);
        let request = request.into_inner();
        let sent = sent(request.object).map_err(status)?;
        let target = match subresource {
            Some(name) => Some(wire::Target { subresource: name.to_owned(), ..request.target.unwrap_or_default() }),
            None => request.target,
        };
        let named = Named::of_write(&self.api, target, &sent).map_err(status)?;
        let options = write_options(request.options);
        let written = self.api.update(&context, named.target(), sent.raw, &options).await.map_err(status)?;
        Ok(Response::new(object(&written.object, View::Full).map_err(status)?))
    }
}

/// The object a client sent, in the one form that is stored: with canonical quantities, and with nothing unknown.
fn sent(object: Option<Object>) -> Result<Object> {
    let object = object.filter(|object| object.arm != 0);
    let mut object = object.ok_or_else(|| Refusal::bad_request("object is required, with an arm set"))?;
    // Custom objects are JSON: they have no message of their own.
    let arm = proto::ARMS.iter().find(|arm| arm.0 == object.arm);
    if let Some(message) = arm.and_then(|arm| codec::schema().message(arm.1)) {
        let canonical = codec::canonical(message, &object.raw);
        object.raw =
            canonical.map_err(|error| Refusal::bad_request(format!("the object cannot be read: {error}")))?.into();
    }
    Ok(object)
}

fn write_options(options: Option<wire::WriteOptions>) -> WriteOptions {
    let options = options.unwrap_or_default();
    WriteOptions {
        dry_run: options.dry_run,
        field_manager: options.field_manager,
        field_validation: FieldValidation::Strict,
    }
}

fn patch_kind(kind: patch_request::Type) -> Result<PatchKind> {
    match kind {
        patch_request::Type::Json => Ok(PatchKind::Json),
        patch_request::Type::Merge => Ok(PatchKind::Merge),
        patch_request::Type::Strategic => Ok(PatchKind::Strategic),
        patch_request::Type::Apply => Ok(PatchKind::Apply),
        patch_request::Type::Unknown => Err(Refusal::bad_request("type is required: JSON, MERGE, STRATEGIC or APPLY")),
    }
}

fn watch_set(api: &Api, set: wire::WatchSet) -> Result<WatchSet> {
    let target = set.target.unwrap_or_default();
    Ok(WatchSet {
        resource: find(api, &target.group, &target.resource)?,
        namespace: target.namespace,
        name: target.name,
        selection: selection(set.selection),
        from: set.from_revision,
    })
}

fn message(batch: Batch, views: &[View]) -> Result<wire::WatchResponse> {
    let events = batch.changes.iter().map(|change| {
        let kind = match change.kind {
            ChangeKind::Added => watch_event::Type::Added,
            ChangeKind::Modified => watch_event::Type::Modified,
            ChangeKind::Deleted => watch_event::Type::Deleted,
        };
        let view = views.get(change.set).copied().unwrap_or(View::Full);
        Ok(wire::WatchEvent {
            r#type: kind.into(),
            set: u32::try_from(change.set).unwrap_or(u32::MAX),
            object: Some(object(&change.object, view)?),
        })
    });
    Ok(wire::WatchResponse {
        revision: batch.revision,
        events: events.collect::<Result<Vec<_>>>()?,
        initial: batch.initial,
        synced: batch.synced,
    })
}

/// A list as messages of bounded size; the last one carries the token.
fn chunks(listed: Listed, view: View) -> impl Stream<Item = std::result::Result<wire::ListResponse, Status>> + Send {
    let Listed { revision, items, continue_, remaining } = listed;
    let mut items = items.into_iter().peekable();
    let mut end = Some((continue_, remaining));
    futures::stream::iter(std::iter::from_fn(move || {
        end.as_ref()?;
        let mut chunk = wire::ListResponse { revision, ..Default::default() };
        let mut bytes = 0;
        while chunk.items.len() < CHUNK_OBJECTS && bytes < CHUNK_BYTES {
            let Some(stored) = items.next() else { break };
            bytes += stored.raw.len();
            match object(&stored, view) {
                Ok(object) => chunk.items.push(object),
                Err(refusal) => {
                    end = None;
                    return Some(Err(status(refusal)));
                }
            }
        }
        if items.peek().is_none()
            && let Some((token, remaining)) = end.take()
        {
            (chunk.r#continue, chunk.remaining) = (token, remaining);
        }
        Some(Ok(chunk))
    }))
}
