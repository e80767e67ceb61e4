//! The errors of this crate.

use std::net::SocketAddr;

/// Any error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener could not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A value is not an address to listen on.
    #[error("'{address}' is not an address to listen on; write HOST:PORT, [IPV6]:PORT, :PORT or PORT")]
    ListenAddress {
        /// As given.
        address: String,
    },
    /// A server stopped unexpectedly.
    #[error("the server on {address} failed")]
    Serve {
        /// Its listen address.
        address: SocketAddr,
        /// Why.
        source: tower::BoxError,
    },
    /// gRPC reflection can't decode the descriptors.
    #[error("the descriptors for gRPC reflection are not valid")]
    Descriptors(#[source] tower::BoxError),
    /// A value is not `host:port`.
    #[error("'{address}' is not an address; write host:port")]
    Address {
        /// As given.
        address: String,
    },
    /// Logs, metrics or traces could not be set up.
    #[error("telemetry cannot start: {reason}")]
    Telemetry {
        /// Why.
        reason: String,
    },
    /// Certificates, keys or authorities can't be used.
    #[error("{}", errors.join("; "))]
    Tls {
        /// Config errors; each sentence begins with the configuration key.
        errors: Vec<String>,
    },
    /// The token is not valid in an HTTP header.
    #[error("discovery.consul_token has characters that are not allowed in an HTTP header")]
    Token,
    /// A request to Consul failed.
    #[error("the request {path} to consul at {agent} failed")]
    Consul {
        /// Address of the agent.
        agent: String,
        /// Path of the request.
        path: String,
        /// Why.
        source: tower::BoxError,
    },
    /// Consul's agent answered with an error status.
    #[error("consul at {agent} refused {path} with status {status}: {body}")]
    ConsulRefused {
        /// Address of the agent.
        agent: String,
        /// Path of the request.
        path: String,
        /// HTTP status.
        status: u16,
        /// The beginning of the response body.
        body: String,
    },
}

impl Error {
    /// The config errors of TLS settings that could not be loaded.
    pub(crate) fn tls_config_errors<T>(loaded: Result<T, Self>) -> Vec<String> {
        match loaded {
            Ok(_) => Vec::new(),
            Err(Self::Tls { errors }) => errors,
            Err(error) => vec![error.to_string()],
        }
    }
}

/// An error and all its causes on one line, for logs and for a program's last message.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Many wrappers already contain the text of their source.
        if !text.contains(&next_text) {
            text.push_str(": ");
            text.push_str(&next_text);
        }
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = Error::Bind { address: "a:1".into(), source: std::io::Error::other("taken") };
        assert_eq!(chain(&error), "cannot listen on a:1: taken");
    }
}
