//! Rate limits per user, per account and per address. An error says how long to wait.

use abi::{ApiError, config};
use std::net::{IpAddr, Ipv6Addr};
use tokio::time::Instant;
use utils::rate::KeyedLimiter;

/// Most users or addresses that one limiter remembers.
const MAX_KEYS: usize = 100_000;

/// The rate limits that apply across connections.
#[derive(Debug)]
pub struct RateLimits {
    sends: KeyedLimiter<String>,
    group_changes: KeyedLimiter<String>,
    requests: KeyedLimiter<String>,
    signals: KeyedLimiter<String>,
    authentications: KeyedLimiter<IpAddr>,
    accounts: KeyedLimiter<String>,
}

/// The key of an address. IPv6 addresses count by their /64, because a provider gives each customer a whole /64.
pub(crate) fn address_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl RateLimits {
    /// The configured limits.
    pub fn new(limits: &config::Limits) -> Self {
        Self {
            sends: KeyedLimiter::new(limits.sends_per_second, limits.send_burst, MAX_KEYS),
            group_changes: KeyedLimiter::new(
                limits.group_changes_per_second,
                limits.group_change_burst,
                MAX_KEYS,
            ),
            requests: KeyedLimiter::new(limits.requests_per_second, limits.request_burst, MAX_KEYS),
            signals: KeyedLimiter::new(limits.signals_per_second, limits.signal_burst, MAX_KEYS),
            authentications: KeyedLimiter::new(limits.auth_per_second, limits.auth_burst, MAX_KEYS),
            accounts: KeyedLimiter::new(limits.account_auth_per_second, limits.account_auth_burst, MAX_KEYS),
        }
    }

    /// Counts a message or a change of a message.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn send(&self, user: &str) -> Result<(), ApiError> {
        self.sends
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("you send too fast; wait, then send it again", wait))
    }

    /// Counts a change of a group.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn group_change(&self, user: &str) -> Result<(), ApiError> {
        self.group_changes
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("you change groups too fast; wait, then try again", wait))
    }

    /// Counts another request over HTTP. A connection counts those over its WebSocket itself.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn request(&self, user: &str) -> Result<(), ApiError> {
        self.requests
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("you send too many requests; wait, then try again", wait))
    }

    /// Counts a signal.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn signal(&self, user: &str) -> Result<(), ApiError> {
        self.signals
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("you send too many signals", wait))
    }

    /// Counts a registration, log-in or refresh from an address.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn authenticate(&self, address: IpAddr) -> Result<(), ApiError> {
        self.authentications
            .try_take(&address_key(address), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("too many log-ins from your address", wait))
    }

    /// Counts a registration of an account or a log-in to it. Checking a password is expensive, and an attacker could guess
    /// passwords from many addresses.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn account(&self, user: &str) -> Result<(), ApiError> {
        self.accounts
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("too many log-ins to this account", wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> RateLimits {
        let few = config::Limits { auth_burst: 2, account_auth_burst: 2, ..Default::default() };
        RateLimits::new(&config::Limits { auth_per_second: 1, ..few })
    }

    #[test]
    fn p7_an_ipv6_network_of_64_bits_counts_as_one_address() {
        let limits = limits();
        for address in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"] {
            limits.authenticate(address.parse().unwrap()).unwrap();
        }
        let third = "2001:db8:0:1::3".parse().unwrap();
        limits.authenticate(third).unwrap_err();
        for address in ["2001:db8:0:2::1", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "::ffff:192.0.2.4"] {
            limits.authenticate(address.parse().unwrap()).unwrap();
        }
        limits.authenticate("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        limits.authenticate("192.0.2.1".parse().unwrap()).unwrap_err();
    }

    #[test]
    fn p8_log_ins_to_an_account_are_limited_across_all_addresses() {
        let limits = limits();
        limits.account("alice").unwrap();
        limits.account("alice").unwrap();
        assert!(limits.account("alice").unwrap_err().retry_after.is_some());
        limits.account("bob").unwrap();
    }
}
