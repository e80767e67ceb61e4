//! The address of a server.

use crate::{Error, Trust};
use http::Uri;
use rustls::{ClientConfig, pki_types::ServerName};
use std::{net::Ipv6Addr, sync::Arc};

/// A valid address of a server: `http://HOST[:PORT][/PATH]` or the same with `https`.
#[derive(Clone, Debug)]
pub struct Server {
    url: String,
    host: String,
    port: u16,
    /// For `https`: the name in the server's certificate, and the trusted authorities (default: the system's).
    tls: Option<(ServerName<'static>, Option<Trust>)>,
}

impl PartialEq for Server {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for Server {}

impl Server {
    /// Parses an address. `ws://` counts as `http://`, `wss://` as `https://`, and a missing scheme as `http://`. With
    /// `https` the server's certificate is checked against the system's authorities, or those of [`Server::trusting`].
    ///
    /// # Errors
    /// [`Error::Address`] if the address is invalid.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let invalid = |reason| Error::Address { url: url.to_owned(), reason };
        let (scheme, plain) = match url.split_once("://") {
            Some(("http" | "ws", rest)) => ("http", rest),
            Some(("https" | "wss", rest)) => ("https", rest),
            Some(_) => return Err(invalid("it must begin with http:// or https://")),
            None => ("http", url),
        };
        let url_text = format!("{scheme}://{}", plain.trim_end_matches('/'));
        let uri: Uri = url_text.parse().map_err(|_| invalid("it must look like http://HOST:PORT"))?;
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| invalid("it has no host"))?;
        if uri.query().is_some() || plain.contains(['@', '#']) {
            return Err(invalid("it must have only a host, a port and a path"));
        }
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(v6) if v6.parse::<Ipv6Addr>().is_err() => {
                return Err(invalid("the brackets must hold an IPv6 address"));
            }
            Some(v6) => v6.to_owned(),
            None => host.to_owned(),
        };
        let (port, tls) = match scheme {
            "https" => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| invalid("its host is not a valid name for a certificate"))?;
                (443, Some((name, None)))
            }
            _ => (80, None),
        };
        Ok(Self { port: uri.port_u16().unwrap_or(port), host, url: url_text, tls })
    }

    /// With `https`, accepts only certificates signed by these authorities.
    #[must_use]
    pub fn trusting(mut self, trust: &Trust) -> Self {
        if let Some((_, chosen)) = &mut self.tls {
            *chosen = Some(trust.clone());
        }
        self
    }

    /// For `https`: the name in the server's certificate, and the TLS configuration.
    pub(crate) fn tls(&self) -> Option<(ServerName<'static>, Arc<ClientConfig>)> {
        let (name, trust) = self.tls.as_ref()?;
        Some((name.clone(), trust.clone().unwrap_or_else(Trust::system).config()))
    }

    /// The normalised address, without a slash at the end.
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
    fn several_spellings_give_the_same_address() {
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
    fn invalid_addresses_are_refused() {
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
    }

    #[test]
    fn https_addresses_have_a_certificate_name_and_default_to_port_443() {
        for url in ["https://chat.example", "wss://chat.example/"] {
            let server = Server::parse(url).unwrap();
            assert_eq!(server.url(), "https://chat.example", "{url}");
            assert_eq!(server.host_port(), ("chat.example", 443));
            assert_eq!(server.websocket(), "wss://chat.example/v1/ws");
            assert!(server.tls().is_some());
        }
        assert!(Server::parse("http://chat.example").unwrap().tls().is_none());
        assert!(Server::parse("https://[::1]:7450").unwrap().tls().is_some());
    }
}
