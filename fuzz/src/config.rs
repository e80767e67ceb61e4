//! Configurations: a file, the environment and the command line.

use crate::gateway::Gateway;
use abi::config::Config;
use std::{cell::RefCell, collections::BTreeMap, fs, path::PathBuf};
use tokio::time::Instant;
use utils::config::{Loaded, Sources, load};
use ws_gateway::{
    hub::Identity,
    session::{Session, Step},
};

/// What must not be seen, whatever else is wrong.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";

thread_local! {
    /// The configuration file of this process, in memory where there is such a folder.
    static FILE: RefCell<PathBuf> = RefCell::new({
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        folder.join(format!("godwit-fuzz-{}.toml", std::process::id()))
    });
}

/// Keys of secrets.
const SECRETS: [&str; 5] = ["keys", "postgres", "url", "consul_token", "token"];

/// Lines: `NAME=VALUE` after a `$` is the environment, what comes after a `-` is for `--set`, all others are the file; a `~` there
/// is a secret, if the key is that of one.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // It would read any file of this machine; and what is no secret, such as the name of a key, may be shown.
    if text.contains("file:") || text.contains(SECRET) {
        return;
    }
    let mut sources = Sources::default();
    let mut file = String::new();
    for line in text.lines() {
        if let Some((name, value)) = line.strip_prefix('$').and_then(|pair| pair.split_once('=')) {
            sources.environment.insert(format!("GODWIT_{name}"), value.to_owned());
        } else if let Some(set) = line.strip_prefix('-') {
            sources.overrides.push(("--set".to_owned(), set.to_owned()));
        } else {
            match line.split_once('=') {
                Some((key, value)) if SECRETS.iter().any(|secret| key.starts_with(secret)) => {
                    file.extend([key, "=", &value.replace('~', SECRET)]);
                }
                _ => file.push_str(line),
            }
            file.push('\n');
        }
    }
    sources.environment.insert("GODWIT_DB__POSTGRES".into(), SECRET.into());
    sources.overrides.push(("--set".to_owned(), format!("auth.keys=k1={SECRET}")));
    FILE.with_borrow(|path| {
        fs::write(path, file).expect("the temporary folder can be written");
        sources.file = Some(path.clone());
        match load::<Config>(&sources) {
            Ok(loaded) => is_usable(&loaded),
            Err(faults) => {
                assert!(!faults.sentences().is_empty());
                for sentence in faults.sentences() {
                    crate::is_sentence(sentence);
                    assert!(!sentence.contains(SECRET), "{sentence}");
                }
            }
        }
        fs::remove_file(path).expect("it was written");
    });
}

fn is_usable(loaded: &Loaded<Config>) {
    let Loaded { config, origins } = loaded;
    assert_eq!(config.db.postgres.expose(), SECRET);
    assert_eq!(origins.get("auth.keys").map(String::as_str), Some("--set"));
    assert_eq!(config.errors(), Vec::<String>::new());
    let shown = toml::to_string(config).expect("a configuration can be printed");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!format!("{loaded:?}").contains(SECRET));
    // What is printed is a configuration again. Secrets are not in it, and one that is not there is no fault.
    let secrets =
        ["auth.keys=", "db.postgres=x", "redis.url=x", "discovery.consul_token=", "operator.token="];
    let again = Sources {
        file: None,
        environment: BTreeMap::new(),
        overrides: secrets.map(|secret| ("--set".to_owned(), secret.to_owned())).into(),
    };
    let printed: Config = toml::from_str(&shown).expect("what is printed can be read");
    let hidden = load::<Config>(&again).expect("secrets alone are no fault").config;
    let plain = |config: &Config| {
        let mut config = config.clone();
        config.auth.keys = hidden.auth.keys.clone();
        config.db.postgres = hidden.db.postgres.clone();
        config.redis.url = hidden.redis.url.clone();
        config.discovery.consul_token = hidden.discovery.consul_token.clone();
        config.operator.token = hidden.operator.token.clone();
        config
    };
    assert_eq!(plain(&printed), plain(config));
    serves(config);
}

/// A gateway with this configuration lives through a session: no time of it is out of bounds.
fn serves(config: &Config) {
    let mut config = config.clone();
    // The costs of passwords are what they are.
    config.auth.argon2_memory_kib = config.auth.argon2_memory_kib.min(8);
    config.auth.argon2_passes = 1;
    let Some(gateway) = Gateway::new(&config) else { return };
    let _entered = gateway.runtime.enter();
    let now = Instant::now();
    let mut session = Session::new(gateway.backend.session.clone(), now);
    assert!(session.deadline() > now);
    let identity = Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() };
    gateway.backend.tokens.issue(&identity).expect("it can be signed");
    session.welcomed(identity, now);
    let due = session.deadline();
    assert!(due > now && session.on_time(now).is_none());
    assert!(matches!(session.on_time(due), Some(Step::Renew | Step::Recheck | Step::Close(_))));
    session.renewed(due);
}
