//! Headers as the embedded log keeps them.

use kafka_runtime::log::headers::{decode, encode};

/// A blob.
pub fn blob(data: &[u8]) {
    let Some(headers) = decode(data) else { return };
    // There is one way to write headers, so what was read is what is written.
    assert_eq!(encode(&headers).unwrap_or_default(), data);
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    assert_eq!(bytes, data.len());
}
