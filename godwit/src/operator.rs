//! The operator's token: who can read the folder of data is an operator.

use abi::config::Secret;
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// File of the token, readable by its owner alone. `godwit-cli` finds it by `--data`.
const FILE: &str = "operator-token";
const BYTES: usize = 32;

/// The token of the configuration; without one, that in the folder, which is made on the first start.
pub(crate) fn token(data: &Path, configured: &Secret) -> anyhow::Result<Secret> {
    if !configured.is_empty() {
        return Ok(configured.clone());
    }
    let path = data.join(FILE);
    let token = match fs::read_to_string(&path) {
        Ok(token) => token.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make(&path).with_context(|| format!("{} can't be written", path.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("{} can't be read", path.display())),
    };
    ensure!(token.len() >= BYTES, "{} holds no token; remove it, and another one is made", path.display());
    Ok(Secret::new(token))
}

/// Copies the token to the folder of a backup, if there is one.
pub(crate) fn copy(data: &Path, backup: &Path) -> std::io::Result<()> {
    // The permissions go along.
    match fs::copy(data.join(FILE), backup.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whole or not at all.
fn make(path: &Path) -> std::io::Result<String> {
    let secret: [u8; BYTES] = rand::random();
    let token = abi::ids::hex(&secret);
    let draft = path.with_extension("draft");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&draft)?;
    file.write_all(token.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn p8_a_token_is_made_once_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let made = token(folder.path(), &Secret::default()).unwrap();
        assert_eq!(made.expose().len(), 2 * BYTES);
        assert_eq!(token(folder.path(), &Secret::default()).unwrap(), made);
        let mode = fs::metadata(folder.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let own = Secret::new("x".repeat(BYTES));
        assert_eq!(token(folder.path(), &own).unwrap(), own, "a configured token goes before");
    }

    #[test]
    fn a_spoilt_token_is_no_open_door() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "").unwrap();
        let fault = token(folder.path(), &Secret::default()).unwrap_err().to_string();
        assert!(fault.contains(FILE), "{fault}");
    }
}
