//! Keeps the order of the messages that a connection sends to a conversation when one of them is refused temporarily.
//!
//! The device retries such a message. Later messages that it had already sent must not overtake it. So a temporary refusal puts the
//! conversation on hold: further messages to it are refused as well, until the refused message arrives again, or until the device
//! has had the refusal for a while and can decide itself.

use crate::outbox::SendId;
use abi::{ApiError, ids::Conversation, v1::Send};
use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};
use tokio::time::Instant;

/// How long a conversation stays on hold after the refusal was written. It must exceed the round-trip time to a device, so that the
/// messages sent before the device got the refusal arrive during the hold. Time in which the gateway did not read doesn't count.
const HOLD: Duration = Duration::from_secs(1);
/// Most conversations on hold per connection. Beyond it the oldest hold is dropped, and its conversation may lose its order.
const MAX_HOLDS: usize = 64;

/// A send in flight. Ids are stored as hashes to save memory; a collision only causes an unnecessary refusal.
#[derive(Debug)]
struct InFlight {
    id: SendId,
    conversation: u64,
    message: u64,
}

/// A conversation on hold.
#[derive(Debug)]
struct Hold {
    conversation: u64,
    /// The first message that was refused, and its number.
    message: u64,
    number: u64,
    /// `None` until the refusal is written.
    until: Option<Instant>,
    error: ApiError,
}

/// The sends of one connection; see the module.
#[derive(Debug, Default)]
pub(super) struct SendOrder {
    sends: u64,
    in_flight: Vec<InFlight>,
    holds: Vec<Hold>,
}

fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A direct conversation has the same hash in either order of its users. An invalid id is refused permanently and
/// causes no hold.
fn hash_conversation(id: &str) -> u64 {
    Conversation::parse(id).map_or_else(|_| hash(id), hash)
}

impl SendOrder {
    /// Number of unanswered sends.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Whether a send with this request id is unanswered.
    pub(super) fn has_id(&self, id: u32) -> bool {
        self.in_flight.iter().any(|send| send.id.id == id)
    }

    /// Whether a conversation is on hold.
    pub(super) fn has_holds(&self) -> bool {
        !self.holds.is_empty()
    }

    /// Begins a send that was read at a time. It is in flight until [`Self::answered`].
    ///
    /// # Errors
    /// The conversation is on hold: the error of its refused message, with the remaining time.
    pub(super) fn begin(&mut self, id: u32, send: &Send, read_at: Instant) -> Result<SendId, ApiError> {
        let (conversation, message) = (hash_conversation(&send.conversation), hash(&send.client_msg_id));
        if !self.holds.is_empty() {
            self.holds.retain(|hold| hold.until.is_none_or(|until| until > read_at));
            if let Some(index) = self.holds.iter().position(|hold| hold.conversation == conversation) {
                let hold = &self.holds[index];
                let is_before =
                    |other: &InFlight| other.conversation == conversation && other.id.number < hold.number;
                if hold.message != message || self.in_flight.iter().any(is_before) {
                    let wait = hold.until.map_or(HOLD, |until| until - read_at);
                    return Err(ApiError { retry_after: Some(wait), ..hold.error.clone() });
                }
                self.holds.swap_remove(index);
            }
        }
        self.sends += 1;
        let id = SendId { id, number: self.sends };
        self.in_flight.push(InFlight { id, conversation, message });
        Ok(id)
    }

    /// Refuses a send in flight. A temporary error puts its conversation on hold. Calling it again changes nothing.
    pub(super) fn refused(&mut self, id: SendId, error: &ApiError) {
        let Some(send) = self.in_flight.iter().find(|send| send.id == id) else { return };
        if !error.code.is_retryable() {
            return;
        }
        let &InFlight { conversation, message, id: SendId { number, .. } } = send;
        if let Some(index) = self.holds.iter().position(|hold| hold.conversation == conversation) {
            if self.holds[index].number <= number {
                return;
            }
            self.holds.remove(index);
        } else if self.holds.len() == MAX_HOLDS {
            self.holds.remove(0);
        }
        self.holds.push(Hold { conversation, message, number, until: None, error: error.clone() });
    }

    /// Ends a send: its answer is written.
    pub(super) fn answered(&mut self, id: SendId) {
        if let Some(index) = self.in_flight.iter().position(|send| send.id == id) {
            self.in_flight.remove(index);
        }
        if self.in_flight.is_empty() {
            // Frees the allocation: most connections are idle.
            self.in_flight = Vec::new();
        }
    }

    /// Starts the time of the holds whose refusals are written.
    pub(super) fn start_holds(&mut self, now: Instant) {
        for hold in &mut self.holds {
            let is_answered = !self.in_flight.iter().any(|send| send.id.number == hold.number);
            if hold.until.is_none() && is_answered {
                hold.until = Some(now + HOLD);
            }
        }
    }

