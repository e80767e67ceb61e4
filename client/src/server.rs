//! Where a server is.

use crate::Error;
use http::Uri;
use std::net::Ipv6Addr;

/// The address of a server, checked: `http://HOST[:PORT][/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    url: String,
    host: String,
    port: u16,
}

impl Server {
    /// Parses an address. `ws://` is taken for `http://`, and no scheme at all as well.
    ///
    /// # Errors
    /// [`Error::Address`] when it is no address, or asks for TLS, which this client leaves to a proxy in front.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let fault = |reason| Error::Address { url: url.to_owned(), reason };
        let plain = match url.split_once("://") {
            Some(("http" | "ws", rest)) => rest,
            Some(("https" | "wss", _)) => {
                return Err(fault(
                    "TLS is not supported by this client; use http:// to a proxy that adds it",
                ));
            }
            Some(_) => return Err(fault("it must begin with http://")),
            None => url,
        };
        let url_text = format!("http://{}", plain.trim_end_matches('/'));
        let uri: Uri = url_text.parse().map_err(|_| fault("it must look like http://HOST:PORT"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| fault("it has no host"))?;
        if uri.query().is_some() || plain.contains(['@', '#']) {
            return Err(fault("it must be only host, port and path"));
        }
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) if v6.parse::<Ipv6Addr>().is_err() => return Err(fault("in [] is an IPv6 address")),
            Some(v6) => v6.to_owned(),
            None => host.to_owned(),
        };
        Ok(Self { port: uri.port_u16().unwrap_or(80), host, url: url_text })
    }

    /// The address in its normal form, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Host without brackets, and port.
    pub fn host_port(&self) -> (&str, u16) {
        (&self.host, self.port)
    }

    /// Address of the WebSocket.
    pub fn websocket(&self) -> String {
        format!("ws{}/v1/ws", self.url.trim_start_matches("http"))
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_several_spellings() {
        for url in
            ["http://127.0.0.1:7450", "http://127.0.0.1:7450/", "ws://127.0.0.1:7450", "127.0.0.1:7450"]
        {
            let server = Server::parse(url).unwrap();
            assert_eq!(server.url(), "http://127.0.0.1:7450", "{url}");
            assert_eq!(server.host_port(), ("127.0.0.1", 7450));
            assert_eq!(server.websocket(), "ws://127.0.0.1:7450/v1/ws");
        }
        let server = Server::parse("http://[::1]/chat").unwrap();
        assert_eq!(server.host_port(), ("::1", 80));
        assert_eq!(server.websocket(), "ws://[::1]/chat/v1/ws");
    }

    #[test]
    fn what_is_no_address_is_refused_with_a_reason() {
        for url in [
            "",
            "http://",
            "ftp://host",
            "http://host?x=1",
            "http://user@host",
            "http://a b",
            "[]",
            "http://[a]:1",
        ] {
            assert!(Server::parse(url).is_err(), "{url}");
        }
        assert!(Server::parse("https://host").unwrap_err().to_string().contains("TLS"));
    }
}
