//! The rules of a pod's volumes.

use std::collections::BTreeSet;

use model::validate;
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use proto::{
    k8s::core::v1::{
        DownwardApiVolumeFile, KeyToPath, LocalObjectReference, ServiceAccountTokenProjection, Volume,
        VolumeProjection, VolumeSource,
    },
    quantity,
};

use super::container::{validate_field, validate_resource};
use crate::registry::Causes;

const MEDIA: &[&str] = &["", "Memory"];
const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// Fields of its pod that a file can show.
const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// rwxrwxrwx
const MODE_MAX: i32 = 0o777;
/// A token that ends sooner would have to be renewed all the time.
const TOKEN_SECONDS_MIN: i64 = 600;

/// Checks the volumes, and answers their names.
pub(super) fn validate<'a>(volumes: &'a [Volume], field: &str, causes: &mut Causes) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if volume.name.is_empty() {
            causes.required(format!("{field}.name"), "");
        } else {
            causes.invalid_each(format!("{field}.name"), &volume.name, validate::dns_label(&volume.name));
        }
        if !names.insert(volume.name.as_str()) {
            causes.duplicate(format!("{field}.name"), &volume.name);
        }
        validate_source(&volume.volume_source.clone().unwrap_or_default(), &field, causes);
    }
    names
}

fn validate_source(source: &VolumeSource, field: &str, causes: &mut Causes) {
    match fields_set(&source.encode_to_vec()) {
        0 => causes.required(field, "must specify a volume type"),
        1 => {}
        _ => causes.forbidden(field, "may not specify more than 1 volume type"),
    }
    if let Some(path) = &source.host_path {
        let field = format!("{field}.hostPath");
        if path.path.is_empty() {
            causes.required(format!("{field}.path"), "");
        } else if leaves(&path.path) {
            causes.invalid(format!("{field}.path"), &path.path, "must not contain '..'");
        }
        let kind = path.r#type.as_deref().unwrap_or_default();
        if !HOST_PATH_TYPES.contains(&kind) {
            causes.not_supported(format!("{field}.type"), kind, HOST_PATH_TYPES);
        }
    }
    if let Some(directory) = &source.empty_dir {
        if !MEDIA.contains(&directory.medium.as_str()) && !directory.medium.starts_with("HugePages") {
            causes.not_supported(format!("{field}.emptyDir.medium"), &directory.medium, MEDIA);
        }
        let limit = directory.size_limit.as_ref().map(|limit| limit.string.as_str()).unwrap_or("0");
        if quantity::parse(limit).is_ok_and(|limit| limit.is_negative()) {
            let detail = "SizeLimit field must be a valid resource quantity";
            causes.invalid(format!("{field}.emptyDir.sizeLimit"), limit, detail);
        }
    }
    if let Some(secret) = &source.secret {
        let field = format!("{field}.secret");
        if secret.secret_name.is_empty() {
            causes.required(format!("{field}.secretName"), "");
        }
        validate_mode(secret.default_mode, &format!("{field}.defaultMode"), causes);
        validate_items(&secret.items, &field, causes);
    }
    if let Some(map) = &source.config_map {
        let field = format!("{field}.configMap");
        require_name(map.local_object_reference.as_ref(), &field, causes);
        validate_mode(map.default_mode, &format!("{field}.defaultMode"), causes);
        validate_items(&map.items, &field, causes);
    }
    if let Some(fields) = &source.downward_api {
        let field = format!("{field}.downwardAPI");
        validate_mode(fields.default_mode, &format!("{field}.defaultMode"), causes);
        validate_files(&fields.items, &field, causes);
    }
    if let Some(projected) = &source.projected {
        let field = format!("{field}.projected");
        validate_mode(projected.default_mode, &format!("{field}.defaultMode"), causes);
        for (index, projection) in projected.sources.iter().enumerate() {
            validate_projection(projection, &format!("{field}.sources[{index}]"), causes);
        }
    }
    if source.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name.is_empty()) {
        causes.required(format!("{field}.persistentVolumeClaim.claimName"), "");
    }
}

