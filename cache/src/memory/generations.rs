//! A map of bounded weight that forgets what was not touched for longest.

use std::collections::HashMap;

/// Two maps: what is touched moves to the young one; when that holds half of all that is allowed, it becomes the old
/// one and the old one is forgotten. A touch costs a look-up or two, and no list of ages has to be kept.
#[derive(Debug)]
pub(super) struct Generations<V> {
    young: HashMap<Box<str>, Held<V>>,
    old: HashMap<Box<str>, Held<V>>,
    /// Weight of `young`.
    weight: usize,
    /// Most of `weight`.
    half: usize,
}

#[derive(Debug)]
struct Held<V> {
    value: V,
    weight: usize,
}

impl<V> Generations<V> {
    /// A map that keeps at most `max` of weight, what was put in last excepted.
    pub(super) fn new(max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), weight: 0, half: (max / 2).max(1) }
    }

    /// What is kept under a key. Looking at it keeps it young.
    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        if !self.young.contains_key(key) {
            let (key, held) = self.old.remove_entry(key)?;
            self.put(key, held);
        }
        self.young.get_mut(key).map(|held| &mut held.value)
    }

    /// What is kept under a key, made with a weight of 1 when missing.
    pub(super) fn get_or_insert_with(&mut self, key: &str, make: impl FnOnce() -> V) -> &mut V {
        if !self.young.contains_key(key) {
            let entry = self.old.remove_entry(key);
            let (key, held) = entry.unwrap_or_else(|| (key.into(), Held { value: make(), weight: 1 }));
            self.put(key, held);
        }
        let held = self.young.get_mut(key).expect("what was put in last is in the young map");
        &mut held.value
    }

    /// Keeps a value in place of the one that was there.
    pub(super) fn insert(&mut self, key: &str, value: V, weight: usize) {
        self.old.remove(key);
        self.put(key.into(), Held { value, weight });
    }

    fn put(&mut self, key: Box<str>, held: Held<V>) {
        if self.weight + held.weight > self.half {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += held.weight;
        // An old value of the same key may be in the map that has just grown old; it is never looked at there.
        if let Some(replaced) = self.young.insert(key, held) {
            self.weight -= replaced.weight;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}
