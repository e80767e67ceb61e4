//! Timeouts and limits of connections.

use abi::config::Config;
use std::time::Duration;

/// Timeouts and limits of a connection.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long a device may take to send its hello.
    pub hello_timeout: Duration,
    /// How often a device sends a heartbeat.
    pub heartbeat: Duration,
    /// How often the gateway checks that the account session is still valid.
    pub recheck: Duration,
    /// Most unanswered sends.
    pub max_in_flight: u32,
    /// Most requests, other than pings, that are answered at a time.
    pub max_requests: u32,
    /// Most bytes of frames that wait. One more frame may be accepted below it.
    pub max_waiting: usize,
    /// Rate limit of requests other than sends, per second.
    pub requests_per_second: u32,
    /// Burst of requests other than sends.
    pub request_burst: u32,
}

impl Settings {
    /// The configured settings.
    pub fn new(config: &Config) -> Self {
        let (gateway, limits) = (&config.gateway, &config.limits);
        Self {
            hello_timeout: gateway.hello_timeout,
            heartbeat: gateway.heartbeat,
            recheck: config.auth.access_token_life,
            max_in_flight: gateway.max_in_flight,
            max_requests: gateway.max_requests,
            max_waiting: gateway.max_frame.bytes(),
            requests_per_second: limits.requests_per_second,
            request_burst: limits.request_burst,
        }
    }

    /// After this long without a frame (2.5 heartbeats) a device counts as gone, and its route expires.
    pub fn idle_timeout(&self) -> Duration {
        self.heartbeat * 5 / 2
    }
}
