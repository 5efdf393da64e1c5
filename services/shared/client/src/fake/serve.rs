//! The fake's gRPC face.

use std::{pin::Pin, sync::Arc};

use futures::{Stream, stream};
use proto::{
    Object,
    forestay::api::v1::{self as api, objects_server::Objects, watch_event},
    k8s::{core::v1 as core, meta::v1::Status},
};
use tonic::{Request, Response};

use super::{Inner, refusal, select::Filter, store::Event, store::Store};
use crate::{Target, error::to_grpc};

type Answer<T> = Result<Response<T>, tonic::Status>;

/// Objects per chunk of a list or of initial state.
const CHUNK: usize = 500;

pub(super) struct Door(pub(super) Arc<Inner>);

fn target_of(target: Option<Target>) -> Result<Target, tonic::Status> {
    target.ok_or_else(|| to_grpc(&refusal::bad_request("the request names no target")))
}

fn object_of(object: Option<Object>) -> Result<Object, tonic::Status> {
    object.ok_or_else(|| to_grpc(&refusal::bad_request("the request carries no object")))
}

impl Door {
    /// One write: asked of the refusal hook, done under the lock, told to the watchers.
    fn write<T>(
        &self,
        verb: &'static str,
        target: &Target,
        object: Option<&Object>,
        write: impl FnOnce(&mut Store) -> Result<T, Status>,
    ) -> Result<T, tonic::Status> {
        self.0.admit(verb, target, object).map_err(|status| to_grpc(&status))?;
        self.0.change(write).map_err(|status| to_grpc(&status))
    }
}

#[tonic::async_trait]
impl Objects for Door {
    async fn get(&self, request: Request<api::GetRequest>) -> Answer<Object> {
        let request = request.into_inner();
        let target = target_of(request.target.clone())?;
        let store = self.0.store.lock();
        let stored = store.get(&target).map_err(|status| to_grpc(&status))?;
        Ok(Response::new(stored.view(request.view())))
    }

    type ListStream = Pin<Box<dyn Stream<Item = Result<api::ListResponse, tonic::Status>> + Send>>;

