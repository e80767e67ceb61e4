//! The receiver's seq against what devices had.

use super::*;

#[test]
fn p5_a_number_that_counts_what_the_device_lacks_has_lied() {
    // The phone was delivered the direct message as the sixth change. The tablet believes to have six, before it has it.
    expect([(Kind::Lied, 1)], |ledger, _| seen(ledger, TABLET).insert(5, complete(6)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, complete(5)));
    expect([], |ledger, _| seen(ledger, TABLET).insert(5, Seen::Complete { epoch: 2, seq: 6, at: 1 }));
}

fn up_to_date(asked: u32) -> Seen {
    Seen::UpToDate { asked }
}

#[test]
fn p5_who_hears_of_no_news_has_what_was_delivered_to_others_before() {
    // The phone was delivered the direct message at 50. Bob's number was never raised: he has it only by chance.
    expect([], |ledger, _| seen(ledger, BOBS).push(up_to_date(51)));
    expect([(Kind::Lied, 1)], |ledger, _| seen(ledger, BOBS).insert(5, up_to_date(51)));
    expect([], |ledger, _| seen(ledger, BOBS).insert(5, up_to_date(50)));
    expect([(Kind::Lied, 1)], |ledger, _| {
        seen(ledger, PHONE).insert(0, counted(GROUP, 5, 5));
        let late = seen(ledger, BOBS).remove(4);
        seen(ledger, BOBS).extend([up_to_date(60), late]);
        // What she is out of is no news to Carol.
        seen(ledger, CAROLS).push(up_to_date(60));
    });
}

#[test]
fn p5_a_newcomer_is_counted_from_their_first_entry_on() {
    // Carol is added by 4, and 5 had been delivered to others.
    let newcomer = |asked: u32| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            let Content::Created { members, .. } = &mut entries(store)[0].content else {
                panic!("it begins")
            };
            members.retain(|member| member != "carol");
            entries(store)[3].content = Content::Added(vec!["carol".into()]);
            ledger.changes[0].joined = true;
            ledger.sends.pop();
            seen(ledger, PHONE).insert(0, counted(GROUP, 5, 5));
            *seen(ledger, CAROLS) = vec![shown(GROUP, 4, 4), up_to_date(asked), shown(GROUP, 5, 5)];
        }
    };
    expect([(Kind::Lied, 1)], newcomer(60));
    expect([], newcomer(50));
    // Before she was added it was nothing to her.
    expect([], |ledger, store| {
        newcomer(50)(ledger, store);
        seen(ledger, PHONE)[0] = counted(GROUP, 3, 5);
        seen(ledger, CAROLS).insert(0, up_to_date(60));
    });
}
