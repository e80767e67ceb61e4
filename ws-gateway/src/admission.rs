//! Decides which TCP connections are served, before TLS and before a request is read. So a refused connection costs an accept
//! and a close, and a client address can occupy only its share of the gateway.

use crate::{metrics, rate_limits::address_key};
use abi::{ApiError, config::Limits};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use utils::{log_limit::LogLimit, rate::KeyedLimiter};

/// Open files for everything but the connections of devices: data files, other services, the admin port.
const RESERVED_FILES: u64 = 100;
/// Most addresses whose connection rate is remembered.
const MAX_ADDRESSES: usize = 100_000;
/// Interval between two log lines about refused connections.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Admits connections within the limits.
#[derive(Debug)]
pub struct Admission {
    /// One permit per TCP connection, WebSockets included.
    slots: Arc<Semaphore>,
    capacity: usize,
    connects: KeyedLimiter<IpAddr>,
    max_http_per_address: u32,
    http: Mutex<HashMap<IpAddr, u32>>,
    log: Mutex<LogLimit>,
}

/// The slot of a connection, from the accept to the close of the connection or of its WebSocket.
pub type Slot = Arc<OwnedSemaphorePermit>;

/// An admitted connection. It counts as HTTP until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    /// Keep it as long as the connection is open.
    pub slot: Slot,
    /// Whether the connection comes from a trusted proxy, so that its requests count for other addresses.
    pub is_proxy: bool,
    http: Option<(Arc<Admission>, IpAddr)>,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// All slots are taken.
    Capacity,
    /// The address opens connections too fast.
    Rate,
    /// The address has too many connections that are not WebSockets yet.
    Http,
}

impl Refusal {
    /// The label in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Rate => "rate",
            Self::Http => "http",
        }
    }
}

