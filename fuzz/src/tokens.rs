//! Forged and malformed tokens.

use abi::{error::ErrorCode, v1::SigningKey};
use std::{sync::LazyLock, time::Duration};
use ws_gateway::{
    hub::Identity,
    token::{Tokens, refresh::RefreshToken},
};

/// Longer than any run of a fuzz target's process.
const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Makes a signer and verifier of an application's tokens, with two keys.
pub fn tokens(app: &str) -> Tokens {
    let key = |id: &str| SigningKey { id: id.into(), secret: id.repeat(16).into_bytes().into() };
    Tokens::new(app.into(), LIFE, &[key("k2"), key("k1")]).expect("the list of keys is not empty")
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| tokens(abi::DEFAULT_APP));

/// The owner of the valid token.
pub fn alice() -> Identity {
    Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() }
}

/// A valid token.
pub static VALID: LazyLock<String> = LazyLock::new(|| TOKENS.issue(&alice()).expect("a token can be signed"));

/// The input is a token. After a first byte of 0 or 1, it replaces the header or the claims of the valid token.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    refresh_token(text);
    let forged = match (text.strip_prefix('\0'), text.strip_prefix('\x01')) {
        (Some(header), _) => format!("{header}.{}", VALID.split_once('.').expect("a token has a header").1),
        (_, Some(claims)) => {
            let mut parts = VALID.split('.');
            let header = parts.next().expect("a token has a header");
            format!("{header}.{claims}.{}", parts.next_back().expect("a token has a signature"))
        }
        _ => text.to_owned(),
    };
    match TOKENS.verify(&forged) {
        // Only the server can sign a token, and it has signed one.
        Ok(identity) => assert!(forged == *VALID && identity == alice(), "forged: {forged}"),
        Err(error) => {
            // The header may name a key that the server does not have: a refresh could help.
            assert!(matches!(error.code, ErrorCode::Unauthenticated | ErrorCode::TokenExpired), "{error}");
            crate::check_error(&error);
        }
    }
}

/// A refresh token without a seal of the server proves nothing.
fn refresh_token(text: &str) {
    match RefreshToken::parse(text) {
        Ok(token) => {
            assert_eq!(TOKENS.proven_number(&token), None, "forged: {text}");
            let next = TOKENS.next_refresh(&token).expect("a token can be sealed");
            let next = RefreshToken::parse(&next).expect("the server reads its own tokens");
            assert_eq!((next.user, next.session), (token.user, token.session));
            assert!(TOKENS.proven_number(&next).is_some());
        }
        Err(error) => crate::check_error(&error),
    }
}
