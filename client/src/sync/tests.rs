use super::*;
use abi::error::ErrorCode;
use proptest::prelude::*;

mod restored;

fn seq(epoch: u32, seq: u64) -> Option<ReceiverSeq> {
    Some(ReceiverSeq { epoch, seq })
}

fn entry(conversation: &str, conversation_seq: u64) -> Entry {
    Entry { conversation: conversation.into(), conversation_seq, ..Entry::default() }
}

fn deliver(at: u64, raised: u32, entries: &[(&str, u64)]) -> Deliver {
    let entries = entries.iter().map(|(conversation, number)| entry(conversation, *number)).collect();
    Deliver { receiver_seq: seq(1, at), raised, entries }
}

fn head(conversation: &str, conversation_seq: u64, visible_from: u64) -> Head {
    Head { conversation: conversation.into(), conversation_seq, visible_from, ..Head::default() }
}

/// A device that has everything up to (1, 10) and position 5 in `a`.
fn device() -> Sync {
    let state = State {
        have: Some(Have { epoch: 1, seq: 10 }),
        positions: [("a".to_owned(), 5)].into_iter().collect(),
        ..State::default()
    };
    let mut sync = Sync::new(state, Start::Beginning);
    sync.on_welcome(seq(1, 10));
    sync
}

fn numbers(out: &[Entry]) -> Vec<u64> {
    out.iter().map(|entry| entry.conversation_seq).collect()
}

fn give(sync: &mut Sync, frame: Deliver) -> Vec<u64> {
    let mut out = Vec::new();
    sync.on_deliver(frame, 1_000, &mut out);
    numbers(&out)
}

fn history(after: u64) -> Request {
    Request::History { conversation: "a".into(), after }
}

fn page(sync: &mut Sync, range: std::ops::RangeInclusive<u64>, more: bool) -> Vec<u64> {
    let mut out = Vec::new();
    let entries = range.map(|number| entry("a", number)).collect();
    sync.on_history("a", HistoryPage { entries, more }, &mut out);
    numbers(&out)
}

#[test]
fn p5_an_equal_seq_asks_for_nothing() {
    let mut sync = device();
    assert_eq!(sync.next_request(1_000), None);
    sync.on_seq(seq(1, 10));
    assert!(sync.is_idle());
}

#[test]
fn p5_what_comes_in_order_moves_have_without_a_request() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), [6]);
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 11 }));
    assert_eq!(give(&mut sync, deliver(13, 2, &[("a", 7), ("a", 8)])), [7, 8]);
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 13 }));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn a_page_of_another_conversation_is_not_taken_and_not_asked_for_ever() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 7)])), [0; 0]);
    let heads = |sync: &mut Sync| sync.on_heads(HeadsPage { heads: vec![head("a", 7, 1)], more: false });
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    heads(&mut sync);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    let mut out = Vec::new();
    sync.on_history("a", HistoryPage { entries: vec![entry("b", 9)], more: true }, &mut out);
    assert_eq!((numbers(&out), sync.position("a"), sync.position("b")), (vec![], Some(5), None));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn p5_the_last_number_that_there_is_ends_a_conversation() {
    let mut sync = device();
    sync.on_seq(seq(1, 11));
    assert!(sync.next_request(1_000).is_some());
    sync.on_heads(HeadsPage { heads: vec![head("z", u64::MAX, u64::MAX)], more: false });
    sync.next_request(1_000);
    let entries = vec![entry("z", u64::MAX)];
    sync.on_history("z", HistoryPage { entries, more: false }, &mut Vec::new());
    assert_eq!(give(&mut sync, deliver(12, 1, &[("z", u64::MAX)])), [0; 0]);
}

#[test]
fn p2_a_frame_that_comes_twice_is_seen_once() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), [6]);
    assert!(give(&mut sync, deliver(11, 1, &[("a", 6)])).is_empty());
    assert!(sync.is_idle());
}

#[test]
fn p3_a_gap_is_fetched_before_what_is_after_it() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 1, &[("a", 7)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(sync.settle(), None);
    assert_eq!(page(&mut sync, 6..=7, false), [6, 7]);
    assert_eq!(sync.settle(), None, "the heads may show more");
    sync.on_heads(HeadsPage { heads: vec![head("a", 7, 1)], more: false });
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 12 }));
}

