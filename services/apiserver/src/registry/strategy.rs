//! [`Strategy`]: where a kind differs from all others. [`Rules`]: the same, for verbs that do not know the kind.

use proto::k8s::meta::v1::Time;

use super::{
    causes::Causes,
    record::{Record, Shape},
};

/// What one kind does differently. Every function is pure; the defaults suit most kinds.
pub trait Strategy: Send + Sync + 'static {
    type Object: Shape;

    /// Fills in what the user left out.
    fn fill_in(&self, _object: &mut Self::Object) {}

    /// Before an object is stored for the first time; its status is already cleared.
    fn prepare_create(&self, _object: &mut Self::Object, _now: Time) {}

    /// Before a changed object is stored; it already has the old one's status.
    fn prepare_update(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    /// Before a changed status is stored; the object already has the old one's spec.
    fn prepare_status(&self, _new: &mut Self::Object, _old: &Self::Object) {}

    fn validate(&self, _object: &Self::Object, _causes: &mut Causes) {}

    fn validate_update(&self, new: &Self::Object, _old: &Self::Object, causes: &mut Causes) {
        self.validate(new, causes);
    }

    fn validate_status(&self, _new: &Self::Object, _old: &Self::Object, _causes: &mut Causes) {}

    fn validate_name(&self, name: &str) -> Vec<String> {
        model::validate::dns_subdomain(name)
    }

    /// Whoever makes an object says its first status, too: a node that registers itself.
    fn keeps_first_status(&self) -> bool {
        false
    }

    /// Objects of this kind hold values alone ([`Strategy::claims`], [`Strategy::allocate`]).
    fn has_claims(&self) -> bool {
        false
    }

    /// Values this object holds alone.
    fn claims(&self, _object: &Self::Object) -> Vec<Claim> {
        Vec::new()
    }

    /// Gives the object the values it needs and does not have yet; `old` is what is stored.
    ///
    /// # Errors
    /// Where `pick` has none left: what it is short of.
    fn allocate(
        &self,
        _object: &mut Self::Object,
        _old: Option<&Self::Object>,
        _pick: &mut dyn FnMut(Pool) -> Option<String>,
    ) -> Result<(), Pool> {
        Ok(())
    }

    /// Seconds between the wish to delete an object and its end; `None` where it ends at once.
    fn grace_seconds(&self, _object: &Self::Object, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Shows in the object that its deletion has been asked for.
    fn mark_deleted(&self, _object: &mut Self::Object) {}

    /// Something other than metadata's finalizers holds an object whose deletion was asked for.
    fn is_held(&self, _object: &Self::Object) -> bool {
        false
    }

    /// Seconds until an object of this kind is forgotten by itself; 0 for never.
    fn ttl_seconds(&self) -> i64 {
        0
    }
}

/// Values given out one to a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    ServiceAddresses,
    NodePorts,
}

impl Pool {
    /// The part of the key below [`crate::storage::keys::RANGES`].
    pub fn key(self) -> &'static str {
        match self {
            Self::ServiceAddresses => "serviceips",
            Self::NodePorts => "servicenodeports",
        }
    }
}

/// A value an object holds alone, and the field it stands in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    pub pool: Pool,
    pub value: String,
    pub field: String,
}

impl Claim {
    pub fn key(&self) -> String {
        format!("{}{}/{}", crate::storage::keys::RANGES, self.pool.key(), self.value)
    }
}

/// A strategy whose kind is not known to the caller.
pub trait Rules: Send + Sync {
    fn has_status(&self) -> bool;
    fn has_generation(&self) -> bool;
    /// # Errors
    /// Where the bytes are not the kind's message.
    fn decode(&self, raw: &[u8]) -> Result<Box<dyn Record>, prost::DecodeError>;
    fn fill_in(&self, object: &mut dyn Record);
    fn prepare_create(&self, object: &mut dyn Record, now: Time);
    /// Keeps the old status; true where the spec changed.
    fn prepare_update(&self, new: &mut dyn Record, old: &dyn Record) -> bool;
    /// Keeps the old spec.
    fn prepare_status(&self, new: &mut dyn Record, old: &dyn Record);
    fn validate(&self, object: &dyn Record, causes: &mut Causes);
    fn validate_update(&self, new: &dyn Record, old: &dyn Record, causes: &mut Causes);
    fn validate_status(&self, new: &dyn Record, old: &dyn Record, causes: &mut Causes);
    fn validate_name(&self, name: &str) -> Vec<String>;
    fn has_claims(&self) -> bool;
    fn claims(&self, object: &dyn Record) -> Vec<Claim>;
    /// # Errors
    /// The pool that has nothing left.
    fn allocate(
        &self,
        object: &mut dyn Record,
        old: Option<&dyn Record>,
        pick: &mut dyn FnMut(Pool) -> Option<String>,
    ) -> Result<(), Pool>;
    fn grace_seconds(&self, object: &dyn Record, asked: Option<i64>) -> Option<i64>;
    fn mark_deleted(&self, object: &mut dyn Record);
    fn is_held(&self, object: &dyn Record) -> bool;
    fn ttl_seconds(&self) -> i64;
}

