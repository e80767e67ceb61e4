//! The partition of a key, and the number of partitions of each topic.

use rdkafka::producer::Partitioner;
use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};

/// Partitions keys like Java's clients, so that other tools find a key in the same partition. Also records the
/// number of partitions of a topic, which the client passes with each call.
#[derive(Debug, Default)]
pub(super) struct Partitions {
    counts: RwLock<HashMap<String, usize>>,
}

impl Partitions {
    /// The number of partitions of a topic; 1 until the client has asked for the partition of a record of this
    /// topic.
    pub(super) fn count(&self, topic: &str) -> usize {
        let counts = self.counts.read().unwrap_or_else(PoisonError::into_inner);
        counts.get(topic).copied().unwrap_or(1)
    }
}

impl Partitioner for Partitions {
    fn partition(&self, topic: &str, key: Option<&[u8]>, count: i32, _: impl Fn(i32) -> bool) -> i32 {
        let count = usize::try_from(count).unwrap_or_default().max(1);
        if self.count(topic) != count {
            self.counts.write().unwrap_or_else(PoisonError::into_inner).insert(topic.to_owned(), count);
        }
        i32::try_from(partition(key.unwrap_or_default(), count)).unwrap_or_default()
    }
}

/// The partition of a key among `count`, at least one: <https://kafka.apache.org>, `BuiltInPartitioner.partitionForKey`.
pub(super) fn partition(key: &[u8], count: usize) -> usize {
    (murmur2(key) & 0x7fff_ffff) as usize % count
}

/// Austin Appleby's MurmurHash2 for 32 bits, with the seed of Kafka's clients.
fn murmur2(bytes: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    // Kafka, too, hashes only 32 bits of the length.
    let mut hash = words.fold(SEED ^ bytes.len() as u32, |hash, word| {
        let word = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte)).wrapping_mul(M);
        hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M)
    });
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values of `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn keys_go_to_the_same_partition_as_with_javas_clients() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }

    #[test]
    fn the_number_of_partitions_is_learned_from_the_client() {
        let partitions = Partitions::default();
        assert_eq!(partitions.count("t"), 1);
        for count in [6, 12] {
            let chosen = partitions.partition("t", Some(b"abc"), count, |_| true);
            assert_eq!(chosen, 479_470_107 % count);
            assert_eq!(partitions.count("t"), count as usize);
        }
        assert_eq!(partitions.count("u"), 1);
    }
}
