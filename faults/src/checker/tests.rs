//! A good run, and for every kind of violation the smallest change of it that causes one.

use super::*;
use crate::{
    ledger::{self, Device, FailedRead, History, Id, Incarnation, LaterAck, MembershipChange, Receipt, Send},
    store::{Content, Conversation, Stored},
};

mod access;
mod claims;
mod delivered;
mod edits;
mod heads;
mod membership;
mod receipts;
mod signals;
mod stored;

const GROUP: u32 = 0;
const DIRECT: u32 = 1;
const ALICE: u32 = 0;
const BOB: u32 = 1;
const CAROL: u32 = 2;
const ALICES_PHONE: u32 = 0;
const ALICES_TABLET: u32 = 1;
const BOBS_PHONE: u32 = 2;
const CAROLS_PHONE: u32 = 3;

fn id(number: u8) -> Id {
    Id([number; 16])
}

/// The `client_msg_id` of the message with a number.
fn client_id(number: u8) -> Id {
    Id([100 + number; 16])
}

fn entry(seq: u64, number: u8, sender: &str, content: Content) -> Stored {
    let client_msg_id = client_id(number).to_string();
    Stored {
        conversation_seq: seq,
        message_id: id(number),
        sender: sender.into(),
        device: "phone".into(),
        client_msg_id,
        digest: number.into(),
        identity: number.into(),
        body: ledger::body_of(None),
        countable: matches!(content, Content::Message { .. }),
        sent_at_ms: 1_000 + i64::from(number),
        refers_to: None,
        content,
    }
}

fn message(seq: u64, number: u8, sender: &str) -> Stored {
    entry(seq, number, sender, Content::Message { excerpt: client_id(number).to_string() })
}

fn shown(conversation: u32, conversation_seq: u32, number: u8) -> Observation {
    let (message_id, digest) = (id(number), number.into());
    Observation::Entry(Receipt {
        conversation,
        conversation_seq,
        message_id,
        digest,
        state: 0,
        at: 50,
        live: true,
    })
}

fn delivered(conversation: u32, conversation_seq: u32, seq: u64) -> Observation {
    let number = if conversation == DIRECT { 7 } else { conversation_seq as u8 };
    let (message_id, digest) = (id(number), number.into());
    Observation::Delivered {
        conversation,
        conversation_seq,
        message_id,
        digest,
        target_state: 0,
        epoch: 1,
        seq,
        at: 50,
    }
}

fn head(conversation: u32, conversation_seq: u32, visible_from: u32) -> Observation {
    Observation::Head { conversation, conversation_seq, visible_from }
}

fn complete(seq: u64) -> Observation {
    Observation::Complete { epoch: 1, seq, at: 60 }
}

fn device(user: u32, name: &str, observations: Vec<Observation>) -> Device {
    let incarnations = vec![Incarnation { began: 0, positions: Vec::new(), observations }];
    Device { user, name: name.into(), kind: ledger::DeviceKind::Raw, incarnations }
}

fn send(device: u32, conversation: u32, number: u8, began: u32, outcome: Outcome) -> Send {
    let client_msg_id = client_id(number);
    let digest = number.into();
    Send {
        device,
        conversation,
        client_msg_id,
        digest,
        target: None,
        began,
        ordered: true,
        forbidden: false,
        outcome,
    }
}

fn acked(number: u8, at: u32) -> Outcome {
    Outcome::Acked { message_id: id(number), at }
}

