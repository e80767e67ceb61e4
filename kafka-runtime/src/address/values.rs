//! Parsers for option values. An error text continues a sentence that begins with the name of the option.

use crate::source::InitialOffset;
use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Kafka's unit of time.
pub(super) const MIN_DURATION: Duration = Duration::from_millis(1);
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn some<T>(value: Result<T, String>) -> Result<Option<T>, String> {
    value.map(Some)
}

pub(super) fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("must not be empty".into()) } else { Ok(value.to_owned()) }
}

pub(super) fn list(value: &str) -> Result<Vec<String>, String> {
    let items: Vec<String> = value.split(',').map(|item| item.trim().to_owned()).collect();
    let duplicate = items.iter().enumerate().find(|(index, item)| items[..*index].contains(item));
    match duplicate {
        _ if items.iter().any(String::is_empty) => Err("must be names separated by commas".into()),
        Some((_, item)) => Err(format!("names `{item}` twice")),
        None => Ok(items),
    }
}

pub(super) fn flag(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| format!("must be `true` or `false`, not `{value}`"))
}

pub(super) fn choice(value: &str, choices: &[&'static str]) -> Result<&'static str, String> {
    let found = choices.iter().find(|choice| **choice == value);
    found.copied().ok_or_else(|| {
        let choices: Vec<String> = choices.iter().map(|choice| format!("`{choice}`")).collect();
        format!("must be one of {}, not `{value}`", choices.join(", "))
    })
}

pub(super) fn number<N>(value: &str, min: N, max: N) -> Result<N, String>
where
    N: FromStr + PartialOrd + std::fmt::Display,
{
    match value.parse() {
        Ok(number) if min <= number && number <= max => Ok(number),
        _ => Err(format!("must be a number from {min} to {max}, not `{value}`")),
    }
}

/// A positive number, or `forever`.
pub(super) fn attempts(value: &str) -> Result<Option<NonZeroU32>, String> {
    if value == "forever" {
        return Ok(None);
    }
    some(value.parse().map_err(|_| format!("must be `forever` or a number above 0, not `{value}`")))
}

pub(super) fn fraction(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err(format!("must be a number from 0 to 1, not `{value}`")),
    }
}

pub(super) fn bytes(value: &str, min: u64, max: u64) -> Result<u64, String> {
    let digits = value.trim_end_matches(|c: char| !c.is_ascii_digit());
    let shift = match value[digits.len()..].trim() {
        "" | "B" => Some(0),
        "KiB" => Some(10),
        "MiB" => Some(20),
        "GiB" => Some(30),
        _ => None,
    };
    let size = shift.and_then(|shift| digits.parse::<u64>().ok()?.checked_mul(1 << shift));
    match size {
        Some(size) if min <= size && size <= max => Ok(size),
        Some(_) => Err(format!("must be from {min} to {max} bytes, not `{value}`")),
        None => Err(format!("must be a size such as `4MiB`, not `{value}`")),
    }
}

pub(super) fn duration(value: &str) -> Result<Duration, String> {
    between(value, Duration::ZERO, MAX_DURATION)
}

/// A duration above zero.
pub(super) fn positive(value: &str) -> Result<Duration, String> {
    between(value, MIN_DURATION, MAX_DURATION)
}

pub(super) fn between(value: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    match humantime::parse_duration(value) {
        Ok(duration) if min <= duration && duration <= max => Ok(duration),
        Ok(_) => {
            let [min, max] = [min, max].map(humantime::format_duration);
            Err(format!("must be from {min} to {max}, not `{value}`"))
        }
        Err(_) => Err(format!("must be a duration such as `500ms` or `5s`, not `{value}`")),
    }
}

pub(super) fn offset(value: &str) -> Result<InitialOffset, String> {
    match value {
        "earliest" => Ok(InitialOffset::Earliest),
        "latest" => Ok(InitialOffset::Latest),
        time => {
            let expected = || {
                format!(
                    "must be `earliest`, `latest` or a time in UTC such as `2026-01-31T00:00:00Z`, not `{time}`"
                )
            };
            let time: SystemTime = humantime::parse_rfc3339(time).map_err(|_| expected())?;
            let since = time.duration_since(UNIX_EPOCH).map_err(|_| expected())?;
            Ok(InitialOffset::Time { ms: i64::try_from(since.as_millis()).map_err(|_| expected())? })
        }
    }
}

/// A secret, or `file:` and the path of the file that holds it.
pub(super) fn secret(value: &str) -> Result<String, String> {
    if value == "file:" { Err("must name a file after `file:`".into()) } else { text(value) }
}

pub(super) fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
