//! kubeconfig files: found where kubectl finds them, merged as kubectl merges them, certificates inline or in files.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use client::Config;
use kit::layout::{self, Directories};
use serde_json::Value;

use crate::args::Connection;

/// How to reach the cluster, and the namespace that goes with it.
#[derive(Clone, Debug, Default)]
pub struct Access {
    pub config: Config,
    pub namespace: Option<String>,
}

/// One file, and the folder its relative paths start from.
struct File {
    value: Value,
    folder: PathBuf,
}

/// Finds and reads the kubeconfig; the command line's flags stand above it.
///
/// # Errors
/// Where none is there, one cannot be read, or it does not name what is asked for.
pub fn load(connection: &Connection) -> anyhow::Result<Access> {
    let paths = places(
        connection.kubeconfig.as_deref(),
        env::var("KUBECONFIG").ok().as_deref(),
        env::var("HOME").ok().as_deref(),
    );
    let is_asked_for = connection.kubeconfig.is_some();
    let mut files = Vec::new();
    for path in &paths {
        match fs::read_to_string(path) {
            Ok(text) => files.push(File::read(&text, path)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_asked_for => {}
            Err(error) => return Err(error).with_context(|| format!("read kubeconfig {}", path.display())),
        }
    }
    if files.is_empty() && connection.server.is_none() {
        let looked: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        bail!(
            "no kubeconfig is there (looked at {}): name one with --kubeconfig, or start a cluster with `forestay up`",
            looked.join(", ")
        );
    }
    access(&files, connection)
}

/// The files to look at; where the first form that applies wins.
fn places(flag: Option<&str>, variable: Option<&str>, home: Option<&str>) -> Vec<PathBuf> {
    if let Some(path) = flag {
        return vec![path.into()];
    }
    let named: Vec<PathBuf> =
        variable.unwrap_or_default().split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect();
    if !named.is_empty() {
        return named;
    }
    let own = home.map(|home| Path::new(home).join(".kube/config"));
    // A kubeconfig of one's own hides the one that a server leaves on its machine.
    match own {
        Some(own) if own.exists() => vec![own],
        own => own.into_iter().chain([Directories::below(layout::DATA_DIR).admin_kubeconfig()]).collect(),
    }
}

impl File {
    fn read(text: &str, path: &Path) -> anyhow::Result<Self> {
        let documents = model::yaml::parse(text, &path.display().to_string())?;
        let value = documents.into_iter().next().map(|document| document.value).unwrap_or_default();
        Ok(Self { value, folder: path.parent().unwrap_or(Path::new("")).to_owned() })
    }

    /// The entry of `clusters`, `users` or `contexts` with this name.
    fn named(&self, list: &str, field: &str, name: &str) -> Option<&Value> {
        let entry = self.value[list].as_array()?.iter().find(|entry| entry["name"] == name)?;
        Some(&entry[field])
    }
}

fn access(files: &[File], connection: &Connection) -> anyhow::Result<Access> {
    let find = |list: &str, field: &str, name: &str| {
        let found = files.iter().find_map(|file| Some((file.named(list, field, name)?, file.folder.as_path())));
        found.ok_or_else(|| anyhow!("{field} {name:?} does not exist in the kubeconfig"))
    };
    let current = files.iter().filter_map(|file| file.value["current-context"].as_str()).find(|name| !name.is_empty());
    let context = match connection.context.as_deref().or(current) {
        Some(name) => find("contexts", "context", name)?.0.clone(),
        None => Value::Null,
    };
    let text = |value: &Value, field: &str| value[field].as_str().map(str::to_owned);
    let cluster = match connection.cluster.clone().or_else(|| text(&context, "cluster")) {
        Some(name) => Some(find("clusters", "cluster", &name)?),
        None => None,
    };
    let user = match connection.user.clone().or_else(|| text(&context, "user")) {
        Some(name) => Some(find("users", "user", &name)?),
        None => None,
    };

    let server = connection.server.clone().or_else(|| cluster.and_then(|(cluster, _)| text(cluster, "server")));
    let server =
        server.ok_or_else(|| anyhow!("the kubeconfig names no server: set one with --server or `current-context`"))?;
    let servers = server.split(',').map(|address| with_port(address.trim())).collect();
    let ca_pem = pem(connection.certificate_authority.as_deref(), cluster, "certificate-authority")?;
    let cert_pem = pem(connection.client_certificate.as_deref(), user, "client-certificate")?;
    let key_pem = pem(connection.client_key.as_deref(), user, "client-key")?;
    let identity = match (cert_pem, key_pem) {
        (Some(cert_pem), Some(key_pem)) => Some(kit::tls::Identity { cert_pem, key_pem }),
        (None, None) => None,
        _ => bail!("the kubeconfig's user needs both client-certificate and client-key"),
    };
    let ca_pem = ca_pem.ok_or_else(|| anyhow!("the kubeconfig names no certificate-authority for {server}"))?;
    let config = Config { servers, ca_pem, identity, ..Default::default() };
    Ok(Access { config, namespace: text(&context, "namespace").filter(|namespace| !namespace.is_empty()) })
}

/// A certificate or key: from a flag's file, inline as base64 (`<field>-data`), or from the file the kubeconfig names.
fn pem(flag: Option<&str>, entry: Option<(&Value, &Path)>, field: &str) -> anyhow::Result<Option<String>> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| format!("read {field} {}", path.display()));
    if let Some(path) = flag {
        return read(Path::new(path)).map(Some);
    }
    let Some((entry, folder)) = entry else { return Ok(None) };
    if let Some(data) = entry[format!("{field}-data")].as_str().filter(|data| !data.is_empty()) {
        let packed: String = data.split_whitespace().collect();
        let bytes = base64::engine::general_purpose::STANDARD.decode(packed);
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return text.map(Some).ok_or_else(|| anyhow!("the kubeconfig's {field}-data is not base64 of PEM"));
    }
    match entry[field].as_str().filter(|path| !path.is_empty()) {
        Some(path) => read(&folder.join(path)).map(Some),
        None => Ok(None),
    }
}

