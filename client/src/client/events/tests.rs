use super::*;
use crate::sync::{Request, Start};
use abi::v1::{Block, Blocks, Deliver, Head, HistoryPage, ReceiverSeq, update::Kind};
use futures_util::FutureExt as _;
use proptest::prelude::*;
use std::collections::VecDeque;

const NAMES: [&str; 2] = ["a", "b"];

/// A step of a random history of a server, a device and a slow application.
#[derive(Clone, Debug)]
enum Step {
    /// Entries are stored and pushed; with `gap`, only the last one is pushed.
    Post { conversation: usize, entries: u64, gap: bool },
    /// Signals of other users.
    Signals(usize),
    /// The user's own state changes. A restart may find the change twice.
    Update { is_lost: bool },
    /// The server answers a request.
    Answer,
    /// The device reads frames.
    Read(usize),
    /// The application takes events.
    Take(usize),
    /// A missing push is late.
    Overdue,
    /// The program restarts with its saved state.
    Restart,
}

enum Frame {
    Deliver(Deliver),
    Signal,
    Changes(Changes),
    History(String, HistoryPage),
}

struct Device {
    sync: Sync,
    sender: EventSender,
    events: Events,
}

impl Device {
    fn new(state: State, now: ReceiverSeq) -> Self {
        let mut sync = Sync::new(state.clone(), Start::Beginning);
        sync.on_welcome(Some(now));
        let (sender, events) = channel(0, Arc::new(Mutex::new(state)));
        Self { sync, sender, events }
    }

    fn read(&mut self, frame: Frame) {
        let Self { sync, sender, .. } = self;
        match frame {
            Frame::Deliver(deliver) => {
                let capacity = sender.capacity();
                sender.update(sync, |sync, slots| sync.on_deliver(deliver, capacity, slots));
            }
            Frame::Signal => sender.signal(Signal::default(), sync),
            Frame::Changes(page) => {
                let capacity = sender.capacity();
                sender.update(sync, |sync, slots| sync.on_changes(page, capacity, slots));
            }
            Frame::History(conversation, page) => {
                sender.update(sync, |sync, slots| sync.on_history(&conversation, page, slots));
            }
        }
    }
}

struct World {
    device: Device,
    heads: [u64; 2],
    now: ReceiverSeq,
    wire: VecDeque<Frame>,
    requests: VecDeque<Request>,
    seen: [Vec<u64>; 2],
    /// The last receiver seq of a change of the user's own state that the server has, and that the application has.
    updated: (u64, u64),
}

impl World {
    fn new() -> Self {
        let now = ReceiverSeq { epoch: 1, seq: 0 };
        Self {
            device: Device::new(State::default(), now),
            heads: [0; 2],
            now,
            wire: VecDeque::new(),
            requests: VecDeque::new(),
            seen: Default::default(),
            updated: (0, 0),
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Post { conversation, entries, gap } => {
                let first = self.heads[conversation] + 1;
                self.heads[conversation] += entries;
                self.now.seq += entries;
                let last = self.heads[conversation];
                let seqs = if gap { last..=last } else { first..=last };
                self.wire.push_back(Frame::Deliver(Deliver {
                    receiver_seq: Some(self.now),
                    raised: entries as u32,
                    entries: seqs.map(|seq| entry(conversation, seq)).collect(),
                    updates: Vec::new(),
                }));
            }
            Step::Signals(count) => self.wire.extend((0..count).map(|_| Frame::Signal)),
            Step::Update { is_lost } => {
                self.now.seq += 1;
                self.updated.0 = self.now.seq;
                let frame = Deliver {
                    receiver_seq: Some(self.now),
                    raised: 1,
                    entries: Vec::new(),
                    updates: vec![Update { kind: Some(Kind::Block(block(self.now.seq))) }],
                };
                self.wire.extend((!is_lost).then_some(Frame::Deliver(frame)));
            }
            Step::Answer => {
                let answer = self.requests.pop_front().map(|request| self.answer(request));
                self.wire.extend(answer);
            }
            Step::Read(count) => {
                for frame in self.wire.drain(..count.min(self.wire.len())) {
                    self.device.read(frame);
                }
            }
            Step::Take(count) => self.take(count),
            Step::Overdue => self.device.sync.on_overdue(),
            Step::Restart => {
                (self.wire, self.requests) = Default::default();
                self.device = Device::new(self.saved(), self.now);
            }
        }
        let Device { sync, sender, .. } = &mut self.device;
        sender.update(sync, |_, _| {});
        self.requests.extend(std::iter::from_fn(|| sync.next_request(sender.capacity())));
    }

    /// The state that the application has saved.
    fn saved(&self) -> State {
        self.device.events.state.lock().unwrap().clone()
    }

    fn answer(&self, request: Request) -> Frame {
        match request {
            Request::Changes { .. } => {
                let head = |(name, seq): (&&str, &u64)| Head {
                    conversation: (*name).into(),
                    conversation_seq: *seq,
                    visible_from: 1,
                    ..Head::default()
                };
                Frame::Changes(Changes {
                    receiver_seq: Some(self.now),
                    heads: NAMES.iter().zip(&self.heads).map(head).collect(),
                    blocks: Some(Blocks { users: vec![block(self.updated.0).user], more: false }),
                    ..Changes::default()
                })
            }
            Request::History { conversation, after } => {
                let index = NAMES.iter().position(|name| *name == conversation).unwrap();
                let last = self.heads[index].min(after + sync::PAGE as u64);
                let entries = (after + 1..=last).map(|seq| entry(index, seq)).collect();
                let more = last < self.heads[index];
                Frame::History(conversation, HistoryPage { entries, more })
            }
        }
    }

