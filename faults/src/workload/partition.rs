//! The partition of a key in Kafka and in the embedded log, so that probes can reach each one.

/// The partition of a key, or `None` if Kafka and the embedded log differ.
pub(super) fn of(key: &[u8], partitions: u32) -> Option<u32> {
    let kafka = (murmur2(key) & 0x7fff_ffff) % partitions;
    let embedded = fnv1a(key) % u64::from(partitions);
    (u64::from(kafka) == embedded).then_some(kafka)
}

/// Kafka's hash of keys.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ u32::try_from(key.len()).expect("keys are short");
    let (words, rest) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ k >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !rest.is_empty() {
        hash = rest.iter().enumerate().fold(hash, |hash, (i, byte)| hash ^ u32::from(*byte) << (8 * i));
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

fn fnv1a(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_agrees_with_kafka() {
        // From Kafka's own UtilsTest.
        let hashes =
            ["21", "foobar", "a-little-bit-long-string", "abc"].map(|key| murmur2(key.as_bytes()) as i32);
        assert_eq!(hashes, [-973_932_308, -790_332_482, -985_981_536, 479_470_107]);
    }
}
