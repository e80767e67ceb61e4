//! consumer: the way of a message from the log to the store and to the devices.
//!
//! It takes what has queued up in a partition as one batch and does with it: decode, save, find the recipients, raise their
//! receiver's `seq`, push. It owns nothing. It promises:
//! - a batch is done only when all of it is saved and counted; if the store or the cache is away, it is tried
//!   again, and nothing after it in the partition is handled before (P1, P3, P6);
//! - a record that is no entry, or a message to a group that does not exist, goes to the dead letters with its reason and
//!   stops nothing (P6);
//! - counters are raised only after what they count can be read; a duplicate raises them again and is pushed as a
//!   nudge, so whatever dies between save and push is repaired by the next delivery (P2, P4);
//! - an entry goes to those who were members when it was numbered and who can see it (P8);
//! - a push that fails costs nobody anything: devices learn by heartbeat (P5).
//!
//! - [`app`]: the program, bound and run.
//! - [`handler`](mod@handler): the steps, as a handler for `kafka-runtime`'s consumer; the standalone program uses it too.
//! - [`letters`]: dead letters over HTTP, for operators.
//! - `segment`: where a batch is cut so that changes of groups keep their place.
//! - `shares`: who receives what, in portions of bounded size.

pub mod app;
mod error;
pub mod handler;
pub mod letters;
mod metrics;
mod segment;
mod shares;
mod trace;

pub use app::{App, PROGRAM, build};
pub use error::Error;
pub use handler::{MessageHandler, before_commit, handler};
pub use metrics::describe_metrics;

/// Largest gRPC message that is taken, the same as db-service's: it answers with the members of groups that were changed.
const MAX_MESSAGE: usize = 128 << 20;
