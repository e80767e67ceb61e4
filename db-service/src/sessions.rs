//! Rotation of refresh tokens: which token is accepted, and when the reuse of an old token ends the session.
//!
//! A session has a chain of refresh tokens, each the successor of the one for which it was exchanged. The *current* token is the
//! last of the chain; the *previous* one is the one before.
//!
//! - The current token is exchanged for its successor.
//! - The previous token is exchanged for the current one, however late: the first answer may never have arrived.
//! - An older token is refused. It may be that of a tab which slept while another tab of the same log-in refreshed, so the session
//!   goes on.
//! - A token that was replaced more than [`MAX_LAG`] exchanges ago ends the session. Tabs rarely sleep for so long, so the token
//!   was probably stolen. The thief can't be distinguished from the owner.

use abi::v1::Session;
use subtle::ConstantTimeEq as _;

/// The number of exchanges after which the reuse of a token ends its session. With access tokens of 15 minutes, a device that is
/// always on needs a day for them.
pub(crate) const MAX_LAG: i64 = 100;

/// Identifies a session. The user comes first: all data of a user can be found by the user.
#[derive(Clone, Debug)]
pub(crate) struct SessionKey {
    /// Application.
    pub(crate) app: String,
    /// User id.
    pub(crate) user: String,
    /// Session id.
    pub(crate) session: String,
}

impl From<&Session> for SessionKey {
    fn from(session: &Session) -> Self {
        Self { app: session.app.clone(), user: session.user.clone(), session: session.session.clone() }
    }
}

/// A request to replace a refresh token.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// Hash of the token that the device presents.
    pub(crate) presented: Vec<u8>,
    /// Hash of the token that replaces it.
    pub(crate) next: Vec<u8>,
    /// Number of the presented token. `None` if the caller could not verify that it was issued for the session.
    pub(crate) number: Option<i64>,
}

/// The result of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The token is accepted. The session has these hashes now.
    Rotated(Hashes),
    /// The token is a very old one, so it has leaked. The session must end.
    Ended,
    /// The token is not valid.
    Refused,
}

/// The hashes of a session's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// The current token.
    pub(crate) current: Vec<u8>,
    /// The previous token; empty before the first rotation.
    pub(crate) previous: Vec<u8>,
    /// Number of the current token: 1 for the token of the log-in, and one more for each exchange.
    pub(crate) number: i64,
}

impl Hashes {
    /// The hashes of a new session.
    pub(crate) fn new(current: Vec<u8>) -> Self {
        Self { current, previous: Vec::new(), number: 1 }
    }

    /// Applies the rules of the module.
    pub(crate) fn rotate(self, rotation: Rotation) -> Outcome {
        let Rotation { presented, next, number } = rotation;
        // Always make both comparisons: the duration must not reveal which token matched.
        let is_current = bool::from(self.current.ct_eq(&presented));
        let is_previous = bool::from(self.previous.ct_eq(&presented));
        if is_current {
            let number = self.number.saturating_add(1);
            return Outcome::Rotated(Self { current: next, previous: presented, number });
        }
        if is_previous {
            return Outcome::Rotated(Self { current: next, ..self });
        }
        match number {
            Some(number) if self.number.saturating_sub(number) > MAX_LAG => Outcome::Ended,
            _ => Outcome::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash of the token with a number. A chain has one token per number.
    fn token(number: i64) -> Vec<u8> {
        number.to_be_bytes().into()
    }

    fn present(hashes: &Hashes, number: i64) -> Outcome {
        let rotation = Rotation { presented: token(number), next: token(number + 1), number: Some(number) };
        hashes.clone().rotate(rotation)
    }

    fn exchange(hashes: &Hashes, number: i64) -> Hashes {
        match present(hashes, number) {
            Outcome::Rotated(hashes) => hashes,
            other => panic!("not rotated: {other:?}"),
        }
    }

    #[test]
    fn a_lost_answer_can_be_asked_for_until_the_new_token_is_used() {
        let first = exchange(&Hashes::new(token(1)), 1);
        assert_eq!(first, Hashes { current: token(2), previous: token(1), number: 2 });
        for _ in 0..3 {
            assert_eq!(exchange(&first, 1), first, "all answers carry the same token");
        }
        let second = exchange(&first, 2);
        assert_eq!(present(&second, 1), Outcome::Refused);
        assert_eq!(exchange(&second, 2), second);
    }

    #[test]
    fn two_tabs_with_one_log_in_can_refresh_in_turn() {
        let mut hashes = Hashes::new(token(1));
        for number in 1..50 {
            hashes = exchange(&hashes, number);
            hashes = exchange(&hashes, number);
        }
        assert_eq!(hashes, Hashes { current: token(50), previous: token(49), number: 50 });
    }

    #[test]
    fn p8_only_the_reuse_of_a_very_old_token_ends_the_session() {
        let mut hashes = Hashes::new(token(1));
        for number in 1..=MAX_LAG {
            hashes = exchange(&hashes, number);
        }
        assert_eq!(hashes.number, MAX_LAG + 1);
        for number in 1..MAX_LAG {
            assert_eq!(present(&hashes, number), Outcome::Refused, "a tab that slept is no thief");
        }
        let hashes = exchange(&hashes, MAX_LAG + 1);
        assert_eq!(present(&hashes, 1), Outcome::Ended);
        assert_eq!(present(&hashes, 2), Outcome::Refused);
    }

    #[test]
    fn p8_an_invented_token_is_refused_and_does_not_end_the_session() {
        let hashes = Hashes { current: token(900), previous: token(899), number: 900 };
        let invented = Rotation { presented: b"x".into(), next: token(2), number: None };
        assert_eq!(hashes.rotate(invented), Outcome::Refused);
    }

    #[test]
    fn a_new_session_accepts_no_other_token() {
        // The service refuses hashes that are not 32 bytes. The empty `previous` must not depend on that check.
        let other = Rotation { presented: b"0".into(), next: token(2), number: Some(1) };
        assert_eq!(Hashes::new(token(1)).rotate(other), Outcome::Refused);
    }
}
