//! Bounds of single values. A bound has a check and a text that follows "must be".

use super::{
    address::{self, ListenAddress},
    units::Secret,
    value::Value,
};
use crate::ids;
use std::time::Duration;

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Longest timeout or interval. Adding a much longer time to the present would overflow.
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// A year as the notation of durations has it: 365.25 days.
pub(super) const YEAR: Duration = Duration::from_secs(31_557_600);

/// Shortest signing key or operator token, in bytes.
const MIN_SECRET: usize = 32;

/// A rule for one value.
pub(super) struct Bound<T> {
    /// The allowed values, as a text that follows "must be".
    pub(super) allowed: String,
    find_wrong: FindWrong<T>,
}

/// Returns a suffix of the key for each wrong part of a value.
type FindWrong<T> = Box<dyn Fn(&T) -> Vec<String>>;

impl<T: 'static> Bound<T> {
    fn new(allowed: impl Into<String>, holds: impl Fn(&T) -> bool + 'static) -> Self {
        let find_wrong = move |value: &T| if holds(value) { vec![] } else { vec![String::new()] };
        Self { allowed: allowed.into(), find_wrong: Box::new(find_wrong) }
    }

    /// Violations by `value`: a suffix of the key, and the bound.
    pub(super) fn violations(&self, value: &T) -> Vec<(String, String)> {
        (self.find_wrong)(value).into_iter().map(|suffix| (suffix, self.allowed.clone())).collect()
    }
}

/// A number, duration or size in the notation of the configuration.
fn shown(value: &impl Value) -> String {
    value.to_toml().trim_matches('"').to_owned()
}

pub(super) fn more_than<T: Value + PartialOrd>(bound: T) -> Bound<T> {
    Bound::new(format!("more than {}", shown(&bound)), move |value| *value > bound)
}

pub(super) fn at_least<T: Value + PartialOrd>(bound: T) -> Bound<T> {
    Bound::new(format!("at least {}", shown(&bound)), move |value| *value >= bound)
}

pub(super) fn at_most<T: Value + PartialOrd>(bound: T) -> Bound<T> {
    Bound::new(format!("at most {}", shown(&bound)), move |value| *value <= bound)
}

pub(super) fn between<T: Value + PartialOrd>(low: T, high: T) -> Bound<T> {
    let allowed = format!("from {} to {}", shown(&low), shown(&high));
    Bound::new(allowed, move |value| (&low..=&high).contains(&value))
}

pub(super) fn one_of<const N: usize>(names: [&'static str; N]) -> Bound<String> {
    let (last, others) = names.split_last().expect("there is a choice");
    Bound::new(format!("{} or {last}", others.join(", ")), move |value: &String| {
        names.contains(&value.as_str())
    })
}

pub(super) fn not_empty<T: 'static>(item: &str) -> Bound<Vec<T>> {
    Bound::new(format!("at least one {item}"), |value: &Vec<T>| !value.is_empty())
}

/// Applies a bound to every item of a list.
pub(super) fn each<T: 'static>(bound: Bound<T>) -> Bound<Vec<T>> {
    let Bound { allowed, find_wrong } = bound;
    let find_wrong = move |list: &Vec<T>| {
        let wrong = list.iter().enumerate().filter(|(_, item)| !find_wrong(item).is_empty());
        wrong.map(|(index, _)| format!("[{index}]")).collect()
    };
    Bound { allowed, find_wrong: Box::new(find_wrong) }
}

const ID: &str = "1 to 64 letters, digits, '.', '_' and '-', other than '.' and '..'";

fn is_id(text: &str) -> bool {
    ids::check_id("id", text).is_ok()
}

pub(super) fn id() -> Bound<String> {
    Bound::new(ID, |value: &String| is_id(value))
}

pub(super) fn id_or_empty() -> Bound<String> {
    Bound::new(format!("{ID}, or empty"), |value: &String| value.is_empty() || is_id(value))
}

