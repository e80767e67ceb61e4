//! A model of a server and a device, driven by random steps.

use super::*;
use crate::{Applied, apply, text};
use abi::{
    envelope,
    v1::{Blocks, EntryState},
};
use proptest::prelude::*;
use std::collections::VecDeque;

/// Something that is stored. The number is a conversation.
#[derive(Clone, Debug)]
enum Action {
    Message(usize),
    /// An edit of an earlier message, counted from the last one.
    Edit(usize, usize),
    /// The user leaves, or joins again.
    Membership(usize),
    /// The user blocks somebody.
    Block,
}

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Changes are stored and pushed in one frame. `copies` of the frame arrive, each ahead of `early` other frames.
    Store {
        actions: Vec<Action>,
        copies: usize,
        early: usize,
    },
    /// A delivery without entries, as after a retry.
    Notification,
    NewEpoch,
    Reconnect,
    Pong,
    /// The server answers a request, or fails it.
    Answer {
        fails: bool,
    },
    /// The device reads a frame.
    Read,
    /// A missing push is late.
    Overdue,
    /// The application takes changes.
    Take(usize),
}

enum Frame {
    Deliver(Deliver),
    Pong(Option<ReceiverSeq>),
    Answer(Request, Box<Result<Answer, ApiError>>),
}

enum Answer {
    Changes(Box<Changes>),
    History(HistoryPage),
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const CAPACITY: usize = 2 * PAGE;

fn index(conversation: &str) -> usize {
    NAMES.iter().position(|name| *name == conversation).unwrap()
}

/// A conversation in the store: entries with their current state, and which of them the user can see.
#[derive(Default)]
struct Stored {
    entries: Vec<Entry>,
    visible: Vec<bool>,
    is_member: bool,
    /// The user's receiver seq after the last change.
    changed_at: u64,
}

impl Stored {
    /// The visible entries after a number.
    fn after(&self, after: u64) -> impl Iterator<Item = &Entry> {
        let visible = self.entries.iter().zip(&self.visible).filter(|(_, visible)| **visible);
        visible.map(|(entry, _)| entry).filter(move |entry| entry.conversation_seq > after)
    }

    /// Stores an entry; returns it as it is delivered, if the user can see it.
    fn store(&mut self, name: &str, action: &Action) -> Option<Entry> {
        let seq = self.entries.len() as u64 + 1;
        let mut stored =
            Entry { message_id: format!("{name}{seq}"), kind: "message".into(), ..entry(name, seq) };
        stored.content = Some(text(seq.to_string()));
        let mut is_visible = self.is_member;
        match action {
            // The copies of a former member stay as they are.
            Action::Edit(..) if !self.is_member => return None,
            Action::Edit(_, back) => {
                let mut messages = self.entries.iter_mut().rev().filter(|entry| entry.kind == "message");
                let target = messages.nth(*back)?;
                stored.kind = envelope::EDIT.into();
                stored.refers_to.clone_from(&target.message_id);
                target.content.clone_from(&stored.content);
                let edits = target.state.as_ref().map_or(0, |state| state.edits) + 1;
                target.state = Some(EntryState { changed_seq: seq, edits, ..EntryState::default() });
                stored.target_state.clone_from(&target.state);
                let target = (target.conversation_seq - 1) as usize;
                // As in the consumer: without its target, a change is delivered as a notification. History has it.
                if !self.visible[target] {
                    self.visible.push(true);
                    self.entries.push(Entry { target_state: None, ..stored });
                    return None;
                }
            }
            Action::Membership(_) => {
                stored.kind = envelope::GROUP.into();
                is_visible = true;
                self.is_member = !self.is_member;
            }
            Action::Message(_) | Action::Block => {}
        }
        self.visible.push(is_visible);
        self.entries.push(Entry { target_state: None, ..stored.clone() });
        is_visible.then_some(stored)
    }

    fn head(&self, name: &str) -> Option<Head> {
        let first = self.after(0).next()?.conversation_seq;
        Some(head(name, self.after(0).last()?.conversation_seq, first))
    }
}

struct World {
    sync: Sync,
    stored: [Stored; 3],
    /// The number of the last block, and the receiver seq after it.
    blocked: (u64, u64),
    now: ReceiverSeq,
    wire: VecDeque<Frame>,
    requests: VecDeque<Request>,
    capacity: usize,
    /// The application's copies.
    seen: [Vec<Entry>; 3],
    seen_blocked: u64,
}

impl World {
    fn new(capacity: usize) -> Self {
        let mut stored: [Stored; 3] = Default::default();
        stored[0].is_member = true;
        stored[1].is_member = true;
        Self {
            sync: Sync::new(State::default(), Start::Beginning),
            stored,
            blocked: (0, 0),
            now: ReceiverSeq { epoch: 1, seq: 0 },
            wire: VecDeque::new(),
            requests: VecDeque::new(),
            capacity,
            seen: Default::default(),
            seen_blocked: 0,
        }
    }

