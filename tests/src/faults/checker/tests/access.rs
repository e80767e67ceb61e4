//! Who may see and send what, and what has to come to its end.

use super::*;

#[test]
fn p8_shown_to_a_member_who_had_been_removed_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(shown(GROUP, 5, 5)));
    expect([(Kind::Unauthorised, 1)], |ledger, _| seen(ledger, CAROLS).push(shown(DIRECT, 1, 7)));
}

#[test]
fn p8_what_was_before_a_member_joined_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, store| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else { panic!("it begins") };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        *seen(ledger, CAROLS) = vec![shown(GROUP, 3, 3), shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    });
}

#[test]
fn p8_a_refused_message_that_is_stored_is_unauthorised() {
    // And it should not have been refused.
    expect([(Kind::Unauthorised, 1), (Kind::Stuck, 1)], |ledger, _| {
        ledger.sends[3].outcome = refused("forbidden");
    });
}

#[test]
fn p8_a_message_from_outside_is_unauthorised() {
    expect([(Kind::Unauthorised, 1)], |ledger, _| ledger.sends[3].forbidden = true);
}

#[test]
fn p8_a_message_from_a_removed_member_is_unauthorised() {
    // Carol's message is taken after her removal was answered.
    let late = |began| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store)[4].sender = "carol".into();
            ledger.sends[3] = send(CAROLS, GROUP, 5, began, acked(5, began + 1));
        }
    };
    expect([(Kind::Unauthorised, 1)], late(30));
    expect([], late(24));
}

#[test]
fn p9_who_may_send_and_is_refused_for_good_is_stuck() {
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("internal"));
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("forbidden"));
    expect([], |ledger, _| ledger.sends[4].outcome = refused(NOT_TAKEN));
}

#[test]
fn p9_what_did_not_come_to_its_end_is_stuck() {
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.unfinished.push("a device".into()));
    expect([(Kind::Stuck, 1)], |ledger, _| ledger.ended.push((PHONE, 3, "replaced".into())));
}
