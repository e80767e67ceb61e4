//! The saved credentials: one file per server and user, readable only by its owner.

use crate::error::Usage;
use anyhow::{Context as _, Result, anyhow};
use client::{
    Error, Recovery, State,
    http::{Api, Tokens},
    tokens::TokenSource,
};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use std::{
    env,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// A user logs in with two devices. A device has one connection, and a `send` must not end a running `chat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// For commands that stay connected: `chat`, `listen`.
    Live,
    /// For all other commands.
    Once,
}

/// Tokens with the expiry of the access token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SavedTokens {
    pub(crate) tokens: Tokens,
    /// Unix time in seconds.
    good_until: u64,
}

impl SavedTokens {
    pub(crate) fn new(tokens: Tokens) -> Self {
        Self { good_until: unix_now().saturating_add(tokens.expires_in_seconds), tokens }
    }
}

/// The saved credentials of a user.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Login {
    pub(crate) live: SavedTokens,
    pub(crate) once: SavedTokens,
}

/// The folder with the credentials for one server.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    pub(crate) fn open(url: &str) -> Result<Self> {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let config = set("XDG_CONFIG_HOME")
            .or_else(|| set("HOME").map(|home| home.join(".config")))
            .ok_or_else(|| anyhow!("cannot save credentials: neither XDG_CONFIG_HOME nor HOME is set"))?;
        Ok(Self::at(&config.join("godwit"), url))
    }

    fn at(folder: &Path, url: &str) -> Self {
        let plain = url.split_once("://").map_or(url, |(_, rest)| rest);
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
        Self { folder: folder.join(plain.chars().map(safe).collect::<String>()) }
    }

    /// The user to act as: the named user, or the last one who logged in.
    pub(crate) fn user(&self, named: Option<&str>) -> Result<String> {
        if let Some(user) = named {
            return Ok(user.to_owned());
        }
        match fs::read_to_string(self.folder.join("default")) {
            Ok(user) => Ok(user.trim().to_owned()),
            Err(_) => Err(anyhow!("no user is logged in; start with `godwit-cli register USER`")),
        }
    }

    pub(crate) fn load(&self, user: &str) -> Result<Login> {
        let path = self.path(user, "json")?;
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; log in again", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(anyhow!("{user} is not logged in; use `godwit-cli login {user}`"))
            }
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(crate) fn save(&self, user: &str, login: &Login) -> Result<()> {
        self.write(&self.path(user, "json")?, &serde_json::to_vec_pretty(login)?)
    }

    pub(crate) fn save_default(&self, user: &str) -> Result<()> {
        self.write(&self.folder.join("default"), user.as_bytes())
    }

    /// Removes the credentials of a user. Another logged-in user, if any, becomes the default.
    pub(crate) fn remove(&self, user: &str) -> Result<()> {
        for kind in ["json", "listen"] {
            let _ = fs::remove_file(self.path(user, kind)?);
        }
        if self.user(None).is_ok_and(|default| default == user) {
            let mut others: Vec<PathBuf> = fs::read_dir(&self.folder)?
                .filter_map(|file| Some(file.ok()?.path()))
                .filter(|path| path.extension().is_some_and(|kind| kind == "json"))
                .collect();
            others.sort();
            match others.first().and_then(|path| path.file_stem()?.to_str()) {
                Some(other) => self.save_default(other)?,
                None => fs::remove_file(self.folder.join("default"))?,
            }
        }
        Ok(())
    }

    /// The state from which `listen --resume` continues.
    pub(crate) fn load_state(&self, user: &str) -> Result<State> {
        let path = self.path(user, "listen")?;
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged; remove it", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(State::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn save_state(&self, user: &str, state: &State) -> Result<()> {
        self.write(&self.path(user, "listen")?, &serde_json::to_vec(state)?)
    }

    /// Waits for a lock between processes. Dropping the file releases it.
    pub(crate) async fn lock(&self, user: &str, kind: &'static str) -> Result<File> {
        self.create_folder()?;
        let path = self.path(user, kind)?;
        let locking = tokio::task::spawn_blocking(move || {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            file.lock()?;
            Ok::<_, std::io::Error>(file)
        });
        Ok(locking.await??)
    }

    fn path(&self, user: &str, kind: &str) -> Result<PathBuf> {
        abi::ids::check_id("USER", user).map_err(|error| Usage(error.message))?;
        Ok(self.folder.join(format!("{user}.{kind}")))
    }

    fn create_folder(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))
    }

    /// Replaces a file atomically. Only its owner can read it at any time.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        self.create_folder()?;
        let draft = path.with_extension(format!("draft-{}", std::process::id()));
        let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
        file.write_all(bytes)?;
        // Some file systems persist the rename before the content.
        file.sync_all()?;
        fs::rename(&draft, path).with_context(|| format!("cannot write {}", path.display()))
    }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// The tokens in the store. Other processes of the same user may refresh them.
