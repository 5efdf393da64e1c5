//! What every namespace has from its start: the service account `default`, and the authority to trust the API by.

use std::sync::Arc;

use client::{Action, Controller, Key, Reflector, controller::Watches};
use jiff::Timestamp;
use proto::{
    Kind,
    k8s::core::v1::{ConfigMap, Namespace, ServiceAccount},
};

const ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";

pub struct ServiceAccounts {
    pub root_ca_pem: Arc<str>,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub namespace: Arc<Namespace>,
    pub account: Option<Arc<ServiceAccount>>,
    pub root_ca: Option<Arc<ConfigMap>>,
    pub root_ca_pem: Arc<str>,
}

impl Controller for ServiceAccounts {
    type Snapshot = Snapshot;
    const NAME: &'static str = "serviceaccount";

    fn watches(&self, watches: Watches) -> Watches {
        watches
            .map::<Namespace>(|_, namespace| vec![Key::new("", &namespace.meta().name)])
            .map::<ServiceAccount>(|_, account| namespace_of(account, ACCOUNT))
            .map::<ConfigMap>(|_, map| namespace_of(map, ROOT_CA))
    }

    fn observe(&self, caches: &Reflector, key: &Key, _: Timestamp) -> Option<Snapshot> {
        Some(Snapshot {
            namespace: caches.cache::<Namespace>().get("", &key.name)?,
            account: caches.cache().get(&key.name, ACCOUNT),
            root_ca: caches.cache().get(&key.name, ROOT_CA),
            root_ca_pem: self.root_ca_pem.clone(),
        })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

/// Creates what is missing, and puts right what was changed.
pub fn plan(Snapshot { namespace, account, root_ca, root_ca_pem }: &Snapshot) -> Vec<Action> {
    let mut actions = Vec::new();
    if model::meta::is_deleting(namespace.meta()) {
        return actions;
    }
    if account.is_none() {
        let mut account = ServiceAccount::default();
        (account.meta_mut().namespace, account.meta_mut().name) = (namespace.meta().name.clone(), ACCOUNT.to_owned());
        actions.push(Action::create(&account));
    }
    let wanted = [(CA_KEY.to_owned(), root_ca_pem.to_string())].into();
    match root_ca {
        _ if root_ca_pem.is_empty() => {}
        None => {
            let mut map = ConfigMap { data: wanted, ..Default::default() };
            (map.meta_mut().namespace, map.meta_mut().name) = (namespace.meta().name.clone(), ROOT_CA.to_owned());
            actions.push(Action::create(&map));
        }
        Some(present) if present.data != wanted => {
            actions.push(Action::update(&ConfigMap { data: wanted, ..ConfigMap::clone(present) }));
        }
        Some(_) => {}
    }
    actions
}

fn namespace_of<K: Kind>(object: &K, name: &str) -> Vec<Key> {
    let meta = object.meta();
    (meta.name == name).then(|| Key::new("", &meta.namespace)).into_iter().collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{World, acting, ago, check, named, settles};

    fn snapshot() -> Snapshot {
        Snapshot { namespace: Arc::new(named("web")), account: None, root_ca: None, root_ca_pem: "PEM".into() }
    }

    #[test]
    fn a_new_namespace_gets_its_account_and_the_authority() {
        check(
            plan(&snapshot()),
            expect![[r#"
            create serviceaccount/default
            create configmap/kube-root-ca.crt
        "#]],
        );
    }

    #[test]
    fn a_changed_authority_is_put_right() {
        let mut changed: ConfigMap = named(ROOT_CA);
        changed.data.insert(CA_KEY.into(), "other".into());
        let account = Some(Arc::new(named(ACCOUNT)));
        check(
            plan(&Snapshot { root_ca: Some(Arc::new(changed)), account, ..snapshot() }),
            expect![[r#"
            update configmap/kube-root-ca.crt
        "#]],
        );
    }

    #[test]
    fn a_namespace_on_its_way_out_gets_nothing() {
        let mut leaving: Namespace = named("web");
        leaving.meta_mut().deletion_timestamp = Some(ago(1));
        check(plan(&Snapshot { namespace: Arc::new(leaving), ..snapshot() }), expect![""]);
    }

    proptest! {
        #[test]
        fn furnishing_settles(
            is_leaving: bool,
            has_account: bool,
            ca in proptest::option::of("PEM|other"),
            pem in "PEM|",
        ) {
            let mut namespace: Namespace = named("default");
            namespace.meta_mut().deletion_timestamp = is_leaving.then(|| ago(1));
            let map = ca.map(|ca| ConfigMap { data: [(CA_KEY.into(), ca)].into(), ..named(ROOT_CA) });
            let account: Option<ServiceAccount> = has_account.then(|| named(ACCOUNT));
            let mut world = World::default().with(account).with(map);
            let namespace = Arc::new(namespace);
            let observe = |world: &World| Snapshot {
                namespace: namespace.clone(),
                account: world.get(ACCOUNT),
                root_ca: world.get(ROOT_CA),
                root_ca_pem: pem.as_str().into(),
            };
            settles(&mut world, 1, |world| plan(&observe(world)), &[acting::<ServiceAccount>, acting::<ConfigMap>]);
        }
    }
}
