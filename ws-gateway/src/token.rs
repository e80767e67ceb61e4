//! Access tokens: JWTs signed with HMAC-SHA-256, short-lived, bound to an application, a user, a device and its session.

use crate::hub::Identity;
use abi::{Fault, config::Secret, error::ErrorCode, v1::SigningKey};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, errors::ErrorKind};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    fmt,
    time::{Duration, SystemTime},
};

/// What a token says. Names are those of RFC 7519 where it has one.
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
    life: Duration,
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
    /// Takes keys, newest first: the first signs, all verify. `None` if there is no key.
    pub fn new(app: String, life: Duration, keys: &[SigningKey]) -> Option<Self> {
        let first = keys.first()?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_required_spec_claims(&["exp", "sub"]);
        Some(Self {
            app,
            life,
            signer: (first.id.clone(), EncodingKey::from_secret(&first.secret)),
            verifiers: keys
                .iter()
                .map(|key| (key.id.clone(), DecodingKey::from_secret(&key.secret)))
                .collect(),
            validation,
        })
    }

    /// Keys as the configuration writes them, `ID=SECRET`.
    pub fn configured_keys(keys: &[Secret]) -> Vec<SigningKey> {
        keys.iter()
            .filter_map(|key| key.expose().split_once('='))
            .map(|(id, secret)| SigningKey { id: id.into(), secret: secret.as_bytes().to_vec().into() })
            .collect()
    }

    /// How long a token is good for.
    pub fn life(&self) -> Duration {
        self.life
    }

    /// A token for a device, good from now on.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be signed.
    pub fn issue(&self, identity: &Identity) -> Result<String, Fault> {
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
        let claims = Claims {
            sub: identity.user.clone(),
            app: self.app.clone(),
            dev: identity.device.clone(),
            sid: identity.session.clone(),
            iat: now,
            exp: now.saturating_add(self.life.as_secs()),
        };
        let (id, key) = &self.signer;
        let header = Header { kid: Some(id.clone()), ..Header::new(Algorithm::HS256) };
        jsonwebtoken::encode(&header, &claims, key)
            .map_err(|error| Fault::new(ErrorCode::Internal, format!("the token can't be signed: {error}")))
    }

    /// Who a token speaks for.
    ///
    /// # Errors
    /// `TOKEN_EXPIRED`, or `UNAUTHENTICATED` for whatever else is wrong with it.
    pub fn verify(&self, token: &str) -> Result<Identity, Fault> {
        let wrong = |why: &str| {
            Fault::new(ErrorCode::Unauthenticated, format!("the access token {why}; log in again"))
        };
        if token.is_empty() {
            return Err(Fault::new(ErrorCode::Unauthenticated, "there is no access token; log in first"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| wrong("is malformed"))?;
        let key =
            header.kid.and_then(|id| self.verifiers.get(&id)).ok_or_else(|| wrong("has an unknown key"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => {
                    Fault::new(ErrorCode::TokenExpired, "the access token has expired; refresh it")
                }
                _ => wrong("is not valid"),
            })?
            .claims;
        if claims.app != self.app {
            return Err(wrong("is for another application"));
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

    fn tokens(life: Duration, keys: &[SigningKey]) -> Tokens {
        Tokens::new("default".into(), life, keys).unwrap()
    }

    fn alice() -> Identity {
        Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn p8_a_token_speaks_for_whom_it_was_issued_and_for_nobody_else() {
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
    fn p8_an_expired_token_says_so() {
        let tokens = tokens(Duration::ZERO, &[key("k1")]);
        let token = tokens.issue(&alice()).unwrap();
        crate::token::tests::wait_a_second();
        assert_eq!(tokens.verify(&token).unwrap_err().code, ErrorCode::TokenExpired);
    }

    /// Expiry has a resolution of one second and the library reads the system's clock.
    #[expect(clippy::disallowed_methods, reason = "a test without a runtime")]
    fn wait_a_second() {
        std::thread::sleep(Duration::from_millis(1_100));
    }

    #[test]
    fn p9_keys_are_rotated_without_a_log_in() {
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
    fn p8_keys_are_not_shown() {
        let shown = format!("{:?}", tokens(MINUTE, &[key("k1")]));
        assert!(shown.contains("k1") && !shown.contains("k1k1"), "{shown}");
    }
}
