//! A model of a server and a device, driven by random steps.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// A step of a random history.
#[derive(Clone, Debug)]
enum Step {
    /// Entries are stored and pushed in one frame. `copies` of the frame arrive, each ahead of `early` other frames.
    Post {
        conversations: Vec<u8>,
        copies: usize,
        early: usize,
    },
    /// A delivery without entries.
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
    /// The application takes entries.
    Take(usize),
}

enum Frame {
    Deliver(Deliver),
    Pong(Option<ReceiverSeq>),
    Answer(Request, Result<Answer, ApiError>),
}

enum Answer {
    Heads(HeadsPage),
    History(HistoryPage),
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const CAPACITY: usize = 2 * PAGE;

struct World {
    sync: Sync,
    heads: [u64; 3],
    now: ReceiverSeq,
    wire: VecDeque<Frame>,
    requests: VecDeque<Request>,
    capacity: usize,
    seen: [Vec<u64>; 3],
}

impl World {
    fn post(&mut self, conversations: &[u8], copies: usize, early: usize) {
        let mut entries = Vec::new();
        for index in conversations.iter().map(|index| usize::from(*index)) {
            self.heads[index] += 1;
            self.now.seq += 1;
            entries.push(entry(NAMES[index], self.heads[index]));
        }
        let raised = conversations.len() as u32;
        for _ in 0..copies {
            let frame = Deliver { receiver_seq: Some(self.now), raised, entries: entries.clone() };
            let place = self.wire.len().saturating_sub(early);
            self.wire.insert(place, Frame::Deliver(frame));
        }
    }

    fn answer(&mut self, fails: bool) {
        let Some(request) = self.requests.pop_front() else { return };
        let answer = match &request {
            _ if fails => Err(ApiError::unavailable("later")),
            Request::Heads { after } => {
                // Two per page.
                let known =
                    NAMES.iter().zip(self.heads).filter(|(name, head)| *head > 0 && **name > after.as_str());
                let mut heads: Vec<_> = known.map(|(name, seq)| head(name, seq, 1)).collect();
                let more = heads.len() > 2;
                heads.truncate(2);
                Ok(Answer::Heads(HeadsPage { heads, more }))
            }
            Request::History { conversation, after } => {
                let index = NAMES.iter().position(|name| name == conversation).unwrap();
                // Three per page.
                let seqs = (after + 1..=self.heads[index]).take(3);
                let entries: Vec<_> = seqs.map(|seq| entry(conversation, seq)).collect();
                let more = after + 3 < self.heads[index];
                Ok(Answer::History(HistoryPage { entries, more }))
            }
        };
        self.wire.push_back(Frame::Answer(request, answer));
    }

    fn read(&mut self) {
        let Some(frame) = self.wire.pop_front() else { return };
        let mut out = Vec::new();
        match frame {
            Frame::Deliver(deliver) => self.sync.on_deliver(deliver, self.capacity, &mut out),
            Frame::Pong(now) => self.sync.on_seq(now),
            Frame::Answer(request, Err(error)) => self.sync.on_failed(&request, &error),
            Frame::Answer(_, Ok(Answer::Heads(page))) => self.sync.on_heads(page),
            Frame::Answer(Request::History { conversation, .. }, Ok(Answer::History(page))) => {
                self.sync.on_history(&conversation, page, &mut out);
            }
            Frame::Answer(..) => unreachable!("an answer fits its request"),
        }
        assert!(out.len() <= self.capacity, "more entries than the capacity");
        self.capacity -= out.len();
        for entry in out {
            let index = NAMES.iter().position(|name| *name == entry.conversation).unwrap();
            self.seen[index].push(entry.conversation_seq);
        }
        self.send_requests();
    }

    fn send_requests(&mut self) {
        while let Some(request) = self.sync.next_request(self.capacity) {
            self.requests.push_back(request);
        }
        if let Some(have) = self.sync.advance() {
            let complete =
                NAMES.iter().enumerate().all(|(index, _)| self.seen[index].len() as u64 == self.heads[index]);
            let now = Have::from(self.now);
            assert!(have != now || complete, "have is ahead of the delivered entries");
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
            Step::Post { conversations, copies, early } => self.post(conversations, *copies, *early),
            Step::Notification => {
                self.now.seq += 1;
                let frame = Deliver { receiver_seq: Some(self.now), raised: 1, entries: Vec::new() };
                self.wire.push_back(Frame::Deliver(frame));
            }
            Step::NewEpoch => self.now = ReceiverSeq { epoch: self.now.epoch + 1, seq: 1 },
            Step::Reconnect => self.reconnect(),
            Step::Pong => self.wire.push_back(Frame::Pong(Some(self.now))),
            Step::Answer { fails } => self.answer(*fails),
            Step::Read => self.read(),
            Step::Take(entries) => {
                self.capacity = CAPACITY.min(self.capacity + entries);
                self.send_requests();
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let post = (proptest::collection::vec(0..3u8, 1..4), 0..3usize, 0..3usize)
        .prop_map(|(conversations, copies, early)| Step::Post { conversations, copies, early });
    let step = prop_oneof![
        6 => post,
        1 => Just(Step::Notification),
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Pong),
        5 => prop::bool::weighted(0.2).prop_map(|fails| Step::Answer { fails }),
        9 => Just(Step::Read),
        3 => (0..CAPACITY).prop_map(Step::Take),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn p5_despite_loss_duplicates_and_delays_each_entry_is_delivered_once_and_in_order(steps in steps(), capacity in 0..CAPACITY) {
        let mut world = World {
            sync: Sync::new(State::default(), Start::Beginning),
            heads: [0; 3],
            now: ReceiverSeq { epoch: 1, seq: 0 },
            wire: VecDeque::new(),
            requests: VecDeque::new(),
            capacity,
            seen: Default::default(),
        };
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
            }
        }
        for (seen, head) in world.seen.iter().zip(world.heads) {
            prop_assert_eq!(seen, &(1..=head).collect::<Vec<_>>());
        }
        prop_assert_eq!(world.sync.have(), Some(world.now));
        prop_assert!(world.sync.is_idle());
    }
}
