//! Configurations from a file, the environment and the command line.

use crate::gateway::Gateway;
use abi::config::Config;
use std::{cell::RefCell, collections::BTreeMap, fs, path::PathBuf};
use tokio::time::Instant;
use utils::config::{Loaded, Sources, load};
use ws_gateway::{
    hub::Identity,
    protocol::{Protocol, Step},
};

/// A secret that no output may contain.
const SECRET: &str = "hunter2hunter2hunter2hunter2hunter2";

thread_local! {
    /// The configuration file of this process, in memory if possible.
    static FILE: RefCell<PathBuf> = RefCell::new({
        let memory = PathBuf::from("/dev/shm");
        let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
        folder.join(format!("godwit-fuzz-{}.toml", std::process::id()))
    });
}

/// Prefixes of the keys that hold secrets.
const SECRETS: [&str; 5] = ["keys", "postgres", "url", "consul_token", "token"];

/// The input consists of lines. `$NAME=VALUE` sets an environment variable, `-TEXT` is an argument of `--set`, and all other lines
/// form the file. In the file, a `~` in the value of a secret's key stands for the secret.
pub fn text(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    // `file:` would read files of this machine. Text outside of secrets may be shown, so it must not contain the secret.
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
            Ok(loaded) => check_config(&loaded),
            Err(errors) => {
                assert!(!errors.sentences().is_empty());
                for sentence in errors.sentences() {
                    crate::check_sentence(sentence);
                    assert!(!sentence.contains(SECRET), "{sentence}");
                }
            }
        }
        fs::remove_file(path).expect("the file exists");
    });
}

fn check_config(loaded: &Loaded<Config>) {
    let Loaded { config, origins, .. } = loaded;
    assert_eq!(config.db.postgres.expose(), SECRET);
    assert_eq!(origins.get("auth.keys").map(String::as_str), Some("--set"));
    assert_eq!(config.errors(), Vec::<String>::new());
    let shown = toml::to_string(config).expect("a configuration can be printed");
    assert!(!shown.contains(SECRET), "{shown}");
    assert!(!format!("{loaded:?}").contains(SECRET));
    // The printed text is a valid configuration, with redacted secrets.
    let secrets =
        ["auth.keys=", "db.postgres=x", "redis.url=x", "discovery.consul_token=", "operator.token="];
    let only_secrets = Sources {
        file: None,
        environment: BTreeMap::new(),
        overrides: secrets.map(|secret| ("--set".to_owned(), secret.to_owned())).into(),
    };
    let printed: Config = toml::from_str(&shown).expect("a printed configuration can be parsed");
    let hidden = load::<Config>(&only_secrets).expect("the defaults are valid").config;
    let without_secrets = |config: &Config| {
        let mut config = config.clone();
        config.auth.keys = hidden.auth.keys.clone();
        config.db.postgres = hidden.db.postgres.clone();
        config.redis.url = hidden.redis.url.clone();
        config.discovery.consul_token = hidden.discovery.consul_token.clone();
        config.operator.token = hidden.operator.token.clone();
        config
    };
    assert_eq!(without_secrets(&printed), without_secrets(config));
    check_connection(config);
}

/// Runs a connection to a gateway with this configuration. No duration may overflow.
fn check_connection(config: &Config) {
    let mut config = config.clone();
    // Hashing passwords at the configured cost would be too slow.
    config.auth.argon2_memory_kib = config.auth.argon2_memory_kib.min(8);
    config.auth.argon2_passes = 1;
    let Some(gateway) = Gateway::new(&config) else { return };
    let _entered = gateway.runtime.enter();
    let now = Instant::now();
    let mut protocol = Protocol::new(gateway.backend.settings().clone(), now);
    assert!(protocol.deadline() > now);
    let identity = Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() };
    crate::tokens::tokens(&config.app).issue(&identity).expect("a token can be signed");
    protocol.welcomed(identity, now);
    let due = protocol.deadline();
    assert!(due > now && protocol.on_time(now).is_none());
    assert!(matches!(protocol.on_time(due), Some(Step::Renew | Step::Recheck | Step::Close(_))));
}
