//! Graceful shutdown: in phases, within a deadline, leaving no task behind.
//!
//! [`Drain`] signals that the process stops. [`Tasks`] owns all tasks. [`Shutdown`] runs the work of each phase in
//! order: deregister, stop accepting, tell clients, finish consuming, flush, pools, telemetry. A deadline or a second
//! signal ends it early.

mod drain;
mod shutdown;
mod tasks;

pub use drain::Drain;
pub use shutdown::{Phase, Shutdown};
pub use tasks::{Outcome, Tasks};
