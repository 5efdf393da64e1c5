//! patch: read, apply, and write as an update - again where someone came in between.

use prost::Message;
use proto::{
    codec::{MessageId, duplicate_keys, proto_to_value, value_to_proto},
    k8s::{autoscaling::v1::Scale, meta::v1::StatusCause},
};

use super::writer::Change;
use crate::{
    api::{Api, FieldValidation, Form, Patch, PatchKind, RequestContext, Target, WriteOptions, Written},
    gate::authz::Verb,
    refusal::{Refusal, Result},
};

/// Warnings of one request; each becomes a header.
const WARNINGS_MAX: usize = 10;

impl Api {
    /// Changes an object by a patch.
    ///
    /// # Errors
    /// As [`Api::update`]; 400 for what is no patch, 415 for server-side apply, 422 for a patch that does not suit.
    pub async fn patch(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        patch: Patch<'_>,
        options: &WriteOptions,
    ) -> Result<Written> {
        let served = self.served(&target)?;
        let verdict = self.authorize(context, Verb::Patch, &target)?;
        verdict.check_name(&target)?;
        if patch.kind == PatchKind::Apply {
            return Err(Refusal::unsupported_media_type(
                "server-side apply is not served here: use application/strategic-merge-patch+json, \
                 application/merge-patch+json or application/json-patch+json",
            ));
        }
        let mut warnings = Vec::new();
        if target.subresource == "scale" {
            let form = Form::of_arm(<Scale as proto::Kind>::ARM).ok_or_else(Refusal::unknown_resource)?;
            let mut written = self
                .write_scale(served, &target, options, |present| {
                    let raw = patched(&present.encode_to_vec(), form, &patch, options, &mut warnings)?;
                    Scale::decode(raw.as_slice()).map_err(Refusal::internal)
                })
                .await?;
            written.warnings = warnings;
            return Ok(written);
        }
        let mode = self.mode(&target)?;
        let change = Change { served, namespace: target.namespace, name: target.name, mode, dry_run: options.dry_run };
        let form = Form::of(target.resource);
        let object = self
            .change(change, |old, entry| {
                verdict.check(target.resource, target.name, &entry.raw)?;
                let raw = patched(&old.encode(), form, &patch, options, &mut warnings)?;
                let mut new = served.rules.decode(&raw).map_err(Refusal::internal)?;
                crate::registry::meta::place(new.meta_mut(), &target)?;
                crate::gate::authz::check_changed(context, &*new, old, target.resource)?;
                if target.subresource == "finalize" { super::update::finalized(&*new, old) } else { Ok(new) }
            })
            .await?;
        Ok(Written { object, created: false, warnings })
    }
}

/// The message's bytes after the patch.
fn patched(
    raw: &[u8],
    form: Form,
    patch: &Patch<'_>,
    options: &WriteOptions,
    warnings: &mut Vec<String>,
) -> Result<Vec<u8>> {
    let object = proto_to_value(form.message, raw, Some((form.api_version, form.kind))).map_err(Refusal::internal)?;
    let value = applied(form.message, &object, patch)?;
    for (name, wanted) in [("apiVersion", form.api_version), ("kind", form.kind)] {
        if value.get(name).and_then(|found| found.as_str()).is_some_and(|found| found != wanted) {
            return Err(Refusal::bad_request(format!(
                "the patch changes {name} from {wanted:?} to {}: an object keeps its kind",
                value[name]
            )));
        }
    }
    let decoded =
        value_to_proto(form.message, &value).map_err(|error| unsuitable(form, &value, [error.to_string()]))?;
    let mut issues = match options.field_validation {
        FieldValidation::Ignore => return Ok(decoded.bytes),
        FieldValidation::Strict | FieldValidation::Warn => duplicate_keys(patch.body).unwrap_or_default(),
    };
    issues.extend(decoded.issues);
    let mut issues = issues.iter().map(ToString::to_string);
    if options.field_validation == FieldValidation::Warn {
        *warnings = issues.take(WARNINGS_MAX).collect();
    } else if let Some(first) = issues.next() {
        let issues = std::iter::once(first).chain(issues);
        return Err(unsuitable(form, &value, issues.map(|issue| format!("strict decoding error: {issue}"))));
    }
    Ok(decoded.bytes)
}

/// The patch makes of this object what its kind does not allow.
fn unsuitable(form: Form, object: &serde_json::Value, reasons: impl IntoIterator<Item = String>) -> Refusal {
    let group = form.api_version.split_once('/').map_or("", |(group, _)| group);
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    let cause = |message| StatusCause { reason: "FieldValueInvalid".to_owned(), message, field: "patch".to_owned() };
    Refusal::invalid_kind(group, form.kind, name, reasons.into_iter().map(cause).collect())
}

fn applied(message: MessageId, object: &serde_json::Value, patch: &Patch<'_>) -> Result<serde_json::Value> {
    let applied = match patch.kind {
        PatchKind::Json => model::patch::json(object, patch.body),
        PatchKind::Strategic => model::patch::strategic(message, object, patch.body),
        PatchKind::Merge | PatchKind::Apply => model::patch::merge(object, patch.body),
    };
    applied.map_err(|error| match error {
        model::patch::Error::Malformed(why) => Refusal::bad_request(why),
        model::patch::Error::Inapplicable(why) => Refusal::new(422, "Invalid", why),
    })
}
