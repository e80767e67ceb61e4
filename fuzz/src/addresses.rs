//! Addresses of the log, as a line and as a section of a configuration file.

use kafka_runtime::{Address, Error};

/// A secret that no output may contain.
const SECRET: &str = "hunter2hunter2";

/// The input is an address. A `~` in the place of a password stands for the secret.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.contains(SECRET) {
        return;
    }
    line(text);
    section(text);
}

fn line(text: &str) {
    let (location, options) = text.split_once('?').unwrap_or((text, ""));
    let location = with_password(location);
    let hide = |option: &str| match option.strip_prefix("sasl.password=") {
        Some(password) => format!("sasl.password={}", password.replace('~', SECRET)),
        None => option.to_owned(),
    };
    let options: Vec<_> = options.split('&').map(hide).collect();
    let text = format!("{location}?{}", options.join("&"));
    match text.parse::<Address>() {
        Ok(address) => {
            check_address(&address, text.len());
            let shown = address.to_string();
            if !shown.contains("***") {
                assert_eq!(shown.parse::<Address>().ok().as_ref(), Some(&address), "{text} is not {shown}");
            }
        }
        Err(Error::Address { errors }) => check_errors(&errors),
        Err(error) => panic!("not an error about an address: {error}"),
    }
}

/// Puts the secret in place of `~` in the password. Only addresses of brokers have one, between user and hosts, or in place of the
/// user. A folder may have any name.
fn with_password(location: &str) -> String {
    let Some((user, hosts)) = location.rsplit_once('@').filter(|_| !location.starts_with("log:")) else {
        return location.to_owned();
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
        Ok(address) => check_address(&address, text.len()),
        // One error with all messages, including those of the TOML library.
        Err(error) => assert!(!error.message().is_empty() && !error.message().contains(SECRET), "{error}"),
    }
}

/// Checks everything that is derived from an address without I/O.
fn check_address(address: &Address, length: usize) {
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

fn check_errors(errors: &[String]) {
    assert!(!errors.is_empty());
    for error in errors {
        crate::check_sentence(error);
        assert!(!error.contains(SECRET), "{error}");
    }
}
