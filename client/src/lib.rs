//! The Rust SDK of Godwit.
//!
//! A [`Client`] is one device that stays connected. It guarantees the application that an acknowledged message is
//! stored, that a retry is the same message, and that [`Events`] delivers each entry of each conversation once and in
//! order, and the current state of everything else, despite network and server failures. Its queues are bounded: while the application reads no events, entries
//! stay at the server.
//!
//! - [`client`]: sending, events, requests, reconnecting.
//! - [`Draft`]: entries to send: messages, replies, edits, recalls, reactions.
//! - [`apply()`]: applies a change of an entry to a copy of the entry.
//! - [`sync`]: a state machine without a socket that finds missing changes.
//! - [`state`]: the progress of a device, kept across restarts.
//! - [`connection`], [`codec`]: one WebSocket, and its frames.
//! - [`backoff`]: pauses between attempts.
//! - [`http`], [`tokens`]: accounts, sessions and groups, and everything for programs that don't stay connected; access tokens.
//! - [`Server`], [`Trust`]: the address of a server, and the authorities that sign its certificate.

mod apply;
pub mod backoff;
pub mod client;
pub mod codec;
pub mod connection;
mod draft;
mod error;
pub mod http;
mod parts;
mod server;
pub mod state;
pub mod sync;
pub mod tokens;
mod trust;

pub use apply::{Applied, apply};
pub use client::{Client, Event, Events, Options, Sending, new_client_msg_id};
pub use connection::Connection;
pub use draft::{Draft, text};
pub use error::{Error, Recovery};
pub use server::Server;
pub use state::State;
pub use trust::Trust;
