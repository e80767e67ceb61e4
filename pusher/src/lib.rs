//! pusher: delivers stored entries and signals to the gateways that hold their receivers.
//!
//! A push names all its receivers. The pusher looks up their gateways in one round trip, then sends each gateway one delivery
//! with the entries of its own users, all concurrently. It owns no durable state. It promises:
//! - a push to users who are offline costs one lookup, and a gateway that fails or hangs does not delay devices on other
//!   gateways (P5, P9);
//! - a gateway is retried as long as routes name it (P5).
//!
//! It does not promise delivery. A device that missed a delivery finds out with its next heartbeat, from the receiver's `seq`.
//!
//! - [`app`]: the program.
//! - [`service`]: `PushService`, for a listener or for calls within a process.
//! - `split`: divides a push among gateways.
//! - `slow_gateways`: limits the cost of a gateway that hangs.

#[cfg(feature = "program")]
pub mod app;
mod metrics;
pub mod service;
mod slow_gateways;
mod split;

#[cfg(feature = "program")]
pub use app::{App, PROGRAM, build};
pub use metrics::describe_metrics;
pub use service::{Pusher, server};

/// Largest gRPC message, in bytes. It must exceed the largest push that the consumer makes of a batch.
const MAX_MESSAGE: usize = 32 << 20;
