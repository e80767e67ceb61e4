//! Forged and malformed access tokens.

use abi::{error::ErrorCode, v1::SigningKey};
use std::{sync::LazyLock, time::Duration};
use ws_gateway::{hub::Identity, token::Tokens};

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
            assert_eq!(error.code, ErrorCode::Unauthenticated);
            crate::check_error(&error);
        }
    }
}
