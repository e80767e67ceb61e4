//! Typed payloads: codecs, and a layer that hands decoded records to a handler.
//!
//! ```
//! use kafka_runtime::codec::{Codec, DecodeLayer, Decoded, Json};
//! use kafka_runtime::{HandlerError, Message};
//! use serde::{Deserialize, Serialize};
//! use tower::{Layer, service_fn};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Order {
//!     item: String,
//! }
//!
//! // A payload that cannot be decoded is rejected: the record goes to the dead letters and never reaches the handler.
//! let handler = DecodeLayer::new(Json).layer(service_fn(|order: Decoded<Order>| async move {
//!     println!("{} at offset {}", order.value.item, order.record.offset);
//!     Ok::<_, HandlerError>(())
//! }));
//! # fn takes(_: impl kafka_runtime::RecordHandler) {}
//! # takes(handler);
//! let payload = Json.encode(&Order { item: "tea".into() })?;
//! # assert_eq!(payload, r#"{"item":"tea"}"#);
//! # Ok::<(), kafka_runtime::codec::CodecError>(())
//! ```

mod decode;
mod envelope;
#[cfg(test)]
mod tests;

pub use decode::{Decode, DecodeLayer, Decoded};
pub use envelope::Envelope;

use crate::BoxError;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Encodes values as payloads and decodes them.
pub trait Codec<T>: Clone + Send + Sync + 'static {
    /// Encodes `value`.
    ///
    /// # Errors
    /// This format cannot represent the value.
    fn encode(&self, value: &T) -> Result<Bytes, CodecError>;

    /// Decodes `payload`. Must not panic on any input.
    ///
    /// # Errors
    /// The payload does not hold a valid value.
    fn decode(&self, payload: &Bytes) -> Result<T, CodecError>;
}

/// A payload or a value is invalid. The text never quotes a payload.
#[derive(Debug, thiserror::Error)]
#[error("not {what}")]
pub struct CodecError {
    what: &'static str,
    #[source]
    source: BoxError,
}

impl CodecError {
    /// `what` names the expected form, as in "not {what}"; `source` says why the value does not have it.
    pub fn new(what: &'static str, source: impl Into<BoxError>) -> Self {
        Self { what, source: source.into() }
    }
}

/// Payloads as plain bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, CodecError> {
        Ok(value.clone())
    }

    fn decode(&self, payload: &Bytes) -> Result<Bytes, CodecError> {
        Ok(payload.clone())
    }
}

/// JSON, for types that implement serde's traits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        let encoded = serde_json::to_vec(value);
        encoded.map(Into::into).map_err(|error| CodecError::new("expressible in JSON", error))
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        serde_json::from_slice(payload).map_err(|error| {
            // The full text of the error can quote the payload.
            let (line, column) = (error.line(), error.column());
            let place =
                format!("{:?} error in line {line}, column {column}", error.classify()).to_lowercase();
            CodecError::new("the expected JSON", place)
        })
    }
}

/// Protocol buffers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Protobuf;

impl<T: prost::Message + Default> Codec<T> for Protobuf {
    fn encode(&self, value: &T) -> Result<Bytes, CodecError> {
        Ok(value.encode_to_vec().into())
    }

    fn decode(&self, payload: &Bytes) -> Result<T, CodecError> {
        T::decode(payload.clone()).map_err(|error| CodecError::new("the expected protobuf message", error))
    }
}
