//! Sending: acks, retries, order, refusals.

use abi::{
    error::ErrorCode,
    ids,
    v1::{Content, Send, client_frame::Frame, content::Body, server_frame},
};
use anyhow::{Result, bail};
use std::time::SystemTime;
use tests::{
    device::{Device, Wire, new_id, refusal, send, seqs, text, texts},
    world::World,
};

pub(crate) async fn p1_two_users_exchange_messages_live(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    alice_device.send(&conversation, &new_id(), "hello bob").await?;
    assert_eq!(texts(&bob_device.entries(1).await?), ["hello bob"]);
    bob_device.send(&conversation, &new_id(), "hello alice").await?;
    let seen = alice_device.entries(2).await?;
    assert_eq!(texts(&seen), ["hello bob", "hello alice"]);
    assert_eq!(seqs(&seen), [1, 2]);
    let senders: Vec<_> = seen.iter().map(|entry| entry.sender.as_str()).collect();
    assert_eq!(senders, [&*alice.user, &*bob.user]);
    Ok(())
}

pub(crate) async fn p1_an_offline_user_catches_up_completely(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    let sent: Vec<String> = (0..250).map(|n| format!("message {n}")).collect();
    for part in sent.chunks(50) {
        let ids = alice_device.pipeline(part.iter().map(|text| send(&conversation, &new_id(), text))).await?;
        for id in ids {
            alice_device.answer(id).await?;
        }
    }
    // The sender gets each entry after it is stored. Once all have arrived, bob can read all.
    alice_device.entries(sent.len()).await?;
    let mut bob_device = world.connect(&bob).await?;
    let heads = bob_device.heads().await?;
    assert_eq!(heads.len(), 1);
    assert_eq!((heads[0].conversation.as_str(), heads[0].conversation_seq), (&*conversation, 250));
    let seen = bob_device.whole_history(&conversation).await?;
    assert_eq!(texts(&seen), sent);
    assert_eq!(seqs(&seen), (1..=250).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn p1_an_ack_carries_the_message_id_and_time(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    let now = || {
        SystemTime::UNIX_EPOCH
            .elapsed()
            .map(|time| i64::try_from(time.as_millis()).expect("a current time fits"))
    };
    let (id, before) = (new_id(), now()?);
    let ack = device.send(&conversation, &id, "hello").await?;
    assert_eq!(ack.client_msg_id, id);
    assert_eq!(
        ack.message_id,
        ids::message(abi::DEFAULT_APP, &conversation, &alice.user, &alice.device, &id)
    );
    assert!((before..=now()?).contains(&ack.sent_at_ms), "{} is not the time of the send", ack.sent_at_ms);
    let entry = device.entries(1).await?.remove(0);
    assert_eq!((&entry.message_id, entry.sent_at_ms), (&ack.message_id, ack.sent_at_ms));
    assert_eq!((&*entry.client_msg_id, &*entry.sender_device), (&*id, "phone"));
    assert_eq!(device.whole_history(&conversation).await?, [entry]);
    Ok(())
}

pub(crate) async fn p2_a_retry_stores_no_second_message_and_the_first_content_wins(
    world: World,
) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    let id = new_id();
    let first = device.send(&conversation, &id, "first").await?;
    for other in ["first", "something else"] {
        assert_eq!(device.send(&conversation, &id, other).await?.message_id, first.message_id);
    }
    // A direct conversation has one identity, in either order of its users.
    let swapped = format!(
        "d:{}:{}",
        conversation.split(':').next_back().unwrap_or(""),
        conversation.split(':').nth(1).unwrap_or("")
    );
    assert_eq!(device.send(&swapped, &id, "swapped").await?.message_id, first.message_id);
    device.send(&conversation, &new_id(), "the end").await?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|entry| text(entry) != "the end") {
        seen.extend(device.deliver().await?.entries);
    }
    assert_eq!(texts(&seen), ["first", "the end"]);
    assert_eq!(texts(&device.whole_history(&conversation).await?), ["first", "the end"]);
    Ok(())
}

pub(crate) async fn p2_a_retry_over_a_new_connection_stores_no_second_message(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let ids: Vec<_> = (0..20).map(|_| new_id()).collect();
    let mut device = world.connect(&alice).await?;
    device.pipeline(ids.iter().map(|id| send(&conversation, id, id))).await?;
    // The connection breaks before the device reads any ack, so it must retry all messages.
    device.drop_connection();
    let mut device = world.connect(&alice).await?;
    for id in &ids {
        device.send(&conversation, id, id).await?;
    }
    let last = new_id();
    device.send(&conversation, &last, &last).await?;
    let mut seen = device.whole_history(&conversation).await?;
    while seen.last().is_none_or(|entry| text(entry) != last) {
        device.deliver().await?;
        seen = device.whole_history(&conversation).await?;
    }
    assert_eq!(texts(&seen[..seen.len() - 1]), ids);
    Ok(())
}

pub(crate) async fn p3_pipelined_messages_keep_their_order(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let sent: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    // More than the limit of requests in flight. The gateway stops reading at the limit (backpressure) and refuses none.
    let ids = alice_device.pipeline(sent.iter().map(|text| send(&conversation, &new_id(), text))).await?;
    for id in ids {
        alice_device.answer(id).await?;
    }
    assert_eq!(texts(&bob_device.entries(200).await?), sent);
    assert_eq!(texts(&bob_device.whole_history(&conversation).await?), sent);
    Ok(())
}

