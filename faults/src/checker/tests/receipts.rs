//! Entries that devices showed, against the store.

use super::*;

#[test]
fn p1_an_acknowledged_message_that_a_device_never_showed_is_lost() {
    expect([(Violation::Lost, 1), (Violation::Incomplete, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).retain(|observations| *observations != shown(GROUP, 5, 5));
    });
}

#[test]
fn p1_a_shown_entry_that_is_not_stored_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).push(shown(GROUP, 6, 66))
    });
    expect([(Violation::Mismatch, 1)], |ledger, _| observations(ledger, BOBS_PHONE)[2] = shown(GROUP, 3, 66));
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        let Observation::Entry(receipt) = &mut observations(ledger, BOBS_PHONE)[2] else {
            panic!("the fixture has a receipt here")
        };
        receipt.digest = 66;
    });
}

#[test]
fn p2_an_entry_shown_twice_is_duplicated() {
    expect([(Violation::Duplicated, 1)], |ledger, _| {
        observations(ledger, ALICES_PHONE).push(shown(GROUP, 3, 3))
    });
    expect([(Violation::Duplicated, 2)], |ledger, _| {
        let positions = vec![(GROUP, 5), (DIRECT, 1)];
        let observations = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
        ledger.devices[0].incarnations.push(Incarnation { began: 70, positions, observations });
    });
}

#[test]
fn p2_a_program_with_an_old_state_shows_later_entries_again() {
    let restarted = Incarnation {
        began: 70,
        positions: vec![(GROUP, 3), (DIRECT, 1)],
        observations: vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)],
    };
    expect([], |ledger, _| ledger.devices[0].incarnations.push(restarted.clone()));
    expect([(Violation::Lost, 1), (Violation::Incomplete, 1)], |ledger, _| {
        let mut incarnation = restarted.clone();
        incarnation.observations.pop();
        ledger.devices[0].incarnations.push(incarnation);
    });
}

#[test]
fn p3_entries_shown_in_another_order_are_out_of_order() {
    expect([(Violation::Lost, 1), (Violation::OutOfOrder, 1), (Violation::Incomplete, 1)], |ledger, _| {
        observations(ledger, ALICES_TABLET).swap(1, 2);
    });
}

#[test]
fn p5_a_gap_in_the_shown_entries_is_incomplete() {
    expect([(Violation::Incomplete, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).retain(|observations| *observations != shown(GROUP, 4, 4));
    });
}

#[test]
fn p5_a_saved_state_ahead_of_the_shown_entries_is_incomplete() {
    // Bob's program restarts with a saved state that has entry 5, which it never showed.
    expect([(Violation::Lost, 1), (Violation::Incomplete, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).retain(|observations| *observations != shown(GROUP, 5, 5));
        let positions = vec![(GROUP, 5), (DIRECT, 1)];
        ledger.devices[BOBS_PHONE as usize].incarnations.push(Incarnation {
            began: 70,
            positions,
            observations: Vec::new(),
        });
    });
    // Entries before the join of a new member need not be shown.
    expect([], |ledger, store| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else {
            panic!("the group begins with its creation")
        };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        ledger.sends.pop();
        let incarnation = &mut ledger.devices[CAROLS_PHONE as usize].incarnations[0];
        incarnation.positions = vec![(GROUP, 3)];
        incarnation.observations = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    });
}
