//! Refresh tokens: `USER:SESSION:NUMBER:SECRET:SEAL`.
//!
//! The user and the session tell where the session is stored. The number is 1 for the token of a log-in and grows by one with
//! each exchange. A token is valid if the hash of everything before the seal is stored. The seal is a signature: it proves the
//! number of a token that is no longer valid, and distinguishes such a token from an invented one.

use super::{Key, Tokens};
use abi::{ApiError, error::ErrorCode, ids};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use jsonwebtoken::{Algorithm, crypto};
use sha2::{Digest as _, Sha256};

/// A refresh token in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshToken<'a> {
    /// User id.
    pub user: &'a str,
    /// Session id.
    pub session: &'a str,
    number: u32,
    /// Everything before the seal.
    unsealed: &'a str,
    seal: &'a str,
}

impl<'a> RefreshToken<'a> {
    /// Splits a token. Does not check whether it is valid.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a text of another form.
    pub fn parse(token: &'a str) -> Result<Self, ApiError> {
        Self::split(token).ok_or_else(|| {
            ApiError::new(ErrorCode::Unauthenticated, "the refresh token is malformed; log in again")
        })
    }

    fn split(token: &'a str) -> Option<Self> {
        let (unsealed, seal) = token.rsplit_once(':')?;
        let mut parts = unsealed.split(':');
        let (user, session, number) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        let (_secret, None) = (parts.next()?, parts.next()) else { return None };
        ids::check_id("user", user).and_then(|()| ids::check_id("session", session)).ok()?;
        Some(Self { user, session, number, unsealed, seal })
    }

    /// The hash under which the token is stored, SHA-256. It does not cover the seal, so that it does not depend on the key that
    /// seals the token.
    pub fn hash(&self) -> Bytes {
        Sha256::digest(self.unsealed).to_vec().into()
    }
}

impl Tokens {
    /// The first refresh token of a session.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be sealed.
    pub fn first_refresh(&self, user: &str, session: &str) -> Result<String, ApiError> {
        let secret = BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
        self.seal(user, session, 1, &secret)
    }

    /// The refresh token for which `token` is exchanged: always the same one, because a device repeats an exchange whose answer
    /// was lost, and two tabs of a browser may exchange the same token at once.
    ///
    /// The secret is derived with the key that sealed `token`. Gateways that sign with different keys, while a key is being
    /// replaced, therefore derive the same secret.
    ///
    /// # Errors
    /// `INTERNAL` if it can't be sealed.
    pub fn next_refresh(&self, token: &RefreshToken<'_>) -> Result<String, ApiError> {
        let key = self.sealing_key(token).unwrap_or(&self.newest);
        let secret = sign(key, &format!("next:{}", token.unsealed))?;
        self.seal(token.user, token.session, token.number.saturating_add(1), &secret)
    }

    /// The number of a token. `None` if none of the keys has sealed it.
    pub fn proven_number(&self, token: &RefreshToken<'_>) -> Option<u32> {
        self.sealing_key(token).map(|_| token.number)
    }

    fn sealing_key(&self, token: &RefreshToken<'_>) -> Option<&Key> {
        let message = sealed(token.unsealed);
        let has_sealed = |key: &&Key| {
            crypto::verify(token.seal, message.as_bytes(), &key.verifying, Algorithm::HS256).unwrap_or(false)
        };
        self.keys().find(has_sealed)
    }

    fn seal(&self, user: &str, session: &str, number: u32, secret: &str) -> Result<String, ApiError> {
        let unsealed = format!("{user}:{session}:{number}:{secret}");
        let seal = sign(&self.newest, &sealed(&unsealed))?;
        Ok(format!("{unsealed}:{seal}"))
    }
}

/// The message that a seal signs. Access tokens are signed with the same keys; the prefix keeps a seal from being valid as the
/// signature of one.
fn sealed(unsealed: &str) -> String {
    format!("refresh:{unsealed}")
}

