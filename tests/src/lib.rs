//! Helpers of the behaviour tests: whole systems as processes, and a device with its own implementation of the protocol.
//!
//! The tests themselves are in `behaviour/`. Each test body is written once and runs in both modes: the one-process program,
//! and the four services on real servers. The helpers use only public interfaces: command lines, printed addresses, HTTP,
//! WebSocket and exit codes.
//!
//! - [`process`]: a program of this workspace as a child process.
//! - [`system`]: a running system in either mode, with its settings.
//! - [`http`]: HTTP requests, down to raw bytes.
//! - [`device`]: a WebSocket connection, frame by frame, in either wire format.
//! - [`world`]: the entry point of a test: a system, new users, connected devices.
//! - [`collector`]: a collector of traces.
//! - [`metrics`]: the documented metrics and the exported ones.
//! - [`eventually()`]: waits for a condition.

pub mod collector;
pub mod device;
pub mod eventually;
pub mod http;
pub mod metrics;
pub mod process;
pub mod system;
pub mod world;

pub use eventually::eventually;

/// Longest wait for an event that normally happens at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
