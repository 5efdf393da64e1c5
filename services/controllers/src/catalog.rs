//! Which resources the server has: what namespace deletion and garbage collection go through.

use std::collections::HashMap;

use proto::schema::Resource;

/// Events tell of objects but are not their content: they come by the thousand and leave by themselves.
const LEFT_OUT: [(&str, &str); 3] = [("", "events"), ("events.k8s.io", "events"), ("", "namespaces")];

/// Resources that can be watched.
#[derive(Debug, Default)]
pub struct Catalog {
    resources: Vec<Resource>,
    /// Group and plural by apiVersion and kind.
    by_kind: HashMap<(String, String), usize>,
}

impl Catalog {
    /// The watchable ones among all that the server lists.
    pub fn new(resources: Vec<Resource>) -> Self {
        let is_watchable = |resource: &Resource| resource.verbs.iter().any(|verb| verb == "watch");
        let is_left_out = |resource: &Resource| LEFT_OUT.contains(&(&*resource.group, &*resource.plural));
        let mut kept: Vec<Resource> = Vec::new();
        for resource in resources.into_iter().filter(|it| is_watchable(it) && !is_left_out(it)) {
            // Two versions of one resource are one set of objects.
            if !kept.iter().any(|known| known.group == resource.group && known.plural == resource.plural) {
                kept.push(resource);
            }
        }
        let key = |resource: &Resource| (api_version(resource), resource.kind.clone());
        let by_kind = kept.iter().enumerate().map(|(at, resource)| (key(resource), at)).collect();
        Self { resources: kept, by_kind }
    }

    /// Group and plural of every resource.
    pub fn all(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resources.iter().map(|resource| (&*resource.group, &*resource.plural))
    }

    /// Group and plural of every resource whose objects live in namespaces.
    pub fn namespaced(&self) -> impl Iterator<Item = (&str, &str)> {
        self.resources.iter().filter(|it| it.namespaced).map(|resource| (&*resource.group, &*resource.plural))
    }

    /// Where the objects of a kind are found.
    pub fn of_kind(&self, api_version: &str, kind: &str) -> Option<&Resource> {
        self.by_kind.get(&(api_version.to_owned(), kind.to_owned())).map(|at| &self.resources[*at])
    }
}

fn api_version(resource: &Resource) -> String {
    if resource.group.is_empty() {
        resource.version.clone()
    } else {
        format!("{}/{}", resource.group, resource.version)
    }
}
