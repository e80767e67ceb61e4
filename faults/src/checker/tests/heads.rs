//! Heads that users read at the end.

use super::*;
use crate::ledger::{FinalHead, Settings, SettingsChange};

fn head_of(user: u32, conversation: u32, conversation_seq: u32, read_seq: u32, unread: u32) -> FinalHead {
    FinalHead { user, conversation, conversation_seq, read_seq, unread, settings: Settings::default() }
}

/// The good run with the heads of all. Bob has read up to entry 2, and pinned the group twice.
fn with_heads(ledger: &mut Ledger) {
    let settings = |answered| SettingsChange { user: BOB, conversation: GROUP, began: 50, answered };
    ledger.settings = vec![settings(Some(51)), settings(Some(52))];
    observations(ledger, BOBS_PHONE).push(Observation::ReadPosition { conversation: GROUP, read: 2 });
    ledger.heads = vec![
        head_of(ALICE, GROUP, 5, 0, 1),
        head_of(ALICE, DIRECT, 1, 0, 0),
        FinalHead { settings: Settings::of(1), ..head_of(BOB, GROUP, 5, 2, 1) },
        head_of(BOB, DIRECT, 1, 0, 1),
        head_of(CAROL, GROUP, 4, 0, 2),
    ];
}

#[track_caller]
fn expect_heads<const N: usize>(
    violations: [(Violation, u64); N],
    break_it: impl FnOnce(&mut Ledger, &mut StoreView),
) {
    expect(violations, |ledger, store| {
        with_heads(ledger);
        break_it(ledger, store);
    });
}

#[test]
fn right_heads_are_no_violation() {
    expect_heads([], |_, _| {});
}

#[test]
fn p1_a_wrong_unread_count_is_a_mismatch() {
    // The user's own messages, and entries that are no messages, do not count.
    for unread in [0, 2, 4, 5] {
        expect_heads([(Violation::Mismatch, 1)], |ledger, _| ledger.heads[0].unread = unread);
    }
    // Messages after the removal don't count either.
    expect_heads([(Violation::Mismatch, 1)], |ledger, _| ledger.heads[4].unread = 3);
}

#[test]
fn p1_a_recalled_message_that_counts_as_unread_is_a_mismatch() {
    let verdict = check_broken(|ledger, store| {
        with_heads(ledger);
        let recall = entry(6, 60, "bob", Content::Recall);
        entries(store).push(Stored { refers_to: Some(id(5)), ..recall });
        ledger.heads[0].conversation_seq = 6;
        ledger.heads[2].conversation_seq = 6;
    });
    let found = &verdict.violations[&Violation::Mismatch].examples;
    assert!(found.iter().any(|found| found.contains("0 are unread")), "{verdict}");
}

#[test]
fn p1_a_lower_read_position_than_answered_is_a_mismatch() {
    expect_heads([(Violation::Mismatch, 1)], |ledger, _| ledger.heads[2].read_seq = 1);
}

#[test]
fn p1_lost_settings_are_a_mismatch() {
    for settings in [Settings::default(), Settings::of(0), Settings { pinned: false, ..Settings::of(1) }] {
        expect_heads([(Violation::Mismatch, 1)], |ledger, _| ledger.heads[2].settings = settings);
    }
    // A change without an answer may be in force or not.
    expect_heads([], |ledger, _| {
        ledger.settings[1].answered = None;
        ledger.heads[2].settings = Settings::of(0);
    });
    expect_heads([], |ledger, _| ledger.settings[1].answered = None);
}

#[test]
fn p5_a_missing_or_old_head_is_incomplete() {
    expect_heads([(Violation::Incomplete, 1)], |ledger, _| ledger.heads[1].conversation_seq = 0);
    expect_heads([(Violation::Incomplete, 1)], |ledger, _| drop(ledger.heads.remove(1)));
    // Carol can't see what was sent after her removal.
    expect_heads([(Violation::Incomplete, 1)], |ledger, _| ledger.heads[4].conversation_seq = 5);
}

#[test]
fn p8_a_head_of_a_stranger_is_unauthorised() {
    expect_heads([(Violation::Unauthorised, 1)], |ledger, _| {
        ledger.heads.push(head_of(CAROL, DIRECT, 1, 0, 1));
    });
}
