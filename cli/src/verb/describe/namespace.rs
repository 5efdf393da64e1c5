//! A namespace in full, with its quotas and limits.

use proto::k8s::core::v1::{LimitRange, Namespace, ResourceQuota};

use super::{head, labels};
use crate::output::sheet::Sheet;

pub fn describe(sheet: &mut Sheet, namespace: &Namespace, quotas: &[ResourceQuota], limits: &[LimitRange]) {
    let meta = namespace.metadata.clone().unwrap_or_default();
    let status = namespace.status.clone().unwrap_or_default();
    head(sheet, &meta);
    labels(sheet, &meta);
    sheet.field(0, "Status", status.phase);
    if !status.conditions.is_empty() {
        sheet.heading(0, "Conditions");
        sheet.line(1, ["Type", "Status", "Reason", "Message"]);
        for condition in status.conditions {
            sheet.line(1, [condition.r#type, condition.status, condition.reason, condition.message]);
        }
    }
    sheet.line(0, [""]);
    if quotas.is_empty() {
        sheet.line(0, ["No resource quota."]);
    } else {
        sheet.line(0, ["Resource Quotas"]);
    }
    for quota in quotas {
        let status = quota.status.clone().unwrap_or_default();
        let hard = if status.hard.is_empty() { quota.spec.clone().unwrap_or_default().hard } else { status.hard };
        sheet.field(1, "Name", quota.metadata.clone().unwrap_or_default().name);
        sheet.line(1, ["Resource", "Used", "Hard"]);
        sheet.line(1, ["--------", "---", "---"]);
        for (name, limit) in hard {
            let used = status.used.get(&name).map_or_else(|| "0".to_owned(), |used| used.string.clone());
            sheet.line(1, [name, used, limit.string]);
        }
    }
    sheet.line(0, [""]);
    if limits.is_empty() {
        sheet.line(0, ["No LimitRange resource."]);
    } else {
        let name = |range: &LimitRange| range.metadata.clone().unwrap_or_default().name;
        sheet.values(0, "LimitRanges", limits.iter().map(name));
    }
}
