//! Channels to instances at known addresses.

use super::{
    DeadlineLayer,
    ejection::{Policy, State},
    endpoint::Endpoint,
    into_status,
};
use crate::{Channel, metrics, tls::MutualTls};
use http::Request;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Status, body::Body};
use tower::{BoxError, ServiceBuilder, service_fn, util::BoxCloneSyncService};

/// One failure ejects. No other instance can take the call, and callers must not queue for an address that does not
/// respond.
const EJECTION: Policy =
    Policy { failures: 1, first: Duration::from_millis(200), longest: Duration::from_secs(5) };
/// Minimum time between two removals of unused entries.
const SWEEP: Duration = Duration::from_secs(10);

/// A pool of channels by address. A channel connects on its first call. Unused channels are removed; their calls in
/// flight continue.
#[derive(Debug)]
pub struct KeyedPool {
    service: &'static str,
    deadline: Duration,
    idle: Duration,
    capacity: usize,
    tls: Option<MutualTls>,
    entries: Mutex<Entries>,
}

#[derive(Debug)]
struct Entries {
    by_address: HashMap<String, Entry>,
    swept_at: Instant,
}

#[derive(Debug)]
struct Entry {
    channel: Channel,
    used_at: Instant,
}

impl KeyedPool {
    /// `service` is the name in logs and metrics. `deadline` applies to calls without their own. An entry is removed
    /// when it was unused for `idle`; at `capacity`, the least recently used entry is evicted.
    pub fn new(service: &'static str, deadline: Duration, idle: Duration, capacity: usize) -> Self {
        metrics::calls(service);
        let entries = Entries { by_address: HashMap::new(), swept_at: Instant::now() };
        Self { service, deadline, idle, capacity: capacity.max(1), tls: None, entries: Mutex::new(entries) }
    }

    /// Uses mutual TLS; the server's certificate must have the name of the service.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// The channel to `host:port`. Calls are not retried. After a failed call, further calls fail immediately with
    /// `UNAVAILABLE` for a while. Must be called in a runtime.
    pub fn get(&self, address: &str) -> Channel {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.by_address.get_mut(address) {
            entry.used_at = now;
            return entry.channel.clone();
        }
        entries.make_room(now, self.idle, self.capacity);
        let channel = self.channel(address);
        entries.by_address.insert(address.to_owned(), Entry { channel: channel.clone(), used_at: now });
        channel
    }

    /// Number of addresses with a channel.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).by_address.len()
    }

    /// Whether no address has a channel.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn channel(&self, address: &str) -> Channel {
        // Report an invalid address as unavailable, on the call: callers need not handle it separately.
        let endpoint = Endpoint::new(self.service, address, EJECTION, self.tls.clone())
            .map_err(|error| error.to_string());
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                // Outermost: converts all remaining errors to a status.
                .map_result(into_status)
                .layer(DeadlineLayer::new(self.deadline))
                .service(service_fn(move |request| call(endpoint.clone(), request))),
        )
    }
}

async fn call(
    endpoint: Result<Arc<Endpoint>, String>,
    request: Request<Body>,
) -> Result<http::Response<Body>, BoxError> {
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint,
        Err(reason) => return Ok(Status::unavailable(reason).into_http()),
    };
    if let State::Ejected(_) = endpoint.state(Instant::now()) {
        let address = endpoint.address();
        return Ok(Status::unavailable(format!("{address} is ejected after a failed call")).into_http());
    }
    Ok(endpoint.call(request).await)
}

impl Entries {
    fn make_room(&mut self, now: Instant, idle: Duration, capacity: usize) {
        if now.saturating_duration_since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.by_address.retain(|_, entry| now.saturating_duration_since(entry.used_at) < idle);
        }
        while self.by_address.len() >= capacity {
            let oldest = self.by_address.iter().min_by_key(|(_, entry)| entry.used_at);
            let Some(address) = oldest.map(|(address, _)| address.clone()) else { return };
            self.by_address.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn p7_unused_entries_are_removed_and_their_number_is_bounded() {
        let pool = KeyedPool::new("test", Duration::from_secs(1), Duration::from_secs(60), 3);
        for port in 1..=5 {
            pool.get(&format!("127.0.0.1:{port}"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(pool.len(), 3);
        pool.get("127.0.0.1:5");
        tokio::time::advance(Duration::from_secs(59)).await;
        pool.get("127.0.0.1:9");
        assert_eq!(pool.len(), 2, "only the recently used entry and the new one");
    }
}
