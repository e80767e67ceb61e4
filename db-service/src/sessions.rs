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

    /// The hashes after an exchange. `None`: the token is neither the current nor, shortly after an exchange, the
    /// previous one. Somebody has used a copy, nobody can say who, so the session has to end.
    pub(crate) fn rotate(self, rotation: Rotation) -> Option<Self> {
        let Rotation { presented, next, now_ms } = rotation;
        // Both comparisons are always made, so that time tells nothing.
        let is_current = bool::from(self.current.ct_eq(&presented));
        let is_previous = bool::from(self.previous.ct_eq(&presented));
        if is_current {
            return Some(Self { current: next, previous: presented, rotated_at_ms: now_ms });
        }
        // The time stays that of the first exchange: repeating it must not prolong the grace.
        (is_previous && now_ms - self.rotated_at_ms <= GRACE_MS).then_some(Self { current: next, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(presented: &[u8], next: &[u8], now_ms: i64) -> Rotation {
        Rotation { presented: presented.into(), next: next.into(), now_ms }
    }

    #[test]
    fn a_lost_answer_does_not_log_out_and_an_old_token_does() {
        let hashes = Hashes::first(b"1".into()).rotate(rotation(b"1", b"2", 1_000)).unwrap();
        let again = hashes.clone().rotate(rotation(b"1", b"3", 1_000 + GRACE_MS)).unwrap();
        assert_eq!(again, Hashes { current: b"3".into(), previous: b"1".into(), rotated_at_ms: 1_000 });
        assert_eq!(hashes.clone().rotate(rotation(b"1", b"3", 1_001 + GRACE_MS)), None);
        assert_eq!(again.rotate(rotation(b"2", b"4", 1_001)), None);
        assert_eq!(hashes.rotate(rotation(b"", b"4", 1_001)), None);
    }

    #[test]
    fn a_new_session_takes_no_empty_token() {
        // The service refuses hashes that are not 32 bytes; the empty `previous` must not be the only guard.
        assert_eq!(Hashes::first(b"1".into()).rotate(rotation(b"0", b"2", 1)), None);
    }
}
