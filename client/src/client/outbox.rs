//! What is sent and not yet acknowledged, and what may go out next.
//!
//! It knows no socket and no clock. Within a conversation the order of [`Outbox::push`] is the order on the wire: a
//! message that was refused for a while goes before everything of its conversation that comes after it.

use abi::v1::Send;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::{Duration, Instant},
};

/// A message on its way. Keys grow in the order of `push`.
#[derive(Debug)]
pub(crate) struct Item<R> {
    pub(crate) send: Send,
    pub(crate) reply: R,
    /// Refusals so far.
    pub(crate) attempts: u32,
    on_wire: bool,
}

/// The messages of one conversation.
#[derive(Debug, Default)]
struct Lane {
    keys: VecDeque<u64>,
    on_wire: usize,
    /// Its message among the ready ones.
    ready: Option<u64>,
    /// After a refusal nothing goes out before this,
    held_until: Option<Instant>,
    /// nor before all that is on the wire was answered: it may be refused as well.
    drains: bool,
}

/// All unacknowledged messages.
#[derive(Debug)]
pub(crate) struct Outbox<R> {
    items: BTreeMap<u64, Item<R>>,
    lanes: HashMap<String, Lane>,
    /// For every conversation that may send, its next message.
    ready: BTreeSet<u64>,
    held: BTreeMap<Instant, Vec<String>>,
    next_key: u64,
    on_wire: usize,
    per_conversation: usize,
}

impl<R> Outbox<R> {
    pub(crate) fn new(per_conversation: usize) -> Self {
        Self {
            items: BTreeMap::new(),
            lanes: HashMap::new(),
            ready: BTreeSet::new(),
            held: BTreeMap::new(),
            next_key: 0,
            on_wire: 0,
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
        self.lanes.entry(conversation.clone()).or_default().keys.push_back(key);
        self.items.insert(key, Item { send, reply, attempts: 0, on_wire: false });
        self.update(&conversation);
    }

    /// The next message to write, while fewer than `max` are on the wire.
    pub(crate) fn next(&mut self, max: usize) -> Option<(u64, &Send)> {
        if self.on_wire >= max.max(1) {
            return None;
        }
        let key = self.ready.pop_first()?;
        let item = self.items.get_mut(&key).expect("a ready key has its message");
        item.on_wire = true;
        self.on_wire += 1;
        let conversation = item.send.conversation.clone();
        self.lanes.get_mut(&conversation).expect("a message has its lane").on_wire += 1;
        self.update(&conversation);
        self.items.get(&key).map(|item| (key, &item.send))
    }

    /// A message was answered for good.
    pub(crate) fn finish(&mut self, key: u64) -> Option<Item<R>> {
        let item = self.items.remove(&key)?;
        let conversation = item.send.conversation.as_str();
        if let Some(lane) = self.lanes.get_mut(conversation) {
            lane.keys.retain(|other| *other != key);
            if item.on_wire {
                lane.on_wire -= 1;
                self.on_wire -= 1;
            }
        }
        self.ready.remove(&key);
        self.update(conversation);
        Some(item)
    }

    /// How often a message was refused.
    pub(crate) fn attempts(&self, key: u64) -> u32 {
        self.items.get(&key).map_or(0, |item| item.attempts)
    }

    /// A message was refused for now: it and all after it in its conversation wait for `pause`.
    pub(crate) fn retry(&mut self, key: u64, now: Instant, pause: Duration) {
        let Some(item) = self.items.get_mut(&key).filter(|item| item.on_wire) else { return };
        item.on_wire = false;
        item.attempts += 1;
        self.on_wire -= 1;
        let conversation = item.send.conversation.clone();
        let lane = self.lanes.get_mut(&conversation).expect("a message has its lane");
        lane.on_wire -= 1;
        lane.drains = true;
        let until = lane.held_until.map_or(now + pause, |until| until.max(now + pause));
        lane.held_until = Some(until);
        self.held.entry(until).or_default().push(conversation.clone());
        self.update(&conversation);
    }

    /// When a pause ends.
    pub(crate) fn wakes_at(&self) -> Option<Instant> {
        self.held.first_key_value().map(|(at, _)| *at)
    }

    /// Ends the pauses that are over.
    pub(crate) fn wake(&mut self, now: Instant) {
        while let Some(first) = self.held.first_entry().filter(|first| *first.key() <= now) {
            let (at, conversations) = first.remove_entry();
            for conversation in conversations {
                if let Some(lane) = self.lanes.get_mut(&conversation)
                    && lane.held_until == Some(at)
                {
                    lane.held_until = None;
                }
                self.update(&conversation);
            }
        }
    }

    /// The connection is gone: everything is to be sent again, in the order of `push`.
    pub(crate) fn reset(&mut self) {
        for item in self.items.values_mut() {
            item.on_wire = false;
        }
        self.on_wire = 0;
        self.held.clear();
        let conversations: Vec<String> = self.lanes.keys().cloned().collect();
        for conversation in conversations {
            if let Some(lane) = self.lanes.get_mut(&conversation) {
                lane.on_wire = 0;
                lane.held_until = None;
                lane.drains = false;
            }
            self.update(&conversation);
        }
    }

    /// Takes everything out, in order.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Item<R>> {
        self.lanes.clear();
        self.ready.clear();
        self.held.clear();
        self.on_wire = 0;
        std::mem::take(&mut self.items).into_values()
    }

    /// Puts a conversation's next message among the ready ones, or takes it out, as its lane is now.
    fn update(&mut self, conversation: &str) {
        let Some(lane) = self.lanes.get_mut(conversation) else { return };
        debug_assert!(lane.on_wire <= lane.keys.len(), "what is on the wire is not answered");
        if lane.keys.is_empty() {
            if lane.held_until.is_none() {
                self.lanes.remove(conversation);
            }
            return;
        }
        if lane.on_wire == 0 {
            lane.drains = false;
        }
        if let Some(key) = lane.ready.take() {
            self.ready.remove(&key);
        }
        if lane.held_until.is_none() && !lane.drains && lane.on_wire < self.per_conversation {
            // A refused message is found here before those that came after it.
            lane.ready = lane.keys.iter().find(|key| !self.items[key].on_wire).copied();
            self.ready.extend(lane.ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn send(conversation: &str, id: usize) -> Send {
        Send { conversation: conversation.into(), client_msg_id: id.to_string(), message: None }
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
        outbox.wake(now + Duration::from_secs(1));
        assert_eq!(id(outbox.next(64)).unwrap(), "0");
        outbox.finish(key);
        assert_eq!(id(outbox.next(64)).unwrap(), "1");
    }

    #[test]
    fn p3_after_a_lost_connection_all_go_again_in_their_order() {
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
    fn no_more_are_on_the_wire_than_the_server_takes() {
        let mut outbox = Outbox::new(64);
        for number in 0..9 {
            outbox.push(send("a", number), ());
        }
        assert_eq!(std::iter::from_fn(|| id(outbox.next(4))).count(), 4);
    }

    proptest! {
        #[test]
        fn p3_whatever_is_refused_each_conversation_is_accepted_in_order(
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
                outbox.wake(now);
                while let Some((key, send)) = outbox.next(2) { wire.push_back((key, send.clone())); }
                prop_assert!(wire.len() <= 2);
            }
            for _ in 0..=pushed {
                now += Duration::from_secs(1);
                outbox.wake(now);
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
