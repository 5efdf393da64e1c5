//! scale: the replicas of what has replicas, as an `autoscaling/v1` Scale.

use bytes::Bytes;
use prost::Message;
use proto::k8s::{
    apps::v1::{Deployment, ReplicaSet, StatefulSet},
    autoscaling::v1::{Scale, ScaleSpec, ScaleStatus},
    core::v1::ReplicationController,
    meta::v1::ObjectMeta,
};

use super::writer::{Change, Mode};
use crate::{
    api::{Api, Form, Stored, Target, WriteOptions, Written},
    refusal::{Refusal, Result},
    registry::{Causes, Record, Served, meta},
    storage::Entry,
};

impl Api {
    pub(super) fn scale_of(&self, served: &Served, entry: &Entry) -> Result<Stored> {
        let record = self.stored_record(served, entry)?;
        let scale = read(&*record, entry.revision).ok_or_else(Refusal::unknown_resource)?;
        as_stored(served, &scale, entry.revision)
    }

    pub(super) async fn update_scale(
        &self,
        served: &Served,
        target: &Target<'_>,
        raw: &[u8],
        options: &WriteOptions,
    ) -> Result<Written> {
        let mut sent = Scale::decode(raw)
            .map_err(|error| Refusal::bad_request(format!("the object is not an autoscaling/v1 Scale: {error}")))?;
        meta::place(sent.metadata.get_or_insert_default(), target)?;
        self.write_scale(served, target, options, |_| Ok(sent.clone())).await
    }

    /// Changes replicas; `decide` makes the wanted scale out of the present one.
    pub(super) async fn write_scale(
        &self,
        served: &Served,
        target: &Target<'_>,
        options: &WriteOptions,
        mut decide: impl FnMut(&Scale) -> Result<Scale> + Send,
    ) -> Result<Written> {
        let change = Change {
            served,
            namespace: target.namespace,
            name: target.name,
            mode: Mode::Main,
            dry_run: options.dry_run,
        };
        let changed = self
            .change(change, |old, entry| {
                let present = read(old, entry.revision).ok_or_else(Refusal::unknown_resource)?;
                let wanted = decide(&present)?;
                let replicas = wanted.spec.as_ref().map_or(0, |spec| spec.replicas);
                if replicas < 0 {
                    let mut causes = Causes::default();
                    let detail = "must be greater than or equal to 0";
                    causes.invalid_number("spec.replicas", i64::from(replicas), detail);
                    return Err(Refusal::invalid(served.info, target.name, causes.into_causes()));
                }
                let mut new = old.duplicate();
                write(&mut *new, replicas);
                let meta = wanted.metadata.unwrap_or_default();
                new.meta_mut().resource_version = meta.resource_version;
                new.meta_mut().uid = meta.uid;
                Ok(new)
            })
            .await?;
        let record = served.rules.decode(&changed.raw).map_err(Refusal::internal)?;
        let revision = i64::try_from(changed.revision).unwrap_or(0);
        let scale = read(&*record, revision).ok_or_else(Refusal::unknown_resource)?;
        Ok(Written { object: as_stored(served, &scale, revision)?, created: false, warnings: Vec::new() })
    }
}

fn as_stored(served: &Served, scale: &Scale, revision: i64) -> Result<Stored> {
    let form = Form::of_arm(<Scale as proto::Kind>::ARM).ok_or_else(Refusal::unknown_resource)?;
    Ok(Stored::of_form(served.info, form, revision.unsigned_abs(), Bytes::from(scale.encode_to_vec())))
}

fn read(record: &dyn Record, revision: i64) -> Option<Scale> {
    macro_rules! of {
        ($kind:ty, $selector:expr) => {
            if let Some(object) = record.as_kind::<$kind>() {
                let spec = object.spec.as_ref();
                let replicas = spec.and_then(|spec| spec.replicas).unwrap_or(1);
                let present = object.status.as_ref().map_or(0, |status| status.replicas);
                let selector: fn(&$kind) -> String = $selector;
                return Some(scale(record.meta(), revision, replicas, present, selector(object)));
            }
        };
    }
    of!(ReplicationController, |object| {
        let selector = object.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
        model::selector::Labels::exactly(&selector).to_string()
    });
    macro_rules! selector {
        () => {
            |object| {
                let selector = object.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                model::selector::Labels::of(selector).map(|labels| labels.to_string()).unwrap_or_default()
            }
        };
    }
    of!(Deployment, selector!());
    of!(ReplicaSet, selector!());
    of!(StatefulSet, selector!());
    None
}

fn write(record: &mut dyn Record, replicas: i32) {
    if let Some(object) = record.as_kind_mut::<ReplicationController>() {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(object) = record.as_kind_mut::<Deployment>() {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(object) = record.as_kind_mut::<ReplicaSet>() {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    } else if let Some(object) = record.as_kind_mut::<StatefulSet>() {
        object.spec.get_or_insert_default().replicas = Some(replicas);
    }
}

fn scale(meta: &ObjectMeta, revision: i64, replicas: i32, present: i32, selector: String) -> Scale {
    Scale {
        metadata: Some(ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: revision.to_string(),
            creation_timestamp: meta.creation_timestamp,
            ..ObjectMeta::default()
        }),
        spec: Some(ScaleSpec { replicas }),
        status: Some(ScaleStatus { replicas: present, selector }),
    }
}
