//! [`Api`]: every verb once, for both doors.
//!
//! A door translates its protocol into these calls and back, and decides nothing.

use std::sync::{Arc, LazyLock, OnceLock};

use bytes::Bytes;
use kit::{clock::Clock, life::Shutdown};
use proto::{
    codec::{MessageId, ResourceInfo},
    k8s::meta::v1::ObjectMeta,
};

use crate::{
    Options,
    gate::{admission::QuotaLocks, cluster::Cluster},
    grpc::nodes::NodeChannels,
    refusal::{Refusal, Result},
    registry::Catalog,
    storage::{ExpiryLeases, Hub, Objects},
};

/// Who asks. The server puts an `Arc<RequestContext>` into every request's extensions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestContext {
    /// "system:node:n1"
    pub user: String,
    /// "system:nodes"
    pub groups: Vec<String>,
}

/// What is meant: a resource and, where asked, one object of it.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub resource: &'static ResourceInfo,
    /// Empty for cluster-scoped resources, and for lists over all namespaces.
    pub namespace: &'a str,
    pub name: &'a str,
    /// "status", "scale", "binding", "eviction", "finalize" or empty.
    pub subresource: &'a str,
}

/// An object as it is read: its message with the resourceVersion put in.
pub struct Stored {
    /// The resource it was asked for at; for a `Scale` the one that is scaled.
    pub resource: &'static ResourceInfo,
    pub revision: u64,
    /// The message's bytes (`k8s.api.core.v1.Pod`), resourceVersion included. No envelope.
    pub raw: Bytes,
    /// What `raw` is: the resource's own kind, or the one its subresource speaks.
    pub form: Form,
    json: OnceLock<Bytes>,
    row: OnceLock<Bytes>,
}

/// A kind as the wire knows it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Form {
    pub message: MessageId,
    /// The arm of `forestay.api.v1.Object`.
    pub arm: u32,
    /// "v1", "apps/v1"
    pub api_version: &'static str,
    /// "Pod"
    pub kind: &'static str,
}

impl Form {
    /// The form whose arm of `forestay.api.v1.Object` is `arm`.
    pub fn of_arm(arm: u32) -> Option<Self> {
        static FORMS: LazyLock<Vec<Option<Form>>> = LazyLock::new(|| {
            let last = proto::ARMS.iter().map(|(arm, ..)| *arm).max().unwrap_or(0);
            let mut forms = vec![None; last as usize + 1];
            for (arm, message, api_version, kind) in proto::ARMS {
                let message = proto::codec::schema().message(message);
                forms[*arm as usize] = message.map(|message| Form { message, arm: *arm, api_version, kind });
            }
            forms
        });
        FORMS.get(arm as usize).copied().flatten()
    }

    /// The form of a resource's own objects.
    pub fn of(resource: &ResourceInfo) -> Self {
        Self::of_arm(resource.arm).expect("every resource's kind is an arm of Object")
    }
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stored")
            .field("kind", &self.form.kind)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

impl Stored {
    pub fn new(resource: &'static ResourceInfo, revision: u64, raw: Bytes) -> Self {
        Self::of_form(resource, Form::of(resource), revision, raw)
    }

    pub fn of_form(resource: &'static ResourceInfo, form: Form, revision: u64, raw: Bytes) -> Self {
        Self { resource, revision, raw, form, json: OnceLock::new(), row: OnceLock::new() }
    }

    /// The object as JSON, rendered once however many ask.
    ///
    /// # Errors
    /// Where the stored bytes are not the form's message.
    pub fn json(&self) -> Result<Bytes> {
        if let Some(json) = self.json.get() {
            return Ok(json.clone());
        }
        let mut out = Vec::with_capacity(self.raw.len() * 4);
        let Form { message, api_version, kind, .. } = self.form;
        proto::codec::proto_to_json(message, &self.raw, Some((api_version, kind)), &mut out)
            .map_err(Refusal::internal)?;
        Ok(self.json.get_or_init(|| out.into()).clone())
    }