pub(crate) async fn p4_both_users_see_the_same_seqs_without_gaps(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    for round in 0..10 {
        let text = |who, n| send(&conversation, &new_id(), &format!("{who} {round}.{n}"));
        let (from_alice, from_bob) = (
            alice_device.pipeline((0..5).map(|n| text("alice", n))).await?,
            bob_device.pipeline((0..5).map(|n| text("bob", n))).await?,
        );
        for (alice_id, bob_id) in from_alice.into_iter().zip(from_bob) {
            alice_device.answer(alice_id).await?;
            bob_device.answer(bob_id).await?;
        }
    }
    let (alice_seen, bob_seen) = (alice_device.entries(100).await?, bob_device.entries(100).await?);
    assert_eq!(seqs(&alice_seen), (1..=100).collect::<Vec<_>>());
    assert_eq!(alice_seen, bob_seen);
    assert_eq!(alice_seen, alice_device.whole_history(&conversation).await?);
    Ok(())
}

pub(crate) async fn p5_json_and_proto_devices_see_the_same_entries(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    let (mut proto, _) = world.connect_as(&bob, Wire::Proto, None).await?;
    let bodies = [
        Body::Text("\u{1f426} \"quoted\" \\ \u{0} \n".into()),
        Body::Data((0..=255).collect::<Vec<u8>>().into()),
        Body::Text(String::new()),
    ];
    for (n, body) in bodies.iter().enumerate() {
        let content = Content { content_type: "application/x-test".into(), body: Some(body.clone()) };
        let frame = |client_msg_id| {
            Frame::Send(Send {
                conversation: conversation.clone(),
                client_msg_id,
                content: Some(content.clone()),
                ..Send::default()
            })
        };
        let sender: &mut Device = if n % 2 == 0 { &mut json } else { &mut proto };
        sender.call(frame(new_id())).await?;
    }
    let (by_json, by_proto) = (json.entries(3).await?, proto.entries(3).await?);
    assert_eq!(by_json, by_proto);
    for (entry, body) in by_json.iter().zip(bodies) {
        let Some(content) = &entry.content else { bail!("no content: {entry:?}") };
        assert_eq!((&*content.content_type, content.body.as_ref()), ("application/x-test", Some(&body)));
    }
    assert_eq!(json.whole_history(&conversation).await?, by_json);
    assert_eq!(json.heads().await?[0].conversation_seq, 3);
    Ok(())
}

pub(crate) async fn p7_the_largest_body_is_accepted_and_one_more_byte_is_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    for wire in [Wire::Proto, Wire::Json] {
        let (mut device, welcome) = world.connect_as(&alice, wire, None).await?;
        assert_eq!(welcome.max_body_bytes, 16 * 1024);
        let largest = "x".repeat(16 * 1024);
        device.send(&conversation, &new_id(), &largest).await?;
        let error = refusal(device.send(&conversation, &new_id(), &format!("{largest}x")).await);
        assert_eq!(error.code, ErrorCode::TooLarge);
        // The limit counts bytes, not characters.
        assert_eq!(
            refusal(device.send(&conversation, &new_id(), &"é".repeat(8193)).await).code,
            ErrorCode::TooLarge
        );
        assert_eq!(text(&device.entries(1).await?[0]).len(), largest.len());
    }
    Ok(())
}

pub(crate) async fn p8_the_refusal_of_a_malformed_message_names_the_field(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    let long = "x".repeat(65);
    for (conversation, id, field) in [
        ("", "1", "conversation"),
        ("somewhere", "1", "conversation"),
        ("d:alice", "1", "conversation"),
        ("d:alice:bob:carol", "1", "conversation"),
        (&conversation, "", "client_msg_id"),
        (&conversation, "two words", "client_msg_id"),
        (&conversation, "\u{e9}", "client_msg_id"),
        (&conversation, &long, "client_msg_id"),
    ] {
        let error = refusal(device.send(conversation, id, "hello").await);
        assert_eq!(error.code, ErrorCode::InvalidRequest, "{conversation:?} {id:?}");
        assert!(error.message.contains(field), "{:?} does not name {field}", error.message);
    }
    for content in [
        None,
        Some(Content::default()),
        Some(Content { content_type: "x".repeat(128), body: Some(Body::Text("hello".into())) }),
    ] {
        let frame = Frame::Send(Send {
            conversation: conversation.clone(),
            client_msg_id: new_id(),
            content,
            ..Send::default()
        });
        assert_eq!(refusal(device.call(frame).await).code, ErrorCode::InvalidRequest);
    }
    // None of them is stored, and the connection still works.
    let ack = device.send(&conversation, &new_id(), "hello").await?;
    assert_eq!(device.entries(1).await?[0].message_id, ack.message_id);
    assert_eq!(device.whole_history(&conversation).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_the_sender_is_the_user_of_the_token(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let mut device = world.connect(&carol).await?;
    let answer = device.call(send(&alice.conversation_with(&bob), &new_id(), "I am alice")).await;
    assert_eq!(refusal(answer).code, ErrorCode::Forbidden);
    let answer = device.call(send(&carol.conversation_with(&bob), &new_id(), "I am carol")).await?;
    assert!(matches!(answer, server_frame::Frame::Ack(_)));
    let mut bob_device = world.connect(&bob).await?;
    let seen = tests::eventually("carol's message is stored", async || {
        let seen = bob_device.whole_history(&carol.conversation_with(&bob)).await?;
        anyhow::ensure!(!seen.is_empty());
        Ok(seen)
    });
    assert_eq!(seen.await?[0].sender, carol.user);
    Ok(())
}
