//! create: stamp, default, admit, validate, and one transaction in which the name must be free.

use std::time::Duration;

use bytes::Bytes;
use proto::{codec::ResourceInfo, k8s::meta::v1::StatusCause};

use super::writer::{Picks, moved_claims, sealed, written};
use crate::{
    api::{Api, RequestContext, Target, WriteOptions, Written},
    gate::{admission, authz::Verb},
    refusal::{Refusal, Result},
    registry::{Causes, Record, Served, meta},
    storage::{Outcome, Write, keys},
};

/// Names tried for `generateName`.
const NAMES: usize = 8;
/// Tries against others that change the same quota or pick the same values.
const ATTEMPTS: usize = 256;
/// After a write of a kind that admission looks at, the next request may rely on it.
const OWN_WRITE_BOUND: Duration = Duration::from_secs(1);

impl Api {
    /// Stores a new object.
    ///
    /// # Errors
    /// 400, 403, 404 for a missing namespace, 409 where the name is taken, 413, 422.
    pub async fn create(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        raw: Bytes,
        options: &WriteOptions,
    ) -> Result<Written> {
        if super::review::is_review(target.resource) {
            return self.review(context, target, &raw).await;
        }
        match (target.resource.resource.plural.as_str(), target.subresource) {
            (_, "") => {}
            ("pods", "binding") => return self.create_binding(context, target, &raw, options).await,
            ("pods", "eviction") => return self.create_eviction(context, target, &raw, options).await,
            _ => return Err(Refusal::method_not_supported(target.resource, "create")),
        }
        let served = self.served(&target)?;
        self.authorize(context, Verb::Create, &target)?.check_name(&target)?;
        let mut record = self.decoded(served, &raw)?;
        meta::place(record.meta_mut(), &target)?;
        crate::gate::authz::check_new(context, &*record, target.resource)?;
        let object = self.create_record(served, record, options.dry_run).await?;
        Ok(Written { object, created: true, warnings: Vec::new() })
    }

