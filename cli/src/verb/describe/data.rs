//! ConfigMaps and Secrets in full; of secrets only how long they are. Quotas with what is used.

use std::collections::BTreeMap;

use model::resources::Amount;
use proto::k8s::core::v1::{ConfigMap, ResourceQuota, Secret};

use super::{head, labels, or};
use crate::output::sheet::Sheet;

pub fn describe_config(sheet: &mut Sheet, map: &ConfigMap) {
    let meta = map.metadata.clone().unwrap_or_default();
    head(sheet, &meta);
    labels(sheet, &meta);
    title(sheet, "Data");
    for (key, text) in &map.data {
        sheet.line(0, [format!("{key}:")]);
        sheet.line(0, ["----"]);
        text.lines().for_each(|line| sheet.line(0, [line]));
        sheet.line(0, [""]);
    }
    title(sheet, "BinaryData");
    for (key, bytes) in &map.binary_data {
        sheet.line(0, [format!("{key}: {} bytes", bytes.len())]);
    }
    sheet.line(0, [""]);
}

pub fn describe_secret(sheet: &mut Sheet, secret: &Secret) {
    let meta = secret.metadata.clone().unwrap_or_default();
    head(sheet, &meta);
    labels(sheet, &meta);
    sheet.line(0, [""]);
    sheet.line(0, ["Type:".to_owned(), or(&secret.r#type, "Opaque").to_owned()]);
    title(sheet, "Data");
    for (key, bytes) in &secret.data {
        sheet.field(0, key, format!("{} bytes", bytes.len()));
    }
}

pub fn describe_quota(sheet: &mut Sheet, quota: &ResourceQuota) {
    let meta = quota.metadata.clone().unwrap_or_default();
    let (spec, status) = (quota.spec.clone().unwrap_or_default(), quota.status.clone().unwrap_or_default());
    sheet.field(0, "Name", &meta.name);
    sheet.field(0, "Namespace", &meta.namespace);
    sheet.field_if(0, "Scopes", &spec.scopes.join(", "));
    sheet.line(0, ["Resource", "Used", "Hard"]);
    sheet.line(0, ["--------", "----", "----"]);
    let used: BTreeMap<_, _> = status.used;
    for (name, hard) in if status.hard.is_empty() { spec.hard } else { status.hard } {
        let used = used.get(&name).map_or_else(|| Amount::default().to_string(), |used| used.string.clone());
        sheet.line(0, [name, used, hard.string]);
    }
}

fn title(sheet: &mut Sheet, name: &str) {
    sheet.line(0, [""]);
    sheet.line(0, [name]);
    sheet.line(0, ["====".to_owned()]);
}
