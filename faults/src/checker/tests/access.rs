//! Membership decides who sees and sends entries; and everything completes.

use super::*;

#[test]
fn p8_an_entry_shown_to_a_removed_member_is_unauthorised() {
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(shown(GROUP, 5, 5))
    });
    expect([(Violation::Unauthorised, 1)], |ledger, _| {
        observations(ledger, CAROLS_PHONE).push(shown(DIRECT, 1, 7))
    });
}

#[test]
fn p8_an_entry_from_before_the_member_joined_is_unauthorised() {
    expect([(Violation::Unauthorised, 1)], |ledger, store| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else {
            panic!("the group begins with its creation")
        };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        ledger.sends.pop();
        *observations(ledger, CAROLS_PHONE) =
            vec![shown(GROUP, 3, 3), shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    });
}

#[test]
fn p8_a_refused_message_that_is_stored_is_unauthorised() {
    // Bob is a member, so the refusal is a violation too.
    expect([(Violation::Unauthorised, 1), (Violation::Stuck, 1)], |ledger, _| {
        ledger.sends[3].outcome = refused("forbidden");
    });
}

#[test]
fn p8_an_accepted_message_of_an_outsider_is_unauthorised() {
    expect([(Violation::Unauthorised, 1)], |ledger, _| ledger.sends[3].forbidden = true);
}

#[test]
fn p8_an_accepted_message_of_a_removed_member_is_unauthorised() {
    // Carol's message is accepted after her removal was answered.
    let late = |began| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store)[4].sender = "carol".into();
            ledger.sends[3] = send(CAROLS_PHONE, GROUP, 5, began, acked(5, began + 1));
        }
    };
    expect([(Violation::Unauthorised, 1)], late(30));
    expect([], late(24));
}

#[test]
fn p8_a_message_accepted_while_the_member_is_added_again_is_authorised() {
    // Entry 4 removes Carol, answered at 25 ms, and entry 5 adds her again. Her message 6 began before that was requested.
    let accepted_at = |at: u32| {
        check_broken(|ledger, store| {
            let entries = entries(store);
            entries.pop();
            entries.push(entry(5, 50, "alice", Content::Added(vec!["carol".into()])));
            entries.push(message(6, 5, "carol"));
            store.conversations.get_mut("g:1").unwrap().head = 6;
            let change =
                MembershipChange { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            ledger.changes.push(MembershipChange { conversation_seq: 5, ..change });
            ledger.sends[3] = send(CAROLS_PHONE, GROUP, 5, 30, acked(5, at));
        })
    };
    assert_eq!(accepted_at(36).count(Violation::Unauthorised), 0);
    assert_eq!(accepted_at(34).count(Violation::Unauthorised), 1, "adding her was not requested yet");
}

#[test]
fn p8_a_message_accepted_before_the_next_removal_is_authorised() {
    // Entry 4 removes Carol, 5 adds her again, and 6, answered at 44 ms, removes her again. Her message 7 is stored after that.
    let begun_at = |began: u32| {
        check_broken(|ledger, store| {
            let entries = entries(store);
            entries.pop();
            entries.push(entry(5, 50, "alice", Content::Added(vec!["carol".into()])));
            entries.push(entry(6, 60, "alice", Content::Removed(vec!["carol".into()])));
            entries.push(message(7, 5, "carol"));
            store.conversations.get_mut("g:1").unwrap().head = 7;
            let added = MembershipChange { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            let removed = MembershipChange { message_id: id(60), began: 40, at: 44, ..removal() };
            ledger.changes.push(MembershipChange { conversation_seq: 5, ..added });
            ledger.changes.push(MembershipChange { conversation_seq: 6, ..removed });
            ledger.sends[3] = send(CAROLS_PHONE, GROUP, 5, began, Outcome::Unknown);
        })
    };
    assert_eq!(
        begun_at(30).count(Violation::Unauthorised),
        0,
        "an attempt may have been accepted between 5 and 6"
    );
    assert_eq!(begun_at(45).count(Violation::Unauthorised), 1, "it began after the removal was answered");
}

#[test]
fn p8_a_stored_message_of_a_removed_member_is_unauthorised_with_any_outcome() {
    // Carol's message 5 is stored. Its outcome does not matter: the SDK does not report whether there was an earlier attempt.
    let stored = |began, outcome: Outcome| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store)[4].sender = "carol".into();
            ledger.sends[3] = send(CAROLS_PHONE, GROUP, 5, began, outcome);
        }
    };
    let forbidden = || Outcome::Refused { code: "forbidden".into(), at: 31, first_attempt: false };
    expect([(Violation::Unauthorised, 1)], stored(30, forbidden()));
    expect([(Violation::Unauthorised, 1)], stored(30, Outcome::Unknown));
    expect([], stored(24, Outcome::Unknown));
    // Entry 5 adds her again, so her message 6 may have been in flight until then.
    for place in [5, 6] {
        let verdict = check_broken(|ledger, store| {
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
            let change =
                MembershipChange { joined: true, message_id: id(50), began: 35, at: 38, ..removal() };
            ledger
                .changes
                .push(MembershipChange { conversation_seq: if place == 6 { 5 } else { 6 }, ..change });
            ledger.sends[3] = send(CAROLS_PHONE, GROUP, 5, 30, Outcome::Unknown);
            ledger.sends.pop();
        });
        assert_eq!(verdict.count(Violation::Unauthorised), u64::from(place == 5), "{verdict}");
    }
}