    async fn list(&self, request: Request<api::ListRequest>) -> Answer<Self::ListStream> {
        let request = request.into_inner();
        let target = target_of(request.target.clone())?;
        let filter = Filter::new(&target, request.selection.as_ref()).map_err(|status| to_grpc(&status))?;
        let store = self.0.store.lock();
        let revision = store.revision;
        let chunk = |items: Vec<Object>| Ok(api::ListResponse { revision, items, ..Default::default() });
        let items: Vec<Object> = store
            .all(&filter.resource)
            .filter(|stored| filter.matches(stored))
            .map(|stored| stored.view(request.view()))
            .collect();
        let mut chunks: Vec<_> = items.chunks(CHUNK).map(|items| chunk(items.to_vec())).collect();
        if chunks.is_empty() {
            chunks.push(chunk(Vec::new()));
        }
        Ok(Response::new(Box::pin(stream::iter(chunks))))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<api::WatchResponse, tonic::Status>> + Send>>;

    async fn watch(&self, request: Request<api::WatchRequest>) -> Answer<Self::WatchStream> {
        if self.0.held.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(tonic::Status::unavailable("the fake holds watches back"));
        }
        let sets = request.into_inner().sets;
        let mut filters = Vec::new();
        for set in &sets {
            let target = target_of(set.target.clone())?;
            filters.push(Filter::new(&target, set.selection.as_ref()).map_err(|status| to_grpc(&status))?);
        }
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        tokio::spawn(Watcher { inner: self.0.clone(), sets, filters }.run(sender));
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn create(&self, request: Request<api::CreateRequest>) -> Answer<Object> {
        let request = request.into_inner();
        let (target, object) = (target_of(request.target)?, object_of(request.object)?);
        let now = self.0.now();
        let stored =
            self.write("create", &target, Some(&object), |store| store.create(&target, object.clone(), now))?;
        Ok(Response::new(stored.object.clone()))
    }

    async fn update(&self, request: Request<api::UpdateRequest>) -> Answer<Object> {
        let request = request.into_inner();
        let (target, object) = (target_of(request.target)?, object_of(request.object)?);
        let stored = self.write("update", &target, Some(&object), |store| match &*target.subresource {
            "" => store.update(&target, object.clone()),
            "status" => store.update_status(&target, object.clone()),
            "finalize" => store.finalize(&target, object.clone()),
            _ => Err(refusal::not_found(&target)),
        })?;
        Ok(Response::new(stored.object.clone()))
    }

    async fn update_status(&self, request: Request<api::UpdateRequest>) -> Answer<Object> {
        let request = request.into_inner();
        let (target, object) = (target_of(request.target)?, object_of(request.object)?);
        let stored =
            self.write("update", &target, Some(&object), |store| store.update_status(&target, object.clone()))?;
        Ok(Response::new(stored.object.clone()))
    }

    async fn patch(&self, request: Request<api::PatchRequest>) -> Answer<Object> {
        let request = request.into_inner();
        let target = target_of(request.target.clone())?;
        let stored = self.write("patch", &target, None, |store| {
            let patched = super::patch::patched(store.get(&target)?, request.r#type(), &request.patch)?;
            match &*target.subresource {
                "" => store.update(&target, patched),
                "status" => store.update_status(&target, patched),
                _ => Err(refusal::not_found(&target)),
            }
        })?;
        Ok(Response::new(stored.object.clone()))
    }

    async fn delete(&self, request: Request<api::DeleteRequest>) -> Answer<api::DeleteResponse> {
        let request = request.into_inner();
        let target = target_of(request.target)?;
        let (options, now) = (request.options.unwrap_or_default(), self.0.now());
        let (stored, gone) = self.write("delete", &target, None, |store| store.delete(&target, &options, now))?;
        Ok(Response::new(api::DeleteResponse { object: Some(stored.object.clone()), gone }))
    }

    async fn delete_collection(
        &self,
        request: Request<api::DeleteCollectionRequest>,
    ) -> Answer<api::DeleteCollectionResponse> {
        let request = request.into_inner();
        let target = target_of(request.target)?;
        let filter = Filter::new(&target, request.selection.as_ref()).map_err(|status| to_grpc(&status))?;
        let (options, now) = (request.options.unwrap_or_default(), self.0.now());
        let deleted = self.write("delete", &target, None, |store| {
            let named = |meta: &proto::k8s::meta::v1::ObjectMeta| Target {
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                ..target.clone()
            };
            let targets: Vec<Target> = store
                .all(&filter.resource)
                .filter(|stored| filter.matches(stored))
                .map(|stored| named(&stored.meta))
                .collect();
            for target in &targets {
                store.delete(target, &options, now)?;
            }
            Ok(targets.len() as i64)
        })?;
        Ok(Response::new(api::DeleteCollectionResponse { deleted }))
    }

    async fn bind(&self, request: Request<api::BindRequest>) -> Answer<api::BindResponse> {
        let now = self.0.now();
        let bind = |binding: api::PodBinding| {
            let target = crate::target::<core::Pod>(&binding.namespace, &binding.name);
            self.0
                .admit("bind", &target, None)
                .and_then(|()| self.0.change(|store| store.bind(&target, &binding.uid, &binding.node, now)))
        };
        let result = |outcome: Result<_, Status>| match outcome {
            Ok(_) => Status { status: "Success".into(), code: 201, ..Default::default() },
            Err(status) => status,
        };
        let results = request.into_inner().bindings.into_iter().map(|binding| result(bind(binding))).collect();
        Ok(Response::new(api::BindResponse { results }))
    }

    async fn resources(&self, _: Request<api::ResourcesRequest>) -> Answer<api::ResourcesResponse> {
        let resources = proto::codec::schema().resources().iter().map(|known| known.resource.clone()).collect();
        Ok(Response::new(api::ResourcesResponse { resources }))
    }

    async fn version(&self, _: Request<api::VersionRequest>) -> Answer<api::VersionResponse> {
        Ok(Response::new(api::VersionResponse {
            major: "1".into(),
            minor: "36".into(),
            git_version: "v1.36.0+fake".into(),
        }))
    }
}

/// One watch stream: a cursor into the history.
struct Watcher {
    inner: Arc<Inner>,
    sets: Vec<api::WatchSet>,
    filters: Vec<Filter>,
}

type Sender = tokio::sync::mpsc::Sender<Result<api::WatchResponse, tonic::Status>>;

impl Watcher {
    async fn run(self, sender: Sender) {
        let mut revision = self.inner.revision.subscribe();
        let epoch = *self.inner.epoch.borrow();
        let mut epochs = self.inner.epoch.subscribe();
        let (mut position, initial) = self.initial();
        for message in initial {
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
        loop {
            revision.borrow_and_update();
            let (next, messages) = match self.following(position) {
                Ok(following) => following,
                Err(status) => return drop(sender.send(Err(to_grpc(&status))).await),
            };
            for message in messages {
                if sender.send(Ok(message)).await.is_err() {
                    return;
                }
            }
            position = next;
            tokio::select! {
                changed = revision.changed() => if changed.is_err() { return },
                _ = epochs.wait_for(|now| *now != epoch) => return,
                () = sender.closed() => return,
            }
        }
    }

    /// The position to follow from, and the initial state of the sets that asked for it.
    fn initial(&self) -> (u64, Vec<api::WatchResponse>) {
        let store = self.inner.store.lock();
        let revision = store.revision;
        let mut events = Vec::new();
        for (at, (set, filter)) in self.sets.iter().zip(&self.filters).enumerate() {
            if set.from_revision == 0 {
                let matching = store.all(&filter.resource).filter(|stored| filter.matches(stored));
                events.extend(matching.map(|stored| api::WatchEvent {
                    r#type: watch_event::Type::Added.into(),
                    set: at as u32,
                    object: Some(stored.view(set.view())),
                }));
            }
        }
        let resumed = self.sets.iter().map(|set| set.from_revision).filter(|from| *from > 0).min();
        let mut messages: Vec<api::WatchResponse> = events
            .chunks(CHUNK)
            .map(|events| api::WatchResponse { revision, events: events.to_vec(), initial: true, synced: false })
            .collect();
        if self.sets.iter().any(|set| set.from_revision == 0) {
            messages.push(api::WatchResponse { revision, synced: true, ..Default::default() });
        }
        (resumed.unwrap_or(revision), messages)
    }

    /// Everything after a position, a message per revision; a bare mark where nothing of it concerns this stream.
    fn following(&self, position: u64) -> Result<(u64, Vec<api::WatchResponse>), Status> {
        let store = self.inner.store.lock();
        if position < store.compacted {
            return Err(refusal::expired(position, store.compacted));
        }
        let start = store.history.partition_point(|event| event.revision <= position);
        let mut messages: Vec<api::WatchResponse> = Vec::new();
        for event in store.history.range(start..) {
            let events: Vec<_> = self.events(event).collect();
            if !events.is_empty() {
                messages.push(api::WatchResponse { revision: event.revision, events, ..Default::default() });
            }
        }
        if messages.last().is_none_or(|last| last.revision < store.revision) && store.revision > position {
            messages.push(api::WatchResponse { revision: store.revision, ..Default::default() });
        }
        Ok((store.revision, messages))
    }

    fn events<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = api::WatchEvent> + 'a {
        let sets = self.sets.iter().zip(&self.filters).enumerate();
        sets.filter(|(_, (set, filter))| filter.resource == event.resource && set.from_revision < event.revision)
            .filter_map(|(at, (set, filter))| {
                let was = event.before.as_ref().is_some_and(|before| filter.matches(before));
                let is = !event.is_deletion && filter.matches(&event.after);
                let kind = match (was, is) {
                    (false, false) => return None,
                    (false, true) => watch_event::Type::Added,
                    (true, true) => watch_event::Type::Modified,
                    (true, false) => watch_event::Type::Deleted,
                };
                let object = Some(event.after.view(set.view()));
                Some(api::WatchEvent { r#type: kind.into(), set: at as u32, object })
            })
    }
}
