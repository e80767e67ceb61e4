//! Headers of the dead-letter topic and of replayed records: names, and how to read them.

use crate::record::Headers;
use std::str::FromStr;

/// All headers with this prefix belong to the letter, all others to its record.
pub(super) const PREFIX: &str = "dead-letter-";

/// On a letter: the topic that the record was read from.
pub const TOPIC: &str = "dead-letter-topic";
/// On a letter: the partition that the record was read from, in decimal.
pub const PARTITION: &str = "dead-letter-partition";
/// On a letter: the offset that the record was read from, in decimal.
pub const OFFSET: &str = "dead-letter-offset";
/// On a letter: why the record was rejected, up to 8 KiB.
pub const REASON: &str = "dead-letter-reason";
/// On a letter: how many attempts were made, in decimal.
pub const ATTEMPTS: &str = "dead-letter-attempts";
/// On a letter whose record was too large for the dead-letter topic: the number of bytes that were left out. The payload is
/// left out first; if the letter is still too large, key and headers as well.
pub const OMITTED: &str = "dead-letter-omitted-bytes";
/// On a record that ends a letter: `replayed` or `dropped`.
pub const ENDED: &str = "dead-letter-ended";
/// On a record that ends a letter: the letter's id.
pub const LETTER: &str = "dead-letter-id";
/// On a replayed record: the id of its letter.
pub const REPLAYED_FROM: &str = "replayed-from";

/// The last value of a header. The letter's headers come after those of its record, so a record can't forge them.
pub(super) fn text(headers: &Headers, name: &str) -> Option<String> {
    let (_, value) = headers.iter().rfind(|(header, _)| header == name)?;
    Some(String::from_utf8_lossy(value).into_owned())
}

pub(super) fn number<T: FromStr>(headers: &Headers, name: &str) -> Option<T> {
    text(headers, name)?.parse().ok()
}
