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
        ledger.sends.pop();
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
fn p8_a_message_that_is_taken_when_the_member_is_being_added_again_is_theirs() {
    // Carol was removed by 4, answered at 25, and is added again by 5. Her 6 was begun before that was asked for.
    let again = |taken: u32| {
        broken(|ledger, store| {
            let entries = entries(store);
            entries.pop();
            entries.push(entry(5, 50, "alice", Content::Added(vec!["carol".into()])));
            entries.push(message(6, 5, "carol"));
            store.conversations.get_mut("g:1").unwrap().head = 6;
            let change = Change { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            ledger.changes.push(Change { conversation_seq: 5, ..change });
            ledger.sends[3] = send(CAROLS, GROUP, 5, 30, acked(5, taken));
        })
    };
    assert_eq!(again(36).count(Kind::Unauthorised), 0);
    assert_eq!(again(34).count(Kind::Unauthorised), 1, "nobody had asked for it yet");
}

#[test]
fn p8_a_message_that_is_taken_when_the_member_is_being_removed_again_is_theirs() {
    // Carol was removed by 4, is added again by 5, and removed again by 6, which was answered at 44. Her 7 was stored behind that.
    let again = |began: u32| {
        broken(|ledger, store| {
            let entries = entries(store);
            entries.pop();
            entries.push(entry(5, 50, "alice", Content::Added(vec!["carol".into()])));
            entries.push(entry(6, 60, "alice", Content::Removed(vec!["carol".into()])));
            entries.push(message(7, 5, "carol"));
            store.conversations.get_mut("g:1").unwrap().head = 7;
            let added = Change { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            let removed = Change { message_id: id(60), began: 40, at: 44, ..removal() };
            ledger.changes.push(Change { conversation_seq: 5, ..added });
            ledger.changes.push(Change { conversation_seq: 6, ..removed });
            ledger.sends[3] = send(CAROLS, GROUP, 5, began, Outcome::Unknown);
        })
    };
    assert_eq!(again(30).count(Kind::Unauthorised), 0, "an attempt was taken between 5 and 6");
    assert_eq!(again(45).count(Kind::Unauthorised), 1, "it was begun when the removal had been answered");
}

#[test]
fn p8_a_refused_message_of_a_removed_member_that_is_stored_is_unauthorised() {
    // Carol's 5 is stored, whatever she was told: an SDK does not tell whether it had tried before.
    let stored = |began, outcome: Outcome| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store)[4].sender = "carol".into();
            ledger.sends[3] = send(CAROLS, GROUP, 5, began, outcome);
        }
    };
    let forbidden = || Outcome::Refused { code: "forbidden".into(), at: 31, at_once: false };
    expect([(Kind::Unauthorised, 1)], stored(30, forbidden()));
    expect([(Kind::Unauthorised, 1)], stored(30, Outcome::Unknown));
    expect([], stored(24, Outcome::Unknown));
    // She was added again by 5, so her 6 may have been on its way until then.
    for place in [5, 6] {
        let verdict = broken(|ledger, store| {
            let entries = entries(store);
            entries.pop();
            let added = entry(5, 50, "alice", Content::Added(vec!["carol".into()]));
            let late = message(6, 5, "carol");
            if place == 6 {
                entries.extend([added, late]);
            } else {
                entries.extend([message(5, 5, "carol"), Stored { conversation_seq: 6, ..added }]);
            }
            store.conversations.get_mut("g:1").unwrap().head = 6;
            let change = Change { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            ledger.changes.push(Change { conversation_seq: if place == 6 { 5 } else { 6 }, ..change });
            ledger.sends[3] = send(CAROLS, GROUP, 5, 30, Outcome::Unknown);
            ledger.sends.pop();
        });
        assert_eq!(verdict.count(Kind::Unauthorised), u64::from(place == 5), "{verdict}");
    }
}

#[test]
fn p9_a_member_who_is_refused_is_stuck() {
    let refused_at = |began, at| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            ledger.sends[5] = send(
                CAROLS,
                GROUP,
                8,
                began,
                Outcome::Refused { code: "forbidden".into(), at, at_once: true },
            );
        }
    };
    expect([(Kind::Stuck, 1)], refused_at(10, 19));
    expect([], refused_at(10, 20));
    expect([], refused_at(22, 24));
    // Carol was not there from the beginning, and is added by 4.
    let added = |ledger: &mut Ledger, store: &mut StoreView| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else { panic!("it begins") };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        *seen(ledger, CAROLS) = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    };
    for (began, at, stuck) in [(10, 19, 0), (22, 30, 0), (26, 30, 1)] {
        let verdict = broken(|ledger, store| {
            added(ledger, store);
            refused_at(began, at)(ledger, store);
        });
        assert_eq!(verdict.count(Kind::Stuck), stuck, "{began} to {at}: {verdict}");
    }
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

#[test]
fn p8_who_is_not_in_a_conversation_reads_nothing() {
    let read = |conversation: u32, user: u32, first: u8, last: u8| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let entries = (first..=last).map(|number| (number.into(), id(number), number.into())).collect();
            ledger.histories.push(History { conversation, user, entries });
        }
    };
    expect([(Kind::Unauthorised, 1)], read(GROUP, CAROL, 1, 4));
    expect([(Kind::Unauthorised, 1)], read(DIRECT, CAROL, 7, 7));
    expect([], read(GROUP, CAROL, 1, 0));
    expect([(Kind::Untrue, 1)], read(GROUP, BOB, 1, 0));
    // Who joined by 4 sees that and what came after.
    let joined = |first: u8| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            let Content::Created { members, .. } = &mut entries(store)[0].content else {
                panic!("it begins")
            };
            members.retain(|member| member != "carol");
            entries(store)[3].content = Content::Added(vec!["carol".into()]);
            ledger.changes[0].joined = true;
            ledger.sends.pop();
            *seen(ledger, CAROLS) = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
            read(GROUP, CAROL, first, 5)(ledger, store);
        }
    };
    expect([], joined(4));
    expect([(Kind::Untrue, 1)], joined(3));
}
