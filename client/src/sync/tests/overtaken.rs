//! Pushes that arrive out of order, lack changes, or do not arrive.

use super::*;
use crate::sync::early::MAX_EARLY;

#[test]
fn p5_an_overtaken_push_causes_no_request() {
    let mut sync = device();
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 7)])), [""; 0]);
    assert_eq!((sync.next_request(1_000), sync.awaited()), (None, Some(11)));
    assert!(!sync.is_idle());
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), ["a6", "a7"]);
    assert_eq!(sync.advance(), at(12));
    assert!(sync.is_idle());
    sync.on_overdue();
    assert_eq!(sync.next_request(1_000), None, "the wait has ended");
}

#[test]
fn p3_entries_of_other_conversations_do_not_wait_and_updates_keep_their_order() {
    let mut sync = device();
    assert_eq!(give(&mut sync, updated(13, "second")), [""; 0]);
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 6)])), ["a6"]);
    assert_eq!(give(&mut sync, updated(11, "first")), ["+first", "+second"]);
    assert_eq!(sync.advance(), at(13));
    assert_eq!(give(&mut sync, updated(11, "first")), [""; 0], "a newer state may be known");
}

#[test]
fn p5_a_missing_push_is_asked_for_after_the_wait() {
    let mut sync = device();
    give(&mut sync, deliver(12, 1, &[("a", 7)]));
    let (began, mut patience) = (Instant::now(), Patience::default());
    assert_eq!(patience.check(&mut sync, began), Some(began + OVERTAKING));
    assert_eq!(patience.check(&mut sync, began + Duration::from_millis(249)), Some(began + OVERTAKING));
    assert_eq!(sync.next_request(1_000), None);
    assert_eq!(patience.check(&mut sync, began + OVERTAKING), None);
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    assert_eq!(changes(&mut sync, seq(1, 12), vec![head("a", 7, 1)]), ["page"]);
    assert_eq!(sync.next_request(1_000), Some(history(5)));
    assert_eq!(page(&mut sync, 6..=7, false), ["a6", "a7"]);
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn p5_each_missing_push_gets_its_own_wait() {
    let mut sync = device();
    let (began, mut patience) = (Instant::now(), Patience::default());
    let later = began + Duration::from_millis(200);
    give(&mut sync, deliver(12, 1, &[("a", 7)]));
    patience.check(&mut sync, began);
    give(&mut sync, deliver(14, 1, &[("a", 9)]));
    give(&mut sync, deliver(11, 1, &[("a", 6)]));
    assert_eq!(sync.awaited(), Some(13));
    assert_eq!(patience.check(&mut sync, later), Some(later + OVERTAKING));
}

#[test]
fn p5_a_notification_is_followed_by_one_small_request() {
    let mut sync = device();
    assert!(give(&mut sync, deliver(11, 1, &[])).is_empty());
    assert_eq!((sync.next_request(1_000), sync.awaited()), (None, Some(11)));
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 6)])), ["a6"], "the next message does not wait");
    sync.on_overdue();
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))));
    changes(&mut sync, seq(1, 12), vec![head("a", 6, 1)]);
    assert_eq!(sync.next_request(1_000), None, "the device has all entries");
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn p7_the_number_of_held_deliveries_is_bounded() {
    let mut sync = device();
    let last = 12 + MAX_EARLY as u64;
    for number in 12..=last {
        assert_eq!(sync.next_request(1_000), None);
        give(&mut sync, updated(number, "x"));
    }
    assert_eq!(sync.next_request(1_000), Some(since(seq(1, 10))), "the first one was dropped");
    changes(&mut sync, seq(1, 12), Vec::new());
    assert_eq!(sync.advance(), at(last), "the others were held");
}

#[test]
fn p5_a_pong_ahead_of_its_deliveries_causes_no_request() {
    let mut sync = device();
    sync.on_seq(seq(1, 11));
    assert_eq!((sync.next_request(1_000), sync.awaited()), (None, Some(11)));
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 6)])), ["a6"]);
    assert!(sync.is_idle());
}

#[test]
fn p5_an_update_without_space_is_asked_for_again() {
    let mut sync = device();
    sync.on_deliver(updated(11, "x"), 0, &mut Vec::new());
    assert_eq!(sync.awaited(), Some(11));
    sync.on_overdue();
    assert_eq!(sync.next_request(0), None);
    assert!(sync.waits_for_capacity());
    assert_eq!(sync.next_request(1), Some(since(seq(1, 10))));
}

#[test]
fn p4_an_update_waits_for_a_page_that_may_be_older() {
    let mut sync = device();
    sync.on_welcome(seq(1, 11));
    assert!(sync.next_request(1_000).is_some());
    assert_eq!(give(&mut sync, updated(11, "in the page")), [""; 0]);
    assert_eq!(give(&mut sync, updated(12, "newer")), [""; 0]);
    assert_eq!(changes(&mut sync, seq(1, 11), vec![head("a", 5, 1)]), ["page", "+newer"]);
    assert_eq!(sync.advance(), at(12));
}
