//! Who is in a group from when to when.

use super::*;

/// What Carol sees, when she comes and goes by these contents of 4, 5 and 6, and 7 is a message.
fn history(sees_all: bool, contents: [Content; 3]) -> (Ledger, StoreView) {
    let (mut ledger, mut store) = good();
    let [fourth, fifth, sixth] = contents;
    let sender = |content: &Content| if *content == Content::Left { "carol" } else { "alice" };
    let group = entries(&mut store);
    let Content::Created { sees_all: all, .. } = &mut group[0].content else { panic!("it begins") };
    *all = sees_all;
    group.truncate(3);
    for (seq, content) in (4..).zip([fourth, fifth, sixth]) {
        group.push(entry(seq.into(), seq, sender(&content), content));
    }
    group.push(message(7, 7, "bob"));
    store.conversations.get_mut("g:1").unwrap().head = 7;
    // Only what devices and readers see is of interest.
    ledger.sends.clear();
    ledger.later_acks.clear();
    ledger.changes.clear();
    ledger.histories.clear();
    ledger.devices.truncate(1);
    ledger.devices[0] = device(CAROL, "phone", Vec::new());
    (ledger, store)
}

/// How often it is found that Carol was shown or lacks something, when she is shown these.
#[track_caller]
fn expect(sees_all: bool, contents: [Content; 3], numbers: &[u8], found: [u64; 2]) {
    let (mut ledger, store) = history(sees_all, contents);
    *seen(&mut ledger, 0) = numbers.iter().map(|number| shown(GROUP, (*number).into(), *number)).collect();
    let verdict = check(&ledger, &store);
    let counts = [verdict.count(Kind::Unauthorised), verdict.count(Kind::Incomplete)];
    assert_eq!(counts, found, "{numbers:?}: {verdict}");
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
fn who_left_sees_no_more() {
    let left = || [Content::Left, renamed(), renamed()];
    expect(false, left(), &[1, 2, 3, 4], [0, 0]);
    expect(false, left(), &[1, 2, 3, 4, 5], [1, 0]);
}

#[test]
fn who_is_added_again_sees_what_is_said_from_then_on() {
    let again = || [removed(), renamed(), added()];
    expect(false, again(), &[1, 2, 3, 4, 6, 7], [0, 0]);
    expect(false, again(), &[1, 2, 3, 4, 5, 6, 7], [1, 0]);
    expect(false, again(), &[1, 2, 3, 4], [0, 1]);
    expect(false, again(), &[1, 2, 3, 4, 7], [0, 1]);
}

#[test]
fn where_all_is_seen_it_is_seen_by_who_is_added_again() {
    let again = || [removed(), renamed(), added()];
    expect(true, again(), &[1, 2, 3, 4, 5, 6, 7], [0, 0]);
    expect(true, again(), &[1, 2, 3, 4, 6, 7], [0, 1]);
}

#[test]
fn who_is_added_a_second_time_without_having_left_stays() {
    expect(false, [added(), renamed(), renamed()], &[1, 2, 3, 4, 5, 6, 7], [0, 0]);
    expect(false, [removed(), removed(), added()], &[1, 2, 3, 4, 6, 7], [0, 0]);
    expect(false, [removed(), removed(), added()], &[1, 2, 3, 4, 5, 6, 7], [1, 0]);
}

#[test]
fn claims_are_held_to_what_can_be_seen() {
    let claims = |contents: [Content; 3], positions: Vec<(u32, u32)>, counts: u32| {
        let (mut ledger, store) = history(false, contents);
        let life = Life { began: 0, positions, seen: vec![counted(GROUP, counts, 9), complete(9)] };
        ledger.devices[0].lives = vec![life];
        check(&ledger, &store).count(Kind::Lied)
    };
    let stays = || [renamed(), renamed(), renamed()];
    assert_eq!(claims(stays(), Vec::new(), 4), 1);
    // A program that was started again had kept it.
    assert_eq!(claims(stays(), vec![(GROUP, 4)], 4), 0);
    assert_eq!(claims(stays(), vec![(GROUP, 3)], 4), 1);
    // Who was out meanwhile could not fetch it.
    assert_eq!(claims([renamed(), removed(), renamed()], Vec::new(), 4), 0);
    assert_eq!(claims([renamed(), removed(), added()], Vec::new(), 4), 0);
    assert_eq!(claims([removed(), renamed(), added()], Vec::new(), 6), 1);
}
