//! The operator token. A person who can read the data folder is an operator.

use abi::config::Secret;
use anyhow::{Context as _, ensure};
use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

/// The token file, readable only by its owner. `godwit-cli` finds it with `--data`.
const TOKEN_FILE: &str = "operator-token";
/// Random bytes in a generated token, and the minimum length of a token.
const TOKEN_BYTES: usize = 32;

/// The configured token. Without one, the token in the data folder, which the first start creates.
pub(crate) fn token(data: &Path, configured: &Secret) -> anyhow::Result<Secret> {
    if !configured.is_empty() {
        return Ok(configured.clone());
    }
    let path = data.join(TOKEN_FILE);
    let token = match fs::read_to_string(&path) {
        Ok(token) => token.trim().to_owned(),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            create(&path).with_context(|| format!("cannot write {}", path.display()))?
        }
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    ensure!(
        token.len() >= TOKEN_BYTES,
        "{} holds no valid token; remove the file, and the next start creates a new one",
        path.display()
    );
    Ok(Secret::new(token))
}

/// Copies the token, if there is one, to a backup.
pub(crate) fn copy(data: &Path, backup: &Path) -> std::io::Result<()> {
    // `fs::copy` keeps the permissions.
    match fs::copy(data.join(TOKEN_FILE), backup.join(TOKEN_FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Creates the file atomically.
fn create(path: &Path) -> std::io::Result<String> {
    let secret: [u8; TOKEN_BYTES] = rand::random();
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
    fn p8_the_token_is_created_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let created = token(folder.path(), &Secret::default()).unwrap();
        assert_eq!(created.expose().len(), 2 * TOKEN_BYTES);
        assert_eq!(token(folder.path(), &Secret::default()).unwrap(), created);
        let mode = fs::metadata(folder.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let configured = Secret::new("x".repeat(TOKEN_BYTES));
        assert_eq!(
            token(folder.path(), &configured).unwrap(),
            configured,
            "a configured token takes precedence"
        );
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(TOKEN_FILE), "").unwrap();
        let error = token(folder.path(), &Secret::default()).unwrap_err().to_string();
        assert!(error.contains(TOKEN_FILE), "{error}");
    }
}
