//! What the fuzz targets do with their bytes: one function each. It reads them as a program would, and panics if a promise is
//! broken: not only that reading never panics, but that what was read is written and read again as the same, that an error is a
//! sentence of bounded length, and that what follows from it keeps the rules of the protocol.
//!
//! - [`frames`]: frames of devices, in both wire formats; [`session`]: whole sessions of a gateway, without a socket.
//! - [`http`]: requests as a gateway takes them; [`tokens`]: access tokens.
//! - [`server`]: what a server may send to the SDK.
//! - [`records`]: what lies in the log; [`headers`]: how the embedded log keeps headers.
//! - [`ids`]: ids of all kinds; [`addresses`]: addresses of the log; [`config`]: configurations.
//!
//! [`gateway`] is a gateway whose other services say yes to everything.

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

/// Longest sentence that an error may have, in bytes.
const LONGEST: usize = 1_000;

/// Checks that an error is a sentence that can be shown and logged.
pub fn is_sentence(text: &str) {
    assert!(!text.trim().is_empty(), "an error without a sentence");
    assert!(text.len() <= LONGEST, "an error of {} bytes: {text}", text.len());
    assert!(!text.contains(char::is_control), "control characters in an error: {text:?}");
}

/// Checks that a fault is a sentence, and that it survives its way to the device.
pub fn is_fault(fault: &ApiError) {
    is_sentence(&fault.message);
    assert!(fault.close_reason().len() <= 123, "a close has no room for {}", fault.close_reason());
    let told = ApiError::from(abi::v1::Error::from(fault.clone()));
    assert_eq!((told.code, &told.message), (fault.code, &fault.message));
}

/// Checks that what was `read` from so many bytes is `written` in no more than twice as many: a negative int32 or enum has ten bytes as
/// protobuf writes it, and may come in five; all else becomes shorter, if anything.
pub fn has_not_grown(read: usize, written: usize) {
    assert!(written <= 2 * read, "{read} bytes have grown to {written}");
}

/// Splits the next part off: its length in two bytes, then the part. What is missing is cut.
pub fn part<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first_chunk::<2>()?;
    let (part, after) = after.split_at(after.len().min(usize::from(u16::from_be_bytes(*length))));
    *rest = after;
    Some(part)
}

/// Splits the next byte off.
pub fn byte(rest: &mut &[u8]) -> Option<u8> {
    let (byte, after) = rest.split_first()?;
    *rest = after;
    Some(*byte)
}