impl Admission {
    /// At most `max_websockets` WebSockets and as many other connections, as far as the process may open `max_files` files.
    pub fn new(limits: &Limits, max_websockets: usize, max_files: u64) -> Arc<Self> {
        let for_files =
            usize::try_from(max_files.saturating_sub(RESERVED_FILES)).unwrap_or(usize::MAX).max(1);
        if for_files < max_websockets {
            tracing::warn!(
                limit = max_files,
                connections = for_files,
                "the limit of open files allows fewer connections than gateway.max_connections ({max_websockets}): raise it \
                 (LimitNOFILE= of systemd, ulimits.nofile of Compose, ulimit -n), or lower gateway.max_connections"
            );
        }
        let capacity = max_websockets.saturating_mul(2).min(for_files).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            slots: Arc::new(Semaphore::new(capacity)),
            capacity,
            connects: KeyedLimiter::new(limits.connects_per_second, limits.connect_burst, MAX_ADDRESSES),
            max_http_per_address: limits.http_connections_per_address,
            http: Mutex::default(),
            log: Mutex::new(LogLimit::new(LOG_INTERVAL)),
        })
    }

    /// Admits a connection from `address`, or counts and logs its refusal.
    ///
    /// # Errors
    /// The limit that the connection exceeds. It must be closed.
    pub fn admit(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Result<Admitted, Refusal> {
        self.try_admit(address, is_proxy).inspect_err(|refusal| self.report(*refusal, address))
    }

    fn try_admit(self: &Arc<Self>, address: IpAddr, is_proxy: bool) -> Result<Admitted, Refusal> {
        let slot = self.slots.clone().try_acquire_owned().map_err(|_| Refusal::Capacity)?;
        let slot = Arc::new(slot);
        if is_proxy {
            return Ok(Admitted { slot, is_proxy, http: None });
        }
        let key = address_key(address);
        self.connects.try_take(&key, 1, Instant::now()).map_err(|_| Refusal::Rate)?;
        let mut http = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        let count = http.entry(key).or_default();
        if *count >= self.max_http_per_address {
            return Err(Refusal::Http);
        }
        *count += 1;
        Ok(Admitted { slot, is_proxy, http: Some((Arc::clone(self), key)) })
    }

    /// Counts a new WebSocket of a client behind a trusted proxy.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn connect_through_proxy(&self, client: IpAddr) -> Result<(), ApiError> {
        self.connects
            .try_take(&address_key(client), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("too many new connections from your address", wait))
    }

    fn report(&self, refusal: Refusal, address: IpAddr) {
        metrics::connection_refused(refusal.name());
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(suppressed) = log.pass(Instant::now()) else { return };
        match refusal {
            Refusal::Capacity => tracing::warn!(
                suppressed,
                "connections are refused: all {} are in use; raise gateway.max_connections, or the limit of open files \
                 (LimitNOFILE=, ulimit -n)",
                self.capacity
            ),
            Refusal::Rate => tracing::warn!(
                suppressed, %address,
                "connections are refused: an address opens more than limits.connects_per_second"
            ),
            Refusal::Http => tracing::warn!(
                suppressed, %address,
                "connections are refused: an address has limits.http_connections_per_address that are not WebSockets"
            ),
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some((admission, key)) = self.http.take() else { return };
        let mut http = admission.http.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = http.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                http.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: u64 = 1_000_000;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn p7_an_address_can_occupy_only_its_share_until_its_connections_are_websockets() {
        let limits = Limits { http_connections_per_address: 2, ..Limits::default() };
        let admission = Admission::new(&limits, 100, MANY);
        let (one, other) = (address("2001:db8::1"), address("2001:db8:0:1::1"));
        let first = admission.admit(one, false).unwrap();
        let _second = admission.admit(address("2001:db8::2"), false).unwrap();
        assert_eq!(admission.admit(one, false).unwrap_err(), Refusal::Http);
        let _from_elsewhere = admission.admit(other, false).unwrap();
        let websocket = first.slot.clone();
        drop(first);
        let _third = admission.admit(one, false).unwrap();
        assert_eq!(admission.slots.available_permits(), 200 - 4, "the WebSocket keeps its slot");
        drop(websocket);
        assert_eq!(admission.slots.available_permits(), 200 - 3);
    }

    #[tokio::test]
    async fn p7_the_rate_of_an_address_counts_before_its_requests_except_for_proxies() {
        let limits = Limits { connects_per_second: 1, connect_burst: 1, ..Limits::default() };
        let admission = Admission::new(&limits, 100, MANY);
        let client = address("192.0.2.1");
        admission.admit(client, false).unwrap();
        assert_eq!(admission.admit(client, false).unwrap_err(), Refusal::Rate);
        for _ in 0..3 {
            admission.admit(client, true).unwrap();
        }
        admission.connect_through_proxy(address("192.0.2.2")).unwrap();
        assert!(admission.connect_through_proxy(address("192.0.2.2")).unwrap_err().retry_after.is_some());
    }

    #[tokio::test]
    async fn p7_connections_leave_open_files_for_everything_else() {
        for (max_websockets, max_files, capacity) in
            [(1_000, MANY, 2_000), (1_000, 1_024, 924), (1_000, 160, 60), (1_000, 50, 1), (0, MANY, 1)]
        {
            let admission = Admission::new(&Limits::default(), max_websockets, max_files);
            assert_eq!(admission.capacity, capacity, "{max_websockets} {max_files}");
        }
        let admission = Admission::new(&Limits::default(), 1, 50);
        let _only = admission.admit(address("192.0.2.1"), true).unwrap();
        assert_eq!(admission.admit(address("192.0.2.2"), true).unwrap_err(), Refusal::Capacity);
    }

    #[tokio::test]
    async fn p7_addresses_without_connections_take_no_memory() {
        let admission = Admission::new(&Limits::default(), 100, MANY);
        drop(admission.admit(address("192.0.2.1"), false).unwrap());
        assert!(admission.http.lock().unwrap().is_empty());
    }
}
