//! Passwords: Argon2id, off the async threads, no more at a time than there are cores.

use abi::{ApiError, config::Auth, error::ErrorCode};
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Shortest and longest password, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=1_024;
/// Whoever has waited this long for a core is told to come back.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hashes and verifies passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    argon2: Argon2<'static>,
    cores: Arc<Semaphore>,
    nobodys_hash: Arc<str>,
}

impl Passwords {
    /// With the costs of the configuration.
    ///
    /// # Errors
    /// If Argon2 does not take these costs.
    pub fn new(auth: &Auth) -> Result<Self, argon2::Error> {
        let params = Params::new(auth.argon2_memory_kib, auth.argon2_passes, 1, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobodys_hash = hash(&argon2, "nobody has this password").unwrap_or_default().into();
        Ok(Self { argon2, cores: Arc::new(Semaphore::new(cores)), nobodys_hash })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for one that is too short or too long, `UNAVAILABLE` when too many wait.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        if !LENGTH.contains(&password.len()) {
            let (least, most) = (LENGTH.start(), LENGTH.end());
            return Err(ApiError::invalid(format!("password must have {least} to {most} bytes")));
        }
        let argon2 = self.argon2.clone();
        self.on_a_core(move || hash(&argon2, &password)).await?.ok_or_else(internal)
    }

    /// Whether a password is the one behind a hash. Without a hash (there is no such user) it takes as long and says no,
    /// so that the time does not tell who exists.
    ///
    /// # Errors
    /// `UNAVAILABLE` when too many wait.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, ApiError> {
        if !LENGTH.contains(&password.len()) {
            return Ok(false);
        }
        let (argon2, nobodys_hash) = (self.argon2.clone(), self.nobodys_hash.clone());
        self.on_a_core(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&nobodys_hash);
            let matches = PasswordHash::new(hash)
                .is_ok_and(|hash| argon2.verify_password(password.as_bytes(), &hash).is_ok());
            known && matches
        })
        .await
    }

    async fn on_a_core<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let permit = tokio::time::timeout(PATIENCE, self.cores.clone().acquire_owned())
            .await
            .map_err(|_| ApiError::unavailable("too many passwords are being checked; try again"))?
            .map_err(|_| internal())?;
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|_| internal())
    }
}

fn internal() -> ApiError {
    ApiError::new(ErrorCode::Internal, "the password can't be hashed")
}

fn hash(argon2: &Argon2<'_>, password: &str) -> Option<String> {
    argon2.hash_password(password.as_bytes()).ok().map(|hash| hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords() -> Passwords {
        Passwords::new(&Auth { argon2_memory_kib: 8, argon2_passes: 1, ..Auth::default() }).unwrap()
    }

    #[tokio::test]
    async fn p8_only_the_right_password_is_right() {
        let passwords = passwords();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("incorrect horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
        assert!(!passwords.verify("nobody has this password".into(), None).await.unwrap());
        assert_ne!(passwords.hash("correct horse".into()).await.unwrap(), hash, "no salt");
    }

    #[tokio::test]
    async fn a_password_has_bounds() {
        for password in ["", "1234567", &"x".repeat(1_025)] {
            let fault = passwords().hash(password.into()).await.unwrap_err();
            assert_eq!(fault.code, ErrorCode::InvalidRequest);
        }
    }
}
