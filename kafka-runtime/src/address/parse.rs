//! Addresses as text.
//!
//! Faults never quote what may hold a part of a secret: everything in front of the options.

use super::options::is_secret;
use super::{Address, Endpoint};
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

pub(super) fn address(text: &str) -> Result<Address, Vec<String>> {
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    let mut faults = Vec::new();
    let mut given = Vec::new();
    let endpoint = if let Some(authority) = place.strip_prefix("kafka://") {
        kafka(authority, &mut given, &mut faults)
    } else if let Some(folder) = place.strip_prefix("log:") {
        log(folder, &mut faults)
    } else {
        return Err(vec![
            "an address begins with `kafka://HOST:PORT`, `log:///FOLDER` or `log:FOLDER`".to_owned(),
        ]);
    };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=').map(|(name, value)| (decode(name), decode(value))) {
            Some((Some(name), Some(value))) => given.push((name, value)),
            Some((name, _)) => {
                let name = name.unwrap_or_default();
                faults.push(format!("`{name}` is not UTF-8 after its %XX are resolved"));
            }
            None => faults.push("after `?` come options as `name=value`, separated by `&`".to_owned()),
        }
    }
    match (Address::new(endpoint, given), faults.is_empty()) {
        (Ok(address), true) => Ok(address),
        (Ok(_), false) => Err(faults),
        (Err(more), _) => {
            faults.extend(more);
            Err(faults)
        }
    }
}

fn decode(text: &str) -> Option<String> {
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

fn kafka(authority: &str, given: &mut Vec<(String, String)>, faults: &mut Vec<String>) -> Endpoint {
    let (user, hosts) = match authority.rsplit_once('@') {
        Some((user, hosts)) => (Some(user), hosts),
        None => (None, authority),
    };
    if let Some(user) = user {
        let (name, password) = user.split_once(':').unwrap_or((user, ""));
        match (decode(name), decode(password)) {
            (Some(name), Some(password)) if !name.is_empty() && !password.is_empty() => {
                given.push(("sasl.username".into(), name));
                given.push(("sasl.password".into(), password));
            }
            _ => faults.push("in front of `@` come `user:password`".into()),
        }
    }
    let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
    let brokers: Vec<String> = hosts.split(',').map(str::to_owned).collect();
    faults.extend(check_brokers(&brokers));
    Endpoint::Kafka { brokers }
}

/// The fault of a list of brokers, if there is one.
pub(super) fn check_brokers(brokers: &[String]) -> Option<String> {
    let is_good = |broker: &String| {
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
    match brokers.iter().position(|broker| !is_good(broker)) {
        None if brokers.is_empty() => Some("there is no broker".into()),
        None => None,
        Some(index) => Some(format!("broker {} is not `host:port` with a port from 1 to 65535", index + 1)),
    }
}

fn log(folder: &str, faults: &mut Vec<String>) -> Endpoint {
    let folder = match folder.strip_prefix("//") {
        Some(absolute) if !absolute.starts_with('/') => {
            faults.push(
                "`log://` has no host: write `log:///FOLDER`, or `log:FOLDER` for a relative one".into(),
            );
            return Endpoint::Log { folder: PathBuf::new() };
        }
        Some(absolute) => absolute,
        None => folder,
    };
    match decode(folder) {
        Some(folder) if folder.is_empty() => faults.push("`log:` is followed by a folder".into()),
        Some(folder) => return Endpoint::Log { folder: folder.into() },
        None => faults.push("the folder is not UTF-8 after its %XX are resolved".into()),
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