    fn store(&mut self, actions: &[Action], copies: usize, early: usize) {
        let mut frame = Deliver::default();
        for action in actions {
            let (Action::Message(index) | Action::Edit(index, _) | Action::Membership(index)) = *action
            else {
                self.now.seq += 1;
                frame.raised += 1;
                self.blocked = (self.blocked.0 + 1, self.now.seq);
                frame.updates.push(update(&self.blocked.0.to_string()));
                continue;
            };
            let stored = &mut self.stored[index];
            let before = stored.after(0).count();
            frame.entries.extend(stored.store(NAMES[index], action));
            if stored.after(0).count() > before {
                self.now.seq += 1;
                frame.raised += 1;
                stored.changed_at = self.now.seq;
            }
        }
        frame.receiver_seq = Some(self.now);
        for _ in 0..copies {
            let place = self.wire.len().saturating_sub(early);
            self.wire.insert(place, Frame::Deliver(frame.clone()));
        }
    }

    /// The answer to a request for changes; of everything, a page has two heads. A cursor is `EPOCH:SEQ:NAME`.
    fn changes(&self, have: Option<ReceiverSeq>, cursor: &str) -> Changes {
        let since = have.filter(|have| have.epoch == self.now.epoch).map(|have| have.seq);
        let (now, after) = match cursor.split(':').collect::<Vec<_>>()[..] {
            [epoch, seq, after] => {
                (ReceiverSeq { epoch: epoch.parse().unwrap(), seq: seq.parse().unwrap() }, after)
            }
            _ => (self.now, ""),
        };
        let is_new = |changed_at: u64| since.is_none_or(|since| changed_at > since);
        let known = NAMES.iter().zip(&self.stored);
        let changed = known.filter(|(name, stored)| **name > after && is_new(stored.changed_at));
        let mut heads: Vec<Head> = changed.filter_map(|(name, stored)| stored.head(name)).collect();
        let more = since.is_none() && heads.len() > 2;
        if more {
            heads.truncate(2);
        }
        let next = heads.last().filter(|_| more).map(|last| &last.conversation);
        let blocks = Blocks { users: vec![self.blocked.0.to_string()], more: false };
        Changes {
            receiver_seq: Some(now),
            everything: since.is_none(),
            next: next.map_or_else(String::new, |next| format!("{}:{}:{next}", now.epoch, now.seq)),
            heads,
            blocks: Some(blocks).filter(|_| after.is_empty() && is_new(self.blocked.1)),
            profile: None,
        }
    }

    fn answer(&mut self, fails: bool) {
        let Some(request) = self.requests.pop_front() else { return };
        let answer = match &request {
            _ if fails => Err(ApiError::unavailable("later")),
            Request::Changes { have, cursor } => Ok(Answer::Changes(Box::new(self.changes(*have, cursor)))),
            Request::History { conversation, after } => {
                // Three per page.
                let stored = &self.stored[index(conversation)];
                let entries: Vec<_> = stored.after(*after).take(3).cloned().collect();
                let more = stored.after(*after).count() > 3;
                Ok(Answer::History(HistoryPage { entries, more }))
            }
        };
        self.wire.push_back(Frame::Answer(request, Box::new(answer)));
    }

    fn read(&mut self) {
        let Some(frame) = self.wire.pop_front() else { return };
        let mut out = Vec::new();
        match frame {
            Frame::Deliver(deliver) => self.sync.on_deliver(deliver, self.capacity, &mut out),
            Frame::Pong(now) => self.sync.on_seq(now),
            Frame::Answer(request, answer) => match (&request, *answer) {
                (_, Err(error)) => self.sync.on_failed(&request, &error),
                (_, Ok(Answer::Changes(page))) => self.sync.on_changes(*page, self.capacity, &mut out),
                (Request::History { conversation, .. }, Ok(Answer::History(page))) => {
                    self.sync.on_history(conversation, page, &mut out);
                }
                _ => unreachable!("an answer fits its request"),
            },
        }
        assert!(out.len() <= self.capacity, "more changes than the capacity");
        self.capacity -= out.len();
        for change in out {
            self.show(change);
        }
        self.send_requests();
    }

