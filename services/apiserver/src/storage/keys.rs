//! Where things are kept: `/registry/[<group>/]<plural>/[<namespace>/]<name>`.

use bytes::Bytes;
use proto::codec::ResourceInfo;

/// Every object's key begins so.
pub const ROOT: &str = "/registry/";
/// Allocated values (addresses, ports), one key each.
pub const RANGES: &str = "/registry/forestay/ranges/";
/// One key per living apiserver.
pub const MASTER_LEASES: &str = "/registry/masterleases/";
/// The revision agreed on for compaction; shared with kube-apiserver.
pub const COMPACTION: &str = "compact_rev_key";

/// All objects of a resource.
pub fn resource_prefix(resource: &ResourceInfo) -> String {
    let named = &resource.resource;
    if named.group.is_empty() {
        format!("{ROOT}{}/", named.plural)
    } else {
        format!("{ROOT}{}/{}/", named.group, named.plural)
    }
}

/// All objects of a resource in a namespace; of the whole resource where that is empty.
pub fn prefix(resource: &ResourceInfo, namespace: &str) -> String {
    let mut prefix = resource_prefix(resource);
    if !namespace.is_empty() {
        prefix.push_str(namespace);
        prefix.push('/');
    }
    prefix
}

/// One object.
pub fn object(resource: &ResourceInfo, namespace: &str, name: &str) -> String {
    let mut key = prefix(resource, namespace);
    key.push_str(name);
    key
}

/// The end of the range of all keys that begin with `prefix`.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end.into();
        }
    }
    // etcd: from the key to the end of all keys.
    Bytes::from_static(b"\0")
}

/// An object's key, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed<'a> {
    /// "" for the core group.
    pub group: &'a str,
    pub plural: &'a str,
    /// Empty for a cluster-scoped object.
    pub namespace: &'a str,
    pub name: &'a str,
}

/// Takes a key apart; `is_namespaced` knows the resources, and answers `None` for what is none.
pub fn parse<'a>(key: &'a str, is_namespaced: impl Fn(&str, &str) -> Option<bool>) -> Option<Parsed<'a>> {
    let rest = key.strip_prefix(ROOT)?;
    let mut parts = rest.split('/');
    let first = parts.next()?;
    // Groups of named APIs mostly carry a dot; "apps", "batch", "policy" and "autoscaling" do not, so ask.
    let (group, plural, namespaced) = match is_namespaced("", first) {
        Some(namespaced) => ("", first, namespaced),
        None => {
            let plural = parts.next()?;
            (first, plural, is_namespaced(first, plural)?)
        }
    };
    let namespace = if namespaced { parts.next()? } else { "" };
    let name = parts.next()?;
    if name.is_empty() || parts.next().is_some() {
        return None;
    }
    Some(Parsed { group, plural, namespace, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(group: &str, plural: &str) -> Option<bool> {
        match (group, plural) {
            ("", "pods") | ("apps", "deployments") => Some(true),
            ("", "nodes") => Some(false),
            _ => None,
        }
    }

    #[test]
    fn keys_say_group_resource_namespace_and_name() {
        let parsed = |key| parse(key, scope);
        let of = |group, plural, namespace, name| Some(Parsed { group, plural, namespace, name });
        assert_eq!(parsed("/registry/pods/default/web"), of("", "pods", "default", "web"));
        assert_eq!(parsed("/registry/nodes/n1"), of("", "nodes", "", "n1"));
        assert_eq!(parsed("/registry/apps/deployments/default/web"), of("apps", "deployments", "default", "web"));
        assert_eq!(parsed("/registry/pods/default"), None);
        assert_eq!(parsed("/registry/forestay/ranges/serviceips/10.96.0.1"), None);
        assert_eq!(parsed("compact_rev_key"), None);
    }

    #[test]
    fn a_prefix_ends_where_no_key_begins_with_it() {
        assert_eq!(prefix_end(b"/a/"), Bytes::from_static(b"/a0"));
        assert_eq!(prefix_end(&[0xff, 0xff]), Bytes::from_static(b"\0"));
    }
}
