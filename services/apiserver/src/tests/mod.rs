//! The API as its users see it, on a store in memory.

mod deleting;
mod listing;
mod one_port;
mod quotas;
mod services;
mod typed_door;
mod watching;
mod writing;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;
use proto::{
    Resource,
    k8s::{
        core::v1::{Container, Namespace, Pod, PodSpec},
        meta::v1::DeleteOptions,
    },
};

use crate::{
    Options, Server,
    api::{Api, ListOptions, RequestContext, Stored, Target, WriteOptions},
    refusal::Result,
    storage::testing::MemoryStore,
};

/// A started apiserver, and verbs on typed objects.
pub struct Cluster {
    pub server: Server,
    pub store: MemoryStore,
    pub context: RequestContext,
}

pub async fn cluster() -> Cluster {
    cluster_with(Options::default()).await
}

pub async fn cluster_with(options: Options) -> Cluster {
    let store = MemoryStore::new();
    let server = Server::new(options, Arc::new(store.clone()));
    server.start().await;
    let cluster = Cluster { server, store, context: RequestContext::own() };
    // The bootstrap task makes the first namespaces and the kubernetes Service.
    let service = cluster.target::<proto::k8s::core::v1::Service>("default", "kubernetes");
    let mut heads = cluster.api().hub.heads();
    while cluster.api().get(&cluster.context, service).await.is_err() {
        heads.changed().await.unwrap();
    }
    cluster
}

impl Cluster {
    pub fn api(&self) -> &Api {
        self.server.api()
    }

    pub fn target<'a, K: Resource>(&self, namespace: &'a str, name: &'a str) -> Target<'a> {
        let resource = self.api().find(K::GROUP, K::PLURAL).unwrap();
        Target { resource, namespace, name, subresource: "" }
    }

    pub async fn create<K: Resource>(&self, object: &K) -> Result<K> {
        let namespace = object.meta().namespace.clone();
        let target = self.target::<K>(&namespace, "");
        let written = self.api().create(&self.context, target, raw(object), &WriteOptions::default()).await?;
        Ok(typed(&written.object))
    }

    pub async fn get<K: Resource>(&self, namespace: &str, name: &str) -> Result<K> {
        Ok(typed(&self.api().get(&self.context, self.target::<K>(namespace, name)).await?))
    }

    pub async fn update<K: Resource>(&self, object: &K) -> Result<K> {
        self.replace(object, "").await
    }

    pub async fn update_status<K: Resource>(&self, object: &K) -> Result<K> {
        self.replace(object, "status").await
    }

    pub async fn replace<K: Resource>(&self, object: &K, subresource: &str) -> Result<K> {
        let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
        let target = Target { subresource, ..self.target::<K>(&namespace, &name) };
        let written = self.api().update(&self.context, target, raw(object), &WriteOptions::default()).await?;
        Ok(typed(&written.object))
    }

    pub async fn delete<K: Resource>(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<bool> {
        let target = self.target::<K>(namespace, name);
        Ok(self.api().delete(&self.context, target, &options).await?.gone)
    }

    pub async fn list<K: Resource>(&self, namespace: &str, options: ListOptions) -> Result<Vec<K>> {
        let listed = self.api().list(&self.context, self.target::<K>(namespace, ""), options).await?;
        Ok(listed.items.iter().map(typed).collect())
    }
}

pub fn raw<K: Message>(object: &K) -> Bytes {
    object.encode_to_vec().into()
}

pub fn typed<K: Resource>(stored: &Stored) -> K {
    K::decode(stored.raw.clone()).unwrap()
}

pub fn pod(name: &str) -> Pod {
    let container = Container { name: "c".into(), image: "nginx:1".into(), ..Default::default() };
    named(
        "default",
        name,
        Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() },
    )
}

pub fn named<K: Resource>(namespace: &str, name: &str, mut object: K) -> K {
    let meta = proto::Kind::meta_mut(&mut object);
    meta.namespace = namespace.into();
    meta.name = name.into();
    object
}

pub fn namespace(name: &str) -> Namespace {
    named("", name, Namespace::default())
}
