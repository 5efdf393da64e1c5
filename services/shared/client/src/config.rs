//! [`Config`]: where the servers are, whom to trust, and who we are.

use std::path::{Path, PathBuf};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use tonic::transport::Channel;

use crate::{Error, error::failure};

/// How to reach the API.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// "https://127.0.0.1:6443"; all are equal, the first that answers is used.
    pub servers: Vec<String>,
    /// The authority that signed the servers' certificates.
    pub ca_pem: String,
    /// The certificate to authenticate with; anonymous without one.
    pub identity: Option<kit::tls::Identity>,
    /// The namespace that the kubeconfig's context chose; empty where it chose none.
    pub namespace: String,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read kubeconfig {path}: {reason}")]
    Read { path: PathBuf, reason: String },
    #[error("{0}")]
    Syntax(#[from] model::yaml::Error),
    #[error("kubeconfig {path}: {problem}")]
    Content { path: PathBuf, problem: String },
}

impl Config {
    /// A lazy channel over mutual TLS; other services than the API's can be called over it too.
    ///
    /// # Errors
    /// Where an address or a certificate cannot be read.
    pub fn channel(&self) -> Result<Channel, Error> {
        let tls = kit::tls::ClientTls { ca_pem: self.ca_pem.clone(), identity: self.identity.clone() };
        kit::tls::channel(&self.servers, &tls)
            .map_err(|error| Error::from_status(failure(400, "BadRequest", format!("configure the client: {error}"))))
    }

    /// Reads the current context of a kubeconfig.
    ///
    /// # Errors
    /// Names the file and what it lacks.
    pub fn from_kubeconfig(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        Self::from_kubeconfig_context(path, None)
    }

    /// Reads a context of a kubeconfig, the current one where none is named.
    ///
    /// # Errors
    /// Names the file and what it lacks.
    pub fn from_kubeconfig_context(path: impl AsRef<Path>, context: Option<&str>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = read(path)?;
        let document = model::yaml::parse(&text, &path.display().to_string())?.into_iter().next();
        let value = document.map(|document| document.value).unwrap_or_default();
        Kubeconfig { path, value: &value }.config(context)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), reason: error.to_string() })
}

struct Kubeconfig<'file> {
    path: &'file Path,
    value: &'file Value,
}

impl Kubeconfig<'_> {
    fn config(&self, context: Option<&str>) -> Result<Config, ConfigError> {
        let current = self.value["current-context"].as_str().unwrap_or_default();
        let name = context.unwrap_or(current);
        let context = self.named("contexts", "context", name)?;
        let cluster = self.named("clusters", "cluster", text(context, "cluster"))?;
        let server = text(cluster, "server");
        if server.is_empty() {
            return Err(self.problem("the cluster names no server"));
        }
        let ca_pem = self.pem(cluster, "certificate-authority")?.unwrap_or_default();
        let identity = match text(context, "user") {
            "" => None,
            user => self.identity(self.named("users", "user", user)?)?,
        };
        let namespace = text(context, "namespace").to_owned();
        Ok(Config { servers: vec![server.to_owned()], ca_pem, identity, namespace })
    }

    fn identity(&self, user: &Value) -> Result<Option<kit::tls::Identity>, ConfigError> {
        match (self.pem(user, "client-certificate")?, self.pem(user, "client-key")?) {
            (Some(cert_pem), Some(key_pem)) => Ok(Some(kit::tls::Identity { cert_pem, key_pem })),
            (None, None) => Ok(None),
            _ => Err(self.problem("the user has a client certificate or a key, but not both")),
        }
    }

    /// An entry of one of the three lists, by name.
    fn named(&self, list: &str, field: &str, name: &str) -> Result<&Value, ConfigError> {
        let entries = self.value[list].as_array().map(Vec::as_slice).unwrap_or_default();
        let found = entries.iter().find(|entry| text(entry, "name") == name);
        found.map(|entry| &entry[field]).ok_or_else(|| self.problem(&format!("it has no {field} named \"{name}\"")))
    }

    /// A PEM text: from `<name>-data`, or from the file that `<name>` names beside the kubeconfig.
    fn pem(&self, entry: &Value, name: &str) -> Result<Option<String>, ConfigError> {
        let data = format!("{name}-data");
        if let Some(encoded) = entry[&data].as_str() {
            let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            return decoded.map(Some).ok_or_else(|| self.problem(&format!("{data} is not base64 of a PEM text")));
        }
        match entry[name].as_str() {
            None | Some("") => Ok(None),
            Some(file) => read(&self.path.parent().unwrap_or(Path::new("")).join(file)).map(Some),
        }
    }

    fn problem(&self, problem: &str) -> ConfigError {
        ConfigError::Content { path: self.path.to_owned(), problem: problem.to_owned() }
    }
}

fn text<'value>(value: &'value Value, field: &str) -> &'value str {
    value[field].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
current-context: here
clusters:
- name: forestay
  cluster: {server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}
contexts:
- name: here
  context: {cluster: forestay, user: admin, namespace: web}
- name: lost
  context: {cluster: nowhere}
users:
- name: admin
  user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}
";

    fn written() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.crt"), "authority").unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, KUBECONFIG).unwrap();
        (folder, path)
    }

    #[test]
    fn a_kubeconfig_says_where_whom_and_who() {
        let (_folder, path) = written();
        let config = Config::from_kubeconfig(&path).unwrap();
        assert_eq!(config.servers, ["https://127.0.0.1:6443"]);
        assert_eq!((config.ca_pem.as_str(), config.namespace.as_str()), ("authority", "web"));
        let identity = config.identity.unwrap();
        assert_eq!((identity.cert_pem.as_str(), identity.key_pem.as_str()), ("cert", "key"));
    }

    #[test]
    fn a_broken_kubeconfig_is_refused_by_what_it_lacks() {
        let (_folder, path) = written();
        let error = Config::from_kubeconfig_context(&path, Some("lost")).unwrap_err().to_string();
        assert!(error.ends_with("it has no cluster named \"nowhere\""), "{error}");
        let error = Config::from_kubeconfig_context(&path, Some("none")).unwrap_err().to_string();
        assert!(error.ends_with("it has no context named \"none\""), "{error}");
    }
}
