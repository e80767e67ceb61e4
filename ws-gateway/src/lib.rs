//! ws-gateway: the edge of Godwit. It serves an HTTP API, and a WebSocket per device.
//!
//! It owns the connections of devices and nothing else: db-service owns everything durable, the cache everything shared. It
//! promises:
//! - a `send` is acknowledged only when the log has it durably (P1);
//! - a device's identity comes from its token alone and is checked before the ack (P8);
//! - no message overtakes an earlier one of its conversation that was refused temporarily (P3);
//! - a slow device does not slow down others, and an idle connection without TLS costs less than 10 KB (P7).
//!
//! A message enters through [`socket`], passes the rules of [`protocol`], is checked and logged by [`send`](mod@send), and its
//! ack leaves through the [`outbox`]. A delivery enters through [`delivery`], is distributed to connections by the [`hub`],
//! and leaves through the same outboxes.
//!
//! - `app`: the program. [`gateway`]: the service over given [`dependencies`]. [`drain`]: closes all connections gradually.
//! - [`serve`]: accepts connections, as far as [`admission`] admits them, and gives each request an id. [`problem`]: errors and extractors.
//! - [`http`]: the paths, made from lists of operations, each with its handler and its documentation: [`accounts`], `conversations`,
//!   [`groups`], `users`. [`openapi`]: the document about them.
//! - [`protocol`]: the rules of a connection as a state machine, without a socket. [`codec`]: the two wire formats.
//! - [`backend`]: the parts behind HTTP and sockets: [`authentication`], [`permissions`], [`blocks`], [`reading`], [`user_state`],
//!   [`signals`], [`entry_log`], [`recent_acks`], [`group_acks`], [`fences`], [`entry_changes`], [`connections`], [`request_tasks`].
//! - [`limits`]: sizes and counts. [`rate_limits`]: rates. [`token`] and [`password`]: cryptography.

pub mod accounts;
pub mod admission;
pub mod answers;
#[cfg(feature = "program")]
mod app;
pub mod authentication;
pub mod backend;
pub mod blocks;
pub mod codec;
pub mod connections;
mod conversations;
#[cfg(feature = "defects")]
mod defects;
pub mod delivery;
pub mod dependencies;
pub mod draft;
pub mod drain;
pub mod entry_changes;
pub mod entry_log;
pub mod fences;
pub mod gateway;
pub mod group_acks;
pub mod groups;
mod handshake;
pub mod http;
pub mod hub;
pub mod limits;
pub mod memory;
mod metrics;
pub mod openapi;
mod operation;
pub mod outbox;
pub mod outcomes;
mod pages;
pub mod password;
pub mod permissions;
pub mod problem;
pub mod protocol;
mod proxies;
mod query;
pub mod rate_limits;
pub mod reading;
pub mod recent_acks;
mod request_id;
pub mod request_tasks;
pub mod send;
pub mod serve;
pub mod signals;
pub mod socket;
pub mod token;
mod trace;
pub mod user_state;
mod users;
pub mod websocket;

#[cfg(feature = "program")]
pub use app::{App, PROGRAM, build};
pub use dependencies::Dependencies;
pub use gateway::{Gateway, drain_limit, signing_keys};
pub use metrics::describe_metrics;
