//! Exchange of refresh tokens: which one is taken, and when a session ends because an old one turned up.

use subtle::ConstantTimeEq as _;

/// The previous token is taken for so long after an exchange: the answer to the device may have been lost.
pub(crate) const GRACE_MS: i64 = 30_000;

/// What a device presents for its next token.
#[derive(Clone, Debug)]
pub(crate) struct Rotation {
    /// SHA-256 of the token that it has.
    pub(crate) presented: Vec<u8>,
    /// SHA-256 of the token that it gets.
    pub(crate) next: Vec<u8>,
    /// Time of the exchange, milliseconds since 1970.
    pub(crate) now_ms: i64,
    /// Whether the token is known to have been issued for the session.
    pub(crate) issued: bool,
}

/// What becomes of a session when a token is presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// These are its hashes from now on.
    Done(Hashes),
    /// An old token turned up: somebody has used a copy, nobody can say who, so the session has to end.
    Ended,
    /// The token was made up.
    Refused,
}

/// The hashes of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hashes {
    /// Of the token that is valid.
    pub(crate) current: Vec<u8>,
    /// Of the one before; empty before the first exchange.
    pub(crate) previous: Vec<u8>,
    /// When it was replaced, milliseconds since 1970.
    pub(crate) rotated_at_ms: i64,
}

impl Hashes {
    /// Of a new session.
    pub(crate) fn first(current: Vec<u8>) -> Self {
        Self { current, previous: Vec::new(), rotated_at_ms: 0 }
    }

    /// Takes the current token, or, shortly after an exchange, the previous one.
    pub(crate) fn rotate(self, rotation: Rotation) -> Exchange {
        let Rotation { presented, next, now_ms, issued } = rotation;
        // Both comparisons are always made, so that time tells nothing.
        let is_current = bool::from(self.current.ct_eq(&presented));
        let is_previous = bool::from(self.previous.ct_eq(&presented));
        if is_current {
            return Exchange::Done(Self { current: next, previous: presented, rotated_at_ms: now_ms });
        }
        if is_previous && now_ms - self.rotated_at_ms <= GRACE_MS {
            // The time stays that of the first exchange: repeating it must not prolong the grace.
            return Exchange::Done(Self { current: next, ..self });
        }
        if is_previous || issued { Exchange::Ended } else { Exchange::Refused }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(presented: &[u8], next: &[u8], now_ms: i64) -> Rotation {
        Rotation { presented: presented.into(), next: next.into(), now_ms, issued: true }
    }

    #[test]
    fn a_lost_answer_does_not_log_out_and_an_old_token_does() {
        let done = |exchange| match exchange {
            Exchange::Done(hashes) => hashes,
            other => panic!("not exchanged: {other:?}"),
        };
        let hashes = done(Hashes::first(b"1".into()).rotate(rotation(b"1", b"2", 1_000)));
        let again = done(hashes.clone().rotate(rotation(b"1", b"3", 1_000 + GRACE_MS)));
        assert_eq!(again, Hashes { current: b"3".into(), previous: b"1".into(), rotated_at_ms: 1_000 });
        let late = rotation(b"1", b"3", 1_001 + GRACE_MS);
        assert_eq!(hashes.clone().rotate(Rotation { issued: false, ..late.clone() }), Exchange::Ended);
        assert_eq!(hashes.clone().rotate(late), Exchange::Ended);
        assert_eq!(again.rotate(rotation(b"2", b"4", 1_001)), Exchange::Ended);
        assert_eq!(hashes.rotate(rotation(b"", b"4", 1_001)), Exchange::Ended);
    }

    #[test]
    fn p8_a_token_that_was_made_up_ends_nothing() {
        let made_up = Rotation { issued: false, ..rotation(b"x", b"4", 1_001) };
        assert_eq!(Hashes::first(b"1".into()).rotate(made_up), Exchange::Refused);
    }

    #[test]
    fn a_new_session_takes_no_empty_token() {
        // The service refuses hashes that are not 32 bytes; the empty `previous` must not be the only guard.
        assert_eq!(Hashes::first(b"1".into()).rotate(rotation(b"0", b"2", 1)), Exchange::Ended);
    }
}
