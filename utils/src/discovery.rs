//! Which instances of a service there are.
//!
//! [`Discovery`] follows a service in Consul, in DNS, or not at all (fixed addresses), and gives [`Instances`]: the
//! set as it is now, and every change of it. A source that is away changes nothing: the last known set stays.
//! [`Registrar`] makes this process an instance that others find.

mod client;
mod consul;
mod dns;
mod registrar;

pub use registrar::{Instance, Registrar};

use crate::Error;
use abi::config::DiscoveryKind;
use client::Client;
use std::{collections::BTreeSet, sync::Arc};
use tokio::{sync::watch, task::JoinSet};

/// Addresses, each `host:port`.
pub type Addresses = BTreeSet<String>;

/// A set of addresses that changes. A clone follows the same set; what follows it in the background ends with the
/// last clone.
#[derive(Clone, Debug)]
pub struct Instances {
    addresses: watch::Receiver<Addresses>,
    _follower: Arc<JoinSet<()>>,
}

impl Instances {
    /// A set that never changes.
    pub fn fixed(addresses: impl IntoIterator<Item = String>) -> Self {
        Self { addresses: watch::channel(addresses.into_iter().collect()).1, _follower: Arc::default() }
    }

    /// A set that somebody else changes.
    pub fn following(addresses: watch::Receiver<Addresses>) -> Self {
        Self { addresses, _follower: Arc::default() }
    }

    /// Runs what changes the set for as long as somebody follows it.
    fn followed<F>(follow: impl FnOnce(watch::Sender<Addresses>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, addresses) = watch::channel(Addresses::new());
        let mut follower = JoinSet::new();
        follower.spawn(follow(sender));
        Self { addresses, _follower: Arc::new(follower) }
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
}

#[derive(Clone, Debug)]
enum Source {
    Consul { client: Box<Client>, prefix: String },
    Dns,
    Fixed,
}

impl Discovery {
    /// As configured.
    ///
    /// # Errors
    /// When Consul's address is not `http://host:port`.
    pub fn new(config: &abi::config::Discovery) -> Result<Self, Error> {
        let source = match config.kind {
            DiscoveryKind::Consul => Source::Consul {
                client: Box::new(Client::new(&config.consul, &config.consul_token)?),
                prefix: config.prefix.clone(),
            },
            DiscoveryKind::Dns => Source::Dns,
            DiscoveryKind::Fixed => Source::Fixed,
        };
        Ok(Self { source })
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
        Ok(match &self.source {
            Source::Consul { client, prefix } => {
                let (client, name) = (Client::clone(client), full_name(prefix, service));
                Instances::followed(|set| consul::follow(client, name, set))
            }
            Source::Dns => {
                let names = addresses.to_vec();
                Instances::followed(|set| dns::follow(names, set))
            }
            Source::Fixed => Instances::fixed(addresses.iter().cloned()),
        })
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