#[test]
fn p9_a_member_whose_message_is_refused_is_stuck() {
    let refused_at = |began, at| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            ledger.sends[5] = send(
                CAROLS_PHONE,
                GROUP,
                8,
                began,
                Outcome::Refused { code: "forbidden".into(), at, first_attempt: true },
            );
        }
    };
    expect([(Violation::Stuck, 1)], refused_at(10, 19));
    expect([], refused_at(10, 20));
    expect([], refused_at(22, 24));
    // Carol is not among the first members; entry 4 adds her.
    let added = |ledger: &mut Ledger, store: &mut StoreView| {
        let Content::Created { members, .. } = &mut entries(store)[0].content else {
            panic!("the group begins with its creation")
        };
        members.retain(|member| member != "carol");
        entries(store)[3].content = Content::Added(vec!["carol".into()]);
        ledger.changes[0].joined = true;
        *observations(ledger, CAROLS_PHONE) = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
    };
    for (began, at, stuck) in [(10, 19, 0), (22, 30, 0), (26, 30, 1)] {
        let verdict = check_broken(|ledger, store| {
            added(ledger, store);
            refused_at(began, at)(ledger, store);
        });
        assert_eq!(verdict.count(Violation::Stuck), stuck, "{began} to {at}: {verdict}");
    }
}

#[test]
fn p9_a_permanently_refused_message_of_a_member_is_stuck() {
    expect([(Violation::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("internal"));
    expect([(Violation::Stuck, 1)], |ledger, _| ledger.sends[4].outcome = refused("forbidden"));
    expect([], |ledger, _| ledger.sends[4].outcome = refused(NOT_TAKEN));
}

#[test]
fn p9_unfinished_work_and_ended_devices_are_stuck() {
    expect([(Violation::Stuck, 1)], |ledger, _| ledger.unfinished.push("a device".into()));
    expect([(Violation::Stuck, 1)], |ledger, _| ledger.ended.push((ALICES_PHONE, 3, "replaced".into())));
}

#[test]
fn p8_a_history_read_without_membership_is_unauthorised() {
    let read = |conversation: u32, user: u32, first: u8, last: u8| {
        move |ledger: &mut Ledger, _: &mut StoreView| {
            let entries =
                (first..=last).map(|number| (number.into(), id(number), number.into(), 0)).collect();
            ledger.histories.push(History { conversation, user, entries });
        }
    };
    expect([(Violation::Unauthorised, 1)], read(GROUP, CAROL, 1, 5));
    expect([(Violation::Unauthorised, 1)], read(DIRECT, CAROL, 7, 7));
    // Entry 4 removed her. She can still read the entries up to that one.
    expect([], read(GROUP, CAROL, 1, 4));
    expect([(Violation::Mismatch, 1)], read(GROUP, CAROL, 1, 0));
    expect([(Violation::Mismatch, 1)], read(GROUP, BOB, 1, 0));
    // A user who joined with entry 4 sees that entry and the later ones.
    let joined = |first: u8| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            let Content::Created { members, .. } = &mut entries(store)[0].content else {
                panic!("the group begins with its creation")
            };
            members.retain(|member| member != "carol");
            entries(store)[3].content = Content::Added(vec!["carol".into()]);
            ledger.changes[0].joined = true;
            ledger.sends.pop();
            *observations(ledger, CAROLS_PHONE) = vec![shown(GROUP, 4, 4), shown(GROUP, 5, 5)];
            read(GROUP, CAROL, first, 5)(ledger, store);
        }
    };
    expect([], joined(4));
    expect([(Violation::Unauthorised, 1)], joined(3));
}
