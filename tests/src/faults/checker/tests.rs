//! A run that kept the promise, and for every way to break it the smallest change that does.

use super::*;
use crate::faults::{
    ledger::{self, Change, Device, History, Id, LaterAck, Life, Receipt, Send},
    store::{Content, Conversation, Stored},
};

const GROUP: u32 = 0;
const DIRECT: u32 = 1;
const ALICE: u32 = 0;
const BOB: u32 = 1;
const CAROL: u32 = 2;
const PHONE: u32 = 0;
const TABLET: u32 = 1;
const BOBS: u32 = 2;
const CAROLS: u32 = 3;

fn id(number: u8) -> Id {
    Id([number; 16])
}

/// What the message with a number is called by its sender.
fn own(number: u8) -> Id {
    Id([100 + number; 16])
}

fn stored(seq: u64, number: u8, sender: &str, content: Content) -> Stored {
    let client_msg_id = own(number).to_string();
    Stored { conversation_seq: seq, message_id: id(number), sender: sender.into(), client_msg_id, content }
}

fn message(seq: u64, number: u8, sender: &str) -> Stored {
    stored(seq, number, sender, Content::Message { begins: own(number).to_string() })
}

fn shown(conversation: u32, conversation_seq: u32, number: u8) -> Seen {
    Seen::Entry(Receipt { conversation, conversation_seq, message_id: id(number), at: 50, live: true })
}

fn counted(conversation: u32, conversation_seq: u32, seq: u64) -> Seen {
    Seen::Counted { conversation, conversation_seq, epoch: 1, seq }
}

fn complete(seq: u64) -> Seen {
    Seen::Complete { epoch: 1, seq, at: 60 }
}

fn device(user: u32, name: &str, seen: Vec<Seen>) -> Device {
    let lives = vec![Life { began: 0, positions: Vec::new(), seen }];
    Device { user, name: name.into(), kind: ledger::Kind::Raw, lives }
}

fn send(device: u32, conversation: u32, number: u8, began: u32, outcome: Outcome) -> Send {
    let client_msg_id = own(number);
    Send { device, conversation, client_msg_id, began, ordered: true, forbidden: false, outcome }
}

fn acked(number: u8, at: u32) -> Outcome {
    Outcome::Acked { message_id: id(number), at }
}

/// Alice, with a phone and a tablet, Bob and Carol. In the group Carol is removed by entry 4. Alice sends 2 and 3 to it,
/// and 7 to Bob; Bob sends 5 to the group. Message 9 was never acknowledged.
fn good() -> (Ledger, StoreView) {
    let everybody = vec!["bob".to_owned(), "carol".to_owned()];
    let group = vec![
        stored(1, 1, "alice", Content::Created { members: everybody, sees_all: false }),
        message(2, 2, "alice"),
        message(3, 3, "alice"),
        stored(4, 4, "alice", Content::Removed(vec!["carol".into()])),
        message(5, 5, "bob"),
    ];
    let store = StoreView {
        conversations: [
            ("g:1".to_owned(), Conversation { head: 5, entries: group }),
            ("d:alice:bob".to_owned(), Conversation { head: 1, entries: vec![message(1, 7, "alice")] }),
        ]
        .into(),
    };
    let all: Vec<_> = (1..=5).map(|number| shown(GROUP, number.into(), number)).collect();
    let with_direct = |mut seen: Vec<Seen>| {
        seen.extend([counted(DIRECT, 1, 6), shown(DIRECT, 1, 7), complete(6)]);
        seen
    };
    let ledger = Ledger {
        users: ["alice", "bob", "carol"].map(str::to_owned).into(),
        conversations: ["g:1", "d:alice:bob"].map(str::to_owned).into(),
        devices: vec![
            device(ALICE, "phone", with_direct(all.clone())),
            device(ALICE, "tablet", with_direct(all.clone())),
            device(BOB, "phone", with_direct(all.clone())),
            device(CAROL, "phone", all[..4].to_vec()),
        ],
        sends: vec![
            send(PHONE, GROUP, 2, 10, acked(2, 12)),
            send(PHONE, GROUP, 3, 11, acked(3, 14)),
            send(PHONE, DIRECT, 7, 11, acked(7, 14)),
            send(BOBS, GROUP, 5, 30, acked(5, 31)),
            send(BOBS, GROUP, 9, 32, Outcome::Unknown),
            send(CAROLS, GROUP, 8, 40, refused("forbidden")),
        ],
        later_acks: vec![LaterAck { send: 0, message_id: id(2), at: 90 }],
        changes: vec![removal()],
        histories: vec![History {
            conversation: GROUP,
            user: ALICE,
            entries: (1..=5).map(|number| (number.into(), id(number))).collect(),
        }],
        ..Ledger::default()
    };
    (ledger, store)
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused { code: code.into(), at: 41, at_once: true }
}

