//! Edits, recalls and reactions against a replay of the stored entries.

use super::*;
use abi::v1::{EntryState, ReactionCount};

/// The digest of an entry with another content.
fn digest(number: u8, body: u64) -> u64 {
    ledger::digest(number.into(), body)
}

fn state(changed_seq: u64) -> EntryState {
    EntryState { changed_seq, ..EntryState::default() }
}

/// The good run, where Alice edits message 3 with entry 6, Bob reacts to it with 7, and she recalls message 2 with 8.
fn with_changes(ledger: &mut Ledger, store: &mut StoreView) {
    let change = |seq: u64, number, sender, content, target| Stored {
        refers_to: Some(id(target)),
        body: seq,
        ..entry(seq, number, sender, content)
    };
    entries(store).extend([
        change(6, 60, "alice", Content::Edit, 3),
        change(7, 70, "bob", Content::Reaction(vec!["+1".into()]), 3),
        change(8, 80, "alice", Content::Recall, 2),
    ]);
    store.conversations.get_mut("g:1").unwrap().head = 8;
    for (device, number, target) in [(ALICES_PHONE, 60, 3), (BOBS_PHONE, 70, 3), (ALICES_PHONE, 80, 2)] {
        let made = send(device, GROUP, number, 50, acked(number, 51));
        ledger.sends.push(Send { target: Some(id(target)), ordered: false, ..made });
    }
    for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
        observations(ledger, device).extend([shown(GROUP, 6, 60), shown(GROUP, 7, 70), shown(GROUP, 8, 80)]);
    }
    let read = &mut ledger.histories[0].entries;
    read[1].2 = digest(2, ledger::body_of(None));
    read[1].3 = ledger::own_state_of(Some(&EntryState { recalled_by: "alice".into(), ..state(8) }));
    read[2].2 = digest(3, 6);
    read[2].3 = ledger::own_state_of(Some(&reacted(false)));
    read.extend([(6, id(60), 60, 0), (7, id(70), 70, 0), (8, id(80), 80, 0)]);
}

/// The state of message 3 after the reaction.
fn reacted(mine: bool) -> EntryState {
    let reactions = vec![ReactionCount { reaction: "+1".into(), count: 1, mine }];
    EntryState { edits: 1, edited_at_ms: 1_060, reactions, ..state(7) }
}

#[track_caller]
fn expect_changed<const N: usize>(
    violations: [(Violation, u64); N],
    break_it: impl FnOnce(&mut Ledger, &mut StoreView),
) {
    expect(violations, |ledger, store| {
        with_changes(ledger, store);
        break_it(ledger, store);
    });
}

#[test]
fn changes_that_all_read_are_no_violation() {
    expect_changed([], |_, _| {});
}

#[test]
fn p1_an_acknowledged_change_that_is_not_in_force_is_a_mismatch() {
    // The old text, the text of a recalled message, a missing state, a lost reaction, and a reaction of another user.
    expect_changed([(Violation::Mismatch, 1)], |ledger, _| ledger.histories[0].entries[2].2 = 3);
    expect_changed([(Violation::Mismatch, 1)], |ledger, _| ledger.histories[0].entries[1].2 = 2);
    expect_changed([(Violation::Mismatch, 1)], |ledger, _| ledger.histories[0].entries[1].3 = 0);
    for wrong in [EntryState { reactions: Vec::new(), ..reacted(false) }, reacted(true)] {
        expect_changed([(Violation::Mismatch, 1)], |ledger, _| {
            ledger.histories[0].entries[2].3 = ledger::own_state_of(Some(&wrong));
        });
    }
}

#[test]
fn p1_an_acknowledged_change_that_is_not_stored_is_lost() {
    let verdict = check_broken(|ledger, store| {
        with_changes(ledger, store);
        entries(store).pop();
        store.conversations.get_mut("g:1").unwrap().head = 7;
    });
    assert_eq!(verdict.count(Violation::Lost), 1, "{verdict}");
}

#[test]
fn p1_a_message_shown_in_a_version_that_never_existed_is_a_mismatch() {
    let show = |digest: u64, state: Option<&EntryState>| {
        let state = ledger::state_of(state);
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let Observation::Entry(receipt) = &mut observations(ledger, BOBS_PHONE)[2] else {
                panic!("the fixture has a receipt here")
            };
            (receipt.digest, receipt.state) = (digest, state);
        }
    };
    expect_changed([], show(3, None));
    expect_changed([], show(digest(3, 6), Some(&reacted(true))));
    expect_changed([(Violation::Mismatch, 1)], show(digest(3, 7), None));
    expect_changed([(Violation::Mismatch, 1)], show(3, Some(&state(7))));
}

#[test]
fn p1_a_delivered_change_with_a_wrong_state_is_a_mismatch() {
    let deliver = |state: Option<&EntryState>| {
        let target_state = ledger::state_of(state);
        move |ledger: &mut Ledger, _: &mut StoreView| {
            observations(ledger, BOBS_PHONE).push(Observation::Delivered {
                conversation: GROUP,
                conversation_seq: 7,
                message_id: id(70),
                digest: 70,
                target_state,
                epoch: 1,
                seq: 9,
                at: 60,
            });
        }
    };
    expect_changed([], deliver(Some(&reacted(false))));
    expect_changed([(Violation::Mismatch, 1)], deliver(Some(&state(7))));
    expect_changed([(Violation::Mismatch, 1)], deliver(None));
}

#[test]
fn p8_a_stored_change_that_breaks_the_rules_is_unauthorised() {
    let broken = |break_it: fn(&mut Vec<Stored>)| {
        check_broken(|ledger, store| {
            with_changes(ledger, store);
            break_it(entries(store));
        })
    };
    // Bob edits and recalls a message of Alice, Carol reacts after her removal, a recalled message gets a reaction, and a
    // reaction refers to a change and to nothing.
    for verdict in [
        broken(|entries| entries[5].sender = "bob".into()),
        broken(|entries| entries[7].sender = "bob".into()),
        broken(|entries| entries[6].sender = "carol".into()),
        broken(|entries| entries[5].content = Content::Recall),
        broken(|entries| entries[6].refers_to = Some(id(60))),
        broken(|entries| entries[6].refers_to = Some(id(99))),
    ] {
        assert_ne!(verdict.count(Violation::Unauthorised), 0, "{verdict}");
    }
}

#[test]
fn p9_a_change_refused_without_a_reason_is_stuck() {
    let refuse = |code: &'static str, target: u8| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let made = send(BOBS_PHONE, GROUP, 90, 50, refused(code));
            ledger.sends.push(Send { target: Some(id(target)), ordered: false, ..made });
        }
    };
    expect_changed([], refuse("conflict", 2));
    expect_changed([(Violation::Stuck, 1)], refuse("conflict", 3));
    expect_changed([(Violation::Stuck, 1)], refuse("not_found", 3));
}