/// An address without a port means HTTPS's own.
fn with_port(address: &str) -> String {
    let address = address.trim_end_matches('/');
    let address = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
    let host = address.rsplit('/').next().unwrap_or_default();
    let has_port =
        host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()));
    if has_port { address } else { format!("{address}:443") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "
apiVersion: v1
kind: Config
current-context: home
clusters:
- name: c
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: Q0E=}
- name: d
  cluster: {server: 'https://d.example.com', certificate-authority: ca.pem}
contexts:
- name: home
  context: {cluster: c, user: u, namespace: web}
- name: away
  context: {cluster: d, user: u}
users:
- name: u
  user: {client-certificate-data: Q0VSVA==, client-key-data: S0VZ}
";

    fn read(connection: &Connection) -> anyhow::Result<Access> {
        access(&[File::read(TEXT, Path::new("/nowhere/config")).unwrap()], connection)
    }

    #[test]
    fn the_current_context_says_where_and_as_whom() {
        let access = read(&Connection::default()).unwrap();
        assert_eq!(access.config.servers, ["https://10.0.0.1:6443"]);
        assert_eq!(access.config.ca_pem, "CA");
        assert_eq!(access.config.identity.unwrap().key_pem, "KEY");
        assert_eq!(access.namespace.as_deref(), Some("web"));
    }

    #[test]
    fn flags_stand_above_the_file() {
        let server = Some("https://a:1,b".to_owned());
        let access = read(&Connection { server, ..Default::default() }).unwrap();
        assert_eq!(access.config.servers, ["https://a:1", "https://b:443"]);
        let context = Some("nope".to_owned());
        let error = read(&Connection { context, ..Default::default() }).unwrap_err();
        assert_eq!(error.to_string(), "context \"nope\" does not exist in the kubeconfig");
    }

    #[test]
    fn files_are_sought_beside_the_kubeconfig() {
        let context = Some("away".to_owned());
        let error = read(&Connection { context, ..Default::default() }).unwrap_err();
        assert_eq!(error.to_string(), "read certificate-authority /nowhere/ca.pem");
    }

    #[test]
    fn the_first_place_that_applies_wins() {
        assert_eq!(places(Some("x"), Some("a:b"), Some("/home")), [PathBuf::from("x")]);
        assert_eq!(places(None, Some("a::b"), Some("/home")), [PathBuf::from("a"), PathBuf::from("b")]);
        let without_any = [PathBuf::from("/home/none/.kube/config"), "/var/lib/forestay/admin.kubeconfig".into()];
        assert_eq!(places(None, None, Some("/home/none")), without_any);
    }
}
