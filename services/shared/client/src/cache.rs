//! [`Cache`]: what one kind's objects are, as of the reflector's revision.

use std::{
    any::Any,
    collections::{BTreeMap, BTreeSet, HashMap},
    marker::PhantomData,
    sync::Arc,
};

use parking_lot::RwLock;
use proto::{Kind, Object, k8s::meta::v1::ObjectMeta};

use crate::Error;

/// What a cache can hold: an object read from the wire, found again by its metadata.
pub trait Entry: Send + Sync + Sized + 'static {
    fn read(object: &Object) -> Result<Self, Error>;
    fn meta(&self) -> &ObjectMeta;
}

impl<K: Kind> Entry for K {
    fn read(object: &Object) -> Result<Self, Error> {
        Ok(object.decode_as()?)
    }

    fn meta(&self) -> &ObjectMeta {
        Kind::meta(self)
    }
}

/// What all kinds share: apiVersion, kind and metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Partial {
    pub api_version: String,
    pub kind: String,
    pub metadata: ObjectMeta,
}

impl Partial {
    /// Reads the metadata of any object, whole or in the METADATA view.
    pub fn of(object: &Object) -> Result<Self, Error> {
        let metadata = match &object.metadata {
            Some(metadata) => metadata.clone(),
            None => meta_of_raw(&object.raw)?,
        };
        Ok(Self { api_version: object.api_version.clone(), kind: object.kind.clone(), metadata })
    }
}

impl Entry for Partial {
    fn read(object: &Object) -> Result<Self, Error> {
        Self::of(object)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Every kind has its metadata at field 1.
pub(crate) fn meta_of_raw(raw: &bytes::Bytes) -> Result<ObjectMeta, Error> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct WithMeta {
        #[prost(message, optional, tag = "1")]
        metadata: Option<ObjectMeta>,
    }
    let with_meta = <WithMeta as prost::Message>::decode(raw.clone())
        .map_err(|error| Error::internal(format!("read an object's metadata: {error}")))?;
    Ok(with_meta.metadata.unwrap_or_default())
}

/// Lists the index values an object is filed under.
pub(crate) type IndexBy<E> = Box<dyn Fn(&E) -> Vec<String> + Send + Sync>;

/// The objects of one watch set.
pub(crate) struct Shelf<E> {
    by_namespace: BTreeMap<String, BTreeMap<String, Arc<E>>>,
    len: usize,
    indices: HashMap<&'static str, Index<E>>,
}

struct Index<E> {
    by: IndexBy<E>,
    names: HashMap<String, BTreeSet<(String, String)>>,
}

impl<E: Entry> Shelf<E> {
    pub(crate) fn new(indices: Vec<(&'static str, IndexBy<E>)>) -> Self {
        let indices = indices.into_iter().map(|(name, by)| (name, Index { by, names: HashMap::new() })).collect();
        Self { by_namespace: BTreeMap::new(), len: 0, indices }
    }

    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<E>> {
        self.by_namespace.get(namespace)?.get(name)
    }

    pub(crate) fn put(&mut self, object: Arc<E>) -> Option<Arc<E>> {
        let (namespace, name) = (object.meta().namespace.clone(), object.meta().name.clone());
        let before = self.take(&namespace, &name);
        for index in self.indices.values_mut() {
            for value in (index.by)(&object) {
                index.names.entry(value).or_default().insert((namespace.clone(), name.clone()));
            }
        }
        self.by_namespace.entry(namespace).or_default().insert(name, object);
        self.len += 1;
        before
    }

    pub(crate) fn take(&mut self, namespace: &str, name: &str) -> Option<Arc<E>> {
        let names = self.by_namespace.get_mut(namespace)?;
        let object = names.remove(name)?;
        if names.is_empty() {
            self.by_namespace.remove(namespace);
        }
        self.len -= 1;
        for index in self.indices.values_mut() {
            for value in (index.by)(&object) {
                if let Some(names) = index.names.get_mut(&value) {
                    names.remove(&(namespace.to_owned(), name.to_owned()));
                    if names.is_empty() {
                        index.names.remove(&value);
                    }
                }
            }
        }
        Some(object)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<E>> {
        self.by_namespace.values().flat_map(BTreeMap::values)
    }
}

/// All shelves of a reflector, behind one lock: what a reader sees in several of them is one revision.
pub(crate) type Shelves = Vec<Box<dyn Any + Send + Sync>>;

/// A view of one kind's objects. Cheap to clone.
///
/// # Guarantees
/// Objects are shared and never change; two reads may see two revisions unless a [`crate::Cut`] is held over them.
pub struct Cache<E> {
    shelves: Arc<RwLock<Shelves>>,
    slot: usize,
    entry: PhantomData<fn() -> E>,
}

impl<E> Clone for Cache<E> {
    fn clone(&self) -> Self {
        Self { shelves: self.shelves.clone(), slot: self.slot, entry: PhantomData }
    }
}

impl<E: Entry> Cache<E> {
    pub(crate) fn new(shelves: Arc<RwLock<Shelves>>, slot: usize) -> Self {
        Self { shelves, slot, entry: PhantomData }
    }

    /// Reads with whatever guards this thread already holds.
    fn read<T>(&self, read: impl FnOnce(&Shelf<E>) -> T) -> T {
        let shelves = self.shelves.read_recursive();
        read(shelf(&shelves, self.slot))
    }

    /// `namespace` is empty for cluster-scoped kinds.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<E>> {
        self.read(|shelf| shelf.get(namespace, name).cloned())
    }

    /// Everything, by namespace and name.
    pub fn list(&self) -> Vec<Arc<E>> {
        self.read(|shelf| shelf.iter().cloned().collect())
    }

    /// Everything in one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<E>> {
        self.read(|shelf| {
            shelf.by_namespace.get(namespace).map(|names| names.values().cloned().collect()).unwrap_or_default()
        })
    }

    /// Everything filed under `value` in an index made with [`crate::Builder::index`]; nothing where there is no such index.
    pub fn by_index(&self, index: &str, value: &str) -> Vec<Arc<E>> {
        self.read(|shelf| {
            let names = shelf.indices.get(index).and_then(|index| index.names.get(value));
            names.into_iter().flatten().filter_map(|(namespace, name)| shelf.get(namespace, name).cloned()).collect()
        })
    }

    /// The values that an index holds objects under.
    pub fn index_values(&self, index: &str) -> Vec<String> {
        self.read(|shelf| {
            shelf.indices.get(index).map(|index| index.names.keys().cloned().collect()).unwrap_or_default()
        })
    }

    pub fn len(&self) -> usize {
        self.read(|shelf| shelf.len)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

pub(crate) fn shelf<E: Entry>(shelves: &Shelves, slot: usize) -> &Shelf<E> {
    shelves[slot].downcast_ref().expect("a slot keeps the type it was made with")
}

pub(crate) fn shelf_mut<E: Entry>(shelves: &mut Shelves, slot: usize) -> &mut Shelf<E> {
    shelves[slot].downcast_mut().expect("a slot keeps the type it was made with")
}
