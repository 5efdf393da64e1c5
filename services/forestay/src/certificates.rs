//! The certificates of one cluster: two authorities made at the first start, and an identity for each role.
//!
//! The cluster authority speaks for people, nodes and components. The store authority speaks for the store alone: a node's
//! certificate opens nothing there.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use kit::{
    layout::Directories,
    tls::{Ca, Identity, Subject, Usage, write_private},
};

/// Identities are issued anew at each start, for this long.
const LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);

/// Whose identity a file pair in the certificate folder is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A person who may do everything; in the administrator's kubeconfig.
    Admin,
    /// What the apiserver shows to its clients.
    ApiServer,
    /// What the apiserver shows to kubelets.
    ApiServerClient,
    Scheduler,
    Controllers,
    Proxy,
    /// A kubelet, as client of the apiserver and as server for it.
    Node(String),
    /// What the store shows to its clients.
    Store,
    /// What the apiserver shows to the store.
    StoreClient,
}

impl Holder {
    fn file(&self) -> String {
        match self {
            Self::Admin => "admin".to_owned(),
            Self::ApiServer => "apiserver".to_owned(),
            Self::ApiServerClient => "apiserver-client".to_owned(),
            Self::Scheduler => "scheduler".to_owned(),
            Self::Controllers => "controllers".to_owned(),
            Self::Proxy => "proxy".to_owned(),
            Self::Node(name) => format!("node-{name}"),
            Self::Store => "store".to_owned(),
            Self::StoreClient => "store-client".to_owned(),
        }
    }

    fn subject(&self, servers: &ServerNames) -> Subject {
        match self {
            Self::Admin => Subject::client("kubernetes-admin", &["system:masters"]),
            Self::ApiServer => Subject::server("kube-apiserver", servers.api()),
            Self::ApiServerClient => Subject::client("system:apiserver", &["system:masters"]),
            Self::Scheduler => both("system:kube-scheduler", &[], servers.local()),
            Self::Controllers => both("system:kube-controller-manager", &[], servers.local()),
            Self::Proxy => both("system:kube-proxy", &[], servers.local()),
            Self::Node(name) => {
                let mut names = servers.local();
                names.push(name.clone());
                both(&format!("system:node:{name}"), &["system:nodes"], names)
            }
            Self::Store => both("raft-store", &[], servers.local()),
            Self::StoreClient => Subject::client("system:apiserver", &[]),
        }
    }

    fn is_of_the_store(&self) -> bool {
        matches!(self, Self::Store | Self::StoreClient)
    }
}

fn both(common_name: &str, organizations: &[&str], names: Vec<String>) -> Subject {
    Subject { names, usage: Usage::Both, ..Subject::client(common_name, organizations) }
}

/// The names and addresses under which this machine's servers are reached.
#[derive(Clone, Debug)]
pub struct ServerNames {
    pub host: String,
    pub addresses: Vec<IpAddr>,
    /// The first address of the service range: the `default/kubernetes` Service.
    pub service: IpAddr,
}

impl ServerNames {
    fn local(&self) -> Vec<String> {
        let mut names = vec!["localhost".to_owned(), self.host.clone()];
        names.extend(self.addresses.iter().map(IpAddr::to_string));
        names
    }

    fn api(&self) -> Vec<String> {
        let mut names = self.local();
        names.push(self.service.to_string());
        let service =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
        names.extend(service.map(str::to_owned));
        names
    }
}

/// The folder of certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    pub fn of(directories: &Directories) -> Self {
        Self { folder: directories.pki() }
    }

    /// Makes the authorities where they are missing, and issues every identity of a machine that runs all roles.
    ///
    /// # Errors
    /// Where the folder cannot be read or written.
    pub fn issue_all(&self, servers: &ServerNames, nodes: &[String]) -> Result<()> {
        let cluster = Ca::load_or_create(&self.folder, "ca", "forestay").context("open the cluster authority")?;
        let store =
            Ca::load_or_create(&self.folder, "store-ca", "forestay-store").context("open the store authority")?;
        let holders = [
            Holder::Admin,
            Holder::ApiServer,
            Holder::ApiServerClient,
            Holder::Scheduler,
            Holder::Controllers,
            Holder::Proxy,
            Holder::Store,
            Holder::StoreClient,
        ];
        for holder in holders.into_iter().chain(nodes.iter().cloned().map(Holder::Node)) {
            let authority = if holder.is_of_the_store() { &store } else { &cluster };
            let identity = authority.issue(&holder.subject(servers), LIFETIME)?;
            write_private(&self.path(&holder, "key"), &identity.key_pem)?;
            write_private(&self.path(&holder, "crt"), &identity.cert_pem)?;
        }
        Ok(())
    }

    /// An identity that [`Certificates::issue_all`] made.
    ///
    /// # Errors
    /// Where it is missing or unreadable; says how to make it.
    pub fn identity(&self, holder: &Holder) -> Result<Identity> {
        Ok(Identity { cert_pem: self.read(self.path(holder, "crt"))?, key_pem: self.read(self.path(holder, "key"))? })
    }

    /// Whom to trust as apiserver, component, node or person.
    ///
    /// # Errors
    /// As [`Certificates::identity`].
    pub fn cluster_ca(&self) -> Result<String> {
        self.read(self.folder.join("ca.crt"))
    }

    /// Whom to trust as the store or as its client.
    ///
    /// # Errors
    /// As [`Certificates::identity`].
    pub fn store_ca(&self) -> Result<String> {
        self.read(self.folder.join("store-ca.crt"))
    }

    fn path(&self, holder: &Holder, extension: &str) -> PathBuf {
        self.folder.join(format!("{}.{extension}", holder.file()))
    }

    fn read(&self, path: PathBuf) -> Result<String> {
        fs::read_to_string(&path).with_context(|| {
            format!("read {} (`forestay init --data-dir ...` makes the certificates of a machine)", path.display())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn servers() -> ServerNames {
        ServerNames {
            host: "m1".into(),
            addresses: vec!["127.0.0.1".parse().unwrap()],
            service: "10.96.0.1".parse().unwrap(),
        }
    }

    #[test]
    fn the_apiserver_answers_under_every_name_in_use() {
        let names = Holder::ApiServer.subject(&servers()).names;
        for name in ["localhost", "m1", "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"] {
            assert!(names.iter().any(|have| have == name), "{name} is missing in {names:?}");
        }
    }

    #[test]
    fn the_store_does_not_trust_the_cluster_authority() {
        let folder = tempfile::tempdir().unwrap();
        let certificates = Certificates::of(&Directories::below(folder.path()));
        certificates.issue_all(&servers(), &["n1".into()]).unwrap();
        assert_ne!(certificates.cluster_ca().unwrap(), certificates.store_ca().unwrap());
        let node = certificates.identity(&Holder::Node("n1".into())).unwrap();
        assert!(kit::tls::client_config(&certificates.store_ca().unwrap(), Some(&node)).is_ok());
    }

    #[test]
    fn a_missing_identity_says_how_to_make_it() {
        let folder = tempfile::tempdir().unwrap();
        let error = Certificates::of(&Directories::below(folder.path())).identity(&Holder::Proxy).unwrap_err();
        assert!(error.to_string().contains("forestay init"), "{error}");
    }
}
