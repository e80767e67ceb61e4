//! The functions behind the fuzz targets, one per target. Each parses its input with the code of the programs and panics if one of
//! these properties does not hold: the parser does not panic; encoding and decoding a parsed value gives the same value; an error
//! is a sentence of bounded length; later steps follow the rules of the protocol.
//!
//! - [`frames`]: frames of devices in both wire formats. [`session`]: complete connections to a gateway, without a socket.
//! - [`http`]: HTTP requests to a gateway. [`tokens`]: access tokens.
//! - [`server`]: frames and answers of a server to the SDK.
//! - [`records`]: payloads of records in the log. [`headers`]: record headers in the embedded log.
//! - [`ids`]: ids of all kinds. [`addresses`]: addresses of the log. [`config`]: configurations.
//!
//! [`gateway`] is a gateway whose backend services accept every call.

pub mod addresses;
pub mod config;
pub mod frames;
pub mod gateway;
pub mod headers;
pub mod http;
pub mod ids;
pub mod records;
pub mod server;
pub mod session;
pub mod tokens;

use abi::ApiError;

/// Longest text of an error, in bytes.
const MAX_ERROR: usize = 1_000;

/// Checks that the text of an error is short and printable.
pub fn check_sentence(text: &str) {
    assert!(!text.trim().is_empty(), "an empty error text");
    assert!(text.len() <= MAX_ERROR, "an error of {} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "control characters in an error: {text:?}");
}

/// Checks the text of an error, and that the error reaches the device unchanged.
pub fn check_error(error: &ApiError) {
    check_sentence(&error.message);
    assert!(error.close_reason().len() <= 123, "too long for a close frame: {}", error.close_reason());
    let received = ApiError::from(abi::v1::Error::from(error.clone()));
    assert_eq!((received.code, &received.message), (error.code, &error.message));
}

/// Checks that a value decoded from `decoded` bytes is encoded in at most twice as many. A negative int32 or enum is accepted in five
/// bytes and encoded in ten; no other value grows.
pub fn check_size(decoded: usize, encoded: usize) {
    assert!(encoded <= 2 * decoded, "{decoded} bytes have grown to {encoded}");
}

/// Takes the next part: a length of two bytes, and up to that many bytes.
pub fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let (part, after) = after.split_at(after.len().min(usize::from(u16::from_be_bytes(*length))));
    *rest = after;
    Some(part)
}

/// Takes the next byte.
pub fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}
