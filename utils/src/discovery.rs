//! Service discovery: the instances of a service, and the registration of this process.
//!
//! [`Discovery`] watches a service in Consul or DNS, or uses fixed addresses. It returns [`Instances`]: the current set
//! and its changes. While the source is unavailable, the last known set stays. [`Registrar`] registers this process as
//! an instance. `docs/discovery.md` is the guide.

mod address;
mod client;
mod consul;
mod dns;
mod instances;
mod registrar;

pub use address::check_address;
pub use instances::{Addresses, Instances};
pub use registrar::{Instance, Registrar};

use crate::Error;
use abi::config::DiscoveryKind;
use client::Client;
use std::time::Duration;

/// The configured source of instances, where this process also registers.
#[derive(Clone, Debug)]
pub struct Discovery {
    source: Source,
    zone: String,
    /// How long a deregistered instance keeps serving.
    grace: Duration,
}

#[derive(Clone, Debug)]
enum Source {
    Consul { client: Box<Client>, prefix: String },
    Dns { refresh: Duration },
    Fixed,
}

impl Discovery {
    /// Creates the configured discovery.
    ///
    /// # Errors
    /// Consul's address is not `http://host:port` or `https://host:port`, or its CA file is not valid.
    pub fn new(config: &abi::config::Discovery) -> Result<Self, Error> {
        let source = match config.kind {
            DiscoveryKind::Consul => Source::Consul {
                client: Box::new(Client::new(&config.consul, &config.consul_ca, &config.consul_token)?),
                prefix: config.prefix.clone(),
            },
            DiscoveryKind::Dns => Source::Dns { refresh: config.dns_refresh },
            DiscoveryKind::Fixed => Source::Fixed,
        };
        Ok(Self { source, zone: config.zone.clone(), grace: config.drain_grace })
    }

    /// The zone of this process; empty if it has none.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Watches a service. `addresses` come from the configuration: the instances themselves (fixed) or names to look up
    /// (DNS). Consul ignores them and uses the name of the service.
    ///
    /// # Errors
    /// One of the addresses is not `host:port`.
    pub fn watch(&self, service: &str, addresses: &[String]) -> Result<Instances, Error> {
        if !matches!(self.source, Source::Consul { .. }) {
            addresses.iter().try_for_each(|address| check_address(address))?;
        }
        let instances = match &self.source {
            Source::Consul { client, prefix } => {
                let (client, name) = (Client::clone(client), full_name(prefix, service));
                Instances::updated_by(|set| consul::watch(client, name, set))
            }
            Source::Dns { refresh } => {
                let (names, refresh) = (addresses.to_vec(), *refresh);
                Instances::updated_by(move |set| dns::watch(names, refresh, dns::system_lookup, set))
            }
            Source::Fixed => Instances::fixed(addresses.iter().cloned()),
        };
        Ok(instances.from_zone(&self.zone))
    }
}

/// The name of a service in Consul.
fn full_name(prefix: &str, service: &str) -> String {
    if prefix.is_empty() { service.to_owned() } else { format!("{prefix}-{service}") }
}

#[cfg(test)]
mod tests;
