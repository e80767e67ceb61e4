//! Encoded record headers of the embedded log.

use kafka_runtime::log::headers::{decode, encode};

/// The input is a block of encoded headers.
pub fn blob(data: &[u8]) {
    let Some(headers) = decode(data) else { return };
    // The encoding is canonical, so encoding gives the input again.
    assert_eq!(encode(&headers).unwrap_or_default(), data);
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    assert_eq!(bytes, data.len());
}
