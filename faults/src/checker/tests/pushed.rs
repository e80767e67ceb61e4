//! What the server sent to devices by itself or named to them.

use super::*;

#[test]
fn p4_a_delivered_entry_that_can_not_be_read_has_lied() {
    let unreadable = |device: u32, conversation_seq: u32, answer: Instead| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let seen = seen(ledger, device);
            seen.push(Seen::Unreadable { conversation: GROUP, conversation_seq, answer, at: 60 });
        }
    };
    for answer in [Instead::Nothing, Instead::Other, Instead::Refusal] {
        expect([(Kind::Lied, 1)], unreadable(BOBS, 5, answer));
    }
    // Carol may have been out by then, and would see something else if she were in again.
    expect([], unreadable(CAROLS, 3, Instead::Other));
    expect([], unreadable(CAROLS, 3, Instead::Refusal));
}

#[test]
fn p8_a_push_to_somebody_who_is_not_a_member_is_unauthorised() {
    // Nothing of it was shown: Carol's device had no position there, and what it asked for was refused.
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(counted(DIRECT, 1, 9)));
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(counted(GROUP, 5, 9)));
    expect([], |ledger, _| seen(ledger, CAROLS).push(counted(GROUP, 4, 9)));
}

#[test]
fn p1_a_push_of_another_entry_than_is_stored_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| {
        let Seen::Counted { message_id, .. } = &mut seen(ledger, BOBS)[5] else { panic!("it is counted") };
        *message_id = id(66);
    });
    expect([(Kind::Untrue, 1)], |ledger, _| {
        let Seen::Counted { digest, .. } = &mut seen(ledger, BOBS)[5] else { panic!("it is counted") };
        *digest = 66;
    });
    // A second one under a number that is taken, which the device dropped as old, and one that is not stored at all.
    for seq in [1, 2] {
        expect([(Kind::Untrue, 1)], |ledger, _| {
            let other = id(66);
            seen(ledger, BOBS).push(Seen::Counted {
                conversation: DIRECT,
                conversation_seq: seq,
                message_id: other,
                digest: 66,
                epoch: 1,
                seq: 7,
                at: 50,
            });
        });
    }
}

#[test]
fn p8_a_head_of_a_conversation_of_others_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(head(DIRECT, 1, 1)));
    // She was removed by 4, so the moment when 4 was the last is not hers any more.
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(head(GROUP, 4, 1)));
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, BOBS).push(head(GROUP, 5, 2)));
    expect([], |ledger, _| {
        seen(ledger, CAROLS).push(head(GROUP, 3, 1));
        seen(ledger, BOBS).push(head(GROUP, 5, 1));
    });
}

#[test]
fn p1_a_read_position_that_goes_back_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| {
        seen(ledger, BOBS).push(Seen::Unread { conversation: GROUP, read: 3, known: 5, at: 60 });
    });
}