    fn take(&mut self, count: usize) {
        for _ in 0..count {
            let Some(event) = self.device.events.next().now_or_never() else { break };
            match event {
                Some(Event::Entry(entry)) => {
                    let index = NAMES.iter().position(|name| *name == entry.conversation).unwrap();
                    self.seen[index].push(entry.conversation_seq);
                }
                Some(Event::Update(update)) => match update.kind {
                    Some(Kind::Block(block)) => self.updated.1 = block.user.parse().unwrap(),
                    other => panic!("not a block: {other:?}"),
                },
                Some(Event::Changes(page)) => self.updated.1 = page.blocks.unwrap().users[0].parse().unwrap(),
                _ => {}
            }
        }
    }
}

/// A block that tells when it was made.
fn block(seq: u64) -> Block {
    Block { user: seq.to_string(), blocked: true }
}

fn entry(conversation: usize, seq: u64) -> Entry {
    Entry { conversation: NAMES[conversation].into(), conversation_seq: seq, ..Entry::default() }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let post = (0..2usize, 1..150u64, any::<bool>()).prop_map(|(conversation, entries, gap)| Step::Post {
        conversation,
        entries,
        gap,
    });
    let step = prop_oneof![
        4 => post,
        3 => (1..60usize).prop_map(Step::Signals),
        2 => any::<bool>().prop_map(|is_lost| Step::Update { is_lost }),
        1 => Just(Step::Overdue),
        6 => Just(Step::Answer),
        8 => (1..60usize).prop_map(Step::Read),
        2 => (1..150usize).prop_map(Step::Take),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 0..150)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn p1_p5_a_slow_application_gets_each_entry_once_and_the_last_state_across_restarts(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        let mut rounds = 0;
        while world.saved().have != Some(world.now.into()) || !world.wire.is_empty() {
            world.step(&Step::Answer);
            world.step(&Step::Read(1));
            world.step(&Step::Take(usize::MAX));
            if world.wire.is_empty() {
                let now = Some(world.now);
                world.device.sync.on_seq(now);
                world.step(&Step::Overdue);
            }
            rounds += 1;
            prop_assert!(rounds < 20_000, "it never catches up");
        }
        for (seen, head) in world.seen.iter().zip(world.heads) {
            prop_assert_eq!(seen, &(1..=head).collect::<Vec<_>>());
        }
        prop_assert_eq!(world.updated.0, world.updated.1);
    }
}

#[test]
fn an_entry_without_a_slot_moves_no_position() {
    let now = ReceiverSeq { epoch: 1, seq: 0 };
    let mut device = Device::new(State { have: Some(now.into()), ..State::default() }, now);
    let deliver = Deliver {
        receiver_seq: Some(ReceiverSeq { epoch: 1, seq: 8 }),
        raised: 8,
        entries: (2..=9).map(|seq| entry(0, seq)).collect(),
        updates: Vec::new(),
    };
    device.read(Frame::Deliver(deliver));
    let request = device.sync.next_request(device.sender.capacity());
    assert_eq!(request, Some(Request::History { conversation: "a".into(), after: 0 }));
    while device.sender.items.capacity() > 3 {
        device.sender.event(Event::CaughtUp);
    }
    let entries = (1..=9).map(|seq| entry(0, seq)).collect();
    device.read(Frame::History("a".into(), HistoryPage { entries, more: false }));
    assert_eq!(device.sync.position("a"), Some(3));
}

#[test]
fn p1_p5_a_restart_during_a_generation_change_misses_no_entry() {
    for kept_seq in [3, 0] {
        let now = ReceiverSeq { epoch: 1, seq: 10 };
        let state = State {
            have: Some(now.into()),
            positions: [("a".to_owned(), 5)].into_iter().collect(),
            ..State::default()
        };
        let mut device = Device::new(state, now);
        device.sync.on_generation(7, 0);
        device.sync.on_welcome(Some(now));
        assert!(matches!(device.sync.next_request(1_000), Some(Request::Changes { .. })));
        let head = Head {
            conversation: "a".into(),
            conversation_seq: 6,
            kept_seq,
            visible_from: 1,
            ..Head::default()
        };
        let changes =
            Changes { receiver_seq: Some(now), everything: true, heads: vec![head], ..Changes::default() };
        device.read(Frame::Changes(changes.clone()));
        assert!(matches!(device.events.next().now_or_never(), Some(Some(Event::Changes(_)))));
        assert!(matches!(device.events.next().now_or_never(), Some(Some(Event::Restored { .. }))));
        assert!(device.events.next().now_or_never().is_none());
        let saved = device.events.state.lock().unwrap().clone();

        // The receiver seq is unchanged, but the entries after the kept ones are still missing.
        let mut sync = Sync::new(saved, Start::Now);
        sync.on_generation(7, 0);
        sync.on_welcome(Some(now));
        assert!(
            matches!(sync.next_request(1_000), Some(Request::Changes { .. })),
            "it does not notice that entries are missing"
        );
        sync.on_changes(changes, 1_000, &mut Vec::new());
        assert_eq!(
            sync.next_request(1_000),
            Some(Request::History { conversation: "a".into(), after: kept_seq })
        );
        let entries = (kept_seq + 1..=6).map(|seq| entry(0, seq)).collect();
        let page = HistoryPage { entries, more: false };
        sync.on_history("a", page.clone(), &mut Vec::new());
        assert_eq!(sync.advance(), Some(now.into()));

        // The first device continues and becomes complete, too.
        assert!(matches!(device.sync.next_request(1_000), Some(Request::History { .. })));
        device.read(Frame::History("a".into(), page));
        while device.events.next().now_or_never().is_some() {}
        assert_eq!(device.events.state.lock().unwrap().have, Some(now.into()));
    }
}
