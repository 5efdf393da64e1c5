//! delete: at once, after a grace period, or once the last finalizer is gone.

use proto::{
    codec::ResourceInfo,
    k8s::meta::v1::{DeleteOptions, ObjectMeta, Time},
};

use super::writer::{moved_claims, sealed, written};
use crate::{
    api::{Api, Deleted, ListOptions, RequestContext, Selection, Stored, Target},
    gate::authz::{Verb, Verdict},
    refusal::{Refusal, Result},
    registry::{Causes, Record, Served},
    storage::{Entry, Outcome, Write},
};

const ATTEMPTS: usize = 32;
/// Namespaces the cluster cannot be without.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];
const POLICIES: &[&str] = &["Background", "Foreground", "Orphan"];
/// Objects listed at once while a collection is deleted.
const COLLECTION_PAGE: i64 = 500;

impl Api {
    /// Deletes an object, or marks it where finalizers or a grace period keep it.
    ///
    /// # Errors
    /// 403, 404, 409 where a precondition does not hold, 422 for options that are none.
    pub async fn delete(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        let served = self.served(&target)?;
        let verdict = self.authorize(context, Verb::Delete, &target)?;
        verdict.check_name(&target)?;
        if !target.subresource.is_empty() {
            return Err(Refusal::method_not_supported(target.resource, "delete"));
        }
        check_options(options)?;
        self.delete_record(served, target.namespace, target.name, options, &verdict).await
    }

    async fn delete_record(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
        verdict: &Verdict,
    ) -> Result<Deleted> {
        let info = served.info;
        if info.resource.plural == "namespaces" && IMMORTAL.contains(&name) {
            return Err(Refusal::forbidden(info, name, "this namespace may not be deleted"));
        }
        let is_dry = options.dry_run.iter().any(|stage| stage == "All");
        let mut entry = self.entry(served, namespace, name).await?;
        for _ in 0..ATTEMPTS {
            verdict.check(info, name, &entry.raw)?;
            let old = self.stored_record(served, &entry)?;
            check_preconditions(info, old.meta(), &entry, options)?;
            let step = next_step(served, &*old, options, self.options.garbage_collection, self.now());
            let (record, is_gone) = match step {
                Step::Keep => {
                    return Ok(Deleted { object: written(info, old.encode(), entry.revision)?, gone: false });
                }
                Step::End => (old.duplicate(), true),
                Step::Mark(marked) => (marked, false),
            };
            let raw = record.encode();
            if is_dry {
                return Ok(Deleted { object: written(info, raw, entry.revision)?, gone: is_gone });
            }
            let write = Write {
                key: entry.key.clone(),
                expected: entry.revision,
                value: if is_gone { None } else { Some(sealed(info, &raw)?) },
                claims: if is_gone { moved_claims(served, None, Some(&*old)) } else { Default::default() },
                ..Write::default()
            };
            match self.objects.commit(&write).await? {
                Outcome::Done { revision } => {
                    self.observe_own(info, revision).await;
                    return Ok(Deleted { object: written(info, raw, revision)?, gone: is_gone });
                }
                Outcome::Changed(Some(newer)) => entry = newer,
                Outcome::Changed(None) => return Err(Refusal::not_found(info, name)),
                Outcome::Homeless | Outcome::Claimed(_) | Outcome::BesideChanged => {
                    return Err(Refusal::internal("a deletion has nothing beside it"));
                }
            }
        }
        Err(Refusal::modified(info, name))
    }

    /// Deletes every object of a list.
    ///
    /// # Errors
    /// As [`Api::delete`]; objects that others delete meanwhile are no error.
    pub async fn delete_collection(
        &self,
        context: &RequestContext,
        target: Target<'_>,
        selection: &Selection,
        options: &DeleteOptions,
    ) -> Result<Vec<Stored>> {
        let served = self.served(&target)?;
        if !served.info.resource.verbs.iter().any(|verb| verb == "deletecollection") {
            return Err(Refusal::method_not_supported(target.resource, "deletecollection"));
        }
        let verdict = self.authorize(context, Verb::DeleteCollection, &target)?;
        check_options(options)?;
        let mut deleted = Vec::new();
        let mut page = ListOptions { selection: selection.clone(), limit: COLLECTION_PAGE, ..ListOptions::default() };
        loop {
            let listed = self.list_for(served, &target, &page).await?;
            for object in listed.items {
                let meta = object.metadata()?;
                match self.delete_record(served, &meta.namespace, &meta.name, options, &verdict).await {
                    Ok(done) => deleted.push(done.object),
                    Err(refusal) if refusal.code() == 404 => {}
                    Err(refusal) => return Err(refusal),
                }
            }
            if listed.continue_.is_empty() {
                return Ok(deleted);
            }
            page.continue_ = listed.continue_;
        }
    }
}

