//! Restores of the server from a backup.

use super::*;

/// The device of `device()`, welcomed in generation 7 that began from `before`. Its receiver seq is unchanged.
fn restored(before: u32) -> Sync {
    let mut sync = device();
    sync.on_generation(7, before);
    sync.on_welcome(seq(1, 10));
    sync
}

fn kept(conversation: &str, conversation_seq: u64, kept_seq: u64) -> Head {
    Head { kept_seq, ..head(conversation, conversation_seq, 1) }
}

fn heads(sync: &mut Sync, now: u64, heads: Vec<Head>) {
    assert_eq!(sync.next_request(1_000), Some(since(None)), "every position has to be checked");
    assert_eq!(sync.next_request(1_000), None, "the positions are not known yet");
    changes(sync, seq(1, now), heads);
}

#[test]
fn p1_entries_with_reassigned_numbers_are_fetched() {
    let mut sync = restored(0);
    // 3 of 5 entries were kept; entries 4 to 6 are new.
    assert_eq!(
        give(&mut sync, deliver(11, 1, &[("a", 6)])),
        [""; 0],
        "it may not follow the device's entry 5"
    );
    assert_eq!(sync.advance(), None);
    heads(&mut sync, 11, vec![kept("a", 6, 3)]);
    assert_eq!(sync.take_restored(), Some((7, [("a".to_owned(), 3)].into())));
    assert_eq!(sync.next_request(1_000), Some(history(3)));
    assert_eq!(page(&mut sync, 4..=6, false), ["a4", "a5", "a6"]);
    assert_eq!(sync.advance(), at(11));
}

#[test]
fn p1_an_entry_that_arrives_before_the_heads_follows_the_news_of_the_restore() {
    let mut sync = restored(0);
    assert_eq!(sync.next_request(1_000), Some(since(None)));
    assert_eq!(give(&mut sync, deliver(12, 1, &[("a", 4)])), [""; 0]);
    assert_eq!(changes(&mut sync, seq(1, 11), vec![kept("a", 3, 3)]), ["page"]);
    assert_eq!(sync.take_restored(), Some((7, [("a".to_owned(), 3)].into())));
    assert_eq!(sync.next_request(1_000), Some(history(3)));
    assert_eq!(page(&mut sync, 4..=4, false), ["a4"]);
    assert_eq!(sync.advance(), at(12));
}

#[test]
fn p5_kept_entries_are_not_fetched_again() {
    let mut sync = restored(0);
    heads(&mut sync, 10, vec![kept("a", 9, 8)]);
    assert_eq!(sync.take_restored(), Some((7, BTreeMap::new())));
    assert_eq!(sync.next_request(1_000), Some(history(5)));
}

#[test]
fn p1_after_an_unknown_generation_all_entries_are_fetched() {
    let mut sync = restored(3);
    heads(&mut sync, 10, vec![kept("a", 9, 8)]);
    assert_eq!(sync.take_restored(), Some((7, [("a".to_owned(), 0)].into())));
    assert_eq!(sync.next_request(1_000), Some(history(0)));
}

#[test]
fn p1_a_conversation_that_was_not_kept_starts_over() {
    let mut sync = restored(0);
    heads(&mut sync, 10, Vec::new());
    assert_eq!(sync.take_restored(), Some((7, [("a".to_owned(), 0)].into())));
    assert_eq!(give(&mut sync, deliver(11, 1, &[("a", 1)])), ["a1"]);
}

#[test]
fn p1_a_connection_lost_during_the_rewind_changes_no_position() {
    let mut sync = restored(0);
    sync.next_request(1_000);
    let page = Changes {
        receiver_seq: seq(1, 10),
        heads: vec![kept("a", 9, 3)],
        next: "2".into(),
        ..Changes::default()
    };
    sync.on_changes(page, 1_000, &mut Vec::new());
    assert_eq!(sync.take_restored(), None);
    sync.on_generation(7, 0);
    sync.on_welcome(seq(1, 10));
    assert_eq!(sync.position("a"), None, "it is read again");
    heads(&mut sync, 10, vec![kept("a", 9, 4)]);
    assert_eq!(sync.take_restored(), Some((7, [("a".to_owned(), 4)].into())));
    // The next connection has the same generation.
    sync.on_generation(7, 0);
    sync.on_welcome(seq(1, 10));
    assert_eq!(sync.position("a"), Some(4));
}

#[test]
fn a_new_device_adopts_the_generation() {
    let mut sync = Sync::new(State::default(), Start::Beginning);
    sync.on_generation(7, 0);
    sync.on_welcome(seq(1, 10));
    assert_eq!(sync.take_restored(), Some((7, BTreeMap::new())));
}
