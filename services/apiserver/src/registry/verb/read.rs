//! get and list: stored bytes pass through with their resourceVersion put in.

use proto::{codec::ResourceInfo, envelope::splice_resource_version};

use crate::{
    api::{Api, ListOptions, Listed, RequestContext, Stored, Target},
    gate::authz::{Verb, Verdict},
    refusal::{Refusal, Result},
    registry::{Filter, Served},
    storage::{Entry, Token, keys},
};

/// Objects read at once while a selector looks for matches.
const SCAN_PAGE: i64 = 500;

impl Api {
    /// One object as it stands now.
    ///
    /// # Errors
    /// 403, 404.
    pub async fn get(&self, context: &RequestContext, target: Target<'_>) -> Result<Stored> {
        let served = self.served(&target)?;
        let verdict = self.authorize(context, Verb::Get, &target)?;
        verdict.check_name(&target)?;
        if !target.subresource.is_empty() && self.form_of(target.resource, target.subresource).is_none() {
            return Err(Refusal::unknown_resource());
        }
        let entry = self.entry(served, target.namespace, target.name).await?;
        verdict.check(target.resource, target.name, &entry.raw)?;
        if target.subresource == "scale" {
            return self.scale_of(served, &entry);
        }
        stored(served.info, &entry)
    }

    pub(super) async fn entry(&self, served: &Served, namespace: &str, name: &str) -> Result<Entry> {
        let key = keys::object(served.info, namespace, name);
        self.objects.get(&key).await?.ok_or_else(|| Refusal::not_found(served.info, name))
    }

    /// Objects of a resource, at one revision.
    ///
    /// # Errors
    /// 400 for selectors and tokens that are none, 403, 410 where the asked-for revision is compacted.
    pub async fn list(&self, context: &RequestContext, target: Target<'_>, options: ListOptions) -> Result<Listed> {
        let served = self.served(&target)?;
        let filter = Filter::compile(served.info, &options.selection)?;
        let verdict = self.authorize(context, Verb::List, &target)?;
        verdict.check_selection(target.resource, &options.selection)?;
        self.list_served(served, &target, &filter, &options).await
    }

    /// As [`Api::list`], for a caller whose right was checked.
    pub(super) async fn list_for(&self, served: &Served, target: &Target<'_>, options: &ListOptions) -> Result<Listed> {
        let filter = Filter::compile(served.info, &options.selection)?;
        self.list_served(served, target, &filter, options).await
    }

    async fn list_served(
        &self,
        served: &Served,
        target: &Target<'_>,
        filter: &Filter,
        options: &ListOptions,
    ) -> Result<Listed> {
        let namespace = scope(target, filter);
        let mut prefix = keys::prefix(served.info, namespace);
        let name = if target.name.is_empty() { filter.required_name().unwrap_or_default() } else { target.name };
        if !name.is_empty() && (!namespace.is_empty() || !served.info.resource.namespaced) {
            return self.list_one(served, namespace, name, filter, options).await;
        }
        let (mut after, mut revision) = start(options, &prefix)?;
        if revision == 0 && options.revision > 0 && !options.exact {
            self.wait_for(options.revision).await?;
        }
        let mut listed = Listed { revision: 0, items: Vec::new(), continue_: String::new(), remaining: None };
        loop {
            let wanted = options.limit - listed.items.len() as i64;
            let limit = match (options.limit, filter.is_everything()) {
                (0, _) => 0,
                (_, true) => wanted,
                (_, false) => SCAN_PAGE,
            };
            let page = self.objects.list(&prefix, &after, limit, revision).await.map_err(|refusal| {
                if refusal.code() == 410 && !options.continue_.is_empty() {
                    expired_token(&after[prefix.len()..])
                } else {
                    refusal
                }
            })?;
            revision = page.revision;
            let is_last = page.remaining == 0;
            let mut left = page.entries.len() as i64;
            for entry in page.entries {
                left -= 1;
                if filter.matches_object(&entry.raw) {
                    listed.items.push(stored(served.info, &entry)?);
                }
                after = entry.key;
                if options.limit > 0 && listed.items.len() as i64 == options.limit {
                    break;
                }
            }
            let is_full = options.limit > 0 && listed.items.len() as i64 == options.limit;
            if is_full && (left > 0 || !is_last) {
                let last = after.split_off(prefix.len());
                listed.continue_ = Token { revision, last }.encode();
                listed.remaining = filter.is_everything().then_some(page.remaining + left);
                break;
            }
            if is_full || is_last {
                break;
            }
        }
        prefix.clear();
        listed.revision = revision.unsigned_abs();
        Ok(listed)
    }

