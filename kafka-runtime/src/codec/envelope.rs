//! Messages of different types in one topic.

use super::CodecError;
use prost::{Message, Name};
use prost_types::Any;
use std::time::{SystemTime, UNIX_EPOCH};

/// Any message with its type, an id and a time. It is a protobuf message itself, so [`Protobuf`](super::Protobuf) is its
/// codec:
///
/// ```protobuf
/// message Envelope {
///   string id = 1;
///   int64 time_ms = 2;
///   google.protobuf.Any payload = 3;
/// }
/// ```
#[derive(Clone, PartialEq, Message)]
pub struct Envelope {
    /// Unique for each envelope, and the same for each redelivery.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Creation time, in milliseconds since 1970.
    #[prost(int64, tag = "2")]
    pub time_ms: i64,
    /// The message and its type.
    #[prost(message, optional, tag = "3")]
    pub payload: Option<Any>,
}

impl Envelope {
    /// Wraps a message, with a random id and the current time.
    pub fn seal<T: Message + Name>(message: &T) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            time_ms: i64::try_from(now).unwrap_or(i64::MAX),
            payload: Some(Any { type_url: T::type_url(), value: message.encode_to_vec() }),
        }
    }

    /// The type of the message, `package.Name`; empty if there is none.
    pub fn type_name(&self) -> &str {
        let url = self.payload.as_ref().map_or("", |payload| &payload.type_url);
        url.rsplit('/').next().unwrap_or_default()
    }

    /// Unwraps the message.
    ///
    /// # Errors
    /// The message has another type, or is damaged.
    pub fn open<T: Message + Name + Default>(&self) -> Result<T, CodecError> {
        let Some(payload) = &self.payload else {
            return Err(CodecError::new("an envelope with a message", "it is empty"));
        };
        if self.type_name() != T::full_name() {
            return Err(CodecError::new("a message of the expected type", "it is of another type"));
        }
        T::decode(&payload.value[..]).map_err(|error| CodecError::new("the expected protobuf message", error))
    }
}
