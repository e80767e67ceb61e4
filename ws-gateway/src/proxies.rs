//! The address of a client behind trusted proxies.
//!
//! Rate limits per address need the client's address. Behind a proxy the peer of every connection is the proxy. So
//! `X-Forwarded-For` is read, but only if the peer is one of the proxies in the configuration: any client can send that header.

use abi::config::Network;
use http::{HeaderMap, HeaderName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Each proxy appends the address of its peer.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The trusted proxies. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[Network]>);

impl Proxies {
    /// Trusts these networks.
    pub fn new(trusted: &[Network]) -> Self {
        Self(trusted.into())
    }

    /// The client's address: the last one in the chain of `peer` and forwarded addresses that is not a trusted proxy. The client
    /// itself may have written the addresses before that one.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer.to_canonical();
        }
        let mut client = peer;
        let lists = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|list| list.to_str().ok());
        for hop in lists.flat_map(|list| list.rsplit(',')) {
            // An unreadable address ends the chain: the last proxy counts as the client.
            let Some(address) = address(hop.trim()) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        client.to_canonical()
    }

    /// Whether an address is one of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Parses an address, with or without a port and brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn client(peer: &str, forwarded: &[&'static str]) -> String {
        let trusted: Vec<Network> =
            ["10.0.0.0/8", "fd00::1"].iter().map(|text| text.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        for list in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(list));
        }
        Proxies::new(&trusted).client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn p8_forwarded_addresses_count_only_from_a_trusted_proxy() {
        assert_eq!(client("1.2.3.4", &["9.9.9.9"]), "1.2.3.4", "not a proxy");
        assert_eq!(client("11.0.0.1", &["9.9.9.9"]), "11.0.0.1", "not a trusted proxy");
        assert_eq!(client("10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("::ffff:10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1", "the proxy itself, for example its health check");
    }

    #[test]
    fn p8_forwarded_addresses_written_by_the_client_are_ignored() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["10.6.6.6,9.9.9.9,10.0.0.3,10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, what, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9", "a client within the network");
    }

    #[test]
    fn addresses_are_parsed_with_ports_brackets_and_mapped_ipv4() {
        assert_eq!(client("fd00::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["9.9.9.9:1234"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["::ffff:9.9.9.9"]), "9.9.9.9");
    }
}
