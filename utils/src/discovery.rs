//! Which instances of a service there are.
//!
//! [`Discovery`] follows a service in Consul, in DNS, or not at all (fixed addresses), and gives [`Instances`]: the
//! set as it is now, and every change of it. A source that is away changes nothing: the last known set stays.
//! [`Registrar`] makes this process an instance that others find. `docs/discovery.md` is the guide.

mod client;
mod consul;
mod dns;
mod registrar;

pub use registrar::{Instance, Registrar};

use crate::Error;
use abi::config::DiscoveryKind;
use client::Client;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{sync::watch, task::JoinSet};

/// Addresses, each `host:port`, with the zone where it is; empty if that is not known.
pub type Addresses = BTreeMap<String, String>;

/// A set of addresses that changes. A clone follows the same set; what follows it in the background ends with the
/// last clone.
#[derive(Clone, Debug)]
pub struct Instances {
    addresses: watch::Receiver<Addresses>,
    /// The zone of who looks; empty if it has none.
    zone: Arc<str>,
    _follower: Arc<JoinSet<()>>,
}

impl Instances {
    /// A set that never changes.
    pub fn fixed(addresses: impl IntoIterator<Item = String>) -> Self {
        let addresses = addresses.into_iter().map(|address| (address, String::new())).collect();
        Self::following(watch::channel(addresses).1)
    }

    /// A set that somebody else changes.
    pub fn following(addresses: watch::Receiver<Addresses>) -> Self {
        Self { addresses, zone: Arc::from(""), _follower: Arc::default() }
    }

    /// As seen from a zone.
    #[must_use]
    pub fn from_zone(mut self, zone: &str) -> Self {
        self.zone = zone.into();
        self
    }

    /// Whether a zone is that of who looks.
    pub fn is_near(&self, zone: &str) -> bool {
        !zone.is_empty() && zone == &*self.zone
    }

    /// Runs what changes the set for as long as somebody follows it.
    fn followed<F>(follow: impl FnOnce(watch::Sender<Addresses>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, addresses) = watch::channel(Addresses::new());
        let mut follower = JoinSet::new();
        follower.spawn(follow(sender));
        Self { _follower: Arc::new(follower), ..Self::following(addresses) }
    }

    /// The set as it is now, marked as seen.
    pub fn current(&mut self) -> Addresses {
        self.addresses.borrow_and_update().clone()
    }

    /// Returns when the set has changed since it was seen; never, if it can't change any more.
    pub async fn changed(&mut self) {
        if self.addresses.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Returns when the set is as asked for.
    pub async fn wait_for(&mut self, holds: impl FnMut(&Addresses) -> bool) {
        if self.addresses.wait_for(holds).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Where instances are looked for, and where this one is registered.
#[derive(Clone, Debug)]
pub struct Discovery {
    source: Source,
    zone: String,
    /// How long an instance that has left goes on serving.
    grace: Duration,
}

#[derive(Clone, Debug)]
enum Source {
    Consul { client: Box<Client>, prefix: String },
    Dns { refresh: Duration },
    Fixed,
}

impl Discovery {
    /// As configured.
    ///
    /// # Errors
    /// When Consul's address is not `http://host:port` or `https://host:port`, or its authorities can't be read.
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

    /// Where this instance runs; may be empty.
    pub fn zone(&self) -> &str {
        &self.zone
    }

    /// Follows a service. `addresses` are those of the configuration: the instances themselves (fixed), or names to
    /// look up (DNS); Consul needs only the name of the service.
    ///
    /// # Errors
    /// When one of the addresses is not `host:port`.
    pub fn watch(&self, service: &str, addresses: &[String]) -> Result<Instances, Error> {
        if !matches!(self.source, Source::Consul { .. }) {
            addresses.iter().try_for_each(|address| check_address(address))?;
        }
        let instances = match &self.source {
            Source::Consul { client, prefix } => {
                let (client, name) = (Client::clone(client), full_name(prefix, service));
                Instances::followed(|set| consul::follow(client, name, set))
            }
            Source::Dns { refresh } => {
                let (names, refresh) = (addresses.to_vec(), *refresh);
                Instances::followed(move |set| dns::follow(names, refresh, dns::system, set))
            }
            Source::Fixed => Instances::fixed(addresses.iter().cloned()),
        };
        Ok(instances.from_zone(&self.zone))
    }
}

/// Name of a service in Consul.
fn full_name(prefix: &str, service: &str) -> String {
    if prefix.is_empty() { service.to_owned() } else { format!("{prefix}-{service}") }
}

/// Whether a text is `host:port`.
///
/// # Errors
/// A sentence that says so.
pub fn check_address(address: &str) -> Result<(), Error> {
    let wrong = || Error::Address { address: address.to_owned() };
    let authority: http::uri::Authority = address.parse().map_err(|_| wrong())?;
    let whole = !authority.host().is_empty() && authority.port_u16().is_some() && !address.contains('@');
    whole.then_some(()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
