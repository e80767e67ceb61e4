//! Tests of the handler through its public interface, with the embedded store, a real cache and a fake pusher.

#![allow(clippy::unwrap_used, reason = "tests panic when a step fails")]

mod failures;
mod groups;
mod messages;
mod positions;
mod program;
mod world;
