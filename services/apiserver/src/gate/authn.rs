//! Who asks: the owner of the client certificate that the TLS handshake verified, or whom that owner acts as.

use http::{HeaderMap, header};
use kit::tls::Peer;

use super::authz::{UNAUTHENTICATED, is_anonymous, is_master};
use crate::{
    api::RequestContext,
    refusal::{Refusal, Result},
};

/// Added to everyone who showed a valid certificate.
const AUTHENTICATED: &str = "system:authenticated";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";
/// `kubectl --as`, `--as-group`, `--as-uid`.
const AS_USER: &str = "impersonate-user";
const AS_GROUP: &str = "impersonate-group";
const AS_PREFIX: &str = "impersonate-";

/// The user behind a connection. Without a certificate this is the anonymous user, who may next to nothing.
pub fn identify(peer: Option<&Peer>) -> RequestContext {
    let Some(peer) = peer.filter(|peer| !peer.common_name.is_empty()) else { return RequestContext::anonymous() };
    let mut groups = peer.organizations.clone();
    groups.push(AUTHENTICATED.to_owned());
    RequestContext { user: peer.common_name.clone(), groups }
}

/// Whom a request is to be answered as, by its headers: another user where a master acts as one, else whoever asks.
///
/// # Errors
/// 401 for credentials that nobody here can check; 403 where somebody else than a master would act as another; 400
/// where it is not said as whom.
pub fn acting(context: &RequestContext, headers: &HeaderMap) -> Result<Option<RequestContext>> {
    if is_anonymous(context) && headers.contains_key(header::AUTHORIZATION) {
        return Err(Refusal::unauthorized());
    }
    if !headers.keys().any(|name| name.as_str().starts_with(AS_PREFIX)) {
        return Ok(None);
    }
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let user = headers.get(AS_USER).map(text).filter(|user| !user.is_empty());
    let Some(user) = user else {
        return Err(Refusal::bad_request("Impersonate-User must name the user to act as"));
    };
    if !is_master(context) {
        return Err(Refusal::new(
            403,
            "Forbidden",
            format!(
                "users {user:?} is forbidden: User {:?} cannot impersonate resource \"users\" in API group \"\" at the \
                 cluster scope",
                context.user
            ),
        ));
    }
    let mut groups: Vec<String> = headers.get_all(AS_GROUP).iter().map(text).collect();
    if groups.is_empty() {
        groups = account_groups(&user);
    }
    if user == RequestContext::anonymous().user {
        groups.push(UNAUTHENTICATED.to_owned());
    } else if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
        groups.push(AUTHENTICATED.to_owned());
    }
    Ok(Some(RequestContext { user, groups }))
}

/// The groups that a service account's name puts it into; none for other users.
fn account_groups(user: &str) -> Vec<String> {
    let account = user.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':'));
    let groups = |(namespace, _)| vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
    account.map(groups).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acting_as(context: &RequestContext, headers: &[(&'static str, &'static str)]) -> Result<Option<RequestContext>> {
        let headers = headers
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)));
        acting(context, &headers.collect())
    }

    #[test]
    fn a_master_may_act_as_another() {
        let admin = RequestContext { user: "admin".into(), groups: vec!["system:masters".into()] };
        assert_eq!(acting_as(&admin, &[]).unwrap(), None);
        let jane = acting_as(&admin, &[("impersonate-user", "jane"), ("impersonate-group", "devs")]).unwrap().unwrap();
        assert_eq!((jane.user.as_str(), jane.groups), ("jane", vec!["devs".to_owned(), AUTHENTICATED.to_owned()]));
        let account = acting_as(&admin, &[("impersonate-user", "system:serviceaccount:shop:web")]).unwrap().unwrap();
        assert_eq!(account.groups, ["system:serviceaccounts", "system:serviceaccounts:shop", AUTHENTICATED]);
        let nobody = acting_as(&admin, &[("impersonate-user", "system:anonymous")]).unwrap().unwrap();
        assert_eq!(nobody, RequestContext::anonymous());
        assert_eq!(acting_as(&admin, &[("impersonate-group", "devs")]).unwrap_err().code(), 400);
    }

    #[test]
    fn nobody_else_may_act_as_another() {
        let components = ["system:kube-controller-manager", "system:node:n1"];
        for user in components {
            let context = RequestContext { user: user.into(), groups: vec![AUTHENTICATED.into()] };
            let refusal = acting_as(&context, &[("impersonate-user", "admin")]).unwrap_err();
            assert_eq!((refusal.code(), refusal.message().contains("cannot impersonate")), (403, true), "{refusal}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_checked_are_refused() {
        let token = [("authorization", "Bearer abc")];
        assert_eq!(acting_as(&RequestContext::anonymous(), &token).unwrap_err().code(), 401);
        // A certificate has said already who this is.
        let known = RequestContext { user: "admin".into(), groups: vec![AUTHENTICATED.into()] };
        assert_eq!(acting_as(&known, &token).unwrap(), None);
    }

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