    /// The application applies a change to its copies.
    fn show(&mut self, change: Change) {
        let number = |user: &String| user.parse().unwrap();
        match change {
            Change::Update(update) => match update.kind {
                Some(update::Kind::Block(block)) => self.seen_blocked = number(&block.user),
                other => panic!("not a block: {other:?}"),
            },
            Change::Changes(page) => {
                let blocks = page.blocks.iter().flat_map(|blocks| &blocks.users);
                self.seen_blocked = blocks.map(number).next().unwrap_or(self.seen_blocked);
            }
            Change::Entry(entry) => {
                let index = index(&entry.conversation);
                for copy in &mut self.seen[index] {
                    if apply(&entry, copy, "alice") == Applied::Incomplete {
                        *copy = self.stored[index].entries[copy.conversation_seq as usize - 1].clone();
                    }
                }
                self.seen[index].push(*entry);
            }
        }
    }

    /// Whether the application has what the server has.
    fn check(&self) -> Result<(), TestCaseError> {
        for (seen, stored) in self.seen.iter().zip(&self.stored) {
            let seqs = |entries: &mut dyn Iterator<Item = &Entry>| -> Vec<u64> {
                entries.map(|entry| entry.conversation_seq).collect()
            };
            prop_assert_eq!(seqs(&mut seen.iter()), seqs(&mut stored.after(0)));
            for (copy, stored) in seen.iter().zip(stored.after(0)) {
                prop_assert_eq!((&copy.content, &copy.state), (&stored.content, &stored.state));
            }
        }
        prop_assert_eq!(self.seen_blocked, self.blocked.0);
        Ok(())
    }

    fn send_requests(&mut self) {
        while let Some(request) = self.sync.next_request(self.capacity) {
            self.requests.push_back(request);
        }
        if let Some(have) = self.sync.advance()
            && have == Have::from(self.now)
        {
            self.check().expect("have is ahead of what the application got");
        }
    }

    fn reconnect(&mut self) {
        self.wire.clear();
        self.requests.clear();
        self.sync.on_welcome(Some(self.now));
        self.send_requests();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Store { actions, copies, early } => self.store(actions, *copies, *early),
            Step::Notification => {
                self.now.seq += 1;
                let frame = Deliver { receiver_seq: Some(self.now), raised: 1, ..Deliver::default() };
                self.wire.push_back(Frame::Deliver(frame));
            }
            Step::NewEpoch => {
                self.now = ReceiverSeq { epoch: self.now.epoch + 1, seq: 1 };
                self.stored.iter_mut().for_each(|stored| stored.changed_at = 0);
                self.blocked.1 = 0;
            }
            Step::Reconnect => self.reconnect(),
            Step::Pong => self.wire.push_back(Frame::Pong(Some(self.now))),
            Step::Answer { fails } => self.answer(*fails),
            Step::Read => self.read(),
            Step::Overdue => {
                self.sync.on_overdue();
                self.send_requests();
            }
            Step::Take(changes) => {
                self.capacity = CAPACITY.min(self.capacity + changes);
                self.send_requests();
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let action = prop_oneof![
        6 => (0..3usize).prop_map(Action::Message),
        3 => (0..3usize, 0..4usize).prop_map(|(index, back)| Action::Edit(index, back)),
        1 => (0..3usize).prop_map(Action::Membership),
        2 => Just(Action::Block),
    ];
    let store = (proptest::collection::vec(action, 1..4), 0..3usize, 0..3usize)
        .prop_map(|(actions, copies, early)| Step::Store { actions, copies, early });
    let step = prop_oneof![
        6 => store,
        1 => Just(Step::Notification),
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Pong),
        5 => prop::bool::weighted(0.2).prop_map(|fails| Step::Answer { fails }),
        9 => Just(Step::Read),
        2 => Just(Step::Overdue),
        3 => (0..CAPACITY).prop_map(Step::Take),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn p5_despite_loss_duplicates_and_delays_the_application_gets_every_change_once_and_in_order(
        steps in steps(),
        capacity in 0..CAPACITY,
    ) {
        let mut world = World::new(capacity);
        world.reconnect();
        for step in &steps {
            world.step(step);
        }
        for _ in 0..300 {
            world.step(&Step::Take(CAPACITY));
            world.step(&Step::Answer { fails: false });
            world.step(&Step::Read);
            if world.wire.is_empty() && world.requests.is_empty() {
                world.step(&Step::Pong);
                world.step(&Step::Read);
                world.step(&Step::Overdue);
            }
        }
        world.check()?;
        prop_assert_eq!(world.sync.have(), Some(world.now));
        prop_assert!(world.sync.is_idle());
    }
}
