//! Access tokens, as anybody may write them.

use abi::{error::ErrorCode, v1::SigningKey};
use std::{sync::LazyLock, time::Duration};
use ws_gateway::{hub::Identity, token::Tokens};

/// A token that holds for a minute is as good as one for ever here.
const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Signs and verifies the tokens of an application with two keys.
pub fn tokens(app: &str) -> Tokens {
    let key = |id: &str| SigningKey { id: id.into(), secret: id.repeat(16).into_bytes().into() };
    Tokens::new(app.into(), LIFE, &[key("k2"), key("k1")]).expect("there are keys")
}

static TOKENS: LazyLock<Tokens> = LazyLock::new(|| tokens(abi::DEFAULT_APP));

/// Who has a good token.
pub fn alice() -> Identity {
    Identity { user: "alice".into(), device: "phone".into(), session: "s1".into() }
}

/// A good token.
pub static GOOD: LazyLock<String> = LazyLock::new(|| TOKENS.issue(&alice()).expect("it can be signed"));

/// A token; or, after a first byte of 0 or 1, something else in the place of a good token's head or claims.
pub fn token(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let forged = match (text.strip_prefix('\0'), text.strip_prefix('\x01')) {
        (Some(head), _) => format!("{head}.{}", GOOD.split_once('.').expect("a token has a head").1),
        (_, Some(claims)) => {
            let mut parts = GOOD.split('.');
            let head = parts.next().expect("a token has a head");
            format!("{head}.{claims}.{}", parts.next_back().expect("a token has a signature"))
        }
        _ => text.to_owned(),
    };
    match TOKENS.verify(&forged) {
        // Nobody but the server can have made it, and it has made one.
        Ok(identity) => assert!(forged == *GOOD && identity == alice(), "forged: {forged}"),
        Err(fault) => {
            assert_eq!(fault.code, ErrorCode::Unauthenticated);
            crate::is_fault(&fault);
        }
    }
}
