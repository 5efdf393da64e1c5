//! One set of a reflector's watch: what it asks for, and how its events become steps.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};

use proto::{Object, forestay::api::v1::View};

use crate::{
    Change, Entry, Error, Reflector,
    cache::{IndexBy, Shelf, Shelves, shelf_mut},
    client::{Selection, Target, WatchSet},
    reflector::{Notice, Step},
};

/// Told of a change: the state before, and the state after.
pub(crate) type Listener<E> = Box<dyn Fn(&Reflector, Option<&Arc<E>>, Option<&Arc<E>>) + Send + Sync>;

/// A set before the start.
pub(crate) struct Set<E> {
    request: WatchSet,
    arm: u32,
    pub(crate) indices: Vec<(&'static str, IndexBy<E>)>,
    pub(crate) listeners: Vec<Listener<E>>,
}

impl<E: Entry> Set<E> {
    pub(crate) fn new(target: Target, selection: Selection, view: View, arm: u32) -> Self {
        let request =
            WatchSet { target: Some(target), selection: Some(selection), from_revision: 0, view: view.into() };
        Self { request, arm, indices: Vec::new(), listeners: Vec::new() }
    }
}

/// A set of any kind.
pub(crate) trait AnySet: Any + Send {
    fn id(&self) -> (String, String);
    fn entry_type(&self) -> TypeId;
    fn request(&self) -> WatchSet;
    fn widen(&mut self, other: &WatchSet);
    fn start(self: Box<Self>, slot: usize) -> (Box<dyn Any + Send + Sync>, Box<dyn Follower>);
}

impl<E: Entry> AnySet for Set<E> {
    fn id(&self) -> (String, String) {
        let target = self.request.target.as_ref();
        target.map(|target| (target.group.clone(), target.resource.clone())).unwrap_or_default()
    }

    fn entry_type(&self) -> TypeId {
        TypeId::of::<E>()
    }

    fn request(&self) -> WatchSet {
        self.request.clone()
    }

    fn widen(&mut self, other: &WatchSet) {
        if self.request.target != other.target
            && let Some(target) = &mut self.request.target
        {
            target.namespace.clear();
        }
        if self.request.selection != other.selection {
            self.request.selection = Some(Selection::default());
        }
    }

    fn start(self: Box<Self>, slot: usize) -> (Box<dyn Any + Send + Sync>, Box<dyn Follower>) {
        let shelf: Shelf<E> = Shelf::new(self.indices);
        let files = Files { slot, arm: self.arm, listeners: self.listeners };
        (Box::new(shelf), Box::new(Following { files: Arc::new(files), pending: Vec::new() }))
    }
}

/// A running set of any kind.
pub(crate) trait Follower: Send {
    /// A fresh initial state begins.
    fn begin(&mut self);
    /// One object of it.
    fn initial(&mut self, object: &Object) -> Result<(), Error>;
    /// It is whole: what it lacks has been deleted meanwhile.
    fn finish(&mut self) -> Step;
    /// One later event.
    fn step(&self, is_deletion: bool, object: &Object) -> Result<Step, Error>;
}

struct Following<E> {
    files: Arc<Files<E>>,
    pending: Vec<Arc<E>>,
}

struct Files<E> {
    slot: usize,
    arm: u32,
    listeners: Vec<Listener<E>>,
}

impl<E: Entry> Follower for Following<E> {
    fn begin(&mut self) {
        self.pending.clear();
    }

    fn initial(&mut self, object: &Object) -> Result<(), Error> {
        self.pending.push(Arc::new(E::read(object)?));
        Ok(())
    }

    fn finish(&mut self) -> Step {
        let (pending, files) = (std::mem::take(&mut self.pending), self.files.clone());
        Box::new(move |shelves, notices| {
            let shelf: &mut Shelf<E> = shelf_mut(shelves, files.slot);
            let names: HashMap<(&str, &str), ()> =
                pending.iter().map(|object| ((&*object.meta().namespace, &*object.meta().name), ())).collect();
            let gone: Vec<(String, String)> = shelf
                .iter()
                .map(|object| object.meta())
                .filter(|meta| !names.contains_key(&(&*meta.namespace, &*meta.name)))
                .map(|meta| (meta.namespace.clone(), meta.name.clone()))
                .collect();
            for (namespace, name) in gone {
                Files::take(&files, shelves, &namespace, &name, notices);
            }
            for object in pending {
                Files::put(&files, shelves, object, notices);
            }
        })
    }

    fn step(&self, is_deletion: bool, object: &Object) -> Result<Step, Error> {
        let (object, files) = (Arc::new(E::read(object)?), self.files.clone());
        Ok(Box::new(move |shelves, notices| {
            if is_deletion {
                Files::take(&files, shelves, &object.meta().namespace, &object.meta().name, notices);
            } else {
                Files::put(&files, shelves, object, notices);
            }
        }))
    }
}

impl<E: Entry> Files<E> {
    fn put(files: &Arc<Self>, shelves: &mut Shelves, object: Arc<E>, notices: &mut Vec<Notice>) {
        let shelf: &mut Shelf<E> = shelf_mut(shelves, files.slot);
        let meta = object.meta();
        let present = shelf.get(&meta.namespace, &meta.name).map(|present| present.meta());
        let is_known = present.is_some_and(|present| {
            present.uid == meta.uid
                && present.resource_version == meta.resource_version
                && !meta.resource_version.is_empty()
        });
        if is_known {
            return;
        }
        let before = shelf.put(object.clone());
        notices.push(Self::notice(files, before, Some(object)));
    }

    fn take(files: &Arc<Self>, shelves: &mut Shelves, namespace: &str, name: &str, notices: &mut Vec<Notice>) {
        let shelf: &mut Shelf<E> = shelf_mut(shelves, files.slot);
        if let Some(before) = shelf.take(namespace, name) {
            notices.push(Self::notice(files, Some(before), None));
        }
    }

    fn notice(files: &Arc<Self>, before: Option<Arc<E>>, after: Option<Arc<E>>) -> Notice {
        let meta = after.as_ref().or(before.as_ref()).map(|object| object.meta());
        let (namespace, name) = meta.map(|meta| (meta.namespace.clone(), meta.name.clone())).unwrap_or_default();
        let change = Change { arm: files.arm, namespace, name };
        if files.listeners.is_empty() {
            return Notice { change, tell: None };
        }
        let files = files.clone();
        let tell = move |reflector: &Reflector| {
            files.listeners.iter().for_each(|listener| listener(reflector, before.as_ref(), after.as_ref()));
        };
        Notice { change, tell: Some(Box::new(tell)) }
    }
}
