//! The Rust SDK of Godwit.
//!
//! A [`Client`] is one device that stays connected. It promises the application that a message which was
//! acknowledged is stored; that a retry, whoever makes it, is the same message; and that each entry of each
//! conversation comes out of [`Events`] once and in order, whatever the network and the servers do. Its queues are
//! bounded: an application that does not listen leaves entries at the server.
//!
//! - [`client`]: the SDK: sending, events, queries, reconnecting.
//! - [`sync`]: how a device knows what it lacks: a state machine without a socket.
//! - [`state`]: what a device keeps over restarts.
//! - [`connection`], [`codec`]: one WebSocket, and its frames.
//! - [`http`], [`tokens`]: accounts, sessions and groups; where access tokens come from.

pub mod backoff;
pub mod client;
pub mod codec;
pub mod connection;
mod error;
pub mod http;
mod server;
pub mod state;
pub mod sync;
pub mod tokens;
mod trust;

pub use client::{Client, Event, Events, Options, Sending, new_client_msg_id, text};
pub use connection::Connection;
pub use error::{Error, Recovery};
pub use server::Server;
pub use state::State;
pub use trust::Trust;
