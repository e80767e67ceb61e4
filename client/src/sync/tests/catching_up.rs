//! Reading what changed while the device was away.

use super::*;

/// Asks for the changes as if a push were missing.
fn ask(sync: &mut Sync, now: u64) {
    sync.on_seq(seq(1, now));
    sync.on_overdue();
    assert!(matches!(sync.next_request(1_000), Some(Request::Changes { .. })));
}

#[test]
fn p5_an_equal_seq_causes_no_request() {
    let mut sync = device();
    assert_eq!(sync.next_request(1_000), None);
    sync.on_seq(seq(1, 10));
    assert!(sync.is_idle());
}

#[test]
fn p5_entries_and_updates_in_order_advance_have_without_a_request() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), ["a6"]);
    assert_eq!(sync.advance(), at(11));
    let mut both = deliver(14, 3, &[("a", 7), ("a", 8)]);
    both.updates.push(update("bob"));
    assert_eq!(give(&mut sync, both), ["a7", "a8", "+bob"]);
    assert_eq!(sync.advance(), at(14));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn p2_a_duplicate_frame_is_delivered_once() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), ["a6"]);
    assert!(give(&mut sync, deliver(11, 1, &[("a", 6)])).is_empty());
    assert!(sync.is_idle());
}

#[test]
fn p5_only_conversations_with_new_entries_are_read() {
    let mut sync = device();
    sync.on_welcome(seq(1, 13));
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    let read_elsewhere = head("a", 5, 1);
    assert_eq!(changes(&mut sync, seq(1, 13), vec![read_elsewhere, head("b", 2, 1)]), ["page"]);
    let wanted = Request::History { conversation: "b".into(), after: 0 };
    assert_eq!(sync.next_request(1_000), Some(wanted));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn p5_the_pages_of_everything_are_read_with_their_cursor() {
    let mut sync = Sync::new(State::default(), Start::Beginning);
    sync.on_welcome(seq(1, 20));
    assert_eq!(sync.next_request(1_000), Some(since(None)));
    let page = |head: Head, next: &str| Changes {
        receiver_seq: seq(1, 20),
        everything: true,
        heads: vec![head],
        next: next.into(),
        ..Changes::default()
    };
    sync.on_changes(page(head("a", 1, 1), "2"), 1_000, &mut Vec::new());
    let second = Request::Changes { have: None, cursor: "2".into() };
    assert_eq!(sync.next_request(1_000), Some(second.clone()));
    sync.on_failed(&second, &ApiError::unavailable("later"));
    assert_eq!(sync.next_request(1_000), Some(second.clone()), "the same page again");
    assert_eq!(give(&mut sync, deliver(21, 1, &[("c", 1)])), ["c1"], "it continues from the answer");
    sync.on_changes(page(head("b", 1, 1), ""), 1_000, &mut Vec::new());
    assert!(matches!(sync.next_request(1_000), Some(Request::History { .. })));
    assert_eq!(sync.advance(), None);
}

#[test]
fn p5_after_an_invalid_cursor_the_pages_are_read_from_the_beginning() {
    let mut sync = Sync::new(State::default(), Start::Beginning);
    sync.on_welcome(seq(1, 20));
    sync.next_request(1_000);
    let page = Changes { receiver_seq: seq(1, 20), everything: true, next: "2".into(), ..Changes::default() };
    sync.on_changes(page, 1_000, &mut Vec::new());
    let second = sync.next_request(1_000).unwrap();
    sync.on_failed(&second, &ApiError::invalid("the cursor is too old"));
    assert_eq!(sync.advance(), None);
    assert_eq!(sync.next_request(1_000), Some(since(None)));
}

#[test]
fn p5_a_sync_under_steady_traffic_ends() {
    let mut sync = device();
    sync.on_welcome(seq(1, 20));
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    give(&mut sync, deliver(21, 1, &[("a", 16)]));
    give(&mut sync, deliver(22, 1, &[("a", 17)]));
    changes(&mut sync, seq(1, 21), vec![head("a", 16, 1)]);
    let mut requests = 0;
    for number in 18.. {
        let Some(Request::History { after, .. }) = sync.next_request(1_000) else { break };
        requests += 1;
        // While the page is read, another message arrives.
        give(&mut sync, deliver(number + 5, 1, &[("a", number)]));
        let end = (after + 10).min(number);
        page(&mut sync, after + 1..=end, end < number);
    }
    assert_eq!(requests, 2, "pages of ten entries, from 6 to 19");
    assert!(sync.is_idle());
    assert_eq!(sync.advance(), at(24));
}

#[test]
fn p5_an_entry_of_an_unknown_conversation_begins_with_its_history() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(11, 1, &[("b", 1)])), ["b1"]);
    assert_eq!(give(&mut sync, deliver(12, 1, &[("c", 9)])), [""; 0]);
    let wanted = Request::History { conversation: "c".into(), after: 0 };
    assert_eq!(sync.next_request(1_000), Some(wanted), "no push is missing, so nothing is waited for");
    let entries = vec![entry("c", 9)];
    let mut out = Vec::new();
    sync.on_history("c", HistoryPage { entries, more: false }, &mut out);
    assert_eq!(names(&out), ["c9"]);
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn p5_an_absence_between_two_memberships_is_a_jump_and_no_gap() {
    let mut sync = device();
    let removed = Head { visible_until: 6, ..head("a", 6, 1) };
    ask(&mut sync, 11);
    changes(&mut sync, seq(1, 11), vec![removed]);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(page(&mut sync, 6..=6, false), ["a6"]);
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 9)])), [""; 0]);
    assert_eq!(sync.next_request(1_000), Some(history(6)));
    assert_eq!(page(&mut sync, 9..=9, false), ["a9"]);
    assert_eq!(give(&mut sync, deliver(13, 1, &[("a", 10)])), ["a10"]);
    assert_eq!(sync.advance(), at(13));
}