fn removal() -> Change {
    Change {
        conversation: GROUP,
        conversation_seq: 4,
        message_id: id(4),
        user: CAROL,
        joined: false,
        began: 20,
        at: 25,
    }
}

fn entries(store: &mut StoreView) -> &mut Vec<Stored> {
    &mut store.conversations.get_mut("g:1").unwrap().entries
}

fn seen(ledger: &mut Ledger, device: u32) -> &mut Vec<Seen> {
    &mut ledger.devices[device as usize].lives[0].seen
}

/// Breaks a good run and gives what is found.
#[track_caller]
fn broken(break_it: impl FnOnce(&mut Ledger, &mut StoreView)) -> Verdict {
    let (mut ledger, mut store) = good();
    break_it(&mut ledger, &mut store);
    check(&ledger, &store)
}

/// Breaks a good run and expects this many findings of these kinds, and no others.
#[track_caller]
fn expect<const N: usize>(found: [(Kind, u64); N], break_it: impl FnOnce(&mut Ledger, &mut StoreView)) {
    let verdict = broken(break_it);
    let counts: Vec<_> = verdict.found.iter().map(|(kind, found)| (*kind, found.count)).collect();
    assert_eq!(counts, found, "{verdict}");
}

#[test]
fn a_good_run_is_clean_and_is_counted() {
    let verdict = broken(|_, _| {});
    assert!(verdict.is_clean(), "{verdict}");
    let Figures { sent, acked, refused, unknown, stored, receipts, claims, .. } = verdict.figures;
    assert_eq!([sent, acked, refused, unknown, stored, receipts, claims], [6, 4, 1, 1, 6, 22, 3]);
}

#[test]
fn p1_acknowledged_and_not_stored_is_lost() {
    expect([(Kind::Lost, 1)], |ledger, store| {
        entries(store).pop();
        store.conversations.get_mut("g:1").unwrap().head = 4;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            seen(ledger, device).retain(|seen| *seen != shown(GROUP, 5, 5));
        }
    });
}

#[test]
fn p1_acknowledged_and_never_shown_to_a_device_is_lost_to_it() {
    expect([(Kind::Lost, 1), (Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, BOBS).retain(|seen| *seen != shown(GROUP, 5, 5));
    });
}

#[test]
fn p1_a_change_that_was_answered_and_is_not_stored_is_lost() {
    expect([(Kind::Lost, 1)], |ledger, _| {
        ledger.changes.push(Change { message_id: id(77), ..removal() });
    });
}

#[test]
fn p1_shown_and_not_stored_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| seen(ledger, BOBS).push(shown(GROUP, 6, 66)));
    expect([(Kind::Untrue, 1)], |ledger, _| seen(ledger, BOBS)[2] = shown(GROUP, 3, 66));
}

#[test]
fn p1_other_words_than_were_sent_are_untrue() {
    expect([(Kind::Untrue, 1)], |_, store| {
        entries(store)[1].content = Content::Message { begins: own(44).to_string() };
    });
}

#[test]
fn p4_a_history_that_differs_from_the_store_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| {
        ledger.histories[0].entries.remove(2);
    });
}

#[test]
fn p2_one_message_with_two_numbers_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, store| {
        entries(store).push(Stored { message_id: id(66), ..message(6, 5, "bob") });
        store.conversations.get_mut("g:1").unwrap().head = 6;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            seen(ledger, device).push(shown(GROUP, 6, 66));
        }
        // Else it would be acknowledged under another id than one of the two.
        ledger.sends[3].outcome = Outcome::Unknown;
    });
}

#[test]
fn p2_a_retry_with_another_id_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| ledger.later_acks[0].message_id = id(66));
}

#[test]
fn p2_an_id_that_is_not_the_stored_one_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| ledger.sends[3].outcome = acked(66, 31));
}

#[test]
fn p2_shown_twice_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| seen(ledger, PHONE).push(shown(GROUP, 3, 3)));
    expect([(Kind::Duplicated, 2)], |ledger, _| ledger.devices[0].lives[0].positions = vec![(GROUP, 2)]);
}

#[test]
fn p2_a_program_with_an_old_state_is_shown_again_what_it_had_forgotten() {
    let forgotten = Life {
        began: 70,
        positions: vec![(GROUP, 3), (DIRECT, 1)],
        seen: vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)],
    };
    expect([], |ledger, _| ledger.devices[0].lives.push(forgotten.clone()));
    expect([(Kind::Lost, 1), (Kind::Incomplete, 1)], |ledger, _| {
        let mut life = forgotten.clone();
        life.seen.pop();
        ledger.devices[0].lives.push(life);
    });
}

#[test]
fn p3_stored_in_another_order_than_sent_is_out_of_order() {
    expect([(Kind::OutOfOrder, 1)], |ledger, _| {
        ledger.later_acks.clear();
        ledger.sends.swap(0, 1);
    });
    expect([], |ledger, _| {
        ledger.later_acks.clear();
        ledger.sends.swap(0, 1);
        ledger.sends[0].ordered = false;
    });
}

