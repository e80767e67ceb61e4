//! Runs the examples as programs of their own, as a reader of their pages does. `cargo test -p kafka-runtime` builds them.
#![expect(clippy::unwrap_used, reason = "all of this is tests, also what is not marked as one")]

mod callbacks;
#[cfg(feature = "ssl")]
mod scram;
mod services;
mod support;
mod texts;
mod todo;
