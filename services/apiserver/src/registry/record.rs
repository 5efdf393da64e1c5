//! [`Record`]: an object of any kind while a verb works on it, and [`Shape`]: where its kind keeps spec and status.

use std::any::Any;

use proto::k8s::meta::v1::ObjectMeta;

/// An object whose kind the verbs need not know.
pub trait Record: Any + Send + Sync {
    fn meta(&self) -> &ObjectMeta;
    fn meta_mut(&mut self) -> &mut ObjectMeta;
    /// The message's bytes, fields in number order.
    fn encode(&self) -> Vec<u8>;
    fn duplicate(&self) -> Box<dyn Record>;
}

impl<K: proto::Kind> Record for K {
    fn meta(&self) -> &ObjectMeta {
        proto::Kind::meta(self)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        proto::Kind::meta_mut(self)
    }

    fn encode(&self) -> Vec<u8> {
        self.encode_to_vec()
    }

    fn duplicate(&self) -> Box<dyn Record> {
        Box::new(self.clone())
    }
}

impl dyn Record {
    /// The object as its own kind, where it is of that kind.
    pub fn as_kind<K: proto::Kind>(&self) -> Option<&K> {
        (self as &dyn Any).downcast_ref()
    }

    pub fn as_kind_mut<K: proto::Kind>(&mut self) -> Option<&mut K> {
        (self as &mut dyn Any).downcast_mut()
    }
}

/// Which part of an object belongs to its users and which to its controllers.
pub trait Shape: proto::Resource {
    /// Has a `status` that only the status subresource writes.
    const HAS_STATUS: bool = false;
    /// Counts changes of its spec in `metadata.generation`.
    const HAS_GENERATION: bool = false;

    /// Takes over the other's status.
    fn set_status_of(&mut self, _other: &Self) {}

    /// Takes over all but status and metadata of the other.
    fn set_spec_of(&mut self, _other: &Self) {}

    /// Everything but status and metadata is alike.
    fn has_spec_of(&self, _other: &Self) -> bool {
        true
    }
}

/// Writes [`Shape`] for kinds: `whole` (neither), `generation` (spec, generation), `status` (spec, status) or `both`.
macro_rules! shape {
    ($($kind:ty: $shape:ident,)*) => { $( shape!(@ $shape $kind); )* };
    (@ whole $kind:ty) => { impl $crate::registry::record::Shape for $kind {} };
    (@ generation $kind:ty) => {
        impl $crate::registry::record::Shape for $kind {
            const HAS_GENERATION: bool = true;
            fn has_spec_of(&self, other: &Self) -> bool {
                self.spec == other.spec
            }
        }
    };
    (@ status $kind:ty) => { shape!(@@ false $kind); };
    (@ both $kind:ty) => { shape!(@@ true $kind); };
    (@@ $generation:literal $kind:ty) => {
        impl $crate::registry::record::Shape for $kind {
            const HAS_STATUS: bool = true;
            const HAS_GENERATION: bool = $generation;
            fn set_status_of(&mut self, other: &Self) {
                self.status.clone_from(&other.status);
            }
            fn set_spec_of(&mut self, other: &Self) {
                self.spec.clone_from(&other.spec);
            }
            fn has_spec_of(&self, other: &Self) -> bool {
                self.spec == other.spec
            }
        }
    };
}
pub(crate) use shape;
