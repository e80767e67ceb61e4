//! Tests of the rules for which no store is needed.

use super::{
    Limits,
    entries::{EntryEffect, Proposal, State, Target, decide},
};
use crate::item::EntryChange;
use abi::{error::ErrorCode, v1::Role};

/// The limits of stores in tests.
pub(crate) const LIMITS: Limits =
    Limits { max_group_members: 8, edit_window_ms: 60_000, recall_window_ms: 60_000, max_receipt_members: 4 };

fn target() -> Target {
    Target {
        seq: 5,
        sender: "bob".into(),
        sent_at_ms: 1_000,
        kind: None,
        counts: true,
        is_visible: true,
        state: State::default(),
        own_reactions: Vec::new(),
    }
}

/// The decision about a change by a user, as seq 9 and without windows.
fn decided(
    target: Option<&Target>,
    sender: &str,
    role: Option<Role>,
    change: EntryChange,
) -> Result<EntryEffect, ErrorCode> {
    let proposal = Proposal { sender, role, change: &change, seq: 9, sent_at_ms: i64::MAX, windows: None };
    decide(target, &proposal).map_err(|refused| refused.code)
}

#[test]
fn p8_the_errors_have_an_order_that_reveals_nothing() {
    let (edit, member) = (|| EntryChange::Edit { has_content: false }, Some(Role::Member));
    let hidden = Target { is_visible: false, ..target() };
    let changed = Target { kind: Some("edit".into()), ..hidden.clone() };
    // Whoever is not a member learns nothing about the entry.
    for target in [None, Some(&hidden), Some(&changed)] {
        assert_eq!(decided(target, "bob", None, edit()), Err(ErrorCode::Forbidden));
        assert_eq!(decided(target, "bob", member, edit()), Err(ErrorCode::NotFound));
    }
    let recalled = Target { state: State { recalled_seq: 6, ..State::default() }, ..target() };
    let edited = Target { kind: Some("edit".into()), ..recalled.clone() };
    assert_eq!(decided(Some(&edited), "eve", member, edit()), Err(ErrorCode::InvalidRequest));
    assert_eq!(decided(Some(&recalled), "eve", member, edit()), Err(ErrorCode::Conflict));
    assert_eq!(decided(Some(&target()), "eve", member, edit()), Err(ErrorCode::Forbidden));
    assert_eq!(decided(Some(&target()), "bob", member, edit()), Err(ErrorCode::InvalidRequest));
}

#[test]
fn an_effect_keeps_what_earlier_changes_did() {
    let state = State {
        changed_seq: 8,
        edits: 3,
        edited_at_ms: 7,
        edit_seq: 8,
        reactions: vec![("a".into(), 1)],
        ..State::default()
    };
    let target = Target { state: state.clone(), ..target() };
    let effect = decided(Some(&target), "bob", Some(Role::Member), EntryChange::Recall).unwrap();
    let expected = State { changed_seq: 9, recalled_seq: 9, recalled_by: "bob".into(), ..state };
    assert_eq!(effect, EntryEffect { state: expected, own_reactions: None, is_recall: true });
}
