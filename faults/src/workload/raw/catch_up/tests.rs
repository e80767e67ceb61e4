use super::*;
use abi::v1::Head;

fn seq(seq: u64) -> ReceiverSeq {
    ReceiverSeq { epoch: 1, seq }
}

fn have(seq: u64) -> Option<Have> {
    Some(Have { epoch: 1, seq })
}

fn entries(numbers: &[u64]) -> Vec<Entry> {
    let entry =
        |number: &u64| Entry { conversation: "g:1".into(), conversation_seq: *number, ..Entry::default() };
    numbers.iter().map(entry).collect()
}

fn deliver(catch_up: &mut CatchUp, now: u64, raised: u32, numbers: &[u64]) -> Vec<u64> {
    let mut shown = Vec::new();
    let deliver =
        Deliver { receiver_seq: Some(seq(now)), raised, entries: entries(numbers), updates: Vec::new() };
    catch_up.deliver(deliver, &mut shown);
    shown.iter().map(|entry| entry.conversation_seq).collect()
}

fn history(catch_up: &mut CatchUp, numbers: &[u64]) -> Vec<u64> {
    let shown = catch_up.history("g:1", HistoryPage { entries: entries(numbers), more: false });
    shown.iter().map(|entry| entry.conversation_seq).collect()
}

fn changes(catch_up: &mut CatchUp, now: u64, conversation_seq: u64, visible_from: u64) {
    let head = Head { conversation: "g:1".into(), conversation_seq, visible_from, ..Head::default() };
    let receiver_seq = Some(seq(now));
    catch_up.changes(Changes { receiver_seq, heads: vec![head], ..Changes::default() });
}

/// A device that has (1, 5) and the conversation up to 3.
fn caught_up() -> CatchUp {
    let mut catch_up = CatchUp::default();
    assert!(!catch_up.announced(seq(5)));
    assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::Changes { .. })));
    changes(&mut catch_up, 5, 3, 1);
    assert_eq!(catch_up.take_complete(), None, "the entries are still missing");
    assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::History { after: 0, .. })));
    assert_eq!(history(&mut catch_up, &[1, 2, 3]), [1, 2, 3]);
    assert_eq!(catch_up.take_complete(), have(5));
    catch_up
}

#[test]
fn the_next_entries_are_shown_and_raise_the_seq() {
    let mut catch_up = caught_up();
    assert_eq!(deliver(&mut catch_up, 7, 2, &[4, 5]), [4, 5]);
    assert_eq!(catch_up.take_complete(), have(7));
    assert!(catch_up.announced(seq(7)));
    assert_eq!(deliver(&mut catch_up, 6, 1, &[4]), [] as [u64; 0], "the device has it");
    assert!(catch_up.is_idle());
}

#[test]
fn a_gap_is_fetched_before_later_entries_are_shown() {
    let mut catch_up = caught_up();
    assert_eq!(deliver(&mut catch_up, 7, 1, &[5]), [] as [u64; 0]);
    assert!(!catch_up.is_idle());
    assert_eq!(catch_up.take_complete(), None);
    assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::History { after: 3, .. })));
    assert_eq!(history(&mut catch_up, &[4, 5]), [4, 5]);
    assert_eq!(catch_up.take_complete(), None, "seq 6 may count something else");
    let later = Instant::now() + OVERTAKING;
    assert!(matches!(catch_up.next_fetch(later), Some(Fetch::Changes { .. })));
    changes(&mut catch_up, 7, 5, 1);
    assert_eq!(catch_up.take_complete(), have(7));
}

#[test]
fn a_jump_of_the_seq_starts_a_sync() {
    let mut catch_up = caught_up();
    // Seq 6 counts an entry that has not arrived.
    assert_eq!(deliver(&mut catch_up, 7, 1, &[4]), [4]);
    assert_eq!(catch_up.have(), Some(seq(5)));
    assert!(catch_up.next_fetch(Instant::now()).is_none(), "another delivery may have been overtaken");
    let later = Instant::now() + OVERTAKING;
    assert!(matches!(catch_up.next_fetch(later), Some(Fetch::Changes { .. })));
    // An announcement during the sync needs another sync.
    assert!(!catch_up.announced(seq(9)));
    changes(&mut catch_up, 7, 4, 1);
    assert_eq!(catch_up.take_complete(), have(7));
    assert!(matches!(catch_up.next_fetch(Instant::now()), Some(Fetch::Changes { .. })));
}

#[test]
fn an_overtaken_delivery_is_waited_for() {
    let mut catch_up = caught_up();
    assert_eq!(deliver(&mut catch_up, 7, 1, &[]), [] as [u64; 0]);
    let mut catch_up = caught_up();
    assert_eq!(deliver(&mut catch_up, 8, 1, &[9]), [] as [u64; 0]);
    assert_eq!(catch_up.have(), Some(seq(5)));
}

#[test]
fn entries_that_the_user_may_not_see_are_skipped() {
    let mut catch_up = caught_up();
    assert!(!catch_up.announced(seq(8)));
    assert!(catch_up.next_fetch(Instant::now()).is_some());
    changes(&mut catch_up, 8, 9, 7);
    assert!(catch_up.next_fetch(Instant::now()).is_some());
    assert_eq!(history(&mut catch_up, &[7, 8, 9]), [7, 8, 9]);
    assert_eq!(catch_up.take_complete(), have(8));
    // The user is removed while entries are missing. The device stops requesting them.
    assert_eq!(deliver(&mut catch_up, 9, 1, &[11]), [] as [u64; 0]);
    assert!(catch_up.next_fetch(Instant::now()).is_some());
    catch_up.changes(Changes { receiver_seq: Some(seq(9)), ..Changes::default() });
    assert!(catch_up.next_fetch(Instant::now()).is_some());
    catch_up.history_failed("g:1", false, Instant::now());
    assert_eq!(catch_up.take_complete(), have(9));
}
