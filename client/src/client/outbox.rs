//! Unacknowledged messages, and which of them to send next.
//!
//! The outbox uses neither a socket nor a clock. Messages of one conversation go out in the order of [`Outbox::push`]:
//! a message that was refused temporarily is sent again before the later messages of its conversation.

use abi::v1::Send;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// An unacknowledged message. Keys grow in the order of `push`.
#[derive(Debug)]
pub(crate) struct Item<R> {
    pub(crate) send: Send,
    pub(crate) reply: R,
    /// Number of temporary refusals.
    pub(crate) attempts: u32,
    in_flight: bool,
}

/// The messages of one conversation.
#[derive(Debug, Default)]
struct ConversationQueue {
    keys: VecDeque<u64>,
    in_flight: usize,
    /// Its message in [`Outbox::ready`].
    ready: Option<u64>,
    /// After a refusal, no message goes out before this time.
    paused_until: Option<Instant>,
    /// After a refusal, no message goes out before all messages in flight are answered: they may be refused as well.
    is_draining: bool,
}

/// All unacknowledged messages.
#[derive(Debug)]
pub(crate) struct Outbox<R> {
    items: BTreeMap<u64, Item<R>>,
    queues: HashMap<String, ConversationQueue>,
    /// The next message of every conversation that may send.
    ready: BTreeSet<u64>,
    /// Conversations by the end of their pause.
    pauses: BTreeMap<Instant, Vec<String>>,
    next_key: u64,
    in_flight: usize,
    per_conversation: usize,
}

impl<R> Outbox<R> {
    pub(crate) fn new(per_conversation: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            queues: HashMap::new(),
            ready: BTreeSet::new(),
            pauses: BTreeMap::new(),
            next_key: 0,
            in_flight: 0,
            per_conversation: per_conversation.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.items.len()
    }

    pub(crate) fn push(&mut self, send: Send, reply: R) {
        let key = self.next_key;
        self.next_key += 1;
        let conversation = send.conversation.clone();
        self.queues.entry(conversation.clone()).or_default().keys.push_back(key);
        self.items.insert(key, Item { send, reply, attempts: 0, in_flight: false });
        self.update(&conversation);
    }

    /// The next message to write, if fewer than `max` are in flight.
    pub(crate) fn next(&mut self, max: usize) -> Option<(u64, &Send)> {
        if self.in_flight >= max.max(1) {
            return None;
        }
        let key = self.ready.pop_first()?;
        let item = self.items.get_mut(&key).expect("a ready key has a message");
        item.in_flight = true;
        self.in_flight += 1;
        let conversation = item.send.conversation.clone();
        self.queues.get_mut(&conversation).expect("a message has a queue").in_flight += 1;
        self.update(&conversation);
        self.items.get(&key).map(|item| (key, &item.send))
    }

    /// A message was acknowledged or refused permanently.
    pub(crate) fn finish(&mut self, key: u64) -> Option<Item<R>> {
        let item = self.items.remove(&key)?;
        let conversation = item.send.conversation.as_str();
        if let Some(queue) = self.queues.get_mut(conversation) {
            queue.keys.retain(|other| *other != key);
            if item.in_flight {
                queue.in_flight -= 1;
                self.in_flight -= 1;
            }
        }
        self.ready.remove(&key);
        self.update(conversation);
        Some(item)
    }

    /// How often a message was refused temporarily.
    pub(crate) fn attempts(&self, key: u64) -> u32 {
        self.items.get(&key).map_or(0, |item| item.attempts)
    }

    /// A message was refused temporarily. It and all later messages of its conversation wait for `pause`.
    pub(crate) fn retry(&mut self, key: u64, now: Instant, pause: Duration) {
        let Some(item) = self.items.get_mut(&key).filter(|item| item.in_flight) else { return };
        item.in_flight = false;
        item.attempts += 1;
        self.in_flight -= 1;
        let conversation = item.send.conversation.clone();
        let queue = self.queues.get_mut(&conversation).expect("a message has a queue");
        queue.in_flight -= 1;
        queue.is_draining = true;
        let until = queue.paused_until.map_or(now + pause, |until| until.max(now + pause));
        queue.paused_until = Some(until);
        self.pauses.entry(until).or_default().push(conversation.clone());
        self.update(&conversation);
    }

    /// When the next pause ends.
    pub(crate) fn next_resume(&self) -> Option<Instant> {
        self.pauses.first_key_value().map(|(at, _)| *at)
    }

    /// Resumes the conversations whose pause is over.
    pub(crate) fn resume(&mut self, now: Instant) {
        while let Some(first) = self.pauses.first_entry().filter(|first| *first.key() <= now) {
            let (at, conversations) = first.remove_entry();
            for conversation in conversations {
                if let Some(queue) = self.queues.get_mut(&conversation)
                    && queue.paused_until == Some(at)
                {
                    queue.paused_until = None;
                }
                self.update(&conversation);
            }
        }
    }

