//! Decodes frames. The error of a frame carries the frame's id where it can be read, and names the member and the value.
//!
//! A frame that is well formed takes one pass. Only the error of another one looks at the frame again, for the id and the place.

mod json;
mod proto;

use crate::{
    error::{ApiError, excerpt},
    json::{Message, describe},
    v1::{ClientFrame, ServerFrame},
};
use bytes::Bytes;
use prost::Message as _;

/// A frame that can't be handled, or is of an unknown kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct FrameError {
    /// The id of the frame. 0: it has none, or the id can't be read.
    pub id: u32,
    /// The error for the device.
    pub error: ApiError,
}

impl FrameError {
    /// An error about a frame whose id can't be read.
    pub fn without_id(error: ApiError) -> Self {
        Self { id: 0, error }
    }

    fn unreadable(id: u32, reason: &str) -> Self {
        Self { id, error: ApiError::invalid(format!("the frame can't be read: {}", excerpt(reason))) }
    }

    /// The error of a frame that has none of the kinds known here, only the members `unknown`.
    fn of_unknown_kind(id: u32, unknown: &[String]) -> Self {
        let sentence = match unknown {
            [] => "the frame holds no request".to_owned(),
            [one] => format!("this server does not know {one}"),
            several => format!("this server knows none of {}", several.join(", ")),
        };
        let kinds = ClientFrame::schema().fields.iter().filter(|field| field.name != "id");
        let kinds: Vec<_> = kinds.map(|field| field.json_name).collect();
        Self {
            id,
            error: ApiError::invalid(format!("{}; its frames are {}", excerpt(sentence), kinds.join(", "))),
        }
    }
}

/// Most unknown members that an error names.
const MAX_UNKNOWN: usize = 3;

/// Decodes a frame of a device in JSON.
///
/// # Errors
/// `INVALID_REQUEST` with the id of the frame. The connection may continue.
pub fn client_from_json(text: &str) -> Result<ClientFrame, FrameError> {
    match serde_json::from_str::<ClientFrame>(text) {
        Ok(frame) if frame.frame.is_some() => Ok(frame),
        Ok(frame) => Err(FrameError::of_unknown_kind(frame.id, &json::Outline::read(text).unknown)),
        Err(error) => Err(FrameError::unreadable(json::Outline::read(text).id, &describe(&error))),
    }
}

/// Decodes a frame of a device in protobuf.
///
/// # Errors
/// `INVALID_REQUEST` with the id of the frame. The connection may continue.
pub fn client_from_proto(bytes: Bytes) -> Result<ClientFrame, FrameError> {
    match ClientFrame::decode(bytes.clone()) {
        Ok(frame) if frame.frame.is_some() => Ok(frame),
        Ok(frame) => {
            let unknown = proto::Outline::read(&bytes, ClientFrame::schema()).unknown;
            Err(FrameError::of_unknown_kind(frame.id, &unknown))
        }
        Err(_) => {
            let id = proto::Outline::read(&bytes, ClientFrame::schema()).id;
            Err(FrameError::unreadable(id, &proto::defect(&bytes, ClientFrame::schema())))
        }
    }
}

/// Decodes a frame of a server in protobuf.
///
/// # Errors
/// A sentence that names the field.
pub fn server_from_proto(bytes: Bytes) -> Result<ServerFrame, String> {
    ServerFrame::decode(bytes.clone()).map_err(|_| {
        format!(
            "a frame of the server can't be read: {}",
            excerpt(proto::defect(&bytes, ServerFrame::schema()))
        )
    })
}

#[cfg(test)]
mod tests;
