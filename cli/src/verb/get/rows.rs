//! Rows of tables: the model's cells, with the columns that the command line adds.

use std::cmp::Ordering;

use anyhow::bail;
use model::table;
use proto::codec::ResourceInfo;
use serde_json::Value;

use crate::{output::Found, resource::line_name};

/// Which columns are shown.
pub struct Rows {
    /// Seconds since 1970; ages are counted to it.
    pub now: i64,
    pub is_wide: bool,
    pub with_namespace: bool,
    /// Names are `pod/web`.
    pub with_kind: bool,
    pub with_labels: bool,
    pub label_columns: Vec<String>,
}

impl Rows {
    pub fn header(&self, info: &ResourceInfo) -> Vec<String> {
        let sheet = table::sheet(&info.api_version(), &info.resource.kind);
        let mut header = Vec::new();
        if self.with_namespace && info.resource.namespaced {
            header.push("NAMESPACE".to_owned());
        }
        let shown = sheet.columns.iter().filter(|column| self.is_wide || !column.wide);
        header.extend(shown.map(|column| column.name.to_uppercase()));
        // A label's column is named by the last part of its key.
        header
            .extend(self.label_columns.iter().map(|label| label.rsplit('/').next().unwrap_or_default().to_uppercase()));
        if self.with_labels {
            header.push("LABELS".to_owned());
        }
        header
    }

    pub fn row(&self, found: &Found) -> anyhow::Result<Vec<String>> {
        let info = found.info;
        let sheet = table::sheet(&info.api_version(), &info.resource.kind);
        let (row, meta) = (sheet.row(&found.object.raw, self.now)?, found.meta()?);
        let mut cells = Vec::new();
        if self.with_namespace && info.resource.namespaced {
            cells.push(meta.namespace.clone());
        }
        for (column, cell) in sheet.columns.iter().zip(row.cells) {
            if column.wide && !self.is_wide {
                continue;
            }
            let text = cell.to_string();
            let is_name = column.cell == table::CellType::Name && self.with_kind;
            cells.push(if is_name { format!("{}/{text}", line_name(info)) } else { text });
        }
        cells.extend(self.label_columns.iter().map(|label| meta.labels.get(label).cloned().unwrap_or_default()));
        if self.with_labels {
            let pairs: Vec<String> = meta.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            cells.push(if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") });
        }
        Ok(cells)
    }
}

/// Sorts objects by a field, named as `.metadata.name` or `{.metadata.name}`; objects without it come first.
pub fn sort(found: &mut Vec<Found>, path: &str) -> anyhow::Result<()> {
    let inner = path.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('.');
    if inner.is_empty() || inner.contains(['[', '*', '?', '(']) {
        bail!("--sort-by takes the path of one field, such as .metadata.creationTimestamp, not {path:?}");
    }
    let pointer = format!("/{}", inner.replace('.', "/"));
    let mut keyed = Vec::with_capacity(found.len());
    for one in found.drain(..) {
        keyed.push((one.value()?.pointer(&pointer).cloned().unwrap_or_default(), one));
    }
    keyed.sort_by(|a, b| compare(&a.0, &b.0));
    found.extend(keyed.into_iter().map(|(_, one)| one));
    Ok(())
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => a.as_str().unwrap_or_default().cmp(b.as_str().unwrap_or_default()),
    }
}
