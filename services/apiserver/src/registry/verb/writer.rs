//! The one way an object is written: decide on the typed object, then one transaction that compares and swaps.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::{
    codec::ResourceInfo,
    envelope::{self, splice_resource_version},
    k8s::meta::v1::ObjectMeta,
};

use crate::{
    api::{Api, Form, Stored},
    gate::admission::Charge,
    refusal::{Refusal, Result},
    registry::{Causes, Pool, Record, Served, meta},
    storage::{Claims, Entry, Held, Outcome, Write, keys},
};

/// An object's bytes, all of it together; etcd's own limit.
pub(crate) const OBJECT_BYTES_MAX: usize = 1_572_864;
/// Writers that keep losing against others give up after this many tries.
const ATTEMPTS: usize = 32;
/// Blind picks out of a pool before the taken ones are looked up.
const BLIND_PICKS: usize = 3;

/// Which half of an object a change is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Spec and metadata; status stays.
    Main,
    /// Status, labels and annotations; the rest stays.
    Status,
    /// The caller decides every field itself: binding, finalizing.
    Internal,
}

/// A change of one stored object.
pub(crate) struct Change<'a> {
    pub served: &'a Served,
    pub namespace: &'a str,
    pub name: &'a str,
    pub mode: Mode,
    pub dry_run: bool,
}

/// The envelope of a record, refused where it is too large.
pub(crate) fn sealed(info: &ResourceInfo, raw: &[u8]) -> Result<Bytes> {
    if raw.len() > OBJECT_BYTES_MAX {
        return Err(Refusal::too_large(raw.len(), OBJECT_BYTES_MAX));
    }
    let form = Form::of(info);
    Ok(envelope::wrap(form.api_version, form.kind, raw).into())
}

pub(crate) fn written(info: &'static ResourceInfo, raw: Vec<u8>, revision: i64) -> Result<Stored> {
    let revision = revision.unsigned_abs();
    let raw = Bytes::from(raw);
    let raw = if revision == 0 { raw } else { splice_resource_version(&raw, revision).map_err(Refusal::internal)? };
    Ok(Stored::new(info, revision, raw))
}

/// Values picked for an object, and those known to be taken.
#[derive(Default)]
pub(super) struct Picks {
    picked: BTreeSet<String>,
    taken: BTreeSet<String>,
    lost: usize,
}

impl Api {
    /// Decodes what a client sent.
    pub(super) fn decoded(&self, served: &Served, raw: &[u8]) -> Result<Box<dyn Record>> {
        if raw.len() > OBJECT_BYTES_MAX {
            return Err(Refusal::too_large(raw.len(), OBJECT_BYTES_MAX));
        }
        served.rules.decode(raw).map_err(|error| {
            Refusal::bad_request(format!("the object is not a {}: {error}", served.info.resource.kind))
        })
    }

    pub(super) fn stored_record(&self, served: &Served, entry: &Entry) -> Result<Box<dyn Record>> {
        served
            .rules
            .decode(&entry.raw)
            .map_err(|error| Refusal::internal(format!("read the stored object {}: {error}", entry.key)))
    }

