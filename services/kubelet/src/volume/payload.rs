//! The files a volume made of API objects shows. PURE.

use std::{collections::BTreeMap, path::Component, path::Path};

use proto::{
    Kind,
    k8s::core::v1::{
        ConfigMap, Container, DownwardApiVolumeFile, KeyToPath, LocalObjectReference, Pod, Secret, VolumeSource,
    },
};

use super::atomic::File;
use crate::pod::{
    env::{self, Sources},
    snapshot::spec,
};

const DEFAULT_MODE: i32 = 0o644;

/// What a volume is to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The folder name below `volumes`.
    pub kind: &'static str,
    pub files: BTreeMap<String, File>,
    /// Must not reach a disk.
    pub is_secret: bool,
}

/// The files of a configMap, secret, downwardAPI or projected volume; none for other volumes.
///
/// # Errors
/// Names the object or key that is missing and not optional.
pub fn of_volume(sources: &Sources, source: &VolumeSource) -> Result<Option<Payload>, String> {
    let mut payload = Payload::default();
    let files = &mut payload.files;
    if let Some(volume) = &source.config_map {
        payload.kind = "configmap";
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        config_map(sources, volume.local_object_reference.as_ref(), &volume.items, volume.optional(), mode, files)?;
    } else if let Some(volume) = &source.secret {
        payload.kind = "secret";
        payload.is_secret = true;
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        secret(sources, &volume.secret_name, &volume.items, volume.optional(), mode, files)?;
    } else if let Some(volume) = &source.downward_api {
        payload.kind = "downward-api";
        downward_api(sources, &volume.items, volume.default_mode.unwrap_or(DEFAULT_MODE), files)?;
    } else if let Some(volume) = &source.projected {
        payload.kind = "projected";
        let mode = volume.default_mode.unwrap_or(DEFAULT_MODE);
        for part in &volume.sources {
            if let Some(part) = &part.config_map {
                let reference = part.local_object_reference.as_ref();
                config_map(sources, reference, &part.items, part.optional(), mode, files)?;
            }
            if let Some(part) = &part.secret {
                payload.is_secret = true;
                let name = part.local_object_reference.as_ref().map_or("", |reference| &reference.name);
                secret(sources, name, &part.items, part.optional(), mode, files)?;
            }
            if let Some(part) = &part.downward_api {
                downward_api(sources, &part.items, mode, files)?;
            }
            if part.service_account_token.is_some() || part.cluster_trust_bundle.is_some() {
                return Err("projected serviceAccountToken and clusterTrustBundle are not supported: \
                            set automountServiceAccountToken: false, or mount a secret"
                    .to_owned());
            }
        }
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

fn config_map(
    sources: &Sources,
    reference: Option<&LocalObjectReference>,
    items: &[KeyToPath],
    optional: bool,
    mode: i32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    let name = reference.map_or("", |reference| reference.name.as_str());
    let Some(map) = sources.config_maps.get(name) else { return missing("configmap", name, optional) };
    let ConfigMap { data, binary_data, .. } = map;
    let text = data.iter().map(|(key, value)| (key.clone(), value.clone().into_bytes()));
    let content = text.chain(binary_data.iter().map(|(key, value)| (key.clone(), value.to_vec()))).collect();
    select(&format!("configmap \"{name}\""), content, items, optional, mode, files)
}

fn secret(
    sources: &Sources,
    name: &str,
    items: &[KeyToPath],
    optional: bool,
    mode: i32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    let Some(Secret { data, .. }) = sources.secrets.get(name) else { return missing("secret", name, optional) };
    let content = data.iter().map(|(key, value)| (key.clone(), value.to_vec())).collect();
    select(&format!("secret \"{name}\""), content, items, optional, mode, files)
}

fn missing(kind: &str, name: &str, optional: bool) -> Result<(), String> {
    if optional { Ok(()) } else { Err(format!("{kind} \"{name}\" not found")) }
}

/// All keys, or those the items name, at their paths.
fn select(
    from: &str,
    content: BTreeMap<String, Vec<u8>>,
    items: &[KeyToPath],
    optional: bool,
    mode: i32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    if items.is_empty() {
        let all = content.into_iter().map(|(key, content)| (key, File { content, mode: permissions(mode) }));
        files.extend(all);
        return Ok(());
    }
    for item in items {
        match content.get(&item.key) {
            Some(content) => {
                let mode = permissions(item.mode.unwrap_or(mode));
                files.insert(checked(&item.path)?, File { content: content.clone(), mode });
            }
            None if optional => {}
            None => return Err(format!("{from} has no key \"{}\"", item.key)),
        }
    }
    Ok(())
}

fn downward_api(
    sources: &Sources,
    items: &[DownwardApiVolumeFile],
    mode: i32,
    files: &mut BTreeMap<String, File>,
) -> Result<(), String> {
    for item in items {
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => env::field_value(sources, &field.field_path),
            (None, Some(field)) => env::resource_value(sources, &Container::default(), field),
            (None, None) => Ok(String::new()),
        };
        let content = value.map_err(|error| error.to_string())?.into_bytes();
        files.insert(checked(&item.path)?, File { content, mode: permissions(item.mode.unwrap_or(mode)) });
    }
    Ok(())
}

fn permissions(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

fn checked(path: &str) -> Result<String, String> {
    let is_plain = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if is_plain && !path.is_empty() && !path.starts_with("..") {
        return Ok(path.to_owned());
    }
    Err(format!("path \"{path}\" must be relative, without \"..\""))
}

/// The configMaps and secrets a pod needs, by name in its own namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct References {
    pub config_maps: std::collections::BTreeSet<String>,
    pub secrets: std::collections::BTreeSet<String>,
}

pub fn references(pod: &Pod) -> References {
    let mut found = References::default();
    let name = |reference: &Option<LocalObjectReference>| reference.as_ref().map(|r| r.name.clone());
    for source in spec(pod).volumes.iter().filter_map(|volume| volume.volume_source.as_ref()) {
        found.config_maps.extend(source.config_map.as_ref().and_then(|volume| name(&volume.local_object_reference)));
        found.secrets.extend(source.secret.as_ref().map(|volume| volume.secret_name.clone()));
        for part in source.projected.iter().flat_map(|volume| &volume.sources) {
            found.config_maps.extend(part.config_map.as_ref().and_then(|part| name(&part.local_object_reference)));
            found.secrets.extend(part.secret.as_ref().and_then(|part| name(&part.local_object_reference)));
        }
    }
    for container in spec(pod).init_containers.iter().chain(&spec(pod).containers) {
        for from in &container.env_from {
            found.config_maps.extend(from.config_map_ref.as_ref().and_then(|r| name(&r.local_object_reference)));
            found.secrets.extend(from.secret_ref.as_ref().and_then(|r| name(&r.local_object_reference)));
        }
        for source in container.env.iter().filter_map(|variable| variable.value_from.as_ref()) {
            let map = source.config_map_key_ref.as_ref();
            found.config_maps.extend(map.and_then(|key| name(&key.local_object_reference)));
            found.secrets.extend(source.secret_key_ref.as_ref().and_then(|key| name(&key.local_object_reference)));
        }
    }
    found
}

/// Whether any file of the pod is made from its own fields, which may change while it runs.
pub fn shows_own_fields(pod: &Pod) -> bool {
    let has_labels = !pod.meta().labels.is_empty() || !pod.meta().annotations.is_empty();
    let mut sources = spec(pod).volumes.iter().filter_map(|volume| volume.volume_source.as_ref());
    has_labels && sources.any(|source| source.downward_api.is_some() || source.projected.is_some())
}
