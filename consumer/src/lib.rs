//! consumer: reads entries from the log, has them stored, and pushes them to the devices.
//!
//! For each batch of a partition it runs these steps: decode, save, look up the receivers, increment their receiver
//! seqs, push. It keeps no state. It promises:
//! - a batch is complete only when all its entries are saved and counted. While the store or the cache is unavailable, the batch
//!   is retried and later records of its partition wait (P1, P3, P6);
//! - a record that is not an entry, or a message to a missing group, is dead-lettered with the reason and does not block the
//!   partition (P6);
//! - each save names its part of the log, and a partition begins at the position of the store if that is smaller than the committed
//!   offset. So a store that lost entries gets them again, with the same numbers (P1, P4);
//! - a receiver seq is incremented only after the entries that it counts can be read. A duplicate increments it again,
//!   and the push carries no entry; so redelivery repairs a crash between save and push (P2, P4);
//! - an entry is pushed to the users who were members when it was numbered and who may see it (P8);
//! - a failed push loses nothing: devices find out with their next heartbeat (P5).
//!
//! The modules:
//! - [`app`]: wires the program;
//! - [`handler`](mod@handler): the steps, as a handler for the consumer of `kafka-runtime`; the one-process program uses it too;
//! - `hooks`: the choice of the start offsets, and the sync before a commit of offsets;
//! - [`dead_letters`]: dead letters over HTTP, for operators;
//! - `segment`: splits a batch so that group changes take effect in order;
//! - `fan_out`: the receivers of each entry, in pushes of bounded size.

#[cfg(feature = "program")]
pub mod app;
pub mod dead_letters;
mod error;
mod fan_out;
pub mod handler;
mod hooks;
mod metrics;
mod segment;
mod trace;

#[cfg(feature = "program")]
pub use app::{App, PROGRAM, build};
pub use error::Error;
pub use handler::{MessageHandler, handler};
pub use hooks::{before_commit, start_offsets};
pub use metrics::describe_metrics;

/// Largest gRPC message, in bytes, the same as db-service's: its responses contain the members of changed groups.
const MAX_MESSAGE: usize = 128 << 20;
