//! The slot of a conversation: the unit in which conversations are assigned to databases.

/// Number of slots. 2^12 * 3, so that 12, 24, 48, ... and 768 partitions divide it.
pub const SLOTS: u32 = 12_288;

/// The slot of a conversation. Must never change: it decides where stored data are.
///
/// The hash is that of Kafka's clients over the key of the conversation's records (see [`record::key`](crate::record::key)). If the
/// number of partitions divides [`SLOTS`], a conversation's partition is `slot % partitions`, and the conversations of a partition
/// can be in one database.
pub fn slot(app: &str, conversation: &str) -> u32 {
    (murmur2(&crate::record::key(app, conversation)) & 0x7fff_ffff) % SLOTS
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

    /// The values of `UtilsTest.testMurmur2` of Apache Kafka, with which kafka-runtime tests its partitions too.
    #[test]
    fn the_hash_is_that_of_kafkas_clients() {
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
    fn a_slot_decides_the_partition() {
        for conversation in ["d:alice:bob", "g:1", "g:2", "d:a:a"] {
            let hash = murmur2(&crate::record::key("default", conversation)) & 0x7fff_ffff;
            for partitions in [1, 3, 12, 24, 48, 96, 192, 384, 768] {
                assert_eq!(slot("default", conversation) % partitions, hash % partitions);
            }
        }
    }
}
