//! Who asks: the owner of the client certificate that the TLS handshake verified.

use kit::tls::Peer;

use crate::api::RequestContext;

/// Added to everyone who showed a valid certificate.
const AUTHENTICATED: &str = "system:authenticated";

/// The user behind a connection. Without a certificate this is the anonymous user, who may next to nothing.
pub fn identify(peer: Option<&Peer>) -> RequestContext {
    let Some(peer) = peer.filter(|peer| !peer.common_name.is_empty()) else { return RequestContext::anonymous() };
    let mut groups = peer.organizations.clone();
    groups.push(AUTHENTICATED.to_owned());
    RequestContext { user: peer.common_name.clone(), groups }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificates_names_are_user_and_groups() {
        let peer = Peer { common_name: "system:node:n1".into(), organizations: vec!["system:nodes".into()] };
        let context = identify(Some(&peer));
        assert_eq!(context.user, "system:node:n1");
        assert_eq!(context.groups, ["system:nodes", AUTHENTICATED]);
    }

    #[test]
    fn nobody_is_anonymous() {
        assert_eq!(identify(None), RequestContext::anonymous());
        assert_eq!(identify(Some(&Peer::default())), RequestContext::anonymous());
    }
}
