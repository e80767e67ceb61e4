//! Rotation of refresh tokens: which token is accepted, and when the reuse of an old token ends the session.

use subtle::ConstantTimeEq as _;

/// After a rotation, the previous token is still accepted for this long: the response may not have reached the device.
pub(crate) const GRACE_MS: i64 = 30_000;

/// A request to replace a refresh token.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// SHA-256 of the token that the device presents.
    pub(crate) presented: Vec<u8>,
    /// SHA-256 of the token that replaces it.
    pub(crate) next: Vec<u8>,
    /// Current time, milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Whether the caller has verified that the presented token was issued for the session.
    pub(crate) issued: bool,
}

/// The result of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The token is accepted. The session has these hashes now.
    Rotated(Hashes),
    /// The token is an old one, so it has leaked. The thief can't be distinguished from the owner: the session must end.
    Ended,
    /// The token was never issued for the session.
    Refused,
}

/// The hashes of a session's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// The current token.
    pub(crate) current: Vec<u8>,
    /// The previous token; empty before the first rotation.
    pub(crate) previous: Vec<u8>,
    /// When the previous token was replaced, milliseconds since 1970.
    pub(crate) rotated_at_ms: i64,
}

impl Hashes {
    /// The hashes of a new session.
    pub(crate) fn new(current: Vec<u8>) -> Self {
        Self { current, previous: Vec::new(), rotated_at_ms: 0 }
    }

    /// Accepts the current token and, within the grace period, the previous one.
    pub(crate) fn rotate(self, rotation: Rotation) -> Outcome {
        let Rotation { presented, next, now_ms, issued } = rotation;
        // Always make both comparisons: the duration must not reveal which token matched.
        let is_current = bool::from(self.current.ct_eq(&presented));
        let is_previous = bool::from(self.previous.ct_eq(&presented));
        if is_current {
            return Outcome::Rotated(Self { current: next, previous: presented, rotated_at_ms: now_ms });
        }
        if is_previous && now_ms - self.rotated_at_ms <= GRACE_MS {
            // Keep the time of the first rotation: repeated ones must not extend the grace period.
            return Outcome::Rotated(Self { current: next, ..self });
        }
        if is_previous || issued { Outcome::Ended } else { Outcome::Refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(presented: &[u8], next: &[u8], now_ms: i64) -> Rotation {
        Rotation { presented: presented.into(), next: next.into(), now_ms, issued: true }
    }

    #[test]
    fn the_previous_token_works_within_the_grace_period_and_ends_the_session_after_it() {
        let rotated = |outcome| match outcome {
            Outcome::Rotated(hashes) => hashes,
            other => panic!("not rotated: {other:?}"),
        };
        let hashes = rotated(Hashes::new(b"1".into()).rotate(rotation(b"1", b"2", 1_000)));
        let again = rotated(hashes.clone().rotate(rotation(b"1", b"3", 1_000 + GRACE_MS)));
        assert_eq!(again, Hashes { current: b"3".into(), previous: b"1".into(), rotated_at_ms: 1_000 });
        let late = rotation(b"1", b"3", 1_001 + GRACE_MS);
        assert_eq!(hashes.clone().rotate(Rotation { issued: false, ..late.clone() }), Outcome::Ended);
        assert_eq!(hashes.clone().rotate(late), Outcome::Ended);
        assert_eq!(again.rotate(rotation(b"2", b"4", 1_001)), Outcome::Ended);
        assert_eq!(hashes.rotate(rotation(b"", b"4", 1_001)), Outcome::Ended);
    }

    #[test]
    fn p8_an_invented_token_is_refused_and_does_not_end_the_session() {
        let invented = Rotation { issued: false, ..rotation(b"x", b"4", 1_001) };
        assert_eq!(Hashes::new(b"1".into()).rotate(invented), Outcome::Refused);
    }

    #[test]
    fn a_new_session_accepts_no_empty_token() {
        // The service refuses hashes that are not 32 bytes. The empty `previous` must not depend on that check.
        assert_eq!(Hashes::new(b"1".into()).rotate(rotation(b"0", b"2", 1)), Outcome::Ended);
    }
}
