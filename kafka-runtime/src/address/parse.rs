//! Addresses as text.
//!
//! An error never quotes the part before the options: a malformed address may have a piece of the password anywhere in it.

use super::options::is_secret;
use super::raw::{Endpoint, RawAddress};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Written as `%XX` within a value.
const RESERVED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'&')
    .add(b'#')
    .add(b'+')
    .add(b'<')
    .add(b'>')
    .add(b'`')
    .add(b'\\');
/// Written as `%XX` within a name or a folder.
const RESERVED_NAME: &AsciiSet = &RESERVED.add(b'=').add(b'?');

pub(super) fn address(text: &str) -> Result<RawAddress, String> {
    let (location, query) = text.split_once('?').unwrap_or((text, ""));
    let mut errors = Vec::new();
    let mut options = Vec::new();
    let endpoint = if let Some(authority) = location.strip_prefix("kafka://") {
        kafka(authority, &mut options, &mut errors)
    } else if let Some(folder) = location.strip_prefix("log:") {
        log(folder, &mut errors)
    } else {
        return Err("an address begins with `kafka://HOST:PORT`, `log:///FOLDER` or `log:FOLDER`".to_owned());
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').map(|(name, value)| (decode(name), decode(value))) {
            Some((Some(name), Some(value))) => options.push((name, value)),
            Some((name, _)) => {
                let name = name.unwrap_or_default();
                errors.push(format!("`{name}` is not UTF-8 after percent-decoding"));
            }
            None => errors.push("options follow `?` as `name=value`, separated by `&`".to_owned()),
        }
    }
    Ok(RawAddress { endpoint, options, errors })
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn kafka(authority: &str, options: &mut Vec<(String, String)>, errors: &mut Vec<String>) -> Endpoint {
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        match (decode(name), decode(password)) {
            (Some(name), Some(password)) if !name.is_empty() && !password.is_empty() => {
                options.push(("sasl.username".into(), name));
                options.push(("sasl.password".into(), password));
            }
            _ => errors.push("write `user:password` before `@`".into()),
        }
    }
    let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
    let brokers: Vec<String> = hosts.split(',').map(str::to_owned).collect();
    errors.extend(check_brokers(&brokers));
    Endpoint::Kafka { brokers }
}

/// The config error of a list of brokers, if there is one.
pub(super) fn check_brokers(brokers: &[String]) -> Option<String> {
    let is_valid = |broker: &String| {
        let Some((host, port)) = broker.rsplit_once(':') else { return false };
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        };
        !host.is_empty()
            && is_host
            && port.bytes().all(|b| b.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match brokers.iter().position(|broker| !is_valid(broker)) {
        None if brokers.is_empty() => Some("`brokers` must not be empty".into()),
        None => None,
        Some(index) => Some(format!("broker {} is not `host:port` with a port from 1 to 65535", index + 1)),
    }
}

fn log(folder: &str, errors: &mut Vec<String>) -> Endpoint {
    let folder = match folder.strip_prefix("//") {
        Some(absolute) if !absolute.starts_with('/') => {
            errors.push(
                "`log://` has no host: write `log:///FOLDER`, or `log:FOLDER` for a relative one".into(),
            );
            return Endpoint::Log { folder: PathBuf::new() };
        }
        Some(absolute) => absolute,
        None => folder,
    };
    match decode(folder) {
        Some(folder) if folder.is_empty() => errors.push("`log:` needs a folder after it".into()),
        Some(folder) => return Endpoint::Log { folder: folder.into() },
        None => errors.push("the folder is not UTF-8 after percent-decoding".into()),
    }
    Endpoint::Log { folder: PathBuf::new() }
}

pub(super) fn print(
    f: &mut fmt::Formatter<'_>,
    endpoint: &Endpoint,
    given: &BTreeMap<String, String>,
) -> fmt::Result {
    match endpoint {
        Endpoint::Kafka { brokers } => write!(f, "kafka://{}", brokers.join(","))?,
        Endpoint::Log { folder } => {
            let text = folder.to_string_lossy();
            let text = utf8_percent_encode(&text, RESERVED_NAME);
            if folder.is_absolute() { write!(f, "log://{text}")? } else { write!(f, "log:{text}")? }
        }
    }
    for (index, (name, value)) in given.iter().enumerate() {
        let separator = if index == 0 { '?' } else { '&' };
        write!(f, "{separator}{}=", utf8_percent_encode(name, RESERVED_NAME))?;
        if is_secret(name) {
            f.write_str("***")?
        } else {
            write!(f, "{}", utf8_percent_encode(value, RESERVED))?
        }
    }
    Ok(())
}
