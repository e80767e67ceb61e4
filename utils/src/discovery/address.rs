//! Validation of `host:port` addresses.

use crate::Error;

/// Checks that a string is `host:port`.
///
/// # Errors
/// It is not.
pub fn check_address(address: &str) -> Result<(), Error> {
    let error = || Error::Address { address: address.to_owned() };
    let authority: http::uri::Authority = address.parse().map_err(|_| error())?;
    let is_complete =
        !authority.host().is_empty() && authority.port_u16().is_some() && !address.contains('@');
    is_complete.then_some(()).ok_or_else(error)
}