/// A schema name that needs no quotes in SQL.
pub(super) fn schema_name() -> Bound<String> {
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    Bound::new("one or more of lower-case letters, digits and '_'", move |value: &String| {
        !value.is_empty() && value.bytes().all(is_plain)
    })
}

/// `http://HOST:PORT` without path and user.
pub(super) fn plain_http_or_empty() -> Bound<String> {
    Bound::new("http://HOST:PORT, or empty", |value: &String| {
        let is_host = |rest: &str| rest.contains(':') && !rest.contains(['/', '@']);
        value.is_empty() || value.strip_prefix("http://").is_some_and(is_host)
    })
}

/// An address to listen on.
pub(super) fn listen_address() -> Bound<String> {
    Bound::new(address::FORMS, |value: &String| value.parse::<ListenAddress>().is_ok())
}

/// An address that other machines connect to.
pub(super) fn host_port() -> Bound<String> {
    Bound::new("HOST:PORT or [IPV6]:PORT", |value: &String| ListenAddress::is_complete(value))
}

pub(super) fn host_port_or_empty() -> Bound<String> {
    Bound::new("HOST:PORT or [IPV6]:PORT, or empty", |value: &String| {
        value.is_empty() || ListenAddress::is_complete(value)
    })
}

pub(super) fn signing_key() -> Bound<Secret> {
    Bound::new(format!("ID=SECRET with a secret of at least {MIN_SECRET} bytes"), |value: &Secret| {
        let pair = value.expose().split_once('=');
        pair.is_some_and(|(id, secret)| is_id(id) && secret.len() >= MIN_SECRET)
    })
}

pub(super) fn visible_ascii_or_empty() -> Bound<Secret> {
    Bound::new(format!("at least {MIN_SECRET} visible ASCII characters, or empty"), |value: &Secret| {
        let token = value.expose();
        token.is_empty() || (token.len() >= MIN_SECRET && token.bytes().all(|byte| byte.is_ascii_graphic()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ByteSize, Config, Secret};

    #[test]
    fn the_defaults_are_within_all_bounds() {
        assert_eq!(Config::default().errors(), Vec::<String>::new());
    }

    #[test]
    fn p7_huge_durations_and_sizes_are_rejected() {
        let mut config = Config::default();
        config.gateway.heartbeat = Duration::MAX;
        config.auth.access_token_life = Duration::from_secs(u64::MAX / 2);
        config.gateway.max_body = ByteSize::new(u64::MAX);
        let errors = config.errors().join("\n");
        for key in ["gateway.heartbeat:", "auth.access_token_life:", "gateway.max_frame:"] {
            assert!(errors.contains(key), "{key} is not in {errors}");
        }
    }

    #[test]
    fn every_config_error_names_its_key() {
        let mut config = Config { app: "a b".into(), ..Config::default() };
        config.gateway.max_in_flight = 0;
        config.auth.keys = vec![Secret::new("short=secret")];
        config.limits.send_burst = 0;
        config.gateway.listen = "127.0.0.1".into();
        config.db.grpc_advertise = ":7471".into();
        config.discovery.pusher = vec!["pusher".into()];
        config.kafka.linger = config.kafka.produce_timeout;
        config.kafka.session_timeout = Duration::from_secs(120);
        config.operator.token = Secret::new("short");
        config.trace.endpoint = "collector:4317".into();
        config.trace.sample = f64::NAN;
        let errors = config.errors().join("\n");
        for error in [
            "app: must be 1 to 64 letters",
            "gateway.max_in_flight: must be more than 0",
            "auth.keys[0]: must be ID=SECRET with a secret of at least 32 bytes",
            "limits.send_burst:",
            "gateway.listen: must be an address: HOST:PORT",
            "db.grpc_advertise: must be HOST:PORT",
            "discovery.pusher[0]: must be HOST:PORT",
            "kafka.linger:",
            "kafka.session_timeout: must be from 1s to 1m",
            "operator.token:",
            "trace.endpoint:",
            "trace.sample:",
        ] {
            assert!(errors.contains(error), "{error} is not in {errors}");
        }
    }
}
