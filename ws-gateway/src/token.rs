//! Access tokens, and the keys that sign them and seal refresh tokens.
//!
//! An access token is a short-lived JWT, signed with HMAC-SHA-256 and bound to an application, a user, a device and its session.
//! [`refresh`] has the other kind.

pub mod refresh;

use crate::hub::Identity;
use abi::{ApiError, config::Secret, error::ErrorCode, v1::SigningKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use std::{
    fmt, iter,
    time::{Duration, SystemTime},
};

/// Claims of an access token, named as in RFC 7519 if it defines the claim.
#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    /// User.
    sub: String,
    /// Application.
    app: String,
    /// Device.
    dev: String,
    /// Session.
    sid: String,
    /// Issued at, seconds since 1970-01-01 UTC.
    iat: u64,
    /// Expires at, seconds since 1970-01-01 UTC.
    exp: u64,
}

/// Signs and verifies tokens.
pub struct Tokens {
    app: String,
    lifetime: Duration,
    /// Signs new tokens.
    newest: Key,
    /// Verify the tokens that were signed earlier.
    older: Vec<Key>,
    validation: Validation,
}

struct Key {
    id: String,
    signing: EncodingKey,
    verifying: DecodingKey,
}

impl From<&SigningKey> for Key {
    fn from(key: &SigningKey) -> Self {
        Self {
            id: key.id.clone(),
            signing: EncodingKey::from_secret(&key.secret),
            verifying: DecodingKey::from_secret(&key.secret),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys().map(|key| &key.id).collect();
        f.debug_struct("Tokens").field("app", &self.app).field("keys", &ids).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes keys, newest first. The first key signs, all keys verify. `None` if there is no key.
    pub fn new(app: String, lifetime: Duration, keys: &[SigningKey]) -> Option<Self> {
        let (newest, older) = keys.split_first()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Some(Self {
            app,
            lifetime,
            newest: newest.into(),
            older: older.iter().map(Key::from).collect(),
            validation,
        })
    }

    fn keys(&self) -> impl Iterator<Item = &Key> {
        iter::once(&self.newest).chain(&self.older)
    }

    /// Parses the keys of the configuration, `ID=SECRET`.
    pub fn configured_keys(keys: &[Secret]) -> Vec<SigningKey> {
        keys.iter()
            .filter_map(|key| key.expose().split_once('='))
            .map(|(id, secret)| SigningKey { id: id.into(), secret: secret.as_bytes().to_vec().into() })
            .collect()
    }

    /// Time from the issue of an access token to its expiry.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new access token for a device.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be signed.
    pub fn issue(&self, identity: &Identity) -> Result<String, ApiError> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let claims = Claims {
            sub: identity.user.clone(),
            app: self.app.clone(),
            dev: identity.device.clone(),
            sid: identity.session.clone(),
            iat: now,
            exp: now.saturating_add(self.lifetime.as_secs()),
        };
        let header = Header { kid: Some(self.newest.id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, &self.newest.signing).map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("the token cannot be signed: {error}"))
        })
    }

    /// The identity in an access token.
    ///
    /// # Errors
    /// `TOKEN_EXPIRED` if a refresh helps: the token has expired, or its key has been removed or has not reached this gateway.
    /// `UNAUTHENTICATED` for any other invalid token.
    pub fn verify(&self, token: &str) -> Result<Identity, ApiError> {
        let invalid = |reason: &str| {
            ApiError::new(ErrorCode::Unauthenticated, format!("the access token {reason}; log in again"))
        };
        if token.is_empty() {
            return Err(ApiError::new(ErrorCode::Unauthenticated, "there is no access token; log in first"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("is malformed"))?;
        let expired = |reason: &str| {
            ApiError::new(ErrorCode::TokenExpired, format!("the access token {reason}; refresh it"))
        };
        let id = header.kid.ok_or_else(|| invalid("names no key"))?;
        let key = self
            .keys()
            .find(|key| key.id == id)
            .ok_or_else(|| expired("is signed with a key that this server does not have"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.verifying, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => expired("has expired"),
                _ => invalid("is not valid"),
            })?
            .claims;
        if claims.app != self.app {
            return Err(invalid("is for another application"));
        }
        Ok(Identity { user: claims.sub, device: claims.dev, session: claims.sid })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> SigningKey {
        SigningKey { id: id.into(), secret: id.repeat(32).into_bytes().into() }
    }

    fn tokens(lifetime: Duration, keys: &[SigningKey]) -> Tokens {
        Tokens::new("default".into(), lifetime, keys).unwrap()
    }

    fn alice() -> Identity {
        Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn p8_a_token_is_valid_for_its_identity_only_and_can_not_be_forged() {
        let tokens = tokens(MINUTE, &[key("k1")]);
        let token = tokens.issue(&alice()).unwrap();
        assert_eq!(tokens.verify(&token).unwrap(), alice());
        let (head, signature) = token.rsplit_once('.').unwrap();
        for forged in
            [format!("{head}."), format!("{head}x.{signature}"), "x".into(), String::new(), "a.b.c".into()]
        {
            assert_eq!(tokens.verify(&forged).unwrap_err().code, ErrorCode::Unauthenticated, "{forged}");
        }
    }

    #[test]
    fn p8_an_unsigned_token_is_refused() {
        let tokens = tokens(MINUTE, &[key("k1")]);
        // {"alg":"none","kid":"k1"} and claims of alice.
        let token = "eyJhbGciOiJub25lIiwia2lkIjoiazEifQ.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.";
        assert_eq!(tokens.verify(token).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn p8_an_expired_token_has_its_own_error_code() {
        let tokens = tokens(Duration::ZERO, &[key("k1")]);
        let token = tokens.issue(&alice()).unwrap();
        crate::token::tests::wait_a_second();
        assert_eq!(tokens.verify(&token).unwrap_err().code, ErrorCode::TokenExpired);
    }

    /// Expiry has a resolution of one second, and the library reads the system clock.
    #[expect(clippy::disallowed_methods, reason = "a test without a runtime")]
    fn wait_a_second() {
        std::thread::sleep(Duration::from_millis(1_100));
    }

    #[test]
    fn p9_tokens_stay_valid_when_keys_are_rotated() {
        let before = tokens(MINUTE, &[key("k1")]);
        let after = tokens(MINUTE, &[key("k2"), key("k1")]);
        assert_eq!(after.verify(&before.issue(&alice()).unwrap()).unwrap(), alice());
        // A gateway that does not know the key must not log the device out: a refresh gives it a token of a key that it knows.
        let unknown = before.verify(&after.issue(&alice()).unwrap()).unwrap_err();
        assert_eq!(unknown.code, ErrorCode::TokenExpired);
    }

    #[test]
    fn p8_a_token_that_names_no_key_is_refused() {
        let tokens = tokens(MINUTE, &[key("k1")]);
        // {"alg":"HS256"} and claims of alice.
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6OTk5OTk5OTk5OX0.c2VhbA";
        assert_eq!(tokens.verify(token).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn p8_a_token_of_another_application_is_refused() {
        let keys = [key("k1")];
        let other = Tokens::new("other".into(), MINUTE, &keys).unwrap();
        let token = other.issue(&alice()).unwrap();
        assert_eq!(tokens(MINUTE, &keys).verify(&token).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn p8_debug_output_does_not_contain_keys() {
        let shown = format!("{:?}", tokens(MINUTE, &[key("k1")]));
        assert!(shown.contains("k1") && !shown.contains("k1k1"), "{shown}");
    }
}
