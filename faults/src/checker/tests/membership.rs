//! Visibility for members who leave, are removed or join again.

use super::*;

/// A run whose entries 4, 5 and 6 have these contents, which change Carol's membership; 7 is a message.
fn group_run(sees_all: bool, contents: [Content; 3]) -> (Ledger, StoreView) {
    let (mut ledger, mut store) = good_run();
    let [fourth, fifth, sixth] = contents;
    let sender = |content: &Content| if *content == Content::Left { "carol" } else { "alice" };
    let group = entries(&mut store);
    let Content::Created { sees_all: all, .. } = &mut group[0].content else {
        panic!("the group begins with its creation")
    };
    *all = sees_all;
    group.truncate(3);
    for (seq, content) in (4..).zip([fourth, fifth, sixth]) {
        group.push(entry(seq.into(), seq, sender(&content), content));
    }
    group.push(message(7, 7, "bob"));
    store.conversations.get_mut("g:1").unwrap().head = 7;
    // Only the receipts matter here.
    ledger.sends.clear();
    ledger.later_acks.clear();
    ledger.changes.clear();
    ledger.histories.clear();
    ledger.devices.truncate(1);
    ledger.devices[0] = device(CAROL, "phone", Vec::new());
    (ledger, store)
}

/// Expects these numbers of unauthorised and incomplete receipts when Carol's device shows these entries.
#[track_caller]
fn expect(sees_all: bool, contents: [Content; 3], numbers: &[u8], violations: [u64; 2]) {
    let (mut ledger, store) = group_run(sees_all, contents);
    *observations(&mut ledger, 0) =
        numbers.iter().map(|number| shown(GROUP, (*number).into(), *number)).collect();
    let verdict = check(&ledger, &store);
    let counts = [verdict.count(Violation::Unauthorised), verdict.count(Violation::Incomplete)];
    assert_eq!(counts, violations, "{numbers:?}: {verdict}");
}

fn added() -> Content {
    Content::Added(vec!["carol".into()])
}

fn removed() -> Content {
    Content::Removed(vec!["carol".into()])
}

fn renamed() -> Content {
    Content::Added(Vec::new())
}

#[test]
fn a_member_who_left_sees_no_later_entries() {
    let left = || [Content::Left, renamed(), renamed()];
    expect(false, left(), &[1, 2, 3, 4], [0, 0]);
    expect(false, left(), &[1, 2, 3, 4, 5], [1, 0]);
}

#[test]
fn a_member_added_again_sees_entries_since_joining_again() {
    let again = || [removed(), renamed(), added()];
    expect(false, again(), &[1, 2, 3, 4, 6, 7], [0, 0]);
    expect(false, again(), &[1, 2, 3, 4, 5, 6, 7], [1, 0]);
    expect(false, again(), &[1, 2, 3, 4], [0, 1]);
    expect(false, again(), &[1, 2, 3, 4, 7], [0, 1]);
}

#[test]
fn a_member_added_again_sees_everything_in_a_group_with_full_history() {
    let again = || [removed(), renamed(), added()];
    expect(true, again(), &[1, 2, 3, 4, 5, 6, 7], [0, 0]);
    expect(true, again(), &[1, 2, 3, 4, 6, 7], [0, 1]);
}

#[test]
fn adding_a_member_twice_changes_nothing() {
    expect(false, [added(), renamed(), renamed()], &[1, 2, 3, 4, 5, 6, 7], [0, 0]);
    expect(false, [removed(), removed(), added()], &[1, 2, 3, 4, 6, 7], [0, 0]);
    expect(false, [removed(), removed(), added()], &[1, 2, 3, 4, 5, 6, 7], [1, 0]);
}

#[test]
fn claims_cover_only_visible_entries() {
    let claims = |contents: [Content; 3], positions: Vec<(u32, u32)>, counts: u32| {
        let (mut ledger, store) = group_run(false, contents);
        let incarnation =
            Incarnation { began: 0, positions, observations: vec![delivered(GROUP, counts, 9), complete(9)] };
        ledger.devices[0].incarnations = vec![incarnation];
        check(&ledger, &store).count(Violation::FalseClaim)
    };
    let stays = || [renamed(), renamed(), renamed()];
    assert_eq!(claims(stays(), Vec::new(), 4), 1);
    // The saved state of a restarted program already has it.
    assert_eq!(claims(stays(), vec![(GROUP, 4)], 4), 0);
    assert_eq!(claims(stays(), vec![(GROUP, 3)], 4), 1);
    // A user who was removed in between could not fetch it.
    assert_eq!(claims([renamed(), removed(), renamed()], Vec::new(), 4), 0);
    assert_eq!(claims([renamed(), removed(), added()], Vec::new(), 4), 0);
    assert_eq!(claims([removed(), renamed(), added()], Vec::new(), 6), 1);
}