fn sign(key: &Key, message: &str) -> Result<String, ApiError> {
    crypto::sign(message.as_bytes(), &key.signing, Algorithm::HS256).map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("the refresh token cannot be sealed: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::SigningKey;
    use std::time::Duration;

    fn tokens(keys: &[&str]) -> Tokens {
        let key = |id: &&str| SigningKey { id: (*id).into(), secret: id.repeat(32).into_bytes().into() };
        let keys: Vec<_> = keys.iter().map(key).collect();
        Tokens::new("default".into(), Duration::from_secs(60), &keys).unwrap()
    }

    fn parse(token: &str) -> RefreshToken<'_> {
        RefreshToken::parse(token).unwrap()
    }

    #[test]
    fn a_token_names_its_user_and_session_and_its_number_grows() {
        let tokens = tokens(&["k1"]);
        let first = tokens.first_refresh("alice", "s1").unwrap();
        let next = tokens.next_refresh(&parse(&first)).unwrap();
        for (token, number) in [(&first, 1), (&next, 2)] {
            let token = parse(token);
            assert_eq!((token.user, token.session), ("alice", "s1"));
            assert_eq!(tokens.proven_number(&token), Some(number));
        }
        assert_ne!(parse(&first).hash(), parse(&next).hash());
    }

    #[test]
    fn p8_other_texts_are_not_refresh_tokens() {
        let tokens = tokens(&["k1"]);
        let valid = tokens.first_refresh("alice", "s1").unwrap();
        let longer = format!("{valid}:x");
        let identity =
            crate::hub::Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() };
        let access = tokens.issue(&identity).unwrap();
        for text in [
            "",
            "x",
            "x.y",
            ":::",
            "::::",
            "a:b:c:d:e",
            "a:b:-1:d:e",
            "a b:s:1:d:e",
            "..:s:1:d:e",
            &longer,
            &access,
        ] {
            assert_eq!(RefreshToken::parse(text).unwrap_err().code, ErrorCode::Unauthenticated, "{text}");
        }
        assert_eq!(tokens.verify(&valid).unwrap_err().code, ErrorCode::Unauthenticated);
    }

    #[test]
    fn p8_the_number_of_a_changed_token_is_not_proven() {
        let tokens = tokens(&["k2", "k1"]);
        let token = super::tests::tokens(&["k1"]).first_refresh("alice", "s1").unwrap();
        assert_eq!(tokens.proven_number(&parse(&token)), Some(1));
        let (unsealed, seal) = token.rsplit_once(':').unwrap();
        for changed in [
            token.replace("alice:", "bob:"),
            token.replace(":s1:", ":s2:"),
            token.replace(":1:", ":9:"),
            format!("{unsealed}x:{seal}"),
            format!("{unsealed}:x"),
            format!("{unsealed}:"),
        ] {
            assert_eq!(tokens.proven_number(&parse(&changed)), None, "{changed}");
        }
        assert_eq!(super::tests::tokens(&["k2"]).proven_number(&parse(&token)), None, "the key is unknown");
    }

    #[test]
    fn a_repeated_exchange_gives_the_same_token_also_while_a_key_is_being_replaced() {
        let (old, both, new) = (tokens(&["k1"]), tokens(&["k2", "k1"]), tokens(&["k1", "k2"]));
        let first = old.first_refresh("alice", "s1").unwrap();
        let next = old.next_refresh(&parse(&first)).unwrap();
        assert_eq!(old.next_refresh(&parse(&first)).unwrap(), next);
        for tokens in [both, new] {
            let again = tokens.next_refresh(&parse(&first)).unwrap();
            assert_eq!(parse(&again).hash(), parse(&next).hash());
        }
        let other = old.first_refresh("alice", "s1").unwrap();
        for another in
            [&first, &old.next_refresh(&parse(&next)).unwrap(), &old.next_refresh(&parse(&other)).unwrap()]
        {
            assert_ne!(parse(another).hash(), parse(&next).hash());
        }
    }
}
