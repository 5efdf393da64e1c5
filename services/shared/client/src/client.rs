//! [`Client`]: every verb, typed by the kind.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use proto::{
    Object, Resource,
    forestay::api::v1::{self as api, objects_client::ObjectsClient},
    k8s::meta::v1::{DeleteOptions, Status},
};
use tonic::transport::Channel;

use crate::{Config, Error, Partial};

pub use proto::forestay::api::v1::{
    DeleteResponse, PodBinding, Selection, Target, WatchRequest, WatchResponse, WatchSet,
    patch_request::Type as PatchKind,
};

/// A list or an object may be large; the server bounds what it stores, the network need not.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// A call that is not answered in this time has failed; a watch is bounded only in its opening.
const CALL_SECONDS_MAX: u64 = 60;

/// A handle to the API: cheap to clone, safe to share. Its channel moves to another server when one stops answering.
#[derive(Clone)]
pub struct Client {
    server: ObjectsClient<Channel>,
    field_manager: Arc<str>,
}

/// What may be sent again after the connection failed.
#[derive(Clone, Copy, PartialEq)]
enum Repeat {
    /// Reads.
    Once,
    /// Writes: they may have been done.
    Never,
}

impl Client {
    /// A client of the servers a configuration names. Connecting happens on first use.
    ///
    /// # Errors
    /// Where an address or a certificate cannot be read.
    pub async fn connect(config: &Config) -> Result<Self, Error> {
        Ok(Self::from_channel(config.channel()?))
    }

    /// A client over a channel made elsewhere.
    pub fn from_channel(channel: Channel) -> Self {
        let server = ObjectsClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Self { server, field_manager: Arc::from("") }
    }

    /// Names the writer in managed fields and in the server's audit.
    #[must_use]
    pub fn with_field_manager(mut self, name: &str) -> Self {
        self.field_manager = Arc::from(name);
        self
    }

    /// The untyped door.
    pub fn raw(&self) -> ObjectsClient<Channel> {
        self.server.clone()
    }

    /// # Errors
    /// [`Error::NotFound`], or what the server or the way to it refused.
    pub async fn get<K: Resource>(&self, namespace: &str, name: &str) -> Result<K, Error> {
        let object = self.get_object(target::<K>(namespace, name), api::View::Full).await?;
        Ok(object.decode_as()?)
    }

    /// Any object, undecoded.
    pub async fn get_object(&self, target: Target, view: api::View) -> Result<Object, Error> {
        let request = api::GetRequest { target: Some(target), view: view.into() };
        self.call(Repeat::Once, request, |mut server, request| async move { server.get(request).await }).await
    }

    /// All objects of a namespace ("" for all namespaces) and the revision the list stands at.
    pub async fn list<K: Resource>(&self, namespace: &str, selection: Selection) -> Result<(Vec<K>, u64), Error> {
        let (objects, revision) = self.list_objects(target::<K>(namespace, ""), selection, api::View::Full).await?;
        let decoded = objects.iter().map(Object::decode_as).collect::<Result<Vec<K>, _>>()?;
        Ok((decoded, revision))
    }

    /// All objects of a resource, undecoded.
    pub async fn list_objects(
        &self,
        target: Target,
        selection: Selection,
        view: api::View,
    ) -> Result<(Vec<Object>, u64), Error> {
        let request = api::ListRequest {
            target: Some(target),
            selection: Some(selection),
            view: view.into(),
            ..Default::default()
        };
        let list = |mut server: ObjectsClient<Channel>, request| async move {
            let mut chunks = server.list(request).await?.into_inner();
            let (mut objects, mut revision) = (Vec::new(), 0);
            while let Some(chunk) = chunks.message().await? {
                objects.extend(chunk.items);
                revision = chunk.revision;
            }
            Ok(tonic::Response::new((objects, revision)))
        };
        self.call(Repeat::Once, request, list).await
    }

    /// Stores a new object; namespace and name (or generateName) are those of its metadata.
    pub async fn create<K: Resource>(&self, object: &K) -> Result<K, Error> {
        let meta = object.meta();
        let created = self.create_object(target::<K>(&meta.namespace, &meta.name), Object::of(object)).await?;
        Ok(created.decode_as()?)
    }

    pub async fn create_object(&self, target: Target, object: Object) -> Result<Object, Error> {
        let request =
            api::CreateRequest { target: Some(target), object: Some(object), options: Some(self.write_options()) };
        self.call(Repeat::Never, request, |mut server, request| async move { server.create(request).await }).await
    }

    /// Replaces all but the status. A resourceVersion in the metadata must be the stored one.
    pub async fn update<K: Resource>(&self, object: &K) -> Result<K, Error> {
        let meta = object.meta();
        let updated = self.update_object(target::<K>(&meta.namespace, &meta.name), Object::of(object)).await?;
        Ok(updated.decode_as()?)
    }

    /// Replaces an object, or its subresource named by the target.
    pub async fn update_object(&self, target: Target, object: Object) -> Result<Object, Error> {
        let request =
            api::UpdateRequest { target: Some(target), object: Some(object), options: Some(self.write_options()) };
        self.call(Repeat::Never, request, |mut server, request| async move { server.update(request).await }).await
    }

    /// Replaces the status and nothing else.
    pub async fn update_status<K: Resource>(&self, object: &K) -> Result<K, Error> {
        let meta = object.meta();
        let updated = self.update_status_object(target::<K>(&meta.namespace, &meta.name), Object::of(object)).await?;
        Ok(updated.decode_as()?)
    }

