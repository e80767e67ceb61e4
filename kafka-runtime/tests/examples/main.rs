//! Runs the examples as processes, like a reader of their pages. `cargo test -p kafka-runtime` builds them.
#![expect(clippy::unwrap_used, reason = "test code, including helpers that are not marked as tests")]

mod callbacks;
#[cfg(feature = "ssl")]
mod scram;
mod services;
mod support;
mod texts;
mod todo;
