//! Sends, membership changes and read histories, against the store.

use super::*;

#[test]
fn p1_an_acknowledged_message_that_is_not_stored_is_lost() {
    expect([(Violation::Lost, 1)], |ledger, store| {
        entries(store).pop();
        store.conversations.get_mut("g:1").unwrap().head = 4;
        ledger.histories.clear();
        for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
            observations(ledger, device).retain(|observations| *observations != shown(GROUP, 5, 5));
        }
    });
}

#[test]
fn p1_an_answered_change_that_is_not_stored_is_lost() {
    expect([(Violation::Lost, 1)], |ledger, _| {
        ledger.changes.push(MembershipChange { message_id: id(77), ..removal() });
    });
}

#[test]
fn p1_stored_content_that_differs_from_the_sent_one_is_a_mismatch() {
    // The content is not the sent one, and not content that any user sends.
    expect([(Violation::Mismatch, 2)], |_, store| entries(store)[1].content = Content::Undecodable);
    expect([(Violation::Mismatch, 2)], |ledger, _| {
        // Shown and read with other content than sent.
        ledger.sends[0].digest = 66;
        ledger.histories[0].entries[2].2 = 66;
    });
}

#[test]
fn p1_a_stored_entry_that_was_never_sent_is_a_mismatch() {
    let extra = |content| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            entries(store).push(Stored { content, ..message(6, 60, "bob") });
            store.conversations.get_mut("g:1").unwrap().head = 6;
            ledger.histories.clear();
            for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
                observations(ledger, device).push(shown(GROUP, 6, 60));
            }
        }
    };
    expect([(Violation::Mismatch, 1)], extra(Content::Message { excerpt: client_id(60).to_string() }));
    expect([(Violation::Mismatch, 1)], extra(Content::Undecodable));
    expect([(Violation::Mismatch, 1)], extra(Content::Added(vec!["bob".into()])));
    expect([(Violation::Mismatch, 1)], extra(Content::Created { members: Vec::new(), sees_all: false }));
    // Alice's message to Bob is stored in the group as well.
    expect([(Violation::Mismatch, 1)], |ledger, store| {
        extra(Content::Undecodable)(ledger, store);
        entries(store)[5] = Stored { message_id: id(60), digest: 60, ..message(6, 7, "alice") };
    });
    expect([(Violation::Mismatch, 1)], |_, store| {
        store.conversations.insert("d:alice:carol".into(), Conversation::default());
    });
}

#[test]
fn p1_a_stored_change_that_differs_from_the_answer_is_a_mismatch() {
    for content in [Content::Removed(vec!["bob".into()]), Content::Added(vec!["carol".into()]), Content::Left]
    {
        let verdict = check_broken(|_, store| entries(store)[3].content = content);
        assert_ne!(verdict.count(Violation::Mismatch), 0, "{verdict}");
    }
}

#[test]
fn p1_a_change_stored_at_another_seq_than_answered_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, _| ledger.changes[0].conversation_seq = 3);
}

#[test]
fn p4_a_history_that_differs_from_the_store_is_a_mismatch() {
    expect([(Violation::Mismatch, 1)], |ledger, _| {
        ledger.histories[0].entries.remove(2);
    });
}

#[test]
fn p2_a_message_stored_at_two_seqs_is_duplicated() {
    expect([(Violation::Duplicated, 1)], |ledger, store| {
        entries(store).push(Stored { message_id: id(66), ..message(6, 5, "bob") });
        store.conversations.get_mut("g:1").unwrap().head = 6;
        ledger.histories.clear();
        for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
            let mut second = shown(GROUP, 6, 66);
            let Observation::Entry(receipt) = &mut second else { panic!("it is a receipt") };
            receipt.digest = 5;
            observations(ledger, device).push(second);
        }
        // Otherwise the acknowledged id would differ from one of the two stored ones, a second violation.
        ledger.sends[3].outcome = Outcome::Unknown;
    });
}

#[test]
fn p2_a_retry_acknowledged_with_another_id_is_duplicated() {
    expect([(Violation::Duplicated, 1)], |ledger, _| ledger.later_acks[0].message_id = id(66));
}

#[test]
fn p2_an_acknowledged_id_that_differs_from_the_stored_one_is_duplicated() {
    expect([(Violation::Duplicated, 1)], |ledger, _| ledger.sends[3].outcome = acked(66, 31));
}

#[test]
fn p3_messages_stored_in_another_order_than_sent_are_out_of_order() {
    expect([(Violation::OutOfOrder, 1)], |ledger, _| {
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
fn p3_a_change_stored_before_an_earlier_acknowledged_message_is_out_of_order() {
    // Bob's message is acknowledged at 31 ms and stored after the change.
    expect([(Violation::OutOfOrder, 1)], |ledger, _| {
        ledger.changes[0] = MembershipChange { began: 32, at: 33, ..removal() }
    });
    expect([], |ledger, _| ledger.changes[0] = MembershipChange { began: 31, at: 33, ..removal() });
}

#[test]
fn p3_a_message_sent_after_an_acknowledgement_and_stored_before_is_out_of_order() {
    // Message 3 was sent from the tablet and acknowledged before message 2 began.
    expect([(Violation::OutOfOrder, 1)], |ledger, store| {
        ledger.sends[1].device = ALICES_TABLET;
        entries(store)[2].device = "tablet".into();
        ledger.sends[0].began = 15;
        ledger.sends[0].outcome = acked(2, 16);
    });
}

#[test]
fn p4_a_missing_conversation_seq_is_a_gap() {
    expect([(Violation::Gap, 1)], |ledger, store| {
        entries(store).push(message(7, 70, "bob"));
        ledger.sends.push(send(BOBS_PHONE, GROUP, 70, 40, acked(70, 41)));
        store.conversations.get_mut("g:1").unwrap().head = 7;
        ledger.histories.clear();
        for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
            observations(ledger, device).push(shown(GROUP, 7, 70));
        }
    });
}

#[test]
fn p4_a_head_that_is_not_the_last_entry_is_a_gap() {
    expect([(Violation::Gap, 1)], |_, store| store.conversations.get_mut("g:1").unwrap().head = 6);
}

#[test]
fn p2_two_devices_with_the_same_client_msg_id_send_two_messages() {
    let copy = |device: &'static str, message_id| {
        move |ledger: &mut Ledger, store: &mut StoreView| {
            let stored = Stored { client_msg_id: client_id(7).to_string(), ..message(2, 70, "alice") };
            let direct = store.conversations.get_mut("d:alice:bob").unwrap();
            direct.entries.push(Stored { device: device.into(), ..stored });
            direct.head = 2;
            for device in [ALICES_PHONE, ALICES_TABLET, BOBS_PHONE] {
                observations(ledger, device).push(shown(DIRECT, 2, 70));
            }
            let sent = send(ALICES_TABLET, DIRECT, 70, 12, acked(message_id, 15));
            ledger.sends.push(Send { client_msg_id: client_id(7), ..sent });
        }
    };
    expect([], copy("tablet", 70));
    // The server took the second message for a retry of the first one.
    let verdict = check_broken(copy("tablet", 7));
    assert_eq!(verdict.count(Violation::Duplicated), 1, "{verdict}");
    let verdict = check_broken(copy("phone", 70));
    assert_ne!(verdict.count(Violation::Duplicated), 0, "{verdict}");
}
