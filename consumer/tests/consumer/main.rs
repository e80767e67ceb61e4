//! The handler at its wire: a real store, a real cache and a service that stands for the pusher.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod failures;
mod groups;
mod messages;
mod program;
mod world;
