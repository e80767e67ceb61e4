//! Entries that the server pushed and heads that it listed.

use super::*;

#[test]
fn p4_a_delivered_entry_that_cannot_be_read_is_a_false_claim() {
    let unreadable = |device: u32, conversation_seq: u32, answer: FailedRead| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let observations = observations(ledger, device);
            observations.push(Observation::Unreadable {
                conversation: GROUP,
                conversation_seq,
                answer,
                at: 60,
            });
        }
    };
    for answer in [FailedRead::Empty, FailedRead::OtherEntry, FailedRead::Refused] {
        expect([(Violation::FalseClaim, 1)], unreadable(BOBS_PHONE, 5, answer));
    }
    // Carol may have been removed by then. If she was added again, she would see other entries.
    expect([], unreadable(CAROLS_PHONE, 3, FailedRead::OtherEntry));
    expect([], unreadable(CAROLS_PHONE, 3, FailedRead::Refused));
}

#[test]
fn p8_a_push_to_a_user_who_is_not_a_member_is_unauthorised() {
    // Carol's device showed nothing: it had no position there, and its request was refused.
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(delivered(DIRECT, 1, 9))
    });
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(delivered(GROUP, 5, 9))
    });
    expect([], |ledger, _| observations(ledger, CAROLS_PHONE).push(delivered(GROUP, 4, 9)));
}

#[test]
fn p1_a_push_that_differs_from_the_store_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        let Observation::Delivered { message_id, .. } = &mut observations(ledger, BOBS_PHONE)[5] else {
            panic!("the fixture has a delivery here")
        };
        *message_id = id(66);
    });
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        let Observation::Delivered { digest, .. } = &mut observations(ledger, BOBS_PHONE)[5] else {
            panic!("the fixture has a delivery here")
        };
        *digest = 66;
    });
    // A second entry with a used conversation_seq, which the device drops as old, and an entry that is not stored at all.
    for seq in [1, 2] {
        expect([(Violation::Mismatch, 1)], |ledger, _| {
            let other = id(66);
            observations(ledger, BOBS_PHONE).push(Observation::Delivered {
                conversation: DIRECT,
                conversation_seq: seq,
                message_id: other,
                digest: 66,
                target_state: 0,
                epoch: 1,
                seq: 7,
                at: 50,
            });
        });
    }
}

#[test]
fn p8_a_head_without_membership_is_unauthorised() {
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(head(DIRECT, 1, 1))
    });
    // Entry 4 removed her, so a head of 5 is too late for her.
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(head(GROUP, 5, 1))
    });
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).push(head(GROUP, 5, 2))
    });
    expect([], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(head(GROUP, 4, 1));
        observations(ledger, BOBS_PHONE).push(head(GROUP, 5, 1));
    });
}

#[test]
fn p1_a_read_position_that_decreases_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).push(Observation::ReadPositionRegressed {
            conversation: GROUP,
            read: 3,
            known: 5,
            at: 60,
        });
    });
}