    /// Changes a stored object by `decide`, again and again until nobody came in between.
    ///
    /// `decide` is given the stored object with its resourceVersion, and answers the wanted one. Where that names
    /// another resourceVersion or uid, the change is refused as a conflict.
    pub(crate) async fn change(
        &self,
        change: Change<'_>,
        mut decide: impl FnMut(&dyn Record, &Entry) -> Result<Box<dyn Record>> + Send,
    ) -> Result<Stored> {
        let Change { served, namespace, name, dry_run, .. } = change;
        let mut entry = self.entry(served, namespace, name).await?;
        let mut picks = Picks::default();
        for _ in 0..ATTEMPTS {
            let mut old = self.stored_record(served, &entry)?;
            old.meta_mut().resource_version = entry.revision.to_string();
            let mut new = decide(&*old, &entry)?;
            check_identity(served.info, new.meta(), old.meta())?;
            self.settle(&change, &mut *new, &*old)?;
            self.allocate(served, &mut *new, Some(&*old), &mut picks)?;

            let raw = new.encode();
            if raw == entry.raw[..] {
                return written(served.info, raw, entry.revision);
            }
            let is_over = is_over(served, &*new);
            let value = if is_over { None } else { Some(sealed(served.info, &raw)?) };
            let claims = moved_claims(served, (!is_over).then_some(&*new), Some(&*old));
            let mut quota = match change.mode {
                Mode::Main => self.quotas.charge(self, served.info, &*new, Some(&*old), dry_run).await?,
                Mode::Status | Mode::Internal => Charge::default(),
            };
            if dry_run {
                let Some(taken) = self.taken(&claims).await? else {
                    return written(served.info, raw, entry.revision);
                };
                self.lose(&mut picks, served, &*new, &taken).await?;
                continue;
            }
            let write = Write {
                key: entry.key.clone(),
                expected: entry.revision,
                value,
                claims,
                beside: quota.take_write(),
                lease: self.leases.expiry(self.objects.store(), served.rules.ttl_seconds()).await?,
                ..Write::default()
            };
            let outcome = self.objects.commit(&write).await;
            if let Ok(Outcome::Done { revision }) = outcome {
                quota.keep(revision);
                self.observe_own(served.info, revision).await;
                return written(served.info, raw, revision);
            }
            quota.give_back(self).await;
            match outcome? {
                Outcome::Changed(Some(newer)) => entry = newer,
                Outcome::Changed(None) => return Err(Refusal::not_found(served.info, name)),
                Outcome::Claimed(key) => self.lose(&mut picks, served, &*new, &key).await?,
                // The quota was read anew when its charge was given back.
                Outcome::BesideChanged | Outcome::Done { .. } => {}
                Outcome::Homeless => return Err(Refusal::internal("a change is in no namespace of its own")),
            }
        }
        Err(Refusal::modified(served.info, name))
    }

