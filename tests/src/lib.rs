//! What the behaviour tests stand on: whole systems as processes, and a device that speaks the protocol by hand.
//!
//! The tests themselves are in `behaviour/`. Each body is written once and runs
//! against both modes: the one-process program, and the four services on real servers. Nothing here knows how a
//! service works inside: it sees command lines, printed addresses, HTTP, WebSocket and exit codes.
//!
//! - [`process`]: a program of this workspace, started, watched, killed.
//! - [`system`]: a running system of either mode, and what it is configured with.
//! - [`http`]: one HTTP request, as raw as the test wants it.
//! - [`device`]: a WebSocket connection, frame by frame, in either wire format.
//! - [`world`]: what a test is given: a system, new users, connected devices.
//! - [`collector`]: a collector of traces.
//! - [`metrics`]: the table of metrics, and what a program exports.
//! - [`eventually()`]: waiting for something to become true.

pub mod collector;
pub mod device;
pub mod eventually;
pub mod http;
pub mod metrics;
pub mod process;
pub mod system;
pub mod world;

pub use eventually::eventually;

/// Longest wait for anything that should come at once.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
