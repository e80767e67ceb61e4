use super::*;
use abi::error::ErrorCode;

mod model;
mod restored;

fn seq(epoch: u32, seq: u64) -> Option<ReceiverSeq> {
    Some(ReceiverSeq { epoch, seq })
}

fn entry(conversation: &str, conversation_seq: u64) -> Entry {
    Entry { conversation: conversation.into(), conversation_seq, ..Entry::default() }
}

fn deliver(at: u64, raised: u32, entries: &[(&str, u64)]) -> Deliver {
    let entries = entries.iter().map(|(conversation, seq)| entry(conversation, *seq)).collect();
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

fn seqs(out: &[Entry]) -> Vec<u64> {
    out.iter().map(|entry| entry.conversation_seq).collect()
}

fn give(sync: &mut Sync, frame: Deliver) -> Vec<u64> {
    let mut out = Vec::new();
    sync.on_deliver(frame, 1_000, &mut out);
    seqs(&out)
}

fn history(after: u64) -> Request {
    Request::History { conversation: "a".into(), after }
}

fn page(sync: &mut Sync, range: std::ops::RangeInclusive<u64>, more: bool) -> Vec<u64> {
    let mut out = Vec::new();
    let entries = range.map(|seq| entry("a", seq)).collect();
    sync.on_history("a", HistoryPage { entries, more }, &mut out);
    seqs(&out)
}

#[test]
fn p5_an_equal_seq_causes_no_request() {
    let mut sync = device();
    assert_eq!(sync.next_request(1_000), None);
    sync.on_seq(seq(1, 10));
    assert!(sync.is_idle());
}

#[test]
fn p5_entries_in_order_advance_have_without_a_request() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), [6]);
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 11 }));
    assert_eq!(give(&mut sync, deliver(13, 2, &[("a", 7), ("a", 8)])), [7, 8]);
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 13 }));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn a_page_of_another_conversation_is_ignored_and_not_requested_in_a_loop() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 7)])), [0; 0]);
    let heads = |sync: &mut Sync| sync.on_heads(HeadsPage { heads: vec![head("a", 7, 1)], more: false });
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    heads(&mut sync);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    let mut out = Vec::new();
    sync.on_history("a", HistoryPage { entries: vec![entry("b", 9)], more: true }, &mut out);
    assert_eq!((seqs(&out), sync.position("a"), sync.position("b")), (vec![], Some(5), None));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn p5_the_highest_possible_seq_ends_a_conversation() {
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
fn p2_a_duplicate_frame_is_delivered_once() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), [6]);
    assert!(give(&mut sync, deliver(11, 1, &[("a", 6)])).is_empty());
    assert!(sync.is_idle());
}

#[test]
fn p3_a_gap_is_fetched_before_later_entries_are_delivered() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 1, &[("a", 7)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(sync.advance(), None);
    assert_eq!(page(&mut sync, 6..=7, false), [6, 7]);
    assert_eq!(sync.advance(), None, "the heads may show more gaps");
    sync.on_heads(HeadsPage { heads: vec![head("a", 7, 1)], more: false });
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 12 }));
}

#[test]
fn p5_a_page_older_than_a_stored_entry_is_not_the_last_page() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert!(give(&mut sync, deliver(13, 1, &[("a", 9)])).is_empty(), "the frame overtook the page");
    assert_eq!(page(&mut sync, 6..=8, false), [6, 7, 8]);
    assert_eq!(sync.advance(), None);
    assert_eq!(sync.next_request(1_000), Some(history(8)));
    assert_eq!(page(&mut sync, 9..=9, false), [9]);
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 13 }));
}

#[test]
fn p5_a_notification_makes_the_device_read_the_heads() {
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
fn p4_seqs_of_different_epochs_are_never_compared() {
    let mut sync = device();
    sync.on_seq(seq(2, 10));
    assert_eq!(sync.next_request(1_000), Some(Request::Heads { after: String::new() }));
    sync.on_heads(HeadsPage { heads: vec![head("a", 5, 1)], more: false });
    assert_eq!(sync.advance(), Some(Have { epoch: 2, seq: 10 }));
}

#[test]
fn p4_have_waits_for_all_requested_pages() {
    let mut sync = device();
    sync.on_seq(seq(1, 20));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    sync.on_heads(HeadsPage { heads: vec![head("a", 9, 1)], more: false });
    assert_eq!(sync.advance(), None);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(page(&mut sync, 6..=7, true), [6, 7]);
    assert_eq!(sync.advance(), None);
    sync.on_welcome(seq(1, 20));
    assert_eq!(sync.have(), seq(1, 10), "a lost connection discards the target");
    assert_eq!(sync.position("a"), Some(7));
}

#[test]
fn p5_a_late_member_sees_entries_from_visible_from_on() {
    let mut sync = device();
    sync.on_seq(seq(1, 11));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    sync.on_heads(HeadsPage { heads: vec![head("g:x", 9, 8)], more: false });
    let wanted = Request::History { conversation: "g:x".into(), after: 7 };
    assert_eq!(sync.next_request(1_000), Some(wanted));
}

#[test]
fn p7_entries_beyond_the_capacity_are_not_buffered_and_not_lost() {
    let mut sync = device();
    let mut out = Vec::new();
    sync.on_deliver(deliver(12, 2, &[("a", 6), ("a", 7)]), 1, &mut out);
    assert_eq!(seqs(&out), [6]);
    assert_eq!(sync.next_request(PAGE - 1), None);
    assert!(sync.waits_for_capacity());
    assert_eq!(sync.next_request(PAGE), Some(history(6)));
    assert_eq!(page(&mut sync, 7..=7, false), [7]);
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 12 }));
}

#[test]
fn a_device_that_starts_now_fetches_no_past_entries() {
    let mut sync = Sync::new(State::default(), Start::Now);
    sync.on_welcome(seq(1, 40));
    assert!(matches!(sync.next_request(1_000), Some(Request::Heads { .. })));
    assert_eq!(give(&mut sync, deliver(41, 1, &[("b", 4)])), [4]);
    sync.on_heads(HeadsPage { heads: vec![head("a", 9, 1), head("b", 4, 1)], more: false });
    assert_eq!(sync.next_request(1_000), None);
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 41 }));
    assert_eq!(sync.take_baseline(), [("a".to_owned(), 9), ("b".to_owned(), 3)].into_iter().collect());
    assert!(
        give(&mut sync, deliver(42, 1, &[("c", 2)])).is_empty(),
        "a new conversation starts at its first entry"
    );
}

#[test]
fn a_forbidden_conversation_does_not_block_the_others() {
    let mut sync = device();
    give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)]));
    let request = sync.next_request(1_000).unwrap();
    assert_eq!(request, history(5));
    sync.on_failed(&request, &ApiError::unavailable("later"));
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    sync.on_failed(&request, &ApiError::new(ErrorCode::Forbidden, "removed"));
    assert_eq!(sync.advance(), Some(Have { epoch: 1, seq: 12 }));
}
