//! What can go wrong here.

use std::net::SocketAddr;

/// A failure of the shared machinery.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A listener could not be bound.
    #[error("can't listen on {address}")]
    Bind {
        /// As configured.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A server ended by itself.
    #[error("the server on {address} failed")]
    Serve {
        /// Where it listened.
        address: SocketAddr,
        /// Why.
        source: tower::BoxError,
    },
    /// Encoded descriptors that reflection can't read.
    #[error("the descriptors for reflection are not valid")]
    Descriptors(#[source] tower::BoxError),
    /// Something that must be `host:port` is not.
    #[error("'{address}' is not an address; write host:port")]
    Address {
        /// As given.
        address: String,
    },
    /// Logs or metrics could not be set up.
    #[error("telemetry can't start: {reason}")]
    Telemetry {
        /// Why.
        reason: String,
    },
    /// Certificates, keys or authorities that can't be used.
    #[error("{}", faults.join("; "))]
    Tls {
        /// Each a sentence with the key of the configuration.
        faults: Vec<String>,
    },
    /// A token that a header can't carry.
    #[error("discovery.consul_token has characters that a header can't carry")]
    Token,
    /// A request to Consul failed.
    #[error("consul at {agent} can't be asked for {path}")]
    Consul {
        /// Address of the agent.
        agent: String,
        /// What was asked for.
        path: String,
        /// Why.
        source: tower::BoxError,
    },
    /// Consul's agent answered with an error.
    #[error("consul at {agent} refused {path} with status {status}: {body}")]
    ConsulRefused {
        /// Address of the agent.
        agent: String,
        /// What was asked for.
        path: String,
        /// HTTP status.
        status: u16,
        /// The beginning of its answer.
        body: String,
    },
}

impl Error {
    /// The faults of files that something was to be made of.
    pub(crate) fn tls_faults<T>(made: Result<T, Self>) -> Vec<String> {
        match made {
            Ok(_) => Vec::new(),
            Err(Self::Tls { faults }) => faults,
            Err(error) => vec![error.to_string()],
        }
    }
}

/// The whole chain of causes in one line, for logs and for the sentence that a program ends with.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        // Wrappers like to repeat their source in their own text.
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
        assert_eq!(chain(&error), "can't listen on a:1: taken");
    }
}
