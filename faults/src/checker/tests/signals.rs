//! Signals that devices got.

use super::*;
use crate::ledger::SentSignal;

/// Adds a signal that a user sent to the group at 30 ms, after the removal of Carol, and that a device got.
fn signalled(user: u32, device: u32, times: usize) -> impl FnOnce(&mut Ledger, &mut StoreView) {
    move |ledger, _| {
        ledger.signals.push(SentSignal { user, conversation: GROUP, began: 30 });
        let number = Some(0);
        let got = Observation::Signal { conversation: GROUP, user, number, at: 31 };
        observations(ledger, device).extend(vec![got; times]);
    }
}

#[test]
fn signals_between_members_are_no_violation() {
    expect([], signalled(ALICE, BOBS_PHONE, 1));
    expect([], signalled(ALICE, BOBS_PHONE, 0));
}

#[test]
fn p2_a_signal_that_a_device_gets_twice_is_duplicated() {
    expect([(Violation::Duplicated, 1)], signalled(ALICE, BOBS_PHONE, 2));
}

#[test]
fn p1_a_signal_that_nobody_sent_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, store| {
        signalled(ALICE, BOBS_PHONE, 1)(ledger, store);
        ledger.signals[0].user = BOB;
    });
}

#[test]
fn p8_a_signal_of_or_to_a_user_who_is_not_a_member_is_unauthorised() {
    expect([(Violation::Unauthorised, 1)], signalled(CAROL, BOBS_PHONE, 1));
    expect([(Violation::Unauthorised, 1)], signalled(ALICE, CAROLS_PHONE, 1));
    // Her removal was answered at 25 ms.
    expect([], |ledger, store| {
        signalled(CAROL, BOBS_PHONE, 1)(ledger, store);
        ledger.signals[0].began = 24;
    });
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        let typing = Observation::Signal { conversation: DIRECT, user: CAROL, number: None, at: 31 };
        observations(ledger, BOBS_PHONE).push(typing);
    });
}
