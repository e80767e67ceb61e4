//! Statements of the server that a device is complete.

use super::*;

#[test]
fn p5_a_receiver_seq_that_counts_a_missing_entry_is_a_false_claim() {
    // The phone got the direct message as the sixth change. The tablet claims receiver seq 6 before it has that message.
    expect([(Violation::FalseClaim, 1)], |ledger, _| {
        observations(ledger, ALICES_TABLET).insert(5, complete(6))
    });
    expect([], |ledger, _| observations(ledger, ALICES_TABLET).insert(5, complete(5)));
    expect([], |ledger, _| {
        observations(ledger, ALICES_TABLET).insert(5, Observation::Complete { epoch: 2, seq: 6, at: 1 })
    });
}

fn up_to_date(asked: u32) -> Observation {
    Observation::UpToDate { asked }
}

#[test]
fn p5_an_up_to_date_device_that_lacks_a_delivered_entry_is_a_false_claim() {
    // The phone got the direct message at 50 ms. Bob's receiver seq was never incremented: his device has it only by
    // chance.
    expect([], |ledger, _| observations(ledger, BOBS_PHONE).push(up_to_date(51)));
    expect([(Violation::FalseClaim, 1)], |ledger, _| {
        observations(ledger, BOBS_PHONE).insert(5, up_to_date(51))
    });
    expect([], |ledger, _| observations(ledger, BOBS_PHONE).insert(5, up_to_date(50)));
    expect([(Violation::FalseClaim, 1)], |ledger, _| {
        observations(ledger, ALICES_PHONE).insert(0, delivered(GROUP, 5, 5));
        let late = observations(ledger, BOBS_PHONE).remove(4);
        observations(ledger, BOBS_PHONE).extend([up_to_date(60), late]);
        // Carol was removed, so the missing entries do not concern her.
        observations(ledger, CAROLS_PHONE).push(up_to_date(60));
    });
}

#[test]
fn p5_claims_to_a_new_member_cover_entries_since_joining() {
    // Entry 4 adds Carol, and entry 5 had been delivered to other devices.
    let new_member = |asked: u32| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            let Content::Created { members, .. } = &mut entries(store)[0].content else {
                panic!("the group begins with its creation")
            };
            members.retain(|member| member != "carol");
            entries(store)[3].content = Content::Added(vec!["carol".into()]);
            ledger.changes[0].joined = true;
            ledger.sends.pop();
            observations(ledger, ALICES_PHONE).insert(0, delivered(GROUP, 5, 5));
            *observations(ledger, CAROLS_PHONE) =
                vec![shown(GROUP, 4, 4), up_to_date(asked), shown(GROUP, 5, 5)];
        }
    };
    expect([(Violation::FalseClaim, 1)], new_member(60));
    expect([], new_member(50));
    // Deliveries from before she joined do not concern her.
    expect([], |ledger, store| {
        new_member(50)(ledger, store);
        observations(ledger, ALICES_PHONE)[0] = delivered(GROUP, 3, 5);
        observations(ledger, CAROLS_PHONE).insert(0, up_to_date(60));
    });
}
