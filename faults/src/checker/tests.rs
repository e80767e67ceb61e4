//! A run that kept the promise, and for every way to break it the smallest change that does.

use super::*;
use crate::{
    ledger::{self, Change, Device, History, Id, Instead, LaterAck, Life, Receipt, Send},
    store::{Content, Conversation, Stored},
};

mod access;
mod claims;
mod devices;
mod pushed;
mod stays;
mod stored;

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

fn entry(seq: u64, number: u8, sender: &str, content: Content) -> Stored {
    let client_msg_id = own(number).to_string();
    Stored {
        conversation_seq: seq,
        message_id: id(number),
        sender: sender.into(),
        client_msg_id,
        digest: number.into(),
        content,
    }
}

fn message(seq: u64, number: u8, sender: &str) -> Stored {
    entry(seq, number, sender, Content::Message { begins: own(number).to_string() })
}

fn shown(conversation: u32, conversation_seq: u32, number: u8) -> Seen {
    let (message_id, digest) = (id(number), number.into());
    Seen::Entry(Receipt { conversation, conversation_seq, message_id, digest, at: 50, live: true })
}

fn counted(conversation: u32, conversation_seq: u32, seq: u64) -> Seen {
    let number = if conversation == DIRECT { 7 } else { conversation_seq as u8 };
    let (message_id, digest) = (id(number), number.into());
    Seen::Counted { conversation, conversation_seq, message_id, digest, epoch: 1, seq, at: 50 }
}

fn head(conversation: u32, conversation_seq: u32, visible_from: u32) -> Seen {
    Seen::Head { conversation, conversation_seq, visible_from }
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
    let digest = number.into();
    Send { device, conversation, client_msg_id, digest, began, ordered: true, forbidden: false, outcome }
}

fn acked(number: u8, at: u32) -> Outcome {
    Outcome::Acked { message_id: id(number), at }
}

/// Alice, with a phone and a tablet, Bob and Carol. In the group Carol is removed by entry 4. Alice sends 2 and 3 to it,
/// and 7 to Bob; Bob sends 5 to the group. Message 9 was never acknowledged.
fn good() -> (Ledger, StoreView) {
    let everybody = vec!["bob".to_owned(), "carol".to_owned()];
    let group = vec![
        entry(1, 1, "alice", Content::Created { members: everybody, sees_all: false }),
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
            entries: (1..=5).map(|number| (number.into(), id(number), number.into())).collect(),
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