    /// Stores a new record whose namespace is set.
    pub(crate) async fn create_record(
        &self,
        served: &Served,
        mut record: Box<dyn Record>,
        dry_run: bool,
    ) -> Result<crate::api::Stored> {
        if !record.meta().resource_version.is_empty() {
            return Err(Refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        self.check_namespace(served.info, &*record).await?;
        let is_named_here = record.meta().name.is_empty() && !record.meta().generate_name.is_empty();
        let now = self.now();
        meta::stamp_new(record.meta_mut(), served.rules.has_generation(), now);
        served.rules.fill_in(&mut *record);
        admission::mutate(&mut *record);
        served.rules.prepare_create(&mut *record, now);
        if is_named_here {
            let name = meta::generate_name(&record.meta().generate_name);
            record.meta_mut().name = name;
        }
        self.validate_new(served, &*record)?;
        self.commit_new(served, record, is_named_here, dry_run).await
    }

    fn validate_new(&self, served: &Served, record: &dyn Record) -> Result<()> {
        let mut causes = Causes::default();
        meta::validate(record.meta(), |name| served.rules.validate_name(name), &mut causes);
        served.rules.validate(record, &mut causes);
        if causes.is_empty() {
            return Ok(());
        }
        Err(Refusal::invalid(served.info, &record.meta().name, causes.into_causes()))
    }

    /// Namespace lifecycle: nothing is made in a namespace that is missing or on its way out.
    async fn check_namespace(&self, info: &ResourceInfo, record: &dyn Record) -> Result<()> {
        let meta = record.meta();
        if meta.namespace.is_empty() {
            return Ok(());
        }
        let found = match self.cluster.is_terminating(&meta.namespace) {
            Some(is_terminating) => Some(is_terminating),
            // The hub may be behind: ask the store before refusing.
            None => self.namespace_in_store(&meta.namespace).await?,
        };
        match found {
            Some(false) => Ok(()),
            Some(true) => {
                let name = if meta.name.is_empty() { &meta.generate_name } else { &meta.name };
                let why = format!(
                    "unable to create new content in namespace {} because it is being terminated",
                    meta.namespace
                );
                let cause = StatusCause {
                    reason: "NamespaceTerminating".to_owned(),
                    message: format!("namespace {} is being terminated", meta.namespace),
                    field: "metadata.namespace".to_owned(),
                };
                Err(Refusal::forbidden(info, name, &why).with_causes(vec![cause]))
            }
            None => Err(self.missing_namespace(&meta.namespace)),
        }
    }

    fn missing_namespace(&self, name: &str) -> Refusal {
        match self.catalog.find("", "namespaces") {
            Some(namespaces) => Refusal::not_found(namespaces.info, name),
            None => Refusal::unknown_resource(),
        }
    }

    async fn commit_new(
        &self,
        served: &Served,
        mut record: Box<dyn Record>,
        is_named_here: bool,
        dry_run: bool,
    ) -> Result<crate::api::Stored> {
        let info = served.info;
        let (mut picks, mut names) = (Picks::default(), 1);
        // The object without picked values, to pick again; others never lose what they picked.
        let wanted = served.rules.has_claims().then(|| record.duplicate());
        let lease = self.leases.expiry(self.objects.store(), served.rules.ttl_seconds()).await?;
        for _ in 0..ATTEMPTS {
            self.allocate(served, &mut *record, None, &mut picks)?;
            let raw = record.encode();
            let value = sealed(info, &raw)?;
            let mut quota = self.quotas.charge(self, info, &*record, None, dry_run).await?;
            if dry_run {
                let key = keys::object(info, &record.meta().namespace, &record.meta().name);
                if self.objects.get(&key).await?.is_some() {
                    return Err(Refusal::already_exists(info, &record.meta().name));
                }
                let Some(taken) = self.taken(&moved_claims(served, Some(&*record), None)).await? else {
                    return written(info, raw, 0);
                };
                self.answer_lost(
                    served,
                    &mut record,
                    wanted.as_deref(),
                    Outcome::Claimed(taken),
                    (is_named_here, &mut names),
                    &mut picks,
                )
                .await?;
                continue;
            }
            let namespace = &record.meta().namespace;
            let write = Write {
                key: keys::object(info, namespace, &record.meta().name),
                expected: 0,
                value: Some(value),
                within: (!namespace.is_empty()).then(|| format!("{}namespaces/{namespace}", keys::ROOT)),
                claims: moved_claims(served, Some(&*record), None),
                beside: quota.take_write(),
                lease,
            };
            match self.objects.commit(&write).await {
                Ok(Outcome::Done { revision }) => {
                    quota.keep(revision);
                    self.observe_own(info, revision).await;
                    return written(info, raw, revision);
                }
                Ok(outcome) => {
                    quota.give_back(self).await;
                    self.answer_lost(
                        served,
                        &mut record,
                        wanted.as_deref(),
                        outcome,
                        (is_named_here, &mut names),
                        &mut picks,
                    )
                    .await?;
                }
                Err(refusal) => {
                    quota.give_back(self).await;
                    return Err(refusal);
                }
            }
        }
        Err(Refusal::too_many_requests(
            format!("too many others write beside {} {:?}: try again", info.resource.plural, record.meta().name),
            1,
        ))
    }

    /// What follows from a create that stored nothing: another try, or a refusal.
    async fn answer_lost(
        &self,
        served: &Served,
        record: &mut Box<dyn Record>,
        wanted: Option<&dyn Record>,
        outcome: Outcome,
        (is_named_here, names): (bool, &mut usize),
        picks: &mut Picks,
    ) -> Result<()> {
        let name = record.meta().name.clone();
        match outcome {
            Outcome::Changed(_) if is_named_here && *names < NAMES => {
                *names += 1;
                let name = meta::generate_name(&record.meta().generate_name);
                record.meta_mut().name = name;
            }
            Outcome::Changed(_) => return Err(Refusal::already_exists(served.info, &name)),
            Outcome::Homeless => return Err(self.missing_namespace(&record.meta().namespace)),
            Outcome::Claimed(key) => {
                self.lose(picks, served, &**record, &key).await?;
                if let Some(wanted) = wanted {
                    let mut again = wanted.duplicate();
                    again.meta_mut().name = name;
                    *record = again;
                }
            }
            // The quota was read anew when its charge was given back.
            Outcome::BesideChanged | Outcome::Done { .. } => {}
        }
        Ok(())
    }

    /// Waits until admission's view holds a write that it looks at.
    pub(super) async fn observe_own(&self, info: &ResourceInfo, revision: i64) {
        if info.resource.group.is_empty() && matches!(info.resource.plural.as_str(), "namespaces" | "resourcequotas") {
            self.hub.reaches(revision.unsigned_abs(), OWN_WRITE_BOUND).await;
        }
    }

    async fn namespace_in_store(&self, name: &str) -> Result<Option<bool>> {
        let entry = self.objects.get(&format!("{}namespaces/{name}", keys::ROOT)).await?;
        let Some(entry) = entry else { return Ok(None) };
        let meta = proto::envelope::metadata(&entry.raw).map_err(Refusal::internal)?;
        Ok(Some(meta.deletion_timestamp.is_some()))
    }
}
