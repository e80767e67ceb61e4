//! The messages that this gateway has acknowledged recently.
//!
//! A retry of one of them is answered from here: with the time of the first attempt, and without another record in the log, which
//! would make the user's devices look for a change. A retry that is not found is logged again, and the store recognises it.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, PoisonError},
};

/// Messages in one generation. With 32 bytes each, both generations take about 4 MiB.
const GENERATION: usize = 1 << 16;

/// By message id: when the message was accepted, in milliseconds since 1970. When the newer generation is full, it replaces the older.
#[derive(Debug, Default)]
struct Generations {
    newer: HashMap<u128, i64>,
    older: HashMap<u128, i64>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub struct RecentAcks(Mutex<Generations>);

impl RecentAcks {
    /// When an acknowledged message was accepted, in milliseconds since 1970. `None`: it was not acknowledged here, or long ago.
    pub fn sent_at_ms(&self, message_id: &str) -> Option<i64> {
        let id = key(message_id)?;
        let generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        generations.newer.get(&id).or_else(|| generations.older.get(&id)).copied()
    }

    /// Remembers a message that is being acknowledged.
    pub fn add(&self, message_id: &str, sent_at_ms: i64) {
        let Some(id) = key(message_id) else { return };
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if generations.newer.len() >= GENERATION {
            generations.older = mem::take(&mut generations.newer);
        }
        generations.newer.insert(id, sent_at_ms);
    }
}

fn key(message_id: &str) -> Option<u128> {
    u128::from_str_radix(message_id, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_acks_are_known_and_memory_is_bounded() {
        let acks = RecentAcks::default();
        let id = |n: usize| format!("{n:032x}");
        for n in 0..=3 * GENERATION {
            acks.add(&id(n), n as i64);
        }
        assert_eq!(acks.sent_at_ms(&id(3 * GENERATION)), Some(3 * GENERATION as i64));
        assert_eq!(acks.sent_at_ms(&id(2 * GENERATION)), Some(2 * GENERATION as i64));
        assert_eq!(acks.sent_at_ms(&id(2 * GENERATION - 1)), None);
        assert_eq!(acks.sent_at_ms("unknown"), None);
    }
}
