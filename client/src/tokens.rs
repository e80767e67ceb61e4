//! Sources of access tokens.

use crate::{
    Error,
    http::{Api, Tokens},
};
use abi::ApiError;
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// A source of access tokens for connections.
pub trait TokenSource: Send + Sync + 'static {
    /// Returns an access token. `rejected` is a token that the server called expired; the result must be another one.
    ///
    /// The error decides whether the client tries again, see [`Error::recovery`].
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>>;
}

/// A single access token that cannot be refreshed.
#[derive(Debug)]
pub struct FixedToken(pub String);

impl TokenSource for FixedToken {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async move {
            if rejected == Some(self.0.as_str()) {
                let error = ApiError::new(
                    abi::error::ErrorCode::Unauthenticated,
                    "the access token has expired and cannot be refreshed",
                );
                return Err(error.into());
            }
            Ok(self.0.clone())
        })
    }
}

/// The tokens of a session, refreshed when needed. Tokens change: save the result of [`SessionTokens::current`].
#[derive(Debug)]
pub struct SessionTokens {
    api: Api,
    current: Mutex<(Tokens, Instant)>,
}

impl SessionTokens {
    /// The tokens of a new log-in.
    pub fn new(api: Api, tokens: Tokens) -> Self {
        let expires_at = expires_at(&tokens);
        Self { api, current: Mutex::new((tokens, expires_at)) }
    }

    /// The latest tokens.
    pub async fn current(&self) -> Tokens {
        self.current.lock().await.0.clone()
    }
}

/// When the access token has to be replaced: after at most a day, even if the server allows more.
fn expires_at(tokens: &Tokens) -> Instant {
    const LONGEST: u64 = 24 * 60 * 60;
    Instant::now() + Duration::from_secs(tokens.expires_in_seconds.min(LONGEST))
}

impl TokenSource for SessionTokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async move {
            let mut current = self.current.lock().await;
            let soon = Instant::now() + Duration::from_secs(10);
            if current.1 < soon || rejected == Some(current.0.access_token.as_str()) {
                let tokens = self.api.refresh(&current.0.refresh_token).await?;
                let expires_at = expires_at(&tokens);
                *current = (tokens, expires_at);
            }
            Ok(current.0.access_token.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_refreshed_after_a_day_at_the_latest() {
        let answer = r#"{"app":"a","user":"u","device":"d","session":"s","access_token":"t",
            "expires_in_seconds":18446744073709551615,"refresh_token":"r"}"#;
        let until = expires_at(&serde_json::from_str(answer).unwrap());
        assert!(until < Instant::now() + Duration::from_secs(25 * 60 * 60));
    }
}
