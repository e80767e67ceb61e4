//! Channels to instances that are known by their address.

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

/// One failure is enough: there is no other instance that the call could go to, and callers must not queue up behind
/// an address that doesn't answer.
const EJECTION: Policy = Policy { after: 1, first: Duration::from_millis(200), most: Duration::from_secs(5) };
/// Unused ones are looked for at most this often.
const SWEEP: Duration = Duration::from_secs(10);

/// Connections by address, made when first called. Those that nobody has asked for in a while are dropped; calls in
/// flight are not cut off by that.
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
    /// `service` names it in logs and metrics; `deadline` is for calls that have none of their own; an entry is dropped
    /// when unused for `idle`, and the one unused for longest when there are `capacity`.
    pub fn new(service: &'static str, deadline: Duration, idle: Duration, capacity: usize) -> Self {
        metrics::calls(service);
        let entries = Entries { by_address: HashMap::new(), swept_at: Instant::now() };
        Self { service, deadline, idle, capacity: capacity.max(1), tls: None, entries: Mutex::new(entries) }
    }

    /// With TLS it talks only to who shows a certificate of the service.
    #[must_use]
    pub fn tls(mut self, tls: Option<MutualTls>) -> Self {
        self.tls = tls;
        self
    }

    /// The channel to `host:port`. Calls are not retried, and are refused with `UNAVAILABLE` at once for a while after
    /// one has found nobody there. Must be called in a runtime.
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

    /// Addresses with a channel.
    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).by_address.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn channel(&self, address: &str) -> Channel {
        // What can't be an address can't be reached either: the caller need not tell the two apart.
        let endpoint = Endpoint::new(self.service, address, EJECTION, self.tls.clone())
            .map_err(|error| error.to_string());
        BoxCloneSyncService::new(
            ServiceBuilder::new()
                // Outermost: whatever is still an error becomes the status that says what to do.
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
        return Ok(Status::unavailable(format!("{address} did not answer a moment ago")).into_http());
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
    async fn p7_unused_entries_are_dropped_and_their_number_is_bounded() {
        let pool = KeyedPool::new("test", Duration::from_secs(1), Duration::from_secs(60), 3);
        for port in 1..=5 {
            pool.get(&format!("127.0.0.1:{port}"));
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(pool.len(), 3);
        pool.get("127.0.0.1:5");
        tokio::time::advance(Duration::from_secs(59)).await;
        pool.get("127.0.0.1:9");
        assert_eq!(pool.len(), 2, "only the one that was used again, and the new one");
    }
}