    /// Everything between the wanted object and the one that is stored.
    fn settle(&self, change: &Change<'_>, new: &mut dyn Record, old: &dyn Record) -> Result<()> {
        let rules = &change.served.rules;
        if change.mode == Mode::Status {
            let meta = new.meta_mut();
            meta.owner_references.clone_from(&old.meta().owner_references);
            meta.finalizers.clone_from(&old.meta().finalizers);
        }
        meta::stamp_changed(new.meta_mut(), old.meta());
        let mut causes = Causes::default();
        match change.mode {
            Mode::Main => {
                rules.fill_in(new);
                if rules.prepare_update(new, old) {
                    new.meta_mut().generation += 1;
                }
                rules.validate_update(new, old, &mut causes);
            }
            Mode::Status => {
                rules.prepare_status(new, old);
                rules.validate_status(new, old, &mut causes);
            }
            Mode::Internal => {}
        }
        meta::validate(new.meta(), |_| Vec::new(), &mut causes);
        meta::validate_update(new.meta(), old.meta(), &mut causes);
        if causes.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid(change.served.info, change.name, causes.into_causes()))
    }

    /// Gives a record the values it needs, avoiding those known to be taken.
    pub(super) fn allocate(
        &self,
        served: &Served,
        record: &mut dyn Record,
        old: Option<&dyn Record>,
        picks: &mut Picks,
    ) -> Result<()> {
        picks.picked.clear();
        let mut pick = |pool: Pool| {
            let value = self.options.pick(pool, &picks.taken)?;
            picks.taken.insert(value.clone());
            picks.picked.insert(value.clone());
            Some(value)
        };
        served.rules.allocate(record, old, &mut pick).map_err(|pool| {
            let what = match pool {
                Pool::ServiceAddresses => {
                    format!("no address is left in the service range {}", self.options.service_cidr)
                }
                Pool::NodePorts => format!(
                    "no port is left in the node port range {}-{}",
                    self.options.node_ports.start(),
                    self.options.node_ports.end()
                ),
            };
            Refusal::internal(format!("failed to allocate for {:?}: {what}", record.meta().name))
        })
    }

    /// The first of the values to be taken that belongs to another; none where all are free.
    pub(super) async fn taken(&self, claims: &Claims) -> Result<Option<String>> {
        for claim in &claims.take {
            if self.objects.keys(&claim.key).await?.contains(&claim.key) {
                return Ok(Some(claim.key.clone()));
            }
        }
        Ok(None)
    }

    /// A claimed value belongs to another: learn what is taken where it was our pick, refuse where it was asked for.
    pub(super) async fn lose(&self, picks: &mut Picks, served: &Served, record: &dyn Record, key: &str) -> Result<()> {
        let value = key.rsplit('/').next().unwrap_or(key);
        if !picks.picked.contains(value) {
            let claim = served.rules.claims(record).into_iter().find(|claim| claim.key() == key);
            let mut causes = Causes::default();
            match claim {
                Some(claim) if claim.pool == Pool::NodePorts => causes.invalid_number(
                    &claim.field,
                    value.parse().unwrap_or_default(),
                    "provided port is already allocated",
                ),
                Some(claim) => causes.invalid(
                    &claim.field,
                    value,
                    format!("failed to allocate IP {value}: provided IP is already allocated"),
                ),
                None => causes.invalid("spec", value, "provided value is already allocated"),
            }
            return Err(Refusal::invalid(served.info, &record.meta().name, causes.into_causes()));
        }
        // What other attempts picked was not taken by anyone.
        for picked in std::mem::take(&mut picks.picked) {
            if picked != value {
                picks.taken.remove(&picked);
            }
        }
        picks.lost += 1;
        if picks.lost >= BLIND_PICKS {
            let taken = self.objects.keys(keys::RANGES).await?;
            picks.taken.extend(taken.iter().filter_map(|key| key.rsplit('/').next()).map(str::to_owned));
        }
        Ok(())
    }
}

/// The claims a write takes and releases.
pub(super) fn moved_claims(served: &Served, new: Option<&dyn Record>, old: Option<&dyn Record>) -> Claims {
    let keys_of = |record: Option<&dyn Record>| -> BTreeSet<String> {
        record.map(|record| served.rules.claims(record)).unwrap_or_default().iter().map(|claim| claim.key()).collect()
    };
    let (wanted, held) = (keys_of(new), keys_of(old));
    let holder = new.or(old).map(|record| model::meta::key(record.meta())).unwrap_or_default();
    let take = wanted.difference(&held).map(|key| Held { key: key.clone(), holder: holder.clone() }).collect();
    Claims { take, release: held.difference(&wanted).cloned().collect() }
}

/// Deletion was asked for, and nothing holds the object any more.
pub(super) fn is_over(served: &Served, record: &dyn Record) -> bool {
    let meta = record.meta();
    meta.deletion_timestamp.is_some()
        && meta.finalizers.is_empty()
        && meta.deletion_grace_period_seconds.unwrap_or(0) == 0
        && !served.rules.is_held(record)
}

/// Refuses a change of an object other than the one that is meant.
fn check_identity(info: &ResourceInfo, new: &ObjectMeta, old: &ObjectMeta) -> Result<()> {
    if !new.uid.is_empty() && new.uid != old.uid {
        let why = format!("Precondition failed: UID in precondition: {}, UID in object meta: {}", new.uid, old.uid);
        return Err(Refusal::conflict(info, &old.name, &why));
    }
    if !new.resource_version.is_empty() && new.resource_version != "0" && new.resource_version != old.resource_version {
        return Err(Refusal::modified(info, &old.name));
    }
    Ok(())
}
