//! Access tokens and refresh tokens.
//!
//! An access token is a short-lived JWT, signed with HMAC-SHA-256 and bound to an application, a user, a device and its session. A
//! refresh token is valid if its hash is stored. Its seal, a signature, distinguishes an old refresh token from a forged one.

use crate::hub::Identity;
use abi::{ApiError, config::Secret, error::ErrorCode, v1::SigningKey};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, crypto, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
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

/// Signs and verifies access tokens.
pub struct Tokens {
    app: String,
    lifetime: Duration,
    signer: (String, EncodingKey),
    verifiers: HashMap<String, DecodingKey>,
    validation: Validation,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ids: Vec<_> = self.verifiers.keys().collect();
        ids.sort();
        f.debug_struct("Tokens").field("app", &self.app).field("keys", &ids).finish_non_exhaustive()
    }
}

impl Tokens {
    /// Takes keys, newest first. The first key signs, all keys verify. `None` if there is no key.
    pub fn new(app: String, lifetime: Duration, keys: &[SigningKey]) -> Option<Self> {
        let first = keys.first()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Some(Self {
            app,
            lifetime,
            signer: (first.id.clone(), EncodingKey::from_secret(&first.secret)),
            verifiers: keys
                .iter()
                .map(|key| (key.id.clone(), DecodingKey::from_secret(&key.secret)))
                .collect(),
            validation,
        })
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
        let (id, key) = &self.signer;
        let header = Header { kid: Some(id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, key).map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("the token cannot be signed: {error}"))
        })
    }

    /// The first refresh token of a session: `SESSION.SECRET.SEAL`.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be sealed.
    pub fn issue_refresh(&self, session: &str) -> Result<String, ApiError> {
        self.seal_refresh(session, &BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>()))
    }

    /// The refresh token for which `refresh_token` is exchanged. It is deterministic as long as the same key signs. A device may
    /// repeat an exchange, and the first attempt may be executed last: it must not replace the token that the device has got.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be sealed.
    pub fn issue_next_refresh(&self, session: &str, refresh_token: &str) -> Result<String, ApiError> {
        self.seal_refresh(session, &self.sign(&format!("next:{refresh_token}"))?)
    }

    fn seal_refresh(&self, session: &str, secret: &str) -> Result<String, ApiError> {
        let token = format!("{session}.{secret}");
        let seal = self.sign(&sealed(&token))?;
        Ok(format!("{token}.{seal}"))
    }

    fn sign(&self, message: &str) -> Result<String, ApiError> {
        crypto::sign(message.as_bytes(), &self.signer.1, Algorithm::HS256).map_err(|error| {
            ApiError::new(ErrorCode::Internal, format!("the refresh token cannot be sealed: {error}"))
        })
    }

    /// Whether a refresh token was issued with one of the keys, no matter if it is still valid.
    pub fn has_issued(&self, refresh_token: &str) -> bool {
        let Some((token, seal)) = refresh_token.rsplit_once('.') else { return false };
        let message = sealed(token);
        self.verifiers
            .values()
            .any(|key| crypto::verify(seal, message.as_bytes(), key, Algorithm::HS256).unwrap_or(false))
    }

    /// The identity in an access token.
    ///
    /// # Errors
    /// `TOKEN_EXPIRED`; `UNAUTHENTICATED` for any other invalid token.
    pub fn verify(&self, token: &str) -> Result<Identity, ApiError> {
        let invalid = |reason: &str| {
            ApiError::new(ErrorCode::Unauthenticated, format!("the access token {reason}; log in again"))
        };
        if token.is_empty() {
            return Err(ApiError::new(ErrorCode::Unauthenticated, "there is no access token; log in first"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| invalid("is malformed"))?;
        let key =
            header.kid.and_then(|id| self.verifiers.get(&id)).ok_or_else(|| invalid("has an unknown key"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => {
                    ApiError::new(ErrorCode::TokenExpired, "the access token has expired; refresh it")
                }
                _ => invalid("is not valid"),
            })?
            .claims;
        if claims.app != self.app {
            return Err(invalid("is for another application"));
        }
        Ok(Identity { user: claims.sub, device: claims.dev, session: claims.sid })
    }
}

/// The message that the seal of a refresh token signs. Access tokens are signed with the same keys; the prefix keeps a seal from
/// being valid as the signature of one.
fn sealed(refresh_token: &str) -> String {
    format!("refresh:{refresh_token}")
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
        assert_eq!(
            before.verify(&after.issue(&alice()).unwrap()).unwrap_err().code,
            ErrorCode::Unauthenticated
        );
    }

    #[test]
    fn p8_a_token_of_another_application_is_refused() {
        let keys = [key("k1")];
        let other = Tokens::new("other".into(), MINUTE, &keys).unwrap();
        let token = other.issue(&alice()).unwrap();
        assert_eq!(tokens(MINUTE, &keys).verify(&token).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn p8_only_issued_refresh_tokens_pass_the_check_of_their_seal() {
        let tokens = tokens(MINUTE, &[key("k2"), key("k1")]);
        let before = Tokens::new("default".into(), MINUTE, &[key("k1")]).unwrap();
        let token = before.issue_refresh("s1").unwrap();
        assert!(token.starts_with("s1.") && tokens.has_issued(&token));
        let (unsealed, seal) = token.rsplit_once('.').unwrap();
        let access = tokens.issue(&alice()).unwrap();
        for forged in
            ["", "s1", "s1.x", unsealed, &format!("s2{}", &token[2..]), &format!("s1.x.{seal}"), &access]
        {
            assert!(!tokens.has_issued(forged), "{forged}");
        }
        assert_eq!(tokens.verify(&token).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn a_repeated_exchange_gives_the_same_refresh_token() {
        let before = tokens(MINUTE, &[key("k1")]);
        let first = before.issue_refresh("s1").unwrap();
        let next = before.issue_next_refresh("s1", &first).unwrap();
        assert_eq!(before.issue_next_refresh("s1", &first).unwrap(), next);
        assert!(next.starts_with("s1.") && before.has_issued(&next));
        let other = before.issue_refresh("s1").unwrap();
        let after = tokens(MINUTE, &[key("k2"), key("k1")]);
        for another in [
            first.clone(),
            before.issue_next_refresh("s1", &next).unwrap(),
            before.issue_next_refresh("s1", &other).unwrap(),
            after.issue_next_refresh("s1", &first).unwrap(),
        ] {
            assert_ne!(another, next);
        }
    }

    #[test]
    fn p8_debug_output_does_not_contain_keys() {
        let shown = format!("{:?}", tokens(MINUTE, &[key("k1")]));
        assert!(shown.contains("k1") && !shown.contains("k1k1"), "{shown}");
    }
}