    /// Extends the running holds by a time in which the gateway did not read.
    pub(super) fn extend_holds(&mut self, time: Duration) {
        self.holds.iter_mut().filter_map(|hold| hold.until.as_mut()).for_each(|until| *until += time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::error::ErrorCode;

    fn send(conversation: &str, client_msg_id: &str) -> Send {
        let (conversation, client_msg_id) = (conversation.into(), client_msg_id.into());
        Send { conversation, client_msg_id, message: None }
    }

    fn id(id: u32) -> SendId {
        SendId { id, number: id.into() }
    }

    /// Two messages in flight to the conversation `c`, of which the first is refused.
    fn refused(now: Instant) -> SendOrder {
        let mut order = SendOrder::default();
        for (id, message) in [(1, "first"), (2, "second")] {
            order.begin(id, &send("c", message), now).unwrap();
        }
        order.refused(id(1), &ApiError::unavailable("not now"));
        order
    }

    #[test]
    fn p3_messages_after_a_refused_one_are_refused_until_it_is_retried() {
        let now = Instant::now();
        let mut order = refused(now);
        let error = order.begin(3, &send("c", "third"), now).unwrap_err();
        assert_eq!((error.code, error.retry_after), (ErrorCode::Unavailable, Some(HOLD)));
        order.begin(4, &send("another", "third"), now).unwrap();
        order.refused(id(2), &ApiError::unavailable("not now"));
        assert!(
            order.begin(5, &send("c", "second"), now).is_err(),
            "the first message must be retried first"
        );
        for message in ["first", "second", "third"] {
            order.begin(6, &send("c", message), now).unwrap();
        }
    }

    #[test]
    fn p3_a_direct_conversation_is_on_hold_in_either_order_of_its_users() {
        let now = Instant::now();
        let mut order = SendOrder::default();
        order.begin(1, &send("d:alice:bob", "first"), now).unwrap();
        order.refused(id(1), &ApiError::unavailable("not now"));
        order.answered(id(1));
        order.begin(2, &send("d:bob:alice", "second"), now).unwrap_err();
        order.begin(3, &send("d:bob:alice", "first"), now).unwrap();
    }

    #[test]
    fn p3_refusals_out_of_order_hold_for_the_earliest_message() {
        let now = Instant::now();
        let mut order = SendOrder::default();
        for (id, message) in [(1, "first"), (2, "second")] {
            order.begin(id, &send("c", message), now).unwrap();
        }
        order.refused(id(2), &ApiError::unavailable("no room"));
        order.answered(id(2));
        assert!(
            order.begin(3, &send("c", "second"), now).is_err(),
            "the outcome of the first message is unknown"
        );
        order.refused(id(1), &ApiError::unavailable("not now"));
        order.answered(id(1));
        assert!(order.begin(4, &send("c", "second"), now).is_err());
        for message in ["first", "second"] {
            order.begin(5, &send("c", message), now).unwrap();
        }
    }

    #[test]
    fn p3_the_hold_ends_after_the_device_has_received_the_refusal() {
        let now = Instant::now();
        let mut order = refused(now);
        assert!(
            order.begin(3, &send("c", "third"), now + HOLD * 9).is_err(),
            "the refusal is not written yet"
        );
        order.answered(id(1));
        order.start_holds(now + HOLD);
        assert!(order.begin(3, &send("c", "third"), now + HOLD * 3 / 2).is_err());
        order.begin(4, &send("c", "third"), now + HOLD * 2).unwrap();
    }

    #[test]
    fn p3_time_without_reading_extends_the_hold() {
        let now = Instant::now();
        let mut order = refused(now);
        order.answered(id(1));
        order.start_holds(now);
        order.extend_holds(HOLD * 5);
        assert!(order.begin(3, &send("c", "third"), now + HOLD * 5).is_err());
        order.begin(4, &send("c", "third"), now + HOLD * 6).unwrap();
    }

    #[test]
    fn a_permanent_refusal_causes_no_hold() {
        let now = Instant::now();
        let mut order = SendOrder::default();
        order.begin(1, &send("c", "first"), now).unwrap();
        order.refused(id(1), &ApiError::invalid("never"));
        order.begin(2, &send("c", "second"), now).unwrap();
    }

    #[test]
    fn p7_the_number_of_holds_is_limited() {
        let now = Instant::now();
        let mut order = SendOrder::default();
        for number in 0..1_000 {
            let sent = order.begin(number, &send(&number.to_string(), "x"), now).unwrap();
            order.refused(sent, &ApiError::unavailable("not now"));
            order.answered(sent);
        }
        assert_eq!((order.holds.len(), order.in_flight()), (MAX_HOLDS, 0));
    }
}
