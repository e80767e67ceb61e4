//! What was sent, changed and read against the store.

use super::*;

#[test]
fn p1_acknowledged_and_not_stored_is_lost() {
    expect([(Kind::Lost, 1)], |ledger, store| {
        entries(store).pop();
        store.conversations.get_mut("g:1").unwrap().head = 4;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            seen(ledger, device).retain(|seen| *seen != shown(GROUP, 5, 5));
        }
    });
}

#[test]
fn p1_a_change_that_was_answered_and_is_not_stored_is_lost() {
    expect([(Kind::Lost, 1)], |ledger, _| {
        ledger.changes.push(Change { message_id: id(77), ..removal() });
    });
}

#[test]
fn p1_other_words_than_were_sent_are_untrue() {
    // Neither what was sent nor what anybody can have said.
    expect([(Kind::Untrue, 2)], |_, store| entries(store)[1].content = Content::Nothing);
    expect([(Kind::Untrue, 2)], |ledger, _| {
        // Sent with one end, and shown and read with another.
        ledger.sends[0].digest = 66;
        ledger.histories[0].entries[2].2 = 66;
    });
}

#[test]
fn p1_what_nobody_said_there_is_untrue() {
    let extra = |content| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store).push(Stored { content, ..message(6, 60, "bob") });
            store.conversations.get_mut("g:1").unwrap().head = 6;
            ledger.histories.clear();
            for device in [PHONE, TABLET, BOBS] {
                seen(ledger, device).push(shown(GROUP, 6, 60));
            }
        }
    };
    expect([(Kind::Untrue, 1)], extra(Content::Message { begins: own(60).to_string() }));
    expect([(Kind::Untrue, 1)], extra(Content::Nothing));
    expect([(Kind::Untrue, 1)], extra(Content::Added(vec!["bob".into()])));
    expect([(Kind::Untrue, 1)], extra(Content::Created { members: Vec::new(), sees_all: false }));
    // Alice's message to Bob is in the group as well.
    expect([(Kind::Untrue, 1)], |ledger, store| {
        extra(Content::Nothing)(ledger, store);
        entries(store)[5] = Stored { message_id: id(60), digest: 60, ..message(6, 7, "alice") };
    });
    expect([(Kind::Untrue, 1)], |_, store| {
        store.conversations.insert("d:alice:carol".into(), Conversation::default());
    });
}

#[test]
fn p1_another_change_than_was_answered_is_untrue() {
    for content in [Content::Removed(vec!["bob".into()]), Content::Added(vec!["carol".into()]), Content::Left]
    {
        let verdict = broken(|_, store| entries(store)[3].content = content);
        assert_ne!(verdict.count(Kind::Untrue), 0, "{verdict}");
    }
}

#[test]
fn p1_a_change_in_another_place_than_was_answered_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| ledger.changes[0].conversation_seq = 3);
}

#[test]
fn p4_a_history_that_differs_from_the_store_is_untrue() {
    expect([(Kind::Untrue, 1)], |ledger, _| {
        ledger.histories[0].entries.remove(2);
    });
}

#[test]
fn p2_one_message_with_two_numbers_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, store| {
        entries(store).push(Stored { message_id: id(66), ..message(6, 5, "bob") });
        store.conversations.get_mut("g:1").unwrap().head = 6;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            let mut second = shown(GROUP, 6, 66);
            let Seen::Entry(receipt) = &mut second else { panic!("it is shown") };
            receipt.digest = 5;
            seen(ledger, device).push(second);
        }
        // Else it would be acknowledged under another id than one of the two.
        ledger.sends[3].outcome = Outcome::Unknown;
    });
}

#[test]
fn p2_a_retry_with_another_id_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| ledger.later_acks[0].message_id = id(66));
}

#[test]
fn p2_an_id_that_is_not_the_stored_one_is_duplicated() {
    expect([(Kind::Duplicated, 1)], |ledger, _| ledger.sends[3].outcome = acked(66, 31));
}

#[test]
fn p3_stored_in_another_order_than_sent_is_out_of_order() {
    expect([(Kind::OutOfOrder, 1)], |ledger, _| {
        ledger.later_acks.clear();
        ledger.sends.swap(0, 1);
    });
    expect([], |ledger, _| {
        ledger.later_acks.clear();
        ledger.sends.swap(0, 1);
        ledger.sends[0].ordered = false;
    });
}

#[test]
fn p3_a_change_that_overtakes_a_message_is_out_of_order() {
    // Bob's message is acknowledged at 31 and stored behind it.
    expect([(Kind::OutOfOrder, 1)], |ledger, _| {
        ledger.changes[0] = Change { began: 32, at: 33, ..removal() }
    });
    expect([], |ledger, _| ledger.changes[0] = Change { began: 31, at: 33, ..removal() });
}

#[test]
fn p3_sent_after_the_acknowledgement_and_stored_before_is_out_of_order() {
    // 3 was sent from the tablet, and acknowledged before 2 was begun.
    expect([(Kind::OutOfOrder, 1)], |ledger, _| {
        ledger.sends[1].device = TABLET;
        ledger.sends[0].began = 15;
        ledger.sends[0].outcome = acked(2, 16);
    });
}

#[test]
fn p4_a_missing_number_is_a_gap() {
    expect([(Kind::Gap, 1)], |ledger, store| {
        entries(store).push(message(7, 70, "bob"));
        ledger.sends.push(send(BOBS, GROUP, 70, 40, acked(70, 41)));
        store.conversations.get_mut("g:1").unwrap().head = 7;
        ledger.histories.clear();
        for device in [PHONE, TABLET, BOBS] {
            seen(ledger, device).push(shown(GROUP, 7, 70));
        }
    });
}

#[test]
fn p4_a_head_that_is_not_the_last_entry_is_a_gap() {
    expect([(Kind::Gap, 1)], |_, store| store.conversations.get_mut("g:1").unwrap().head = 6);
}