/// Refuses options that mean nothing: what was misspelt must not delete in another way than was meant.
fn check_options(options: &DeleteOptions) -> Result<()> {
    let mut causes = Causes::default();
    if let Some(policy) = &options.propagation_policy {
        causes.one_of("propagationPolicy", policy, POLICIES);
        if options.orphan_dependents.is_some() {
            let detail = "orphanDependents and deletionPropagation cannot be both set";
            causes.invalid("propagationPolicy", policy, detail);
        }
    }
    for stage in options.dry_run.iter().filter(|stage| *stage != "All") {
        causes.not_supported("dryRun", stage, &["All"]);
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(Refusal::invalid_kind("meta.k8s.io", "DeleteOptions", "", causes.into_causes()))
}

/// What the wish to delete means for an object.
enum Step {
    /// It is on its way out already, and nothing changes.
    Keep,
    Mark(Box<dyn Record>),
    End,
}

fn next_step(
    served: &Served,
    old: &dyn Record,
    options: &DeleteOptions,
    has_garbage_collection: bool,
    now: Time,
) -> Step {
    let mut marked = old.duplicate();
    let grace = served.rules.grace_seconds(old, options.grace_period_seconds).unwrap_or(0).max(0);
    let finalizer = if has_garbage_collection { propagation(options) } else { None };
    if let Some(finalizer) = finalizer {
        model::meta::add_finalizer(marked.meta_mut(), finalizer);
    }
    let is_held = !marked.meta().finalizers.is_empty() || served.rules.is_held(old);
    let meta = marked.meta_mut();
    match meta.deletion_timestamp {
        // A shorter grace period shortens the wait; nothing lengthens it.
        Some(due) => {
            let running = meta.deletion_grace_period_seconds.unwrap_or(0);
            if grace < running {
                let asked_at = due.seconds - running;
                meta.deletion_timestamp = Some(Time { seconds: asked_at + grace, nanos: 0 });
                meta.deletion_grace_period_seconds = Some(grace);
            }
        }
        None => {
            if grace == 0 && !is_held {
                return Step::End;
            }
            meta.deletion_timestamp = Some(Time { seconds: now.seconds + grace, nanos: 0 });
            meta.deletion_grace_period_seconds = Some(grace);
            if served.rules.has_generation() && meta.generation > 0 {
                meta.generation += 1;
            }
            served.rules.mark_deleted(&mut *marked);
        }
    }
    if super::writer::is_over(served, &*marked) {
        return Step::End;
    }
    if marked.encode() == old.encode() { Step::Keep } else { Step::Mark(marked) }
}

/// The finalizer by which the garbage collector is told what to do with dependents.
fn propagation(options: &DeleteOptions) -> Option<&'static str> {
    match options.propagation_policy.as_deref() {
        Some("Foreground") => Some("foregroundDeletion"),
        Some("Orphan") => Some("orphan"),
        _ if options.orphan_dependents == Some(true) => Some("orphan"),
        _ => None,
    }
}

fn check_preconditions(info: &ResourceInfo, meta: &ObjectMeta, entry: &Entry, options: &DeleteOptions) -> Result<()> {
    let Some(preconditions) = &options.preconditions else { return Ok(()) };
    if let Some(uid) = preconditions.uid.as_deref().filter(|uid| *uid != meta.uid) {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {}", meta.uid);
        return Err(Refusal::conflict(info, &meta.name, &why));
    }
    let revision = entry.revision.to_string();
    if let Some(wanted) = preconditions.resource_version.as_deref().filter(|wanted| *wanted != revision) {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {revision}"
        );
        return Err(Refusal::conflict(info, &meta.name, &why));
    }
    Ok(())
}
