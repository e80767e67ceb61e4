//! A map of bounded weight with approximate LRU eviction.

use std::collections::HashMap;

/// The weight of a value: its share of the map's size.
pub(super) trait Weigh {
    /// The weight, at least 1.
    fn weight(&self) -> usize;

    /// Whether the map counts the eviction of this value; see [`GenerationalMap::evictions`].
    fn is_needed(&self) -> bool {
        false
    }
}

/// Two maps: every access moves its entry to the young map. When the young map holds half of the maximum weight, it
/// becomes the old map, and the entries of the previous old map are evicted. An access costs one or two lookups, without
/// a linked list.
///
/// The order of eviction matters: an entry that was just accessed, such as the route of a new connection, must outlive
/// idle ones. A scan-resistant policy (CLOCK-Pro, S3-FIFO) evicts new entries first.
#[derive(Debug)]
pub(super) struct GenerationalMap<V> {
    young: HashMap<Box<str>, Weighted<V>>,
    old: HashMap<Box<str>, Weighted<V>>,
    /// Weight of `young`.
    weight: usize,
    /// Maximum of `weight`: half of the map's.
    max_young: usize,
    evictions: u64,
}

#[derive(Debug)]
struct Weighted<V> {
    value: V,
    weight: usize,
}

impl<V: Weigh> GenerationalMap<V> {
    /// A map of at most `max` weight. A single heavier entry is kept until the next insertion.
    pub(super) fn new(max: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
            max_young: (max / 2).max(1),
            evictions: 0,
        }
    }

    /// How many evictions included a value that was still needed.
    pub(super) fn evictions(&self) -> u64 {
        self.evictions
    }

    /// The value of a key. The access makes it young. Changes of its weight don't count.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, entry) = self.old.remove_entry(key)?;
            self.insert_young(key, entry);
        }
        self.young.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Changes the value of a key and weighs it again. If it is missing, creates it.
    pub(super) fn update<T>(
        &mut self,
        key: &str,
        create: impl FnOnce() -> V,
        change: impl FnOnce(&mut V) -> T,
    ) -> T {
        if !self.young.contains_key(key) {
            let (key, entry) = self.old.remove_entry(key).unwrap_or_else(|| {
                let value = create();
                (key.into(), Weighted { weight: value.weight(), value })
            });
            self.insert_young(key, entry);
        }
        let entry = self.young.get_mut(key).expect("the last inserted entry is in the young map");
        let result = change(&mut entry.value);
        self.weight -= entry.weight;
        entry.weight = entry.value.weight();
        self.weight += entry.weight;
        result
    }

    /// Inserts a value or replaces the existing one.
    pub(super) fn insert(&mut self, key: &str, value: V) {
        self.old.remove(key);
        self.insert_young(key.into(), Weighted { weight: value.weight(), value });
    }

    fn insert_young(&mut self, key: Box<str>, entry: Weighted<V>) {
        if self.weight + entry.weight > self.max_young {
            let evicted = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
            self.evictions += u64::from(evicted.values().any(|entry| entry.value.is_needed()));
            self.weight = 0;
        }
        self.weight += entry.weight;
        // The map that has just become old may still have the key. Lookups find the young entry first.
        if let Some(replaced) = self.young.insert(key, entry) {
            self.weight -= replaced.weight;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