    pub async fn update_status_object(&self, target: Target, object: Object) -> Result<Object, Error> {
        let request =
            api::UpdateRequest { target: Some(target), object: Some(object), options: Some(self.write_options()) };
        self.call(Repeat::Never, request, |mut server, request| async move { server.update_status(request).await })
            .await
    }

    /// Changes an object by a patch; `subresource` is "status", "scale" or empty.
    pub async fn patch<K: Resource>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &str,
        kind: PatchKind,
        body: &[u8],
    ) -> Result<K, Error> {
        let target = Target { subresource: subresource.to_owned(), ..target::<K>(namespace, name) };
        Ok(self.patch_object(target, kind, Bytes::copy_from_slice(body)).await?.decode_as()?)
    }

    pub async fn patch_object(&self, target: Target, kind: PatchKind, patch: Bytes) -> Result<Object, Error> {
        let request = api::PatchRequest {
            target: Some(target),
            r#type: kind.into(),
            patch,
            options: Some(self.write_options()),
            force: false,
        };
        self.call(Repeat::Never, request, |mut server, request| async move { server.patch(request).await }).await
    }

    /// Deletes an object, gracefully where its kind has a grace period.
    pub async fn delete<K: Resource>(
        &self,
        namespace: &str,
        name: &str,
        options: DeleteOptions,
    ) -> Result<DeleteResponse, Error> {
        self.delete_object(target::<K>(namespace, name), options).await
    }

    pub async fn delete_object(&self, target: Target, options: DeleteOptions) -> Result<DeleteResponse, Error> {
        let request = api::DeleteRequest { target: Some(target), options: Some(options) };
        self.call(Repeat::Never, request, |mut server, request| async move { server.delete(request).await }).await
    }

    /// Deletes all objects of a resource in a namespace that the selection matches; how many.
    pub async fn delete_collection(
        &self,
        target: Target,
        selection: Selection,
        options: DeleteOptions,
    ) -> Result<i64, Error> {
        let request =
            api::DeleteCollectionRequest { target: Some(target), selection: Some(selection), options: Some(options) };
        let answer = self
            .call(Repeat::Never, request, |mut server, request| async move { server.delete_collection(request).await })
            .await?;
        Ok(answer.deleted)
    }

    /// Binds pods to nodes; one Status per binding, in order.
    pub async fn bind(&self, bindings: Vec<PodBinding>) -> Result<Vec<Status>, Error> {
        let request = api::BindRequest { bindings };
        let bind = |mut server: ObjectsClient<Channel>, request| async move { server.bind(request).await };
        Ok(self.call(Repeat::Never, request, bind).await?.results)
    }

    /// One stream over several sets, in revision order. It ends when the server does; [`crate::Reflector`] reconnects.
    pub async fn watch(
        &self,
        request: WatchRequest,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Error>> + Send + Unpin + use<>, Error> {
        let watch = |mut server: ObjectsClient<Channel>, request| async move { server.watch(request).await };
        let stream = self.call(Repeat::Once, request, watch).await?;
        Ok(stream.map(|message| message.map_err(Error::from)))
    }

    /// Every resource served.
    pub async fn resources(&self) -> Result<Vec<proto::schema::Resource>, Error> {
        let resources = |mut server: ObjectsClient<Channel>, request| async move { server.resources(request).await };
        Ok(self.call(Repeat::Once, api::ResourcesRequest {}, resources).await?.resources)
    }

    pub async fn version(&self) -> Result<api::VersionResponse, Error> {
        let version = |mut server: ObjectsClient<Channel>, request| async move { server.version(request).await };
        self.call(Repeat::Once, api::VersionRequest {}, version).await
    }

    /// Metadata of one object of any resource.
    pub async fn metadata(&self, target: Target) -> Result<Partial, Error> {
        Partial::of(&self.get_object(target, api::View::Metadata).await?)
    }

    fn write_options(&self) -> api::WriteOptions {
        api::WriteOptions { dry_run: false, field_manager: self.field_manager.to_string() }
    }

    /// Sends a request with a deadline; a read once more where the connection broke under it.
    async fn call<Request, Answer, Call, Pending>(
        &self,
        repeat: Repeat,
        request: Request,
        call: Call,
    ) -> Result<Answer, Error>
    where
        Request: Clone,
        Call: Fn(ObjectsClient<Channel>, Request) -> Pending,
        Pending: Future<Output = Result<tonic::Response<Answer>, tonic::Status>>,
    {
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(CALL_SECONDS_MAX);
        let mut repeat = repeat;
        loop {
            let answer = tokio::time::timeout_at(deadline, call(self.server.clone(), request.clone())).await;
            match answer {
                Ok(Ok(answer)) => return Ok(answer.into_inner()),
                Ok(Err(status)) if repeat == Repeat::Once && is_broken(&status) => repeat = Repeat::Never,
                Ok(Err(status)) => return Err(status.into()),
                Err(_) => {
                    let message = format!("the server did not answer within {CALL_SECONDS_MAX} s");
                    return Err(Error::from_status(crate::error::failure(504, "Timeout", message)));
                }
            }
        }
    }
}

/// Names an object of kind `K`; cluster-scoped kinds have no namespace.
pub fn target<K: Resource>(namespace: &str, name: &str) -> Target {
    Target {
        group: K::GROUP.to_owned(),
        resource: K::PLURAL.to_owned(),
        namespace: if K::NAMESPACED { namespace.to_owned() } else { String::new() },
        name: name.to_owned(),
        subresource: String::new(),
    }
}

/// The connection failed, not the call: such a status has a cause on this side.
fn is_broken(status: &tonic::Status) -> bool {
    std::error::Error::source(status).is_some()
}
