//! The contract of Godwit, and nothing else: what the services, the clients and the tests agree on.
//!
//! It knows no server and no database. It promises that the generated types are exactly `proto/godwit/v1`, that an
//! id is a pure function of what it identifies, and that an error code means the same on every wire.
//!
//! - [`v1`]: the generated messages, gRPC clients and servers, with proto3 JSON through `serde`.
//! - [`ids`]: user, device, conversation and message ids: parsing, checking, deriving.
//! - [`error`]: the one table from [`v1::ErrorCode`] to gRPC, HTTP and WebSocket.
//! - [`config`]: the one configuration of all programs.
//! - [`channel`]: the one type of gRPC channel, remote or in process.
//! - [`record`]: how an [`v1::Entry`] travels in the log.
//! - [`splice`]: frames put together from entries that were encoded once.

pub mod channel;
pub mod config;
pub mod error;
pub mod ids;
pub mod record;
pub mod splice;

pub use channel::{Caller, Channel, Gateways};
pub use error::{ApiError, retry_after};

/// The generated contract, `proto/godwit/v1`.
#[allow(
    clippy::all,
    clippy::unwrap_used,
    reason = "generated code, whose warnings come and go with the generator"
)]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/godwit.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/godwit.v1.serde.rs"));
}

/// Encoded `FileDescriptorSet` of the contract, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/godwit.v1.descriptors.bin"));

/// WebSocket subprotocol of binary protobuf frames.
pub const SUBPROTOCOL_PROTO: &str = "godwit.v1.proto";
/// WebSocket subprotocol of proto3 JSON text frames.
pub const SUBPROTOCOL_JSON: &str = "godwit.v1.json";
/// The application that is served unless configured otherwise.
pub const DEFAULT_APP: &str = "default";
/// Topic of everything that is ordered and stored.
pub const MESSAGES_TOPIC: &str = "godwit.messages";
/// Name of the topic that holds the dead letters of a topic.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dead")
}
/// Most entries or heads in one page.
pub const MAX_PAGE: i32 = 500;
/// Most characters of the name of a group.
pub const MAX_GROUP_NAME: usize = 128;
/// Entries or heads in a page whose limit is not given.
pub const DEFAULT_PAGE: i32 = 100;
