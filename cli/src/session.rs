//! One run's connection: made when first needed, so that what needs no server works without one.

use std::cell::OnceCell;

use anyhow::Context as _;
use client::{Client, Error, Target};
use proto::{
    Object,
    codec::ResourceInfo,
    forestay::{api::v1 as api, node::v1::node_client::NodeClient},
    k8s::meta::v1::DeleteOptions,
};
use tonic::transport::Channel;

use crate::{
    args::{Connection, DryRun},
    kubeconfig::{self, Access},
};

pub struct Session {
    connection: Connection,
    access: OnceCell<Access>,
    channel: OnceCell<Channel>,
    /// Where logs and commands are asked for; the API's server passes them on to the nodes.
    node_channel: OnceCell<Channel>,
}

impl Session {
    pub fn new(connection: Connection) -> Self {
        Self { connection, access: OnceCell::new(), channel: OnceCell::new(), node_channel: OnceCell::new() }
    }

    /// The client of the API.
    ///
    /// # Errors
    /// Where no kubeconfig is found or it cannot be used.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::from_channel(self.channel()?.clone()).with_field_manager("stay"))
    }

    /// The client of pods' logs and commands.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub fn node_client(&self) -> anyhow::Result<NodeClient<Channel>> {
        let channel = match self.node_channel.get() {
            Some(channel) => channel,
            None => self.channel()?,
        };
        Ok(NodeClient::new(channel.clone()))
    }

    fn channel(&self) -> anyhow::Result<&Channel> {
        if let Some(channel) = self.channel.get() {
            return Ok(channel);
        }
        let channel = self.access()?.config.channel().context("use the kubeconfig")?;
        Ok(self.channel.get_or_init(|| channel))
    }

    fn access(&self) -> anyhow::Result<&Access> {
        if let Some(access) = self.access.get() {
            return Ok(access);
        }
        let access = kubeconfig::load(&self.connection)?;
        Ok(self.access.get_or_init(|| access))
    }

    /// The namespace given on the command line.
    pub fn explicit_namespace(&self) -> Option<&str> {
        self.connection.namespace.as_deref()
    }

    /// The namespace to work in: the command line's, the context's, or "default".
    pub fn namespace(&self) -> String {
        if let Some(namespace) = self.explicit_namespace() {
            return namespace.to_owned();
        }
        self.access().ok().and_then(|access| access.namespace.clone()).unwrap_or_else(|| "default".to_owned())
    }

    /// Names one object, or all of a resource where `name` is empty.
    pub fn target(&self, info: &ResourceInfo, name: &str) -> Target {
        target(info, &self.namespace(), name)
    }

    pub async fn create(&self, target: Target, object: Object, options: api::WriteOptions) -> anyhow::Result<Object> {
        let request = api::CreateRequest { target: Some(target), object: Some(object), options: Some(options) };
        Ok(self.client()?.raw().create(request).await.map_err(Error::from)?.into_inner())
    }

    pub async fn patch(
        &self,
        target: Target,
        kind: api::patch_request::Type,
        patch: Vec<u8>,
        options: api::WriteOptions,
    ) -> anyhow::Result<Object> {
        let (patch, options) = (patch.into(), Some(options));
        let request = api::PatchRequest { target: Some(target), r#type: kind.into(), patch, options, force: false };
        Ok(self.client()?.raw().patch(request).await.map_err(Error::from)?.into_inner())
    }

    pub async fn get(&self, target: Target) -> Result<Object, anyhow::Error> {
        Ok(self.client()?.get_object(target, api::View::Full).await?)
    }

    pub async fn delete(&self, target: Target, options: DeleteOptions) -> anyhow::Result<api::DeleteResponse> {
        Ok(self.client()?.delete_object(target, options).await?)
    }
}

/// Names one object; a cluster-scoped one has no namespace.
pub fn target(info: &ResourceInfo, namespace: &str, name: &str) -> Target {
    Target {
        group: info.resource.group.clone(),
        resource: info.resource.plural.clone(),
        namespace: if info.resource.namespaced { namespace.to_owned() } else { String::new() },
        name: name.to_owned(),
        subresource: String::new(),
    }
}

pub fn write_options(dry_run: DryRun, field_manager: &str) -> api::WriteOptions {
    api::WriteOptions { dry_run: dry_run == DryRun::Server, field_manager: field_manager.to_owned() }
}

/// The server's answer was that there is no such object.
pub fn is_not_found(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(Error::is_not_found)
}

#[cfg(test)]
impl Session {
    /// A session with a fake server.
    pub fn of_fake(fake: &client::fake::FakeApi) -> Self {
        let session = Self::new(Connection::default());
        let endpoint = tonic::transport::Endpoint::from_shared(fake.address().to_owned()).unwrap();
        session.channel.get_or_init(|| endpoint.connect_lazy());
        session.access.get_or_init(Access::default);
        session
    }

    pub fn with_node(self, address: &str) -> Self {
        let endpoint = tonic::transport::Endpoint::from_shared(address.to_owned()).unwrap();
        self.node_channel.get_or_init(|| endpoint.connect_lazy());
        self
    }

    pub fn in_namespace(mut self, namespace: &str) -> Self {
        self.connection.namespace = Some(namespace.to_owned());
        self
    }
}
