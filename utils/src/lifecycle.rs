//! How a process stops: in phases, within a deadline, leaving no task behind.
//!
//! [`Drain`] says that it is time to stop; [`Tasks`] owns what runs; [`Shutdown`] runs what each phase has to do, in
//! this order: not ready and deregistered, stop accepting, tell clients, finish consuming, flush, pools, telemetry.
//! A deadline ends it, and so does a second signal.

mod drain;
mod shutdown;
mod tasks;

pub use drain::Drain;
pub use shutdown::{Phase, Shutdown};
pub use tasks::{Outcome, Tasks};