#[test]
fn p5_a_late_member_sees_entries_from_visible_from_on() {
    let mut sync = device();
    ask(&mut sync, 11);
    changes(&mut sync, seq(1, 11), vec![head("g:x", 9, 8)]);
    let wanted = Request::History { conversation: "g:x".into(), after: 7 };
    assert_eq!(sync.next_request(1_000), Some(wanted));
}

#[test]
fn a_page_of_another_conversation_is_ignored_and_not_requested_in_a_loop() {
    let mut sync = device();
    ask(&mut sync, 11);
    changes(&mut sync, seq(1, 11), vec![head("a", 7, 1)]);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    let mut out = Vec::new();
    sync.on_history("a", HistoryPage { entries: vec![entry("b", 9)], more: true }, &mut out);
    assert_eq!((names(&out), sync.position("a"), sync.position("b")), (vec![], Some(5), None));
    assert_eq!(sync.next_request(1_000), None);
}

#[test]
fn p5_the_highest_possible_seq_ends_a_conversation() {
    let mut sync = device();
    ask(&mut sync, 11);
    changes(&mut sync, seq(1, 11), vec![head("z", u64::MAX, u64::MAX)]);
    sync.next_request(1_000);
    let entries = vec![entry("z", u64::MAX)];
    sync.on_history("z", HistoryPage { entries, more: false }, &mut Vec::new());
    assert_eq!(give(&mut sync, deliver(12, 1, &[("z", u64::MAX)])), [""; 0]);
}

#[test]
fn p5_a_page_older_than_a_stored_entry_is_not_the_last_page() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert!(give(&mut sync, deliver(13, 1, &[("a", 9)])).is_empty(), "the frame overtook the page");
    assert_eq!(page(&mut sync, 6..=8, false), ["a6", "a7", "a8"]);
    assert_eq!(sync.advance(), None);
    assert_eq!(sync.next_request(1_000), Some(history(8)));
    assert_eq!(page(&mut sync, 9..=9, false), ["a9"]);
    assert_eq!(sync.advance(), at(13));
}

#[test]
fn p5_a_page_whose_entries_were_delivered_meanwhile_is_not_the_last_page() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(12, 2, &[("a", 7), ("a", 8)])).is_empty());
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(give(&mut sync, deliver(10, 1, &[("a", 6)])), ["a6"], "an overtaken push");
    assert_eq!(page(&mut sync, 6..=6, true), [""; 0]);
    assert_eq!(sync.next_request(1_000), Some(history(6)));
    assert_eq!(page(&mut sync, 7..=8, false), ["a7", "a8"]);
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn p4_seqs_of_different_epochs_are_never_compared() {
    let mut sync = device();
    sync.on_seq(seq(2, 10));
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    changes(&mut sync, seq(2, 10), vec![head("a", 5, 1)]);
    assert_eq!(sync.advance(), Some(Have { epoch: 2, seq: 10 }));
    assert!(sync.is_idle());
}

#[test]
fn p4_an_epoch_that_begins_during_a_request_is_noticed() {
    let mut sync = device();
    ask(&mut sync, 11);
    sync.on_seq(seq(2, 3));
    changes(&mut sync, seq(1, 11), Vec::new());
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 11))));
    changes(&mut sync, seq(2, 3), Vec::new());
    assert_eq!(sync.next_request(1_000), None);
    assert_eq!(sync.advance(), Some(Have { epoch: 2, seq: 3 }));
}

#[test]
fn p4_a_counter_that_went_back_is_followed() {
    let mut sync = device();
    sync.on_welcome(seq(1, 8));
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    changes(&mut sync, seq(1, 8), vec![head("a", 5, 1)]);
    assert_eq!(sync.advance(), at(8));
    assert_eq!(give(&mut sync, deliver(9, 1, &[("a", 6)])), ["a6"]);
    assert_eq!(sync.advance(), at(9));
}

#[test]
fn p4_have_waits_for_all_requested_pages() {
    let mut sync = device();
    ask(&mut sync, 20);
    changes(&mut sync, seq(1, 20), vec![head("a", 9, 1)]);
    assert_eq!(sync.advance(), None);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(page(&mut sync, 6..=7, true), ["a6", "a7"]);
    assert_eq!(sync.advance(), None);
    sync.on_welcome(seq(1, 20));
    assert_eq!(sync.have(), seq(1, 10), "a lost connection forgets what is missing");
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    assert_eq!(sync.position("a"), Some(7));
}

#[test]
fn p7_entries_beyond_the_capacity_are_not_buffered_and_not_lost() {
    let mut sync = device();
    let mut out = Vec::new();
    sync.on_deliver(deliver(12, 2, &[("a", 6), ("a", 7)]), 1, &mut out);
    assert_eq!(names(&out), ["a6"]);
    assert_eq!(sync.next_request(PAGE - 1), None);
    assert!(sync.waits_for_capacity());
    assert_eq!(sync.next_request(PAGE), Some(history(6)));
    assert_eq!(page(&mut sync, 7..=7, false), ["a7"]);
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn a_device_that_starts_now_fetches_no_past_entries() {
    let mut sync = Sync::new(State::default(), Start::Now);
    sync.on_welcome(seq(1, 40));
    assert_eq!(sync.next_request(1_000), Some(since(None)));
    assert_eq!(give(&mut sync, deliver(41, 1, &[("b", 4)])), ["b4"]);
    changes(&mut sync, seq(1, 40), vec![head("a", 9, 1), head("b", 4, 1)]);
    assert_eq!(sync.next_request(1_000), None);
    assert_eq!(sync.advance(), at(41));
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
    assert_eq!(sync.advance(), at(12));
}