fn validate_projection(projection: &VolumeProjection, field: &str, causes: &mut Causes) {
    match fields_set(&projection.encode_to_vec()) {
        0 => causes.required(field, "must specify a source"),
        1 => {}
        _ => causes.forbidden(field, "may not specify more than 1 volume type"),
    }
    if let Some(secret) = &projection.secret {
        require_name(secret.local_object_reference.as_ref(), &format!("{field}.secret"), causes);
        validate_items(&secret.items, &format!("{field}.secret"), causes);
    }
    if let Some(map) = &projection.config_map {
        require_name(map.local_object_reference.as_ref(), &format!("{field}.configMap"), causes);
        validate_items(&map.items, &format!("{field}.configMap"), causes);
    }
    if let Some(fields) = &projection.downward_api {
        validate_files(&fields.items, &format!("{field}.downwardAPI"), causes);
    }
    if let Some(token) = &projection.service_account_token {
        validate_token(token, &format!("{field}.serviceAccountToken"), causes);
    }
}

fn validate_token(token: &ServiceAccountTokenProjection, field: &str, causes: &mut Causes) {
    validate_path(&token.path, &format!("{field}.path"), causes);
    if let Some(seconds) = token.expiration_seconds.filter(|seconds| *seconds < TOKEN_SECONDS_MIN) {
        let detail = "may not specify a duration less than 10 minutes";
        causes.invalid_number(format!("{field}.expirationSeconds"), seconds, detail);
    }
}

fn validate_items(items: &[KeyToPath], field: &str, causes: &mut Causes) {
    for (index, item) in items.iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        if item.key.is_empty() {
            causes.required(format!("{field}.key"), "");
        }
        validate_path(&item.path, &format!("{field}.path"), causes);
        validate_mode(item.mode, &format!("{field}.mode"), causes);
    }
}

fn validate_files(files: &[DownwardApiVolumeFile], field: &str, causes: &mut Causes) {
    for (index, file) in files.iter().enumerate() {
        let field = format!("{field}.items[{index}]");
        validate_path(&file.path, &format!("{field}.path"), causes);
        validate_mode(file.mode, &format!("{field}.mode"), causes);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(_), Some(_)) => {
                causes.invalid(&field, "", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
            (Some(reference), None) => {
                validate_field(reference, FILE_FIELDS, &format!("{field}.fieldRef"), causes);
            }
            (None, Some(reference)) => {
                let field = format!("{field}.resourceFieldRef");
                if reference.container_name.is_empty() {
                    causes.required(format!("{field}.containerName"), "");
                }
                validate_resource(reference, &field, causes);
            }
            (None, None) => causes.required(&field, "one of fieldRef and resourceFieldRef is required"),
        }
    }
}

fn require_name(reference: Option<&LocalObjectReference>, field: &str, causes: &mut Causes) {
    if reference.is_none_or(|reference| reference.name.is_empty()) {
        causes.required(format!("{field}.name"), "");
    }
}

fn validate_path(path: &str, field: &str, causes: &mut Causes) {
    if path.is_empty() {
        causes.required(field, "");
    } else if path.starts_with('/') {
        causes.invalid(field, path, "must be a relative path");
    } else if leaves(path) {
        causes.invalid(field, path, "must not contain '..'");
    }
}

fn leaves(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}

fn validate_mode(mode: Option<i32>, field: &str, causes: &mut Causes) {
    if let Some(mode) = mode.filter(|mode| !(0..=MODE_MAX).contains(mode)) {
        let detail = "must be a number between 0 and 0777 (octal), both inclusive";
        causes.invalid_number(field, i64::from(mode), detail);
    }
}

/// How many different fields a message has set.
fn fields_set(message: &[u8]) -> usize {
    let mut rest = message;
    let mut numbers = BTreeSet::new();
    while !rest.is_empty() {
        let Ok((number, wire_type)) = decode_key(&mut rest) else { break };
        numbers.insert(number);
        if skip_field(wire_type, number, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
    }
    numbers.len()
}
