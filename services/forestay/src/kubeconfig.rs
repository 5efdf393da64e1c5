//! The administrator's kubeconfig: one file with everything in it, for `kubectl` and `stay`.

use base64::{Engine, engine::general_purpose::STANDARD};
use kit::tls::Identity;

/// Renders a kubeconfig for one cluster and one user.
pub fn render(server: &str, ca_pem: &str, user: &Identity) -> String {
    let encode = |pem: &str| STANDARD.encode(pem);
    format!(
        "apiVersion: v1
kind: Config
clusters:
- name: forestay
  cluster:
    server: {server}
    certificate-authority-data: {}
users:
- name: kubernetes-admin
  user:
    client-certificate-data: {}
    client-key-data: {}
contexts:
- name: kubernetes-admin@forestay
  context:
    cluster: forestay
    user: kubernetes-admin
current-context: kubernetes-admin@forestay
",
        encode(ca_pem),
        encode(&user.cert_pem),
        encode(&user.key_pem),
    )
}
