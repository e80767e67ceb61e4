//! What one user and one address may use. Whoever is over a limit is told how long to wait.

use abi::{Fault, config};
use std::net::IpAddr;
use tokio::time::Instant;
use utils::rate::KeyedLimiter;

/// Most users or addresses that are watched at a time.
const MAX_KEYS: usize = 100_000;

/// The limits that outlive a connection.
#[derive(Debug)]
pub struct Limits {
    sends: KeyedLimiter<String>,
    connects: KeyedLimiter<IpAddr>,
    authentications: KeyedLimiter<IpAddr>,
}

impl Limits {
    /// As configured.
    pub fn new(limits: &config::Limits) -> Self {
        Self {
            sends: KeyedLimiter::new(limits.sends_per_second, limits.send_burst, MAX_KEYS),
            connects: KeyedLimiter::new(limits.connects_per_second, limits.connect_burst, MAX_KEYS),
            authentications: KeyedLimiter::new(limits.auth_per_second, limits.auth_burst, MAX_KEYS),
        }
    }

    /// A user sends a message or changes a group.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn send(&self, user: &str) -> Result<(), Fault> {
        self.sends
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| Fault::rate_limited("you send too fast; wait, then send it again", wait))
    }

    /// An address opens a connection.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn connect(&self, address: IpAddr) -> Result<(), Fault> {
        self.connects
            .try_take(&address, 1, Instant::now())
            .map_err(|wait| Fault::rate_limited("too many new connections from your address", wait))
    }

    /// An address registers, logs in or refreshes.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn authenticate(&self, address: IpAddr) -> Result<(), Fault> {
        self.authentications
            .try_take(&address, 1, Instant::now())
            .map_err(|wait| Fault::rate_limited("too many log-ins from your address", wait))
    }
}