/// The one erasure of [`Strategy`].
pub struct Typed<S>(pub S);

fn of<S: Strategy>(record: &dyn Record) -> &S::Object {
    record.as_kind().expect("a resource's records are decoded by its own rules")
}

fn of_mut<S: Strategy>(record: &mut dyn Record) -> &mut S::Object {
    record.as_kind_mut().expect("a resource's records are decoded by its own rules")
}

impl<S: Strategy> Rules for Typed<S> {
    fn has_status(&self) -> bool {
        S::Object::HAS_STATUS
    }

    fn has_generation(&self) -> bool {
        S::Object::HAS_GENERATION
    }

    fn decode(&self, raw: &[u8]) -> Result<Box<dyn Record>, prost::DecodeError> {
        Ok(Box::new(<S::Object as prost::Message>::decode(raw)?))
    }

    fn fill_in(&self, object: &mut dyn Record) {
        self.0.fill_in(of_mut::<S>(object));
    }

    fn prepare_create(&self, object: &mut dyn Record, now: Time) {
        let object = of_mut::<S>(object);
        if S::Object::HAS_STATUS && !self.0.keeps_first_status() {
            object.set_status_of(&S::Object::default());
        }
        self.0.prepare_create(object, now);
    }

    fn prepare_update(&self, new: &mut dyn Record, old: &dyn Record) -> bool {
        let (new, old) = (of_mut::<S>(new), of::<S>(old));
        new.set_status_of(old);
        self.0.prepare_update(new, old);
        S::Object::HAS_GENERATION && !new.has_spec_of(old)
    }

    fn prepare_status(&self, new: &mut dyn Record, old: &dyn Record) {
        let (new, old) = (of_mut::<S>(new), of::<S>(old));
        new.set_spec_of(old);
        self.0.prepare_status(new, old);
    }

    fn validate(&self, object: &dyn Record, causes: &mut Causes) {
        self.0.validate(of::<S>(object), causes);
    }

    fn validate_update(&self, new: &dyn Record, old: &dyn Record, causes: &mut Causes) {
        self.0.validate_update(of::<S>(new), of::<S>(old), causes);
    }

    fn validate_status(&self, new: &dyn Record, old: &dyn Record, causes: &mut Causes) {
        self.0.validate_status(of::<S>(new), of::<S>(old), causes);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        self.0.validate_name(name)
    }

    fn has_claims(&self) -> bool {
        self.0.has_claims()
    }

    fn claims(&self, object: &dyn Record) -> Vec<Claim> {
        self.0.claims(of::<S>(object))
    }

    fn allocate(
        &self,
        object: &mut dyn Record,
        old: Option<&dyn Record>,
        pick: &mut dyn FnMut(Pool) -> Option<String>,
    ) -> Result<(), Pool> {
        self.0.allocate(of_mut::<S>(object), old.map(of::<S>), pick)
    }

    fn grace_seconds(&self, object: &dyn Record, asked: Option<i64>) -> Option<i64> {
        self.0.grace_seconds(of::<S>(object), asked)
    }

    fn mark_deleted(&self, object: &mut dyn Record) {
        self.0.mark_deleted(of_mut::<S>(object));
    }

    fn is_held(&self, object: &dyn Record) -> bool {
        self.0.is_held(of::<S>(object))
    }

    fn ttl_seconds(&self) -> i64 {
        self.0.ttl_seconds()
    }
}

/// The strategy of a kind that differs in nothing.
pub struct Plain<K>(std::marker::PhantomData<fn() -> K>);

impl<K> Default for Plain<K> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<K: Shape> Strategy for Plain<K> {
    type Object = K;
}

/// As [`Plain`], for kinds whose names need only be one segment of a path: roles, bindings.
pub struct FreelyNamed<K>(std::marker::PhantomData<fn() -> K>);

impl<K> Default for FreelyNamed<K> {
    fn default() -> Self {
        Self(std::marker::PhantomData)
    }
}

impl<K: Shape> Strategy for FreelyNamed<K> {
    type Object = K;

    fn validate_name(&self, name: &str) -> Vec<String> {
        model::validate::path_segment(name)
    }
}
