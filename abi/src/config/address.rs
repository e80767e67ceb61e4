//! Addresses to listen on, as people write them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

/// The accepted forms, for errors and documentation.
pub(super) const FORMS: &str = "an address: HOST:PORT, [IPV6]:PORT, :PORT or PORT";

/// An address to listen on:
///
/// - `HOST:PORT`, with a name or an IPv4 address, or `[IPV6]:PORT`;
/// - `:PORT` or `*:PORT`: all addresses of this machine, IPv4 and IPv6;
/// - `PORT`: only this machine, at 127.0.0.1.
///
/// Port 0 selects a free port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// All addresses of this machine at a port.
    All(u16),
    /// One address, or all addresses of a family.
    One(SocketAddr),
    /// The addresses of a name at a port.
    Named(String, u16),
}

/// The text is none of the forms of a [`ListenAddress`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be {FORMS}")]
pub struct InvalidAddress;

impl FromStr for ListenAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let text = text.trim();
        if let Ok(port) = port(text) {
            return Ok(Self::One((Ipv4Addr::LOCALHOST, port).into()));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::One(address));
        }
        match text.rsplit_once(':').ok_or(InvalidAddress)? {
            ("" | "*", number) => Ok(Self::All(port(number)?)),
            (host, number) if is_name(host) => Ok(Self::Named(host.to_owned(), port(number)?)),
            // An IPv6 address without brackets is ambiguous: its last group may be the port.
            _ => Err(InvalidAddress),
        }
    }
}

impl ListenAddress {
    /// The addresses to try in order. Listening on the first one that works is enough.
    ///
    /// # Errors
    /// The name can't be resolved.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            // The IPv6 socket accepts IPv4 as well. A machine without IPv6 needs the second address.
            Self::All(port) => {
                Ok(vec![(Ipv6Addr::UNSPECIFIED, *port).into(), (Ipv4Addr::UNSPECIFIED, *port).into()])
            }
            Self::One(address) => Ok(vec![*address]),
            Self::Named(host, port) => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
        }
    }

    /// Whether other machines can use the text to connect: it names a host and a port.
    pub(super) fn is_complete(text: &str) -> bool {
        match text.parse() {
            Ok(Self::One(address)) => text.contains(':') && address.port() > 0,
            Ok(Self::Named(_, port)) => port > 0,
            _ => false,
        }
    }
}

fn port(text: &str) -> Result<u16, InvalidAddress> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().map_err(|_| InvalidAddress) } else { Err(InvalidAddress) }
}

/// Whether a text may be the name of a host. A text of digits and dots is an IPv4 address with a mistake.
fn is_name(host: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty()
        && host.bytes().all(is_allowed)
        && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_accepted_as_people_write_them() {
        for (text, first) in [
            ("7450", "127.0.0.1:7450"),
            (" 127.0.0.1:0 ", "127.0.0.1:0"),
            ("0.0.0.0:7450", "0.0.0.0:7450"),
            ("[::1]:7450", "[::1]:7450"),
            ("[::]:7450", "[::]:7450"),
            ("[fe80::1%2]:7450", "[fe80::1%2]:7450"),
            (":7450", "[::]:7450"),
            ("*:7450", "[::]:7450"),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.resolve().unwrap()[0].to_string(), first, "{text}");
        }
        assert_eq!(":1".parse::<ListenAddress>().unwrap().resolve().unwrap().len(), 2);
        let local = "localhost:7450".parse::<ListenAddress>().unwrap().resolve().unwrap();
        assert!(
            local.iter().all(|address| address.ip().is_loopback() && address.port() == 7450),
            "{local:?}"
        );
        assert!("example.invalid:7450".parse::<ListenAddress>().unwrap().resolve().is_err());
    }

    #[test]
    fn other_texts_are_no_addresses() {
        for text in [
            "",
            ":",
            "::",
            "::1",
            "::1:7450",
            "[::1]",
            "[::1]:",
            "127.0.0.1",
            "127.0.0.1:99999",
            "300.0.0.1:7450",
            "localhost",
            "localhost:",
            "localhost:+80",
            "local host:80",
            "http://127.0.0.1:80",
            "a:b:80",
            "-1",
            "99999",
            "user@host:80",
            "host/path:80",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidAddress), "{text}");
        }
    }

    #[test]
    fn an_address_for_other_machines_has_a_host_and_a_port() {
        for text in ["db-1.internal:7471", "10.0.0.1:7471", "[fd00::1]:7471"] {
            assert!(ListenAddress::is_complete(text), "{text}");
        }
        for text in ["", "7471", ":7471", "10.0.0.1", "10.0.0.1:0", "db:0", "http://db:7471"] {
            assert!(!ListenAddress::is_complete(text), "{text}");
        }
    }
}
