//! Namespaces, configuration, quotas and leases.

use std::collections::BTreeMap;

use prost::Message;
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Namespace, ResourceQuota, Secret},
        resource::Quantity,
    },
};

use super::{AGE, Column, NAME, Row, Sheet, age, text};

pub static NAMESPACES: Sheet = sheet!(
    &[NAME, Column::text("Status", "Active, or Terminating while its content is deleted."), AGE],
    Namespace,
    |namespace: &Namespace, now| {
        let phase = namespace.status.as_ref().map_or("", |status| &status.phase);
        Row::of([
            text(&namespace.meta().name),
            text(phase),
            age(namespace.meta().creation_timestamp.as_ref(), now).into(),
        ])
    }
);

// The number of keys is a number in JSON, though the column is described as text.
const DATA: Column = Column::text("Data", "How many keys it holds.");

pub static CONFIG_MAPS: Sheet = sheet!(&[NAME, DATA, AGE], ConfigMap, |map: &ConfigMap, now| {
    let keys = (map.data.len() + map.binary_data.len()) as i64;
    Row::of([text(&map.meta().name), keys.into(), age(map.meta().creation_timestamp.as_ref(), now).into()])
});

pub static SECRETS: Sheet =
    sheet!(&[NAME, Column::text("Type", "What its keys are meant for."), DATA, AGE], Secret, |secret: &Secret, now| {
        let keys = secret.data.len() as i64;
        let age = age(secret.meta().creation_timestamp.as_ref(), now);
        Row::of([text(&secret.meta().name), text(&secret.r#type), keys.into(), age.into()])
    });

pub static RESOURCE_QUOTAS: Sheet = sheet!(
    &[
        NAME,
        Column::text("Request", "Used and allowed, of what is counted or requested."),
        Column::text("Limit", "Used and allowed, of limits."),
        AGE,
    ],
    ResourceQuota,
    |quota: &ResourceQuota, now| {
        let status = quota.status.clone().unwrap_or_default();
        let (requests, limits) = usage(&status.hard, &status.used);
        let age = age(quota.meta().creation_timestamp.as_ref(), now);
        Row::of([text(&quota.meta().name), requests.into(), limits.into(), age.into()])
    }
);

pub static LEASES: Sheet =
    sheet!(&[NAME, Column::text("Holder", "Who holds the lease now."), AGE], Lease, |lease: &Lease, now| {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        Row::of([text(&lease.meta().name), text(holder), age(lease.meta().creation_timestamp.as_ref(), now).into()])
    });

/// `pods: 2/3, services: 0/5` and the same of limits.
fn usage(hard: &BTreeMap<String, Quantity>, used: &BTreeMap<String, Quantity>) -> (String, String) {
    let (mut requests, mut limits) = (Vec::new(), Vec::new());
    for (resource, hard) in hard {
        let used = used.get(resource).map_or("0", |used| &used.string);
        let side = if resource.starts_with("limits") { &mut limits } else { &mut requests };
        side.push(format!("{resource}: {used}/{}", hard.string));
    }
    (requests.join(", "), limits.join(", "))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::core::v1::{NamespaceStatus, ResourceQuotaStatus};

    use super::*;

    fn show<K: Message>(sheet: &Sheet, object: &K) -> String {
        super::super::show::row(sheet, &sheet.row(&object.encode_to_vec(), 0).unwrap())
    }

    #[test]
    fn a_quota_shows_use_and_bounds_with_limits_apart() {
        let amounts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, amount)| ((*name).into(), Quantity { string: (*amount).into() })).collect()
        };
        let mut quota = ResourceQuota {
            status: Some(ResourceQuotaStatus {
                hard: amounts(&[("pods", "3"), ("requests.cpu", "2"), ("limits.memory", "1Gi")]),
                used: amounts(&[("pods", "2"), ("requests.cpu", "500m")]),
            }),
            ..Default::default()
        };
        quota.meta_mut().name = "team".into();
        expect![[r#"
            Name     team
            Request  pods: 2/3, requests.cpu: 500m/2
            Limit    limits.memory: 0/1Gi
            Age      <unknown>
        "#]]
        .assert_eq(&show(&RESOURCE_QUOTAS, &quota));
    }

    #[test]
    fn configuration_counts_its_keys() {
        let mut map = ConfigMap::default();
        map.data.insert("a".into(), "1".into());
        map.binary_data.insert("b".into(), vec![1]);
        expect![[r#"
            Name  
            Data  2
            Age   <unknown>
        "#]]
        .assert_eq(&show(&CONFIG_MAPS, &map));
        let mut secret = Secret { r#type: "Opaque".into(), ..Default::default() };
        secret.data.insert("token".into(), vec![1]);
        expect![[r#"
            Name  
            Type  Opaque
            Data  1
            Age   <unknown>
        "#]]
        .assert_eq(&show(&SECRETS, &secret));
    }

    #[test]
    fn a_namespace_shows_its_phase() {
        let status = Some(NamespaceStatus { phase: "Terminating".into(), ..Default::default() });
        let namespace = Namespace { status, ..Default::default() };
        assert_eq!(NAMESPACES.row(&namespace.encode_to_vec(), 0).unwrap().cells[1], "Terminating".into());
    }
}
