//! The messages that this gateway has acknowledged recently.
//!
//! A retry of one of them is answered from here: with the time of the first attempt, and without another record in the log, which
//! would make the user's devices look for a change. A retry that is not found is logged again, and the store recognises it.

use abi::ids;
use foldhash::fast::RandomState;
use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
};

/// Messages in one generation. Both generations together take about 1 MiB, so that they stay in the cache of a processor.
const GENERATION: usize = 1 << 14;

/// By message id: when the message was accepted, in milliseconds since 1970. The hash is a fast one: message ids are hashes already,
/// so a client can't choose them.
type Acks = HashMap<Key, i64, RandomState>;

/// A message id as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u128);

impl Key {
    /// The key of a message id.
    ///
    /// # Panics
    /// It is not a message id.
    pub fn new(message_id: &str) -> Self {
        let bytes = ids::message_bytes(message_id).expect("the server makes message ids");
        Self(u128::from_be_bytes(bytes))
    }
}

/// When the newer generation is full, it becomes the older one, whose messages are forgotten.
#[derive(Debug, Default)]
struct Generations {
    newer: Acks,
    older: Acks,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct RecentAcks(Mutex<Generations>);

impl RecentAcks {
    /// When an acknowledged message was accepted, in milliseconds since 1970. `None`: it was not acknowledged here, or long ago.
    pub fn sent_at_ms(&self, message: Key) -> Option<i64> {
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.newer.get(&message).or_else(|| generations.older.get(&message)).copied()
    }

    /// Remembers a message that is being acknowledged.
    pub fn add(&self, message: Key, sent_at_ms: i64) {
        let mut guard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Generations { newer, older } = &mut *guard;
        if newer.len() >= GENERATION {
            mem::swap(newer, older);
            newer.clear();
        }
        newer.insert(message, sent_at_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_acks_are_known_and_memory_is_bounded() {
        let acks = RecentAcks::default();
        let key = |n: usize| Key::new(&format!("{n:032x}"));
        for n in 0..=3 * GENERATION {
            acks.add(key(n), n as i64);
        }
        assert_eq!(acks.sent_at_ms(key(3 * GENERATION)), Some(3 * GENERATION as i64));
        assert_eq!(acks.sent_at_ms(key(2 * GENERATION)), Some(2 * GENERATION as i64));
        assert_eq!(acks.sent_at_ms(key(2 * GENERATION - 1)), None);
    }
}
