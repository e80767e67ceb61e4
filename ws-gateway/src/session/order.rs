//! The order of what a connection sends to a conversation, through refusals.
//!
//! What was refused for now comes again, and what was sent behind it must not overtake it: its device did not know yet, and if the
//! connection ends before the answer is read, it never will. So such a refusal holds the conversation: what comes for it is refused as
//! well, until the refused message itself comes again, or the device has had the answer for a while.

use abi::{ApiError, ids::Conversation, v1::Send};
use std::{
    hash::{DefaultHasher, Hash, Hasher as _},
    time::Duration,
};
use tokio::time::Instant;

/// How long a conversation is held after the refusal was written: longer than an answer takes to a device, and what the device sent until
/// then takes to here. Time in which nothing was read does not count.
const HOLD: Duration = Duration::from_secs(1);
/// Most conversations that are held. A device that has more of them refused at once loses the order of the first ones.
const MAX_HELD: usize = 64;

/// A send on its way. Texts are kept as hashes: to take one for another costs a refusal that was not needed.
#[derive(Debug)]
struct Sending {
    id: u32,
    /// Counts the sends of the connection.
    number: u64,
    conversation: u64,
    message: u64,
}

#[derive(Debug)]
struct Held {
    conversation: u64,
    /// The first one that was refused.
    message: u64,
    number: u64,
    /// Unknown until the refusal is written.
    until: Option<Instant>,
    fault: ApiError,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Order {
    sends: u64,
    in_flight: Vec<Sending>,
    held: Vec<Held>,
}

fn hash(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

/// The users of a direct conversation may be written in either order. One that can't be read is refused for good, so it holds nothing.
fn hash_conversation(id: &str) -> u64 {
    Conversation::parse(id).map_or_else(|_| hash(id), hash)
}

impl Order {
    /// How many sends are unanswered.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// A send has come. It is in flight until [`Self::answered`].
    ///
    /// # Errors
    /// Why an earlier one of its conversation was refused, of which the device may not know yet, and how long to wait.
    pub(super) fn begin(&mut self, id: u32, send: &Send, now: Instant) -> Result<(), ApiError> {
        let (conversation, message) = (hash_conversation(&send.conversation), hash(&send.client_msg_id));
        if !self.held.is_empty() {
            self.held.retain(|held| held.until.is_none_or(|until| until > now));
            if let Some(place) = self.held.iter().position(|held| held.conversation == conversation) {
                let held = &self.held[place];
                let is_before =
                    |other: &Sending| other.conversation == conversation && other.number < held.number;
                if held.message != message || self.in_flight.iter().any(is_before) {
                    let wait = held.until.map_or(HOLD, |until| until - now);
                    return Err(ApiError { retry_after: Some(wait), ..held.fault.clone() });
                }
                self.held.swap_remove(place);
            }
        }
        self.sends += 1;
        self.in_flight.push(Sending { id, number: self.sends, conversation, message });
        Ok(())
    }

    /// A send in flight is refused. May be told again.
    pub(super) fn refused(&mut self, id: u32, fault: &ApiError) {
        let Some(sending) = self.in_flight.iter().find(|sending| sending.id == id) else { return };
        if !fault.code.is_retryable() {
            return;
        }
        let &Sending { conversation, message, number, .. } = sending;
        if let Some(place) = self.held.iter().position(|held| held.conversation == conversation) {
            if self.held[place].number <= number {
                return;
            }
            self.held.remove(place);
        } else if self.held.len() == MAX_HELD {
            self.held.remove(0);
        }
        self.held.push(Held { conversation, message, number, until: None, fault: fault.clone() });
    }

    /// Whether a conversation is held, so that [`Self::written`] and [`Self::was_busy`] matter.
    pub(super) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// All that was [`Self::answered`] is written.
    pub(super) fn written(&mut self, now: Instant) {
        for held in &mut self.held {
            let is_answered = !self.in_flight.iter().any(|sending| sending.number == held.number);
            if held.until.is_none() && is_answered {
                held.until = Some(now + HOLD);
            }
        }
    }

    /// Nothing was read for so long.
    pub(super) fn was_busy(&mut self, time: Duration) {
        self.held.iter_mut().filter_map(|held| held.until.as_mut()).for_each(|until| *until += time);
    }

    /// The answer to a send is being written.
    pub(super) fn answered(&mut self, id: u32) {
        if let Some(place) = self.in_flight.iter().position(|sending| sending.id == id) {
            self.in_flight.remove(place);
        }
        if self.in_flight.is_empty() {
            // Most connections are idle, and are to take no memory.
            self.in_flight = Vec::new();
        }
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

    /// Two that were sent to the conversation `c`, of which the first is refused.
    fn refused(now: Instant) -> Order {
        let mut order = Order::default();
        for (id, message) in [(1, "first"), (2, "second")] {
            order.begin(id, &send("c", message), now).unwrap();
        }
        order.refused(1, &ApiError::unavailable("not now"));
        order
    }

    #[test]
    fn p3_what_follows_a_refusal_waits_until_the_refused_message_comes_again() {
        let now = Instant::now();
        let mut order = refused(now);
        let fault = order.begin(3, &send("c", "third"), now).unwrap_err();
        assert_eq!((fault.code, fault.retry_after), (ErrorCode::Unavailable, Some(HOLD)));
        order.begin(4, &send("another", "third"), now).unwrap();
        order.refused(2, &ApiError::unavailable("not now"));
        assert!(order.begin(5, &send("c", "second"), now).is_err(), "the first one comes before it");
        for message in ["first", "second", "third"] {
            order.begin(6, &send("c", message), now).unwrap();
        }
    }

    #[test]
    fn p3_a_conversation_is_held_however_its_users_are_written() {
        let now = Instant::now();
        let mut order = Order::default();
        order.begin(1, &send("d:alice:bob", "first"), now).unwrap();
        order.refused(1, &ApiError::unavailable("not now"));
        order.answered(1);
        order.begin(2, &send("d:bob:alice", "second"), now).unwrap_err();
        order.begin(3, &send("d:bob:alice", "first"), now).unwrap();
    }

    #[test]
    fn p3_refusals_that_come_in_another_order_hold_the_first_message() {
        let now = Instant::now();
        let mut order = Order::default();
        for (id, message) in [(1, "first"), (2, "second")] {
            order.begin(id, &send("c", message), now).unwrap();
        }
        order.refused(2, &ApiError::unavailable("no room"));
        order.answered(2);
        assert!(order.begin(3, &send("c", "second"), now).is_err(), "what becomes of the first is not known");
        order.refused(1, &ApiError::unavailable("not now"));
        order.answered(1);
        assert!(order.begin(4, &send("c", "second"), now).is_err());
        for message in ["first", "second"] {
            order.begin(5, &send("c", message), now).unwrap();
        }
    }

    #[test]
    fn p3_a_device_that_has_had_the_answer_decides_itself() {
        let now = Instant::now();
        let mut order = refused(now);
        assert!(order.begin(3, &send("c", "third"), now + HOLD * 9).is_err(), "nothing is written yet");
        order.answered(1);
        order.written(now + HOLD);
        assert!(order.begin(3, &send("c", "third"), now + HOLD * 3 / 2).is_err());
        order.begin(4, &send("c", "third"), now + HOLD * 2).unwrap();
    }

    #[test]
    fn p3_what_was_sent_before_the_answer_is_held_however_late_it_is_read() {
        let now = Instant::now();
        let mut order = refused(now);
        order.answered(1);
        order.written(now);
        order.was_busy(HOLD * 5);
        assert!(order.begin(3, &send("c", "third"), now + HOLD * 5).is_err());
        order.begin(4, &send("c", "third"), now + HOLD * 6).unwrap();
    }

    #[test]
    fn what_is_refused_for_good_holds_nothing() {
        let now = Instant::now();
        let mut order = Order::default();
        order.begin(1, &send("c", "first"), now).unwrap();
        order.refused(1, &ApiError::invalid("never"));
        order.begin(2, &send("c", "second"), now).unwrap();
    }

    #[test]
    fn p7_what_is_held_is_remembered_within_a_bound() {
        let now = Instant::now();
        let mut order = Order::default();
        for number in 0..1_000 {
            order.begin(number, &send(&number.to_string(), "x"), now).unwrap();
            order.refused(number, &ApiError::unavailable("not now"));
            order.answered(number);
        }
        assert_eq!((order.held.len(), order.in_flight()), (MAX_HELD, 0));
    }
}