    /// The connection was lost: all messages are sent again, in the order of `push`.
    pub(crate) fn reset(&mut self) {
        for item in self.items.values_mut() {
            item.in_flight = false;
        }
        self.in_flight = 0;
        self.pauses.clear();
        let conversations: Vec<String> = self.queues.keys().cloned().collect();
        for conversation in conversations {
            if let Some(queue) = self.queues.get_mut(&conversation) {
                queue.in_flight = 0;
                queue.paused_until = None;
                queue.is_draining = false;
            }
            self.update(&conversation);
        }
    }

    /// Removes all messages, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Item<R>> {
        self.queues.clear();
        self.ready.clear();
        self.pauses.clear();
        self.in_flight = 0;
        std::mem::take(&mut self.items).into_values()
    }

    /// Updates the conversation's message in `ready` after a change of its queue.
    fn update(&mut self, conversation: &str) {
        let Some(queue) = self.queues.get_mut(conversation) else { return };
        debug_assert!(queue.in_flight <= queue.keys.len(), "messages in flight are in the queue");
        if queue.keys.is_empty() {
            if queue.paused_until.is_none() {
                self.queues.remove(conversation);
            }
            return;
        }
        if queue.in_flight == 0 {
            queue.is_draining = false;
        }
        if let Some(key) = queue.ready.take() {
            self.ready.remove(&key);
        }
        if queue.paused_until.is_none() && !queue.is_draining && queue.in_flight < self.per_conversation {
            // The search starts at the oldest message, so a refused one goes before later ones.
            queue.ready = queue.keys.iter().find(|key| !self.items[key].in_flight).copied();
            self.ready.extend(queue.ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(conversation: &str, id: usize) -> Send {
        Send { conversation: conversation.into(), client_msg_id: id.to_string(), ..Send::default() }
    }

    fn id(next: Option<(u64, &Send)>) -> Option<String> {
        next.map(|(_, send)| send.client_msg_id.clone())
    }

    #[test]
    fn p3_a_refused_message_is_not_overtaken_by_a_later_one() {
        let now = Instant::now();
        let mut outbox = Outbox::new(1);
        for number in 0..3 {
            outbox.push(send("a", number), ());
        }
        outbox.push(send("b", 9), ());
        let key = outbox.next(64).unwrap().0;
        assert_eq!(id(outbox.next(64)).unwrap(), "9", "another conversation does not wait");
        outbox.retry(key, now, Duration::from_secs(1));
        assert_eq!(id(outbox.next(64)), None);
        outbox.resume(now + Duration::from_secs(1));
        assert_eq!(id(outbox.next(64)).unwrap(), "0");
        outbox.finish(key);
        assert_eq!(id(outbox.next(64)).unwrap(), "1");
    }

    #[test]
    fn p3_after_a_lost_connection_all_messages_are_sent_again_in_order() {
        let mut outbox = Outbox::new(64);
        for number in 0..6 {
            outbox.push(send(["a", "b"][number % 2], number), ());
        }
        let first = outbox.next(3).unwrap().0;
        while outbox.next(3).is_some() {}
        outbox.finish(first);
        outbox.reset();
        let order: Vec<_> = std::iter::from_fn(|| id(outbox.next(64))).collect();
        assert_eq!(order, ["1", "2", "3", "4", "5"]);
    }

    #[test]
    fn no_more_messages_are_in_flight_than_the_server_accepts() {
        let mut outbox = Outbox::new(64);
        for number in 0..9 {
            outbox.push(send("a", number), ());
        }
        assert_eq!(std::iter::from_fn(|| id(outbox.next(4))).count(), 4);
    }

    proptest! {
        #[test]
        fn p3_despite_refusals_each_conversation_is_accepted_in_order(
            events in proptest::collection::vec((0..4usize, 0..3usize), 0..200),
        ) {
            let names = ["a", "b", "c"];
            let mut now = Instant::now();
            let mut outbox = Outbox::new(1);
            let (mut wire, mut accepted, mut pushed) = (VecDeque::new(), Vec::new(), 0);
            for (event, which) in events {
                match event {
                    0 => { outbox.push(send(names[which], pushed), ()); pushed += 1; }
                    1 => if let Some((key, _)) = wire.pop_front() {
                        outbox.retry(key, now, Duration::from_millis(10 * which as u64));
                    },
                    2 => if let Some((key, send)) = wire.pop_front() { outbox.finish(key); accepted.push(send); },
                    _ => { wire.clear(); outbox.reset(); }
                }
                now += Duration::from_millis(3);
                outbox.resume(now);
                while let Some((key, send)) = outbox.next(2) { wire.push_back((key, send.clone())); }
                prop_assert!(wire.len() <= 2);
            }
            for _ in 0..=pushed {
                now += Duration::from_secs(1);
                outbox.resume(now);
                while let Some((key, send)) = outbox.next(2) { wire.push_back((key, send.clone())); }
                while let Some((key, send)) = wire.pop_front() { outbox.finish(key); accepted.push(send); }
            }
            prop_assert_eq!(accepted.len(), pushed);
            prop_assert_eq!(outbox.len(), 0);
            for name in names {
                let order: Vec<usize> = accepted.iter().filter(|send| send.conversation == name)
                    .map(|send| send.client_msg_id.parse().unwrap()).collect();
                prop_assert!(order.is_sorted());
            }
        }
    }
}
