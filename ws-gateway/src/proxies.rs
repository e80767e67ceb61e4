//! Who is believed about where a client is.
//!
//! Limits per address look at the peer of the connection. Behind a proxy that is the proxy, for everybody: so a proxy that is
//! named in the configuration is believed when it says for whom it asks, and nobody else is.

use abi::config::Network;
use http::{HeaderMap, HeaderName};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// Every proxy adds the address of its peer at the end.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The proxies of the configuration. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<[Network]>);

impl Proxies {
    /// These are believed.
    pub fn new(trusted: &[Network]) -> Self {
        Self(trusted.into())
    }

    /// Where a request comes from that came over a connection with `peer`: from the last address that is not a trusted
    /// proxy's. What stands in front of that anybody may have written.
    pub fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.trusts(peer) {
            return peer.to_canonical();
        }
        let mut client = peer;
        let lists = headers.get_all(FORWARDED_FOR).iter().rev().filter_map(|list| list.to_str().ok());
        for hop in lists.flat_map(|list| list.rsplit(',')) {
            // Beyond what can't be read nothing is known: it stays with the last proxy.
            let Some(address) = address(hop.trim()) else { break };
            client = address;
            if !self.trusts(address) {
                break;
            }
        }
        client.to_canonical()
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

/// Some proxies add the port as well.
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
    fn p8_only_a_trusted_proxy_is_believed_about_an_address() {
        assert_eq!(client("1.2.3.4", &["9.9.9.9"]), "1.2.3.4", "not a proxy");
        assert_eq!(client("11.0.0.1", &["9.9.9.9"]), "11.0.0.1", "not a proxy of ours");
        assert_eq!(client("10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("::ffff:10.0.0.1", &["9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1", "the proxy itself, for example its health check");
    }

    #[test]
    fn p8_what_a_client_wrote_in_front_is_not_believed() {
        assert_eq!(client("10.0.0.1", &["6.6.6.6, 9.9.9.9"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["10.6.6.6,9.9.9.9,10.0.0.3,10.0.0.2"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["6.6.6.6, what, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(client("10.0.0.1", &["10.0.0.9, 10.0.0.2"]), "10.0.0.9", "a client within the network");
    }

    #[test]
    fn addresses_come_in_several_spellings() {
        assert_eq!(client("fd00::1", &["[2001:db8::1]:443"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["[2001:db8::1]"]), "2001:db8::1");
        assert_eq!(client("10.0.0.1", &["9.9.9.9:1234"]), "9.9.9.9");
        assert_eq!(client("10.0.0.1", &["::ffff:9.9.9.9"]), "9.9.9.9");
    }
}
