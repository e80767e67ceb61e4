//! What one user, one account and one address may use. Whoever is over a limit is told how long to wait.

use abi::{ApiError, config};
use std::net::{IpAddr, Ipv6Addr};
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
    accounts: KeyedLimiter<String>,
}

/// What counts as one address: of IPv6 the /64, which is what one customer is given and can use up.
fn one(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl Limits {
    /// As configured.
    pub fn new(limits: &config::Limits) -> Self {
        Self {
            sends: KeyedLimiter::new(limits.sends_per_second, limits.send_burst, MAX_KEYS),
            connects: KeyedLimiter::new(limits.connects_per_second, limits.connect_burst, MAX_KEYS),
            authentications: KeyedLimiter::new(limits.auth_per_second, limits.auth_burst, MAX_KEYS),
            accounts: KeyedLimiter::new(limits.account_auth_per_second, limits.account_auth_burst, MAX_KEYS),
        }
    }

    /// A user sends a message, changes a group, or asks who is in it.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn send(&self, user: &str) -> Result<(), ApiError> {
        self.sends
            .try_take(&user.to_owned(), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("you send too fast; wait, then send it again", wait))
    }

    /// An address opens a connection.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn connect(&self, address: IpAddr) -> Result<(), ApiError> {
        self.connects
            .try_take(&one(address), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("too many new connections from your address", wait))
    }

    /// An address registers, logs in or refreshes.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn authenticate(&self, address: IpAddr) -> Result<(), ApiError> {
        self.authentications
            .try_take(&one(address), 1, Instant::now())
            .map_err(|wait| ApiError::rate_limited("too many log-ins from your address", wait))
    }

    /// An account is registered or logged in to: passwords are costly to check, and not to be tried out from many addresses.
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

    fn limits() -> Limits {
        let few =
            config::Limits { auth_burst: 2, connect_burst: 2, account_auth_burst: 2, ..Default::default() };
        Limits::new(&config::Limits { auth_per_second: 1, connects_per_second: 1, ..few })
    }

    #[test]
    fn p7_all_of_a_64_is_one_address_and_other_addresses_are_not() {
        let limits = limits();
        for address in ["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"] {
            limits.authenticate(address.parse().unwrap()).unwrap();
            limits.connect(address.parse().unwrap()).unwrap();
        }
        let third = "2001:db8:0:1::3".parse().unwrap();
        assert!(limits.authenticate(third).is_err() && limits.connect(third).is_err());
        for address in ["2001:db8:0:2::1", "192.0.2.1", "192.0.2.2", "::ffff:192.0.2.3", "::ffff:192.0.2.4"] {
            limits.authenticate(address.parse().unwrap()).unwrap();
        }
        limits.authenticate("::ffff:192.0.2.1".parse().unwrap()).unwrap();
        limits.authenticate("192.0.2.1".parse().unwrap()).unwrap_err();
    }

    #[test]
    fn p8_an_account_takes_so_many_log_ins_wherever_they_come_from() {
        let limits = limits();
        limits.account("alice").unwrap();
        limits.account("alice").unwrap();
        assert!(limits.account("alice").unwrap_err().retry_after.is_some());
        limits.account("bob").unwrap();
    }
}