    async fn list_one(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        filter: &Filter,
        options: &ListOptions,
    ) -> Result<Listed> {
        let key = keys::object(served.info, namespace, name);
        let revision = if options.exact { i64::try_from(options.revision).unwrap_or(0) } else { 0 };
        if revision == 0 && options.revision > 0 {
            self.wait_for(options.revision).await?;
        }
        // The key and nothing after it: a page of one below the key as a prefix may also be a longer name.
        let page = self.objects.list(&key, "", 1, revision).await?;
        let found = page.entries.into_iter().filter(|entry| entry.key == key && filter.matches_object(&entry.raw));
        let items = found.map(|entry| stored(served.info, &entry)).collect::<Result<Vec<_>>>()?;
        Ok(Listed { revision: page.revision.unsigned_abs(), items, continue_: String::new(), remaining: None })
    }

    /// Refuses a revision that the store has not reached.
    async fn wait_for(&self, revision: u64) -> Result<()> {
        let head = self.objects.revision().await?.unsigned_abs();
        if head >= revision {
            return Ok(());
        }
        Err(Refusal::timeout(format!("Too large resource version: {revision}, current: {head}")))
    }
}

/// The namespace a list is about: the target's, or the one its field selector asks for.
pub(super) fn scope<'a>(target: &Target<'a>, filter: &'a Filter) -> &'a str {
    if !target.namespace.is_empty() || !target.resource.resource.namespaced {
        return target.namespace;
    }
    filter.required_namespace().unwrap_or_default()
}

/// The key to begin after, and the revision to read at (0: the newest).
fn start(options: &ListOptions, prefix: &str) -> Result<(String, i64)> {
    if !options.continue_.is_empty() {
        let token = Token::decode(&options.continue_)
            .ok_or_else(|| Refusal::bad_request("continue key is not valid: take it from the list before"))?;
        return Ok((format!("{prefix}{}", token.last), token.revision));
    }
    let exact = if options.exact { i64::try_from(options.revision).unwrap_or(i64::MAX) } else { 0 };
    Ok((String::new(), exact))
}

/// The rest of the list can still be had, as it stands now: the Status carries a token for that.
fn expired_token(last: &str) -> Refusal {
    let mut status = Refusal::expired(
        "The provided continue parameter is too old to display a consistent list result. Start a new list without it, \
         or go on with the continue token of this answer: what follows is then of a later moment than what came before.",
    )
    .into_status();
    status.metadata.get_or_insert_default().r#continue = Token { revision: 0, last: last.to_owned() }.encode();
    Refusal::from_status(status)
}

pub(crate) fn stored(resource: &'static ResourceInfo, entry: &Entry) -> Result<Stored> {
    let revision = entry.revision.unsigned_abs();
    let raw = splice_resource_version(&entry.raw, revision).map_err(Refusal::internal)?;
    Ok(Stored::new(resource, revision, raw))
}

impl Verdict {
    /// Whether a list or watch asks for no more than the caller may see.
    fn check_selection(&self, resource: &ResourceInfo, selection: &crate::api::Selection) -> Result<()> {
        let Self::OnlyOnNode(node) = self else { return Ok(()) };
        let fields = model::selector::Fields::parse(&selection.fields).unwrap_or_default();
        if fields.required("spec.nodeName") == Some(node.as_str()) {
            return Ok(());
        }
        let why = format!("a node may only list and watch its own pods: add the field selector spec.nodeName={node}");
        Err(Refusal::forbidden(resource, "", &why))
    }

    pub(super) fn check_watch(&self, resource: &ResourceInfo, selection: &crate::api::Selection) -> Result<()> {
        self.check_selection(resource, selection)
    }
}
