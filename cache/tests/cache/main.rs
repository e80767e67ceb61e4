//! What every cache promises, and what Redis does to its users.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod conformance;
mod redis_faults;
mod support;
