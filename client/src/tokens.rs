//! Where access tokens come from.

use crate::{
    Error,
    http::{Api, Tokens},
};
use abi::ApiError;
use futures_util::future::BoxFuture;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Gives access tokens to a connection.
pub trait TokenSource: Send + Sync + 'static {
    /// An access token. `rejected` is one that the server says has expired: another one is needed.
    ///
    /// The error decides whether the connection is tried again, see [`Error::recovery`].
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>>;
}

/// One access token and no way to another.
#[derive(Debug)]
pub struct FixedToken(pub String);

impl TokenSource for FixedToken {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        Box::pin(async move {
            if rejected == Some(self.0.as_str()) {
                let fault = ApiError::new(
                    abi::error::ErrorCode::Unauthenticated,
                    "the access token has expired and there is no way to another",
                );
                return Err(fault.into());
            }
            Ok(self.0.clone())
        })
    }
}

/// Tokens of a session that is refreshed when needed. Tokens change: keep what [`SessionTokens::current`] gives.
#[derive(Debug)]
pub struct SessionTokens {
    api: Api,
    current: Mutex<(Tokens, Instant)>,
}

impl SessionTokens {
    /// Tokens that were just given.
    pub fn new(api: Api, tokens: Tokens) -> Self {
        let good_until = good_until(&tokens);
        Self { api, current: Mutex::new((tokens, good_until)) }
    }

    /// The latest tokens.
    pub async fn current(&self) -> Tokens {
        self.current.lock().await.0.clone()
    }
}

/// When the access token has to be replaced: never later than in a day, whatever the server says.
fn good_until(tokens: &Tokens) -> Instant {
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
                let good_until = good_until(&tokens);
                *current = (tokens, good_until);
            }
            Ok(current.0.access_token.clone())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_promises_eternity_is_asked_again_after_a_day() {
        let answer = r#"{"app":"a","user":"u","device":"d","session":"s","access_token":"t",
            "expires_in_seconds":18446744073709551615,"refresh_token":"r"}"#;
        let until = good_until(&serde_json::from_str(answer).unwrap());
        assert!(until < Instant::now() + Duration::from_secs(25 * 60 * 60));
    }
}
