//! The conformance suite of the cache, and its behaviour when Redis fails.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod conformance;
mod redis_faults;
mod support;
