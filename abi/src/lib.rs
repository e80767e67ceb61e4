//! The contract between services, clients and tests.
//!
//! This crate depends on no server and no database. It promises that the generated types are exactly `proto/godwit/v1`,
//! that ids are derived by pure functions, and that an error code has the same meaning in every protocol.
//!
//! - [`v1`]: the generated messages, gRPC clients and servers, with proto3 JSON through `serde`.
//! - [`ids`]: parses, checks and derives the ids of users, devices, conversations and messages.
//! - [`names`]: checks and normalises names that people see.
//! - [`error`]: the table that maps [`v1::ErrorCode`] to gRPC, HTTP and WebSocket.
//! - [`config`]: the configuration of all programs.
//! - [`frame`]: decodes frames, with errors that name the frame and the member.
//! - [`json`]: reads and writes proto3 JSON.
//! - [`channel`]: the type of all gRPC channels, remote or in process.
//! - [`envelope`]: reads and adds fields of an encoded [`v1::Entry`] without decoding its content.
//! - [`record`]: keys of the log's records, and the checks of an encoded entry.
//! - [`mod@slot`]: assigns conversations to databases.
//! - [`splice`]: builds frames from entries that are encoded only once.

pub mod channel;
pub mod config;
pub mod envelope;
pub mod error;
pub mod frame;
pub mod ids;
pub mod json;
pub mod names;
pub mod record;
pub mod slot;
pub mod splice;

pub use channel::{Caller, Channel, Gateways};
pub use error::{ApiError, retry_after};

/// The generated contract, `proto/godwit/v1`.
#[allow(clippy::all, clippy::unwrap_used, reason = "generated code, whose warnings depend on the generator")]
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/godwit.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/godwit.v1.json.rs"));
}

/// The encoded `FileDescriptorSet` of the contract, for gRPC reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/godwit.v1.descriptors.bin"));

/// WebSocket subprotocol of binary protobuf frames.
pub const SUBPROTOCOL_PROTO: &str = "godwit.v1.proto";
/// WebSocket subprotocol of proto3 JSON text frames.
pub const SUBPROTOCOL_JSON: &str = "godwit.v1.json";
/// Default name of the application.
pub const DEFAULT_APP: &str = "default";
/// Default topic of messages and group changes.
pub const MESSAGES_TOPIC: &str = "godwit.messages";
/// Topic of messages in the log of the one-process program. Not that of Kafka: a store that moves from one log to the other must not
/// mistake its position in the one for a position in the other.
pub const EMBEDDED_TOPIC: &str = "godwit.embedded";
/// Name of the topic that holds the dead letters of a topic.
pub fn dead_letter_topic(topic: &str) -> String {
    format!("{topic}.dead")
}
/// Largest page, in entries or heads.
pub const MAX_PAGE: i32 = 500;
/// Longest name of a group, in characters as [`names`] counts them.
pub const MAX_GROUP_NAME: usize = 128;
/// Longest name of a user, in characters as [`names`] counts them.
pub const MAX_USER_NAME: usize = 128;
/// Default page size, in entries or heads.
pub const DEFAULT_PAGE: i32 = 100;
