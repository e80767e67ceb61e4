//! pusher: hands stored messages to the gateways that hold their receivers.
//!
//! It owns no state that matters. A push comes with all its receivers; their gateways are looked up in one round trip
//! and each gets one delivery with what concerns it, all at the same time. It promises:
//! - nobody online is no work, and one gateway that fails or hangs costs the devices of others nothing (P5, P9);
//! - a gateway is never given up: as long as the routes name it, it is asked again (P5).
//!
//! It does not promise delivery: a device that missed one learns from its receiver's `seq` with the next heartbeat.
//!
//! - [`app`]: the program, bound and run.
//! - [`service`]: `PushService`, for a listener or for calls within a process.
//! - `split`: which gateway gets what.
//! - `rest`: what a gateway that hangs may cost.

pub mod app;
mod metrics;
mod rest;
pub mod service;
mod split;

pub use app::{App, PROGRAM, build};
pub use metrics::describe_metrics;
pub use service::{Pusher, server};

/// Largest gRPC message that is taken: above what the consumer makes of a batch.
const MAX_MESSAGE: usize = 32 << 20;