/// Alice has a phone and a tablet, Bob and Carol a phone each. In the group, entry 4 removes Carol. Alice sends 2 and 3 to the
/// group, and 7 to Bob; Bob sends 5 to the group. Message 9 was never acknowledged.
fn good_run() -> (Ledger, StoreView) {
    let members = vec!["bob".to_owned(), "carol".to_owned()];
    let group = vec![
        entry(1, 1, "alice", Content::Created { members, sees_all: false }),
        message(2, 2, "alice"),
        message(3, 3, "alice"),
        entry(4, 4, "alice", Content::Removed(vec!["carol".into()])),
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
    let with_direct = |mut observations: Vec<Observation>| {
        observations.extend([delivered(DIRECT, 1, 6), shown(DIRECT, 1, 7), complete(6)]);
        observations
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
            send(ALICES_PHONE, GROUP, 2, 10, acked(2, 12)),
            send(ALICES_PHONE, GROUP, 3, 11, acked(3, 14)),
            send(ALICES_PHONE, DIRECT, 7, 11, acked(7, 14)),
            send(BOBS_PHONE, GROUP, 5, 30, acked(5, 31)),
            send(BOBS_PHONE, GROUP, 9, 32, Outcome::Unknown),
            send(CAROLS_PHONE, GROUP, 8, 40, refused("forbidden")),
        ],
        later_acks: vec![LaterAck { send: 0, message_id: id(2), at: 90 }],
        changes: vec![removal()],
        histories: vec![History {
            conversation: GROUP,
            user: ALICE,
            entries: (1..=5).map(|number| (number.into(), id(number), number.into(), 0)).collect(),
        }],
        ..Ledger::default()
    };
    (ledger, store)
}

fn refused(code: &str) -> Outcome {
    Outcome::Refused { code: code.into(), at: 41, first_attempt: true }
}

fn removal() -> MembershipChange {
    MembershipChange {
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

fn observations(ledger: &mut Ledger, device: u32) -> &mut Vec<Observation> {
    &mut ledger.devices[device as usize].incarnations[0].observations
}

/// Changes a good run and returns the verdict.
#[track_caller]
fn check_broken(break_it: impl FnOnce(&mut Ledger, &mut StoreView)) -> Verdict {
    let (mut ledger, mut store) = good_run();
    break_it(&mut ledger, &mut store);
    check(&ledger, &store)
}

/// Changes a good run and expects these numbers of violations, and no others.
#[track_caller]
fn expect<const N: usize>(
    violations: [(Violation, u64); N],
    break_it: impl FnOnce(&mut Ledger, &mut StoreView),
) {
    let verdict = check_broken(break_it);
    let counts: Vec<_> =
        verdict.violations.iter().map(|(kind, violations)| (*kind, violations.count)).collect();
    assert_eq!(counts, violations, "{verdict}");
}

#[test]
fn a_good_run_has_no_violations_and_right_figures() {
    let verdict = check_broken(|_, _| {});
    assert!(verdict.is_clean(), "{verdict}");
    let Figures { sent, acked, refused, unknown, stored, receipts, claims, .. } = verdict.figures;
    assert_eq!([sent, acked, refused, unknown, stored, receipts, claims], [6, 4, 1, 1, 6, 22, 3]);
}

#[test]
fn a_verdict_lists_each_guarantee_with_examples() {
    let verdict = check_broken(|ledger, _| {
        for at in 0..20 {
            ledger.ended.push((ALICES_PHONE, at, "replaced".into()));
        }
    });
    let page = verdict.to_string();
    assert!(page.contains("P1 lost                          0\n"), "{page}");
    assert!(
        page.contains("P9 did not recover               20\n    alice/phone (Raw) ended at 0 ms: replaced\n"),
        "{page}"
    );
    assert_eq!(verdict.violations[&Violation::Stuck].examples.len(), EXAMPLES);
}

#[test]
fn ledger_and_store_round_trip_through_files() {
    let folder = tempfile::tempdir().unwrap();
    let (ledger, store) = good_run();
    ledger.write(&folder.path().join("ledger")).unwrap();
    store.write(&folder.path().join("store")).unwrap();
    let ledger = Ledger::read(&folder.path().join("ledger")).unwrap();
    let store = StoreView::read(&folder.path().join("store")).unwrap();
    assert_eq!(check(&ledger, &store), check_broken(|_, _| {}));
}