    /// One more form, kept for all watchers: the REST door's Table row.
    pub fn row(&self, render: impl FnOnce(&Self) -> Bytes) -> Bytes {
        self.row.get_or_init(|| render(self)).clone()
    }

    /// Metadata alone; the rest is not decoded.
    ///
    /// # Errors
    /// Where the stored bytes are not the form's message.
    pub fn metadata(&self) -> Result<ObjectMeta> {
        proto::envelope::metadata(&self.raw).map_err(Refusal::internal)
    }
}

/// Label and field selectors as text; empty selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    pub labels: String,
    pub fields: String,
}

#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub selection: Selection,
    /// Objects per page; 0 for all.
    pub limit: i64,
    /// From an earlier page; empty for the first.
    pub continue_: String,
    /// 0: the newest. N: not older than N, or exactly N where `exact` is set.
    pub revision: u64,
    pub exact: bool,
}

#[derive(Debug)]
pub struct Listed {
    pub revision: u64,
    pub items: Vec<Stored>,
    /// Empty on the last page.
    pub continue_: String,
    pub remaining: Option<i64>,
}

/// One part of a watch.
#[derive(Clone)]
pub struct WatchSet {
    pub resource: &'static ResourceInfo,
    pub namespace: String,
    /// Empty: all of the namespace.
    pub name: String,
    pub selection: Selection,
    /// 0: first the present state, then what follows. N: what follows revision N.
    pub from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

#[derive(Clone, Debug)]
pub struct Change {
    pub kind: ChangeKind,
    /// Index of the set in the request.
    pub set: usize,
    /// For `Deleted` the last state, with the deletion's revision.
    pub object: Arc<Stored>,
}

/// All changes of one revision, a part of the initial state (`initial`), or a bare progress mark (no changes).
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub revision: u64,
    pub changes: Vec<Change>,
    /// Part of the present state at `revision`; more follows.
    pub initial: bool,
    /// Every set that started with its present state has now delivered it. Once, and only where a set did.
    pub synced: bool,
}

/// A running watch. Ends when dropped; an `Err` is its last item (`Expired`: the history is compacted).
pub type Watching = futures::stream::BoxStream<'static, Result<Batch>>;

#[derive(Clone, Debug, Default)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    /// How a patch's or scale's unknown and duplicate fields are treated.
    pub field_validation: FieldValidation,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    /// Server-side apply; YAML or JSON.
    Apply,
}

#[derive(Clone, Debug)]
pub struct Patch<'a> {
    pub kind: PatchKind,
    pub body: &'a [u8],
    /// Server-side apply: take ownership of fields others own.
    pub force: bool,
}

/// The answer to a write.
#[derive(Debug)]
pub struct Written {
    pub object: Stored,
    /// False where an update or patch made the object anew (apply-patch of a missing object).
    pub created: bool,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
pub struct Deleted {
    /// As it stands after the call: its last state where it is gone.
    pub object: Stored,
    /// False while finalizers or a grace period keep it.
    pub gone: bool,
}

/// Pod, node: bound by itself, whatever happens to the others of one call.
#[derive(Clone, Debug)]
pub struct PodBinding {
    pub namespace: String,
    pub name: String,
    /// Refused where the pod of that name is another one; empty: any.
    pub uid: String,
    pub node: String,
}

/// The API: the registry's verbs behind the gate, over one store. Both doors hold it; `registry/verb` implements it.
pub struct Api {
    pub(crate) objects: Objects,
    pub(crate) hub: Arc<Hub>,
    pub(crate) catalog: Catalog,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) quotas: QuotaLocks,
    pub(crate) leases: ExpiryLeases,
    pub(crate) nodes: NodeChannels,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shutdown: Shutdown,
}

impl RequestContext {
    /// Whoever shows no certificate.
    pub fn anonymous() -> Self {
        Self { user: "system:anonymous".to_owned(), groups: vec!["system:unauthenticated".to_owned()] }
    }

    /// The apiserver itself.
    pub fn own() -> Self {
        Self { user: "system:apiserver".to_owned(), groups: vec!["system:masters".to_owned()] }
    }
}
