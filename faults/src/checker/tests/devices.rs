//! What devices were shown against the store.

use super::*;

#[test]
fn p1_acknowledged_and_never_shown_to_a_device_is_lost_to_it() {
    expect([(Kind::Lost, 1), (Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, BOBS).retain(|seen| *seen != shown(GROUP, 5, 5));
    });
}

#[test]
fn p1_shown_and_not_stored_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| seen(ledger, BOBS).push(shown(GROUP, 6, 66)));
    expect([(Kind::Untrue, 1)], |ledger, _| seen(ledger, BOBS)[2] = shown(GROUP, 3, 66));
    expect([(Kind::Untrue, 1)], |ledger, _| {
        let Seen::Entry(receipt) = &mut seen(ledger, BOBS)[2] else { panic!("it was shown") };
        receipt.digest = 66;
    });
}

#[test]
fn p2_shown_twice_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| seen(ledger, PHONE).push(shown(GROUP, 3, 3)));
    expect([(Kind::Duplicated, 2)], |ledger, _| {
        let positions = vec![(GROUP, 5), (DIRECT, 1)];
        let seen = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
        ledger.devices[0].lives.push(Life { began: 70, positions, seen });
    });
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
fn p3_shown_in_another_order_is_out_of_order() {
    expect([(Kind::Lost, 1), (Kind::OutOfOrder, 1), (Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, TABLET).swap(1, 2);
    });
}

#[test]
fn p5_a_hole_in_what_a_device_was_shown_is_incomplete() {
    expect([(Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, BOBS).retain(|seen| *seen != shown(GROUP, 4, 4));
    });
}

#[test]
fn p5_a_kept_state_that_runs_ahead_of_what_was_shown_is_incomplete() {
    // Bob's program is started again with a state in which it has 5, which it never took.
    expect([(Kind::Lost, 1), (Kind::Incomplete, 1)], |ledger, _| {
        seen(ledger, BOBS).retain(|seen| *seen != shown(GROUP, 5, 5));
        let positions = vec![(GROUP, 5), (DIRECT, 1)];
        ledger.devices[BOBS as usize].lives.push(Life { began: 70, positions, seen: Vec::new() });
    });
    // Before what a newcomer sees there is nothing to be shown.
    expect([], |ledger, store| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else { panic!("it begins") };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        ledger.sends.pop();
        let life = &mut ledger.devices[CAROLS as usize].lives[0];
        life.positions = vec![(GROUP, 3)];
        life.seen = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    });
}
