//! Passwords: Argon2id, on blocking threads, at most one hash per core at a time.

use abi::{ApiError, config::Auth, error::ErrorCode};
use argon2::{
    Algorithm, Argon2, Params, PasswordHasher as _, PasswordVerifier as _, Version,
    password_hash::phc::PasswordHash,
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Allowed length of a password, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 8..=1_024;
/// Longest wait for a free core.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// Hashes and verifies passwords.
#[derive(Clone, Debug)]
pub struct Passwords {
    argon2: Argon2<'static>,
    cores: Arc<Semaphore>,
    /// The hash to compare with when there is no such user.
    dummy_hash: Arc<str>,
}

impl Passwords {
    /// Uses the configured costs.
    ///
    /// # Errors
    /// The costs are out of the bounds of Argon2.
    pub fn new(auth: &Auth) -> Result<Self, argon2::Error> {
        let params = Params::new(auth.argon2_memory_kib, auth.argon2_passes, 1, None)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let dummy_hash = hash(&argon2, "nobody has this password").unwrap_or_default().into();
        Ok(Self { argon2, cores: Arc::new(Semaphore::new(cores)), dummy_hash })
    }

    /// The hash of a new password, as a PHC string.
    ///
    /// # Errors
    /// `INVALID_REQUEST` for a password that is too short or too long; `UNAVAILABLE` after a wait of 10 s for a core.
    pub async fn hash(&self, password: String) -> Result<String, ApiError> {
        if !LENGTH.contains(&password.len()) {
            let (least, most) = (LENGTH.start(), LENGTH.end());
            return Err(ApiError::invalid(format!("password must have {least} to {most} bytes")));
        }
        let argon2 = self.argon2.clone();
        self.on_a_core(move || hash(&argon2, &password)).await?.ok_or_else(internal)
    }

    /// Whether a password matches a hash. Without a hash (there is no such user) the result is `false` after the same time, so
    /// that the response time does not reveal which users exist.
    ///
    /// # Errors
    /// `UNAVAILABLE` after a wait of 10 s for a core.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, ApiError> {
        if !LENGTH.contains(&password.len()) {
            return Ok(false);
        }
        let (argon2, dummy_hash) = (self.argon2.clone(), self.dummy_hash.clone());
        self.on_a_core(move || {
            let known = hash.is_some();
            let hash = hash.as_deref().unwrap_or(&dummy_hash);
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
        let permit = tokio::time::timeout(QUEUE_TIMEOUT, self.cores.clone().acquire_owned())
            .await
            .map_err(|_| ApiError::unavailable("the server is busy checking passwords; try again"))?
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
    ApiError::new(ErrorCode::Internal, "the password cannot be hashed")
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
    async fn p8_only_the_right_password_matches() {
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
    async fn a_password_that_is_too_short_or_too_long_is_refused() {
        for password in ["", "1234567", &"x".repeat(1_025)] {
            let error = passwords().hash(password.into()).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidRequest);
        }
    }
}
