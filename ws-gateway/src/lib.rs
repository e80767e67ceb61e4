//! ws-gateway: the one edge of Godwit. HTTP for accounts and groups, a WebSocket per device.
//!
//! It owns the connections of devices and nothing else: everything durable is db-service's, everything shared is the
//! cache's. It promises that a `send` is acknowledged only when the log has it durably (P1), that who a device is comes
//! from its token alone and is checked before the ack (P8), that nothing overtakes a message which was refused for now (P3), that
//! no device makes another one wait, and that an idle connection without TLS costs less than 10 KB (P7).
//!
//! A message comes in through [`socket`], is judged by [`session`], checked and logged by [`send`](mod@send), and its ack
//! goes out through the [`outbox`]. A delivery comes in through [`delivery`], is spread by the [`hub`], and goes out
//! through the same outboxes.
//!
//! - [`gateway`]: bound, then run; `app`: the program; [`drain`]: how devices leave when it stops.
//! - [`serve`]: accepts connections, within bounds; [`http`]: the paths; [`accounts`], [`groups`]: what stands behind them; [`problem`]: how errors look.
//! - [`session`]: the state machine of the protocol, without a socket; [`codec`]: the two wire formats.
//! - [`backend`]: the other services, permissions; [`limits`], [`token`], [`password`].

pub mod accounts;
mod app;
pub mod backend;
pub mod codec;
#[cfg(feature = "defects")]
mod defects;
pub mod delivery;
pub mod drain;
pub mod gateway;
pub mod groups;
pub mod http;
pub mod hub;
pub mod limits;
mod metrics;
pub mod outbox;
pub mod password;
pub mod problem;
mod proxies;
pub mod send;
pub mod serve;
pub mod session;
pub mod socket;
pub mod token;
mod trace;

pub use app::{App, PROGRAM, build};
pub use backend::Dependencies;
pub use gateway::{Gateway, drain_limit, signing_keys};
pub use metrics::describe_metrics;