#[test]
fn p3_sent_after_the_acknowledgement_and_stored_before_is_out_of_order() {
    // 3 was sent from the tablet, and acknowledged before 2 was begun.
    expect([(Kind::OutOfOrder, 1)], |ledger, _| {
        ledger.sends[1].device = TABLET;
        ledger.sends[0].began = 15;
        ledger.sends[0].outcome = acked(2, 16);
    });
}

#[test]
fn p3_shown_in_another_order_is_out_of_order() {
    expect([(Kind::Lost, 1), (Kind::OutOfOrder, 1), (Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, TABLET).swap(1, 2);
    });
}

#[test]
fn p4_a_missing_number_is_a_gap() {
    expect([(Kind::Gap, 1)], |ledger, store| {
        // Nothing of it was ever sent or shown.
        let entries = entries(store);
        entries.push(message(7, 70, "bob"));
        store.conversations.get_mut("g:1").unwrap().head = 7;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            seen(ledger, device).push(shown(GROUP, 7, 70));
        }
    });
}

#[test]
fn p4_a_head_that_is_not_the_last_entry_is_a_gap() {
    expect([(Kind::Gap, 1)], |_, store| store.conversations.get_mut("g:1").unwrap().head = 6);
}

#[test]
fn p5_a_number_that_counts_what_the_device_lacks_has_lied() {
    // The phone was delivered the direct message as the sixth change. The tablet believes to have six, before it has it.
    expect([(Kind::Lied, 1)], |ledger, _| seen(ledger, TABLET).insert(5, complete(6)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, complete(5)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, Seen::Complete { epoch: 2, seq: 6, at: 1 }));
}

#[test]
fn p4_a_delivered_entry_that_can_not_be_read_has_lied() {
    expect([(Kind::Lied, 1)], |ledger, _| {
        seen(ledger, BOBS).push(Seen::Unreadable { conversation: GROUP, conversation_seq: 5, at: 60 });
    });
}

#[test]
fn p5_a_hole_in_what_a_device_was_shown_is_incomplete() {
    expect([(Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, BOBS).retain(|seen| *seen != shown(GROUP, 4, 4));
    });
}

#[test]
fn p8_shown_to_a_member_who_had_been_removed_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(shown(GROUP, 5, 5)));
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(shown(DIRECT, 1, 7)));
}

#[test]
fn p8_what_was_before_a_member_joined_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, store| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else { panic!("it begins") };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes.clear();
        *seen(ledger, CAROLS) = vec![shown(GROUP, 3, 3), shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    });
}

#[test]
fn p8_a_refused_message_that_is_stored_is_unauthorised() {
    // And it should not have been refused.
    expect([(Kind::Unauthorised, 1), (Kind::Stuck, 1)], |ledger, _| {
        ledger.sends[3].outcome = refused("forbidden");
    });
}

#[test]
fn p8_a_message_from_outside_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, _| ledger.sends[3].forbidden = true);
}

#[test]
fn p8_a_message_from_a_removed_member_is_unauthorised() {
    // Carol's message is taken after her removal was answered.
    let late = |began| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store)[4].sender = "carol".into();
            ledger.sends[3] = send(CAROLS, GROUP, 5, began, acked(5, began + 1));
        }
    };
    expect([(Kind::Unauthorised, 1)], late(30));
    expect([], late(24));
}

#[test]
fn p9_who_may_send_and_is_refused_for_good_is_stuck() {
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("internal"));
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("forbidden"));
    expect([], |ledger, _| ledger.sends[4].outcome = refused(NOT_TAKEN));
}

#[test]
fn p9_what_did_not_come_to_its_end_is_stuck() {
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.unfinished.push("a device".into()));
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.ended.push((PHONE, 3, "replaced".into())));
}

#[test]
fn a_verdict_names_the_lines_of_the_promise_with_examples() {
    let verdict = broken(|ledger, _| {
        for at in 0..20 {
            ledger.ended.push((PHONE, at, "replaced".into()));
        }
    });
    let page = verdict.to_string();
    assert!(page.contains("P1 lost                          0\n"), "{page}");
    assert!(
        page.contains("P9 did not come back             20\n    alice/phone (Raw) ended at 0 ms: replaced\n"),
        "{page}"
    );
    assert_eq!(verdict.found[&Kind::Stuck].examples.len(), EXAMPLES);
}

#[test]
fn ledger_and_store_survive_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = good();
    ledger.write(&folder.path().join("ledger")).unwrap();
    store.write(&folder.path().join("store")).unwrap();
    let ledger = Ledger::read(&folder.path().join("ledger")).unwrap();
    let store = StoreView::read(&folder.path().join("store")).unwrap();
    assert_eq!(check(&ledger, &store), broken(|_, _| {}));
}
