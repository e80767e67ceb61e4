//! Limits on sizes and counts, read from the configuration once. For rates see [`rate_limits`](crate::rate_limits).

use abi::config::Config;

/// Limits on sizes, in bytes, and on counts.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest WebSocket frame in either direction, and largest HTTP body from a client. A single entry that is larger is sent in
    /// a frame of its own.
    pub max_frame: usize,
    /// Largest body of a message.
    pub max_body: usize,
    /// Most bytes queued for one device. Beyond it the connection is closed.
    pub max_outbox: usize,
    /// Most bytes queued for all devices, and reserved for answers in progress. Beyond it the connections with the largest queues
    /// are closed.
    pub max_outbox_total: usize,
    /// Most bytes of entries in one delivery. A larger delivery is sent as a notification without entries. Several deliveries
    /// may be queued for a device that reads fast enough, so one must stay well below `max_outbox`.
    pub max_delivery: usize,
    /// Most connections that speak HTTP, and most WebSockets.
    pub max_connections: usize,
    /// Most WebSockets of one user.
    pub connections_per_user: usize,
}

impl Limits {
    /// The configured limits.
    pub fn new(config: &Config) -> Self {
        let gateway = &config.gateway;
        Self {
            max_frame: gateway.max_frame.bytes(),
            max_body: gateway.max_body.bytes(),
            max_outbox: gateway.max_outbox.bytes(),
            max_outbox_total: gateway.max_outbox_total.bytes(),
            max_delivery: gateway.max_outbox.bytes() / 4,
            max_connections: gateway.max_connections as usize,
            connections_per_user: config.limits.connections_per_user as usize,
        }
    }
}