#[test]
fn p5_a_page_that_was_read_before_an_entry_was_stored_is_not_the_last() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert!(give(&mut sync, deliver(13, 1, &[("a", 9)])).is_empty(), "it overtook the page");
    assert_eq!(page(&mut sync, 6..=8, false), [6, 7, 8]);
    assert_eq!(sync.settle(), None);
    assert_eq!(sync.next_request(1_000), Some(history(8)));
    assert_eq!(page(&mut sync, 9..=9, false), [9]);
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 13 }));
}

#[test]
fn p5_a_nudge_makes_the_device_look_at_the_heads() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(11, 1, &[])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    sync.on_heads(HeadsPage { heads: vec![head("a", 5, 1), head("b", 2, 1)], more: true });
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: "b".into() }));
    sync.on_heads(HeadsPage::default());
    let wanted = Request::History { conversation: "b".into(), after: 0 };
    assert_eq!(sync.next_request(1_000), Some(wanted));
}

#[test]
fn p4_another_epoch_is_never_compared() {
    let mut sync = device();
    sync.on_seq(seq(2, 10));
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    sync.on_heads(HeadsPage { heads: vec![head("a", 5, 1)], more: false });
    assert_eq!(sync.settle(), Some(Have { epoch: 2, seq: 10 }));
}

#[test]
fn p4_have_waits_for_the_pages_that_it_promises() {
    let mut sync = device();
    sync.on_seq(seq(1, 20));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    sync.on_heads(HeadsPage { heads: vec![head("a", 9, 1)], more: false });
    assert_eq!(sync.settle(), None);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(page(&mut sync, 6..=7, true), [6, 7]);
    assert_eq!(sync.settle(), None);
    sync.on_welcome(seq(1, 20));
    assert_eq!(sync.have(), seq(1, 10), "a lost connection takes the promise with it");
    assert_eq!(sync.position("a"), Some(7));
}

#[test]
fn p5_a_late_member_sees_from_where_it_may() {
    let mut sync = device();
    sync.on_seq(seq(1, 11));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    sync.on_heads(HeadsPage { heads: vec![head("g:x", 9, 8)], more: false });
    let wanted = Request::History { conversation: "g:x".into(), after: 7 };
    assert_eq!(sync.next_request(1_000), Some(wanted));
}

#[test]
fn p7_without_room_nothing_is_kept_and_nothing_is_lost() {
    let mut sync = device();
    let mut out = Vec::new();
    sync.on_deliver(deliver(12, 2, &[("a", 6), ("a", 7)]), 1, &mut out);
    assert_eq!(numbers(&out), [6]);
    assert_eq!(sync.next_request(PAGE - 1), None);
    assert!(sync.waits_for_room());
    assert_eq!(sync.next_request(PAGE), Some(history(6)));
    assert_eq!(page(&mut sync, 7..=7, false), [7]);
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 12 }));
}

#[test]
fn a_device_that_starts_now_fetches_nothing_of_the_past() {
    let mut sync = Sync::new(State::default(), Start::Now);
    sync.on_welcome(seq(1, 40));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    assert_eq!(give(&mut sync, deliver(41, 1, &[("b", 4)])), [4]);
    sync.on_heads(HeadsPage { heads: vec![head("a", 9, 1), head("b", 4, 1)], more: false });
    assert_eq!(sync.next_request(1_000), None);
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 41 }));
    assert_eq!(sync.take_baseline(), [("a".to_owned(), 9), ("b".to_owned(), 3)].into_iter().collect());
    assert!(give(&mut sync, deliver(42, 1, &[("c", 2)])).is_empty(), "a new conversation has a beginning");
}

#[test]
fn a_conversation_that_was_taken_away_does_not_hold_up_the_rest() {
    let mut sync = device();
    give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)]));
    let request = sync.next_request(1_000).unwrap();
    assert_eq!(request, history(5));
    sync.on_failed(&request, &ApiError::unavailable("later"));
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    sync.on_failed(&request, &ApiError::new(ErrorCode::Forbidden, "removed"));
    assert_eq!(sync.settle(), Some(Have { epoch: 1, seq: 12 }));
}