#[derive(Clone, Debug)]
pub(crate) struct StoredTokens {
    pub(crate) api: Api,
    pub(crate) store: Store,
    pub(crate) user: String,
    pub(crate) role: Role,
}

impl StoredTokens {
    pub(crate) async fn access(&self, rejected: Option<&str>) -> Result<String, Error> {
        let failed = |error: anyhow::Error| Error::Store(format!("{error:#}"));
        // A refresh token works once: only one process may use it; the others then read the new one.
        let _lock = self.store.lock(&self.user, "lock").await.map_err(failed)?;
        let mut login = self.store.load(&self.user).map_err(failed)?;
        let saved = match self.role {
            Role::Live => &mut login.live,
            Role::Once => &mut login.once,
        };
        if saved.good_until < unix_now() + 10 || rejected == Some(saved.tokens.access_token.as_str()) {
            match self.api.refresh(&saved.tokens.refresh_token).await {
                Ok(tokens) => *saved = SavedTokens::new(tokens),
                Err(Error::Server(error)) if Error::Server(error.clone()).recovery() == Recovery::Stop => {
                    return Err(Error::Store(format!(
                        "the session of {0} has ended ({error}); use `godwit-cli login {0}`",
                        self.user
                    )));
                }
                Err(error) => return Err(error),
            }
            let token = saved.tokens.access_token.clone();
            self.store.save(&self.user, &login).map_err(failed)?;
            return Ok(token);
        }
        Ok(saved.tokens.access_token.clone())
    }
}

impl TokenSource for StoredTokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(self.access(rejected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn login(user: &str) -> Login {
        let tokens = Tokens {
            app: "default".into(),
            user: user.into(),
            device: "cli".into(),
            session: "s".into(),
            access_token: "a".into(),
            expires_in_seconds: 900,
            refresh_token: "r".into(),
        };
        Login { live: SavedTokens::new(tokens.clone()), once: SavedTokens::new(tokens) }
    }

    #[test]
    fn p8_only_the_owner_can_read_credentials() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path(), "http://127.0.0.1:7450");
        store.save("alice", &login("alice")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&store.folder), 0o700);
        assert_eq!(mode(&store.folder.join("alice.json")), 0o600);
        assert_eq!(store.load("alice").unwrap().live.tokens.user, "alice");
    }

    #[test]
    fn the_last_logged_in_user_is_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path(), "http://127.0.0.1:7450");
        assert!(store.user(None).unwrap_err().to_string().contains("register"));
        for user in ["alice", "bob"] {
            store.save(user, &login(user)).unwrap();
            store.save_default(user).unwrap();
        }
        assert_eq!(store.user(None).unwrap(), "bob");
        assert_eq!(store.user(Some("alice")).unwrap(), "alice");
        store.remove("bob").unwrap();
        assert_eq!(store.user(None).unwrap(), "alice");
        store.remove("alice").unwrap();
        assert!(store.user(None).is_err());
    }

    #[test]
    fn p1_an_unreadable_listen_state_is_an_error_and_not_an_empty_state() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path(), "http://127.0.0.1:7450");
        assert_eq!(store.load_state("alice").unwrap(), State::default());
        let state = State { generation: 7, ..State::default() };
        store.save_state("alice", &state).unwrap();
        assert_eq!(store.load_state("alice").unwrap(), state);
        fs::remove_file(store.folder.join("alice.listen")).unwrap();
        fs::create_dir(store.folder.join("alice.listen")).unwrap();
        assert!(store.load_state("alice").unwrap_err().to_string().contains("alice.listen"));
    }

    #[test]
    fn servers_do_not_share_users_and_ids_cannot_escape_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path(), "http://127.0.0.1:7450");
        store.save("alice", &login("alice")).unwrap();
        assert!(Store::at(folder.path(), "http://127.0.0.1:7451").load("alice").is_err());
        assert!(store.save("../alice", &login("alice")).is_err());
    }
}
