//! [`Object`]: any kind as one tag, one length and the object's own bytes, never decoded on the way through.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType},
};

use crate::k8s::meta::v1::ObjectMeta;

/// A message that is an arm of [`Object`]: it has an apiVersion, a kind and metadata.
pub trait Kind: Message + Default + Clone + Send + Sync + 'static {
    /// "v1", "apps/v1"
    const API_VERSION: &'static str;
    /// "Pod"
    const KIND: &'static str;
    /// Its number in `forestay.api.v1.Object`; never changes.
    const ARM: u32;
    /// "k8s.api.core.v1.Pod"
    const MESSAGE: &'static str;

    fn metadata(&self) -> &Option<ObjectMeta>;
    fn metadata_mut(&mut self) -> &mut Option<ObjectMeta>;

    /// Metadata for reading; an object without any reads as empty.
    fn meta(&self) -> &ObjectMeta {
        static EMPTY: std::sync::LazyLock<ObjectMeta> = std::sync::LazyLock::new(ObjectMeta::default);
        self.metadata().as_ref().unwrap_or(&EMPTY)
    }

    /// Metadata for writing.
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut().get_or_insert_default()
    }
}

/// A kind that has a resource of its own: `pods`, `nodes`.
pub trait Resource: Kind {
    /// "" for the core group.
    const GROUP: &'static str;
    const VERSION: &'static str;
    const PLURAL: &'static str;
    const NAMESPACED: bool;
}

/// `forestay.api.v1.Object` with its arm left as bytes.
///
/// Generated clients of other languages see a typed oneof at the same numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    /// "v1", "apps/v1"
    pub api_version: String,
    /// "Pod"
    pub kind: String,
    /// Present in metadata-only views.
    pub metadata: Option<ObjectMeta>,
    /// The arm's number; 0 where no arm is set.
    pub arm: u32,
    /// The arm's message, encoded.
    pub raw: Bytes,
}

/// Why an [`Object`] is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the object is not a {wanted} but {found}")]
    OtherKind { wanted: &'static str, found: String },
    #[error("decode the object: {0}")]
    Bytes(#[from] DecodeError),
}

/// The first arm number of the oneof; the custom-object arm.
const FIRST_ARM: u32 = 9;

impl Object {
    /// Encodes a typed object.
    pub fn of<K: Kind>(object: &K) -> Self {
        Self::from_raw(K::API_VERSION, K::KIND, K::ARM, object.encode_to_vec().into())
    }

    /// Wraps bytes that are known to be the arm's message.
    pub fn from_raw(api_version: &str, kind: &str, arm: u32, raw: Bytes) -> Self {
        Self { api_version: api_version.to_owned(), kind: kind.to_owned(), metadata: None, arm, raw }
    }

    /// Decodes the arm as `K`.
    ///
    /// # Errors
    /// Where the arm is another kind's, or its bytes are not a `K`.
    pub fn decode_as<K: Kind>(&self) -> Result<K, ObjectError> {
        if self.arm != K::ARM {
            let found = format!("{} {} (arm {})", self.api_version, self.kind, self.arm);
            return Err(ObjectError::OtherKind { wanted: K::KIND, found });
        }
        Ok(K::decode(self.raw.clone())?)
    }
}

impl Message for Object {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        if !self.api_version.is_empty() {
            encoding::string::encode(1, &self.api_version, buf);
        }
        if !self.kind.is_empty() {
            encoding::string::encode(2, &self.kind, buf);
        }
        if let Some(metadata) = &self.metadata {
            encoding::message::encode(3, metadata, buf);
        }
        if self.arm != 0 {
            encoding::bytes::encode(self.arm, &self.raw, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::string::merge(wire_type, &mut self.api_version, buf, context),
            2 => encoding::string::merge(wire_type, &mut self.kind, buf, context),
            3 => encoding::message::merge(wire_type, self.metadata.get_or_insert_default(), buf, context),
            arm if arm >= FIRST_ARM && wire_type == WireType::LengthDelimited => self.merge_arm(arm, buf, context),
            _ => encoding::skip_field(wire_type, tag, buf, context),
        }
    }

    fn encoded_len(&self) -> usize {
        let text = |tag, value: &String| if value.is_empty() { 0 } else { encoding::string::encoded_len(tag, value) };
        let metadata = self.metadata.as_ref().map_or(0, |metadata| encoding::message::encoded_len(3, metadata));
        let arm = if self.arm == 0 { 0 } else { encoding::bytes::encoded_len(self.arm, &self.raw) };
        text(1, &self.api_version) + text(2, &self.kind) + metadata + arm
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Object {
    /// Protobuf's rule for a message that comes in parts: the same arm merges (concatenation), another one replaces.
    fn merge_arm(&mut self, arm: u32, buf: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
        let mut part = Bytes::new();
        encoding::bytes::merge(WireType::LengthDelimited, &mut part, buf, context)?;
        if self.arm == arm && !self.raw.is_empty() {
            let mut whole = BytesMut::from(&self.raw[..]);
            whole.extend_from_slice(&part);
            part = whole.freeze();
        }
        (self.arm, self.raw) = (arm, part);
        Ok(())
    }
}
