//! Running systems: the one-process program, or the four services on real servers.

mod distributed;
mod embedded;
mod servers;

pub use distributed::{DISTRIBUTED_PROGRAMS, Distributed, Instance};
pub use embedded::Embedded;
pub use servers::{OwnServers, Servers, free_ports};

use anyhow::{Result, bail};
use std::fmt::Debug;

/// The properties of a running system that tests may use in both modes.
pub trait System: Debug + Send + Sync {
    /// `embedded` or `distributed`.
    fn mode(&self) -> &'static str;
    /// Addresses (`host:port`) of HTTP and WebSocket, at least one.
    fn gateways(&self) -> &[String];
}

/// Settings of every system in tests: password hashing is cheap.
pub const CHEAP: [&str; 4] =
    ["auth.argon2_memory_kib=64", "auth.argon2_passes=1", "log.level=info", "discovery.kind=fixed"];

/// Limits that a test can reach in a second.
pub const TIGHT: [&str; 11] = [
    "gateway.heartbeat=1s",
    "gateway.hello_timeout=1s",
    "gateway.max_in_flight=8",
    "gateway.max_outbox=384KiB",
    "auth.access_token_life=3s",
    "limits.sends_per_second=5",
    "limits.send_burst=20",
    "limits.requests_per_second=20",
    "limits.request_burst=40",
    "limits.connections_per_user=3",
    "limits.http_connections_per_address=50",
];

/// Settings as `--set` arguments; later ones win.
fn set_arguments<'a>(settings: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    settings.into_iter().flat_map(|setting| ["--set".to_owned(), setting.to_owned()]).collect()
}

/// The address after `listening on` or `admin on` in a program's output.
fn address(line: &str) -> Result<String> {
    let address = line
        .trim()
        .trim_start_matches("http://")
        .trim_start_matches("https://")
        .trim_end_matches('/')
        .to_owned();
    if address.parse::<std::net::SocketAddr>().is_err() {
        bail!("'{line}' is not an address");
    }
    Ok(address)
}

/// A random suffix for the names of topics, schemas, keys and users, so that runs do not share them.
pub fn unique() -> String {
    format!("{:08x}", rand::random::<u32>())
}
