//! The signals that were sent just now.

use abi::v1::{Signal, signal::Kind};
use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// For this long a repetition is dropped. Clients say several times a second that their user is typing.
const INTERVAL: Duration = Duration::from_secs(1);
/// Most signals that are remembered. When the map is full it is cleared.
const MAX_SIGNALS: usize = 10_000;

/// When each state was signalled last, by a hash of conversation, user and state.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<HashMap<u64, Instant>>);

impl Recent {
    /// Whether the same signal was sent less than a second ago.
    pub(super) fn is_repetition(&self, signal: &Signal) -> bool {
        key(signal).is_some_and(|key| self.sent().get(&key).is_some_and(|at| at.elapsed() < INTERVAL))
    }

    /// Remembers a signal that is allowed. A refused one is not remembered: it must be refused again.
    pub(super) fn remember(&self, signal: &Signal) {
        let Some(key) = key(signal) else { return };
        let mut sent = self.sent();
        if sent.len() >= MAX_SIGNALS {
            sent.clear();
        }
        sent.insert(key, Instant::now());
    }

    fn sent(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A hash of conversation, user and state. `None`: the signal describes no state, so it can't be a repetition.
fn key(signal: &Signal) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    (&signal.conversation, &signal.user).hash(&mut hasher);
    match &signal.kind {
        Some(Kind::Typing(typing)) => typing.stopped.hash(&mut hasher),
        Some(Kind::Delivered(delivered)) => (2u8, delivered.conversation_seq).hash(&mut hasher),
        _ => return None,
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::v1::{CustomSignal, Typing};

    fn typing(user: &str, stopped: bool) -> Signal {
        let kind = Some(Kind::Typing(Typing { stopped }));
        Signal { conversation: "g:1".into(), user: user.into(), kind }
    }

    #[tokio::test(start_paused = true)]
    async fn p7_the_same_state_is_signalled_once_per_second() {
        let recent = Recent::default();
        recent.remember(&typing("alice", false));
        assert!(recent.is_repetition(&typing("alice", false)));
        assert!(!recent.is_repetition(&typing("alice", true)));
        assert!(!recent.is_repetition(&typing("bob", false)));
        tokio::time::advance(INTERVAL).await;
        assert!(!recent.is_repetition(&typing("alice", false)));
    }

    #[tokio::test]
    async fn p8_a_signal_that_was_not_remembered_is_checked_again() {
        let recent = Recent::default();
        assert!(!recent.is_repetition(&typing("alice", false)));
        assert!(!recent.is_repetition(&typing("alice", false)));
    }

    #[tokio::test]
    async fn signals_of_the_product_are_never_repetitions() {
        let recent = Recent::default();
        let kind = Some(Kind::Custom(CustomSignal { kind: "acme.call".into(), ..CustomSignal::default() }));
        let signal = Signal { conversation: "g:1".into(), user: "alice".into(), kind };
        recent.remember(&signal);
        assert!(!recent.is_repetition(&signal));
    }
}
