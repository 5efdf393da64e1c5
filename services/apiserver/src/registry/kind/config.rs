//! ConfigMaps and Secrets: keys that can be files, a bound on their size, and no change once immutable.

use std::collections::BTreeMap;

use model::validate;
use proto::k8s::{
    core::v1::{ConfigMap, Secret},
    meta::v1::Time,
};

use crate::registry::{Causes, Strategy};

/// All values of one object together.
const VALUES_BYTES_MAX: usize = 1 << 20;
const IMMUTABLE: &str = "field is immutable when `immutable` is set";

pub(super) struct ConfigMaps;

impl Strategy for ConfigMaps {
    type Object = ConfigMap;

    fn validate(&self, map: &ConfigMap, causes: &mut Causes) {
        for key in map.data.keys() {
            causes.invalid_each(format!("data[{key}]"), key, validate::config_key(key));
        }
        for key in map.binary_data.keys() {
            causes.invalid_each(format!("binaryData[{key}]"), key, validate::config_key(key));
            if map.data.contains_key(key) {
                causes.invalid(format!("data[{key}]"), key, "duplicate of key present in binaryData");
            }
        }
        let size: usize = map.data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>()
            + map.binary_data.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
        if size > VALUES_BYTES_MAX {
            causes.too_long("data", VALUES_BYTES_MAX);
        }
    }

    fn validate_update(&self, new: &ConfigMap, old: &ConfigMap, causes: &mut Causes) {
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                causes.forbidden("immutable", IMMUTABLE);
            }
            if new.data != old.data {
                causes.forbidden("data", IMMUTABLE);
            }
            if new.binary_data != old.binary_data {
                causes.forbidden("binaryData", IMMUTABLE);
            }
        }
        self.validate(new, causes);
    }
}

/// Keys that a Secret of a type must have.
const REQUIRED: &[(&str, &[&str])] = &[
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt", "tls.key"]),
];

pub(super) struct Secrets;

impl Strategy for Secrets {
    type Object = Secret;

    fn fill_in(&self, secret: &mut Secret) {
        // stringData is for writing alone: it is never stored, and wins over data.
        let plain = std::mem::take(&mut secret.string_data);
        secret.data.extend(plain.into_iter().map(|(key, value)| (key, value.into_bytes())));
        if secret.r#type.is_empty() {
            secret.r#type = "Opaque".to_owned();
        }
    }

    fn prepare_create(&self, secret: &mut Secret, _now: Time) {
        secret.string_data = BTreeMap::new();
    }

    fn validate(&self, secret: &Secret, causes: &mut Causes) {
        for key in secret.data.keys() {
            causes.invalid_each(format!("data[{key}]"), key, validate::config_key(key));
        }
        if secret.data.values().map(Vec::len).sum::<usize>() > VALUES_BYTES_MAX {
            causes.too_long("data", VALUES_BYTES_MAX);
        }
        let required = REQUIRED.iter().find(|(kind, _)| *kind == secret.r#type).map(|(_, keys)| *keys);
        for key in required.unwrap_or_default() {
            if !secret.data.contains_key(*key) {
                causes.required(format!("data[{key}]"), "");
            }
        }
        if secret.r#type == "kubernetes.io/basic-auth"
            && !["username", "password"].iter().any(|key| secret.data.contains_key(*key))
        {
            causes.required("data[username]", "");
            causes.required("data[password]", "");
        }
        let meta = proto::Kind::meta(secret);
        if secret.r#type == "kubernetes.io/service-account-token"
            && meta.annotations.get("kubernetes.io/service-account.name").is_none_or(String::is_empty)
        {
            causes.required("metadata.annotations[kubernetes.io/service-account.name]", "");
        }
    }

    fn validate_update(&self, new: &Secret, old: &Secret, causes: &mut Causes) {
        if new.r#type != old.r#type {
            causes.immutable("type", &new.r#type);
        }
        if old.immutable == Some(true) {
            if new.immutable != Some(true) {
                causes.forbidden("immutable", IMMUTABLE);
            }
            if new.data != old.data {
                causes.forbidden("data", IMMUTABLE);
            }
        }
        self.validate(new, causes);
    }
}
