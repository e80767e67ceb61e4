//! The current instances of a service.

use std::{collections::BTreeMap, sync::Arc};
use tokio::{sync::watch, task::JoinSet};

/// Addresses, each `host:port`, with the zone of the instance; the zone is empty if it is unknown.
pub type Addresses = BTreeMap<String, String>;

/// The changing set of a service's instances. Clones share the set; dropping the last clone stops the background task
/// that updates it.
#[derive(Clone, Debug)]
pub struct Instances {
    addresses: watch::Receiver<Addresses>,
    /// The zone of this process; empty if it has none.
    own_zone: Arc<str>,
    _updater: Arc<JoinSet<()>>,
}

impl Instances {
    /// A set that never changes.
    pub fn fixed(addresses: impl IntoIterator<Item = String>) -> Self {
        let addresses = addresses.into_iter().map(|address| (address, String::new())).collect();
        Self::from_receiver(watch::channel(addresses).1)
    }

    /// A set that the sender of `addresses` updates.
    pub fn from_receiver(addresses: watch::Receiver<Addresses>) -> Self {
        Self { addresses, own_zone: Arc::from(""), _updater: Arc::default() }
    }

    /// Sets the zone of this process.
    #[must_use]
    pub fn from_zone(mut self, zone: &str) -> Self {
        self.own_zone = zone.into();
        self
    }

    /// Whether `zone` is the zone of this process.
    pub fn is_own_zone(&self, zone: &str) -> bool {
        !zone.is_empty() && zone == &*self.own_zone
    }

    /// Spawns the task that updates the set. It runs until the last clone is dropped.
    pub(super) fn updated_by<F>(update: impl FnOnce(watch::Sender<Addresses>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, addresses) = watch::channel(Addresses::new());
        let mut updater = JoinSet::new();
        updater.spawn(update(sender));
        Self { _updater: Arc::new(updater), ..Self::from_receiver(addresses) }
    }

    /// The current set. Marks it as seen for [`Instances::changed`].
    pub fn current(&mut self) -> Addresses {
        self.addresses.borrow_and_update().clone()
    }

    /// Waits until the set differs from the one last seen. Never returns if the set can't change any more.
    pub async fn changed(&mut self) {
        if self.addresses.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until the set meets a condition.
    pub async fn wait_for(&mut self, condition: impl FnMut(&Addresses) -> bool) {
        if self.addresses.wait_for(condition).await.is_err() {
            std::future::pending().await
        }
    }
}
