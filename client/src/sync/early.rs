//! Deliveries that arrived ahead of an earlier one. They wait for it, because the earlier one was probably only overtaken.

use abi::v1::{Entry, Update};
use std::collections::BTreeMap;

/// Deliveries held back at a time. A delivery is a frame of at most 64 KiB, so they take at most 2 MiB.
pub(super) const MAX_EARLY: usize = 32;

/// A delivery that has all of its changes.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Delivery {
    /// The receiver seq before its changes.
    pub(super) start: u64,
    /// The receiver seq after its changes.
    pub(super) end: u64,
    pub(super) entries: Vec<Entry>,
    pub(super) updates: Vec<Update>,
}

/// Deliveries of one epoch, by the receiver seq before their changes.
#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(PartialEq, Hash))]
pub(super) struct Early {
    epoch: u32,
    deliveries: BTreeMap<u64, Delivery>,
}

impl Early {
    /// Holds a delivery back. Returns `false` if another one was dropped for it and has to be fetched.
    pub(super) fn hold(&mut self, epoch: u32, delivery: Delivery) -> bool {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.deliveries.clear();
        }
        let known = self.deliveries.get(&delivery.start).map(|held| held.end);
        if known.is_none_or(|end| end < delivery.end) {
            self.deliveries.insert(delivery.start, delivery);
        }
        // The first one goes: an answer to `changes` that is on its way covers old deliveries sooner than new ones.
        self.deliveries.len() <= MAX_EARLY || self.deliveries.pop_first().is_none()
    }

    /// Removes the first delivery if it continues from `seq`; one with updates only if `takes_updates`.
    pub(super) fn next(&mut self, epoch: u32, seq: u64, takes_updates: bool) -> Option<Delivery> {
        let first = self.deliveries.first_entry()?;
        let is_next = epoch == self.epoch && *first.key() <= seq;
        (is_next && (takes_updates || first.get().updates.is_empty())).then(|| first.remove())
    }
}

#[cfg(test)]
impl std::hash::Hash for Delivery {
    /// The generated types have no hash.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        use prost::Message as _;
        (self.start, self.end).hash(state);
        self.entries.iter().for_each(|entry| entry.encode_to_vec().hash(state));
        self.updates.iter().for_each(|update| update.encode_to_vec().hash(state));
    }
}