/// What happens in a made-up history of a server and a device.
#[derive(Clone, Debug)]
enum Step {
    /// Entries are stored and pushed in one frame; `copies` of the frame arrive, `late` behind that many frames less.
    Post {
        conversations: Vec<u8>,
        copies: usize,
        early: usize,
    },
    Nudge,
    NewEpoch,
    Reconnect,
    Pong,
    /// The server answers what it was asked; or fails to.
    Answer {
        fails: bool,
    },
    /// The device reads a frame.
    Read,
    /// The application takes entries out.
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
const ROOM: usize = 2 * PAGE;

struct World {
    sync: Sync,
    heads: [u64; 3],
    now: ReceiverSeq,
    wire: VecDeque<Frame>,
    asked: VecDeque<Request>,
    room: usize,
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
        let Some(request) = self.asked.pop_front() else { return };
        let answer = match &request {
            _ if fails => Err(ApiError::unavailable("later")),
            Request::Heads { after } => {
                // Two to a page.
                let known =
                    NAMES.iter().zip(self.heads).filter(|(name, head)| *head > 0 && **name > after.as_str());
                let mut heads: Vec<_> = known.map(|(name, number)| head(name, number, 1)).collect();
                let more = heads.len() > 2;
                heads.truncate(2);
                Ok(Answer::Heads(HeadsPage { heads, more }))
            }
            Request::History { conversation, after } => {
                let index = NAMES.iter().position(|name| name == conversation).unwrap();
                // Three to a page.
                let numbers = (after + 1..=self.heads[index]).take(3);
                let entries: Vec<_> = numbers.map(|number| entry(conversation, number)).collect();
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
            Frame::Deliver(deliver) => self.sync.on_deliver(deliver, self.room, &mut out),
            Frame::Pong(now) => self.sync.on_seq(now),
            Frame::Answer(request, Err(fault)) => self.sync.on_failed(&request, &fault),
            Frame::Answer(_, Ok(Answer::Heads(page))) => self.sync.on_heads(page),
            Frame::Answer(Request::History { conversation, .. }, Ok(Answer::History(page))) => {
                self.sync.on_history(&conversation, page, &mut out);
            }
            Frame::Answer(..) => unreachable!("answers are of the kind that was asked for"),
        }
        assert!(out.len() <= self.room, "more than there was room for");
        self.room -= out.len();
        for entry in out {
            let index = NAMES.iter().position(|name| *name == entry.conversation).unwrap();
            self.seen[index].push(entry.conversation_seq);
        }
        self.ask();
    }

    fn ask(&mut self) {
        while let Some(request) = self.sync.next_request(self.room) {
            self.asked.push_back(request);
        }
        if let Some(have) = self.sync.settle() {
            let complete =
                NAMES.iter().enumerate().all(|(index, _)| self.seen[index].len() as u64 == self.heads[index]);
            let now = Have::from(self.now);
            assert!(have != now || complete, "have is ahead of what was seen");
        }
    }

    fn reconnect(&mut self) {
        self.wire.clear();
        self.asked.clear();
        self.sync.on_welcome(Some(self.now));
        self.ask();
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Post { conversations, copies, early } => self.post(conversations, *copies, *early),
            Step::Nudge => {
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
                self.room = ROOM.min(self.room + entries);
                self.ask();
            }
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let post = (proptest::collection::vec(0..3u8, 1..4), 0..3usize, 0..3usize)
        .prop_map(|(conversations, copies, early)| Step::Post { conversations, copies, early });
    let step = prop_oneof![
        6 => post,
        1 => Just(Step::Nudge),
        1 => Just(Step::NewEpoch),
        1 => Just(Step::Reconnect),
        1 => Just(Step::Pong),
        5 => prop::bool::weighted(0.2).prop_map(|fails| Step::Answer { fails }),
        9 => Just(Step::Read),
        3 => (0..ROOM).prop_map(Step::Take),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    #[test]
    fn p5_whatever_is_lost_doubled_or_late_each_entry_is_seen_once_and_in_order(steps in steps(), room in 0..ROOM) {
        let mut world = World {
            sync: Sync::new(State::default(), Start::Beginning),
            heads: [0; 3],
            now: ReceiverSeq { epoch: 1, seq: 0 },
            wire: VecDeque::new(),
            asked: VecDeque::new(),
            room,
            seen: Default::default(),
        };
        world.reconnect();
        for step in &steps {
            world.step(step);
        }
        for _ in 0..300 {
            world.step(&Step::Take(ROOM));
            world.step(&Step::Answer { fails: false });
            world.step(&Step::Read);
            if world.wire.is_empty() && world.asked.is_empty() {
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
