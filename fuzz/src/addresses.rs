//! Addresses of the log, as one line and as one section of a configuration file.

use kafka_runtime::{Address, Error};

/// What must not be seen, whatever else is wrong.
const SECRET: &str = "hunter2hunter2";

/// An address. A `~` is a secret where a secret has its place.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(SECRET) {
        return;
    }
    line(text);
    section(text);
}

fn line(text: &str) {
    let (place, options) = text.split_once('?').unwrap_or((text, ""));
    let place = with_password(place);
    let hide = |option: &str| match option.strip_prefix("sasl.password=") {
        Some(password) => format!("sasl.password={}", password.replace('~', SECRET)),
        None => option.to_owned(),
    };
    let options: Vec<_> = options.split('&').map(hide).collect();
    let text = format!("{place}?{}", options.join("&"));
    match text.parse::<Address>() {
        Ok(address) => {
            is_usable(&address, text.len());
            let shown = address.to_string();
            if !shown.contains("***") {
                assert_eq!(shown.parse::<Address>().ok().as_ref(), Some(&address), "{text} is not {shown}");
            }
        }
        Err(Error::Address { errors }) => are_sentences(&errors),
        Err(error) => panic!("{error} is no fault of an address"),
    }
}

/// Only brokers are asked for a password, between the user and the hosts; a user alone may be meant as one. A folder may have any name.
fn with_password(place: &str) -> String {
    let Some((user, hosts)) = place.rsplit_once('@').filter(|_| !place.starts_with("log:")) else {
        return place.to_owned();
    };
    let user_at = user.find("//").map_or(0, |at| at + 2);
    let (user, password) = user.split_at(user[user_at..].find(':').map_or(user_at, |at| user_at + at));
    format!("{user}{}@{hosts}", password.replace('~', SECRET))
}

fn section(text: &str) {
    let hide = |line: &str| match line.starts_with("password") || line.starts_with("sasl.password") {
        true => line.replace('~', SECRET),
        false => line.to_owned(),
    };
    let text = text.lines().map(hide).collect::<Vec<_>>().join("\n");
    let Ok(table) = text.parse::<toml::Table>() else { return };
    match table.try_into::<Address>() {
        Ok(address) => is_usable(&address, text.len()),
        // All in one, and what the library of TOML says.
        Err(error) => assert!(!error.message().is_empty() && !error.message().contains(SECRET), "{error}"),
    }
}

/// Everything that is made of an address without looking at the machine.
fn is_usable(address: &Address, length: usize) {
    let shown = address.to_string();
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!shown.contains(char::is_control), "{shown:?}");
    assert!(shown.len() <= 3 * length + 100, "{shown}");
    assert_eq!(format!("{address:?}"), format!("Address({shown})"));
    assert!(address.brokers().is_some() != address.folder().is_some());
    assert_eq!(address.log_config().is_some(), address.folder().is_some());
    let consumer = address.consumer_config();
    assert!(!consumer.commit_interval.is_zero() && consumer.max_records > 0);
    address.producer_config();
}

fn are_sentences(faults: &[String]) {
    assert!(!faults.is_empty());
    for fault in faults {
        crate::is_sentence(fault);
        assert!(!fault.contains(SECRET), "{fault}");
    }
}
