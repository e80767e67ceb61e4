//! Sending: what an ack means, what a retry is, in which order.

use abi::{
    error::ErrorCode,
    ids,
    v1::{Message, Send, client_frame::Frame, entry::Content, message::Body, server_frame},
};
use anyhow::{Result, bail};
use std::time::SystemTime;
use tests::{
    device::{Device, Wire, new_id, numbers, refusal, send, text, texts},
    world::World,
};

pub(crate) async fn p1_two_users_talk_live(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let (mut alices, mut bobs) = (world.connect(&alice).await?, world.connect(&bob).await?);
    alices.send(&talk, &new_id(), "hello bob").await?;
    assert_eq!(texts(&bobs.entries(1).await?), ["hello bob"]);
    bobs.send(&talk, &new_id(), "hello alice").await?;
    let seen = alices.entries(2).await?;
    assert_eq!(texts(&seen), ["hello bob", "hello alice"]);
    assert_eq!(numbers(&seen), [1, 2]);
    let senders: Vec<_> = seen.iter().map(|entry| entry.sender.as_str()).collect();
    assert_eq!(senders, [&*alice.user, &*bob.user]);
    Ok(())
}

pub(crate) async fn p1_who_was_away_catches_up_exactly(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    let sent: Vec<String> = (0..250).map(|n| format!("message {n}")).collect();
    for part in sent.chunks(50) {
        let ids = alices.pipeline(part.iter().map(|text| send(&talk, &new_id(), text))).await?;
        for id in ids {
            alices.answer(id).await?;
        }
    }
    // The sender is told of what was stored: after that there is nothing to wait for.
    alices.entries(sent.len()).await?;
    let mut bobs = world.connect(&bob).await?;
    let heads = bobs.heads("", 0).await?;
    assert_eq!(heads.heads.len(), 1);
    assert_eq!((heads.heads[0].conversation.as_str(), heads.heads[0].conversation_seq), (&*talk, 250));
    let seen = bobs.whole_history(&talk).await?;
    assert_eq!(texts(&seen), sent);
    assert_eq!(numbers(&seen), (1..=250).collect::<Vec<_>>());
    Ok(())
}

pub(crate) async fn p1_an_ack_names_the_message_and_its_time(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    let now = || {
        SystemTime::UNIX_EPOCH.elapsed().map(|time| i64::try_from(time.as_millis()).expect("fits for ages"))
    };
    let (id, before) = (new_id(), now()?);
    let ack = device.send(&talk, &id, "hello").await?;
    assert_eq!(ack.client_msg_id, id);
    assert_eq!(ack.message_id, ids::message(abi::DEFAULT_APP, &talk, &alice.user, &id));
    assert!((before..=now()?).contains(&ack.sent_at_ms), "{} is not now", ack.sent_at_ms);
    let entry = device.entries(1).await?.remove(0);
    assert_eq!((&entry.message_id, entry.sent_at_ms), (&ack.message_id, ack.sent_at_ms));
    assert_eq!((&*entry.client_msg_id, &*entry.sender_device), (&*id, "phone"));
    assert_eq!(device.whole_history(&talk).await?, [entry]);
    Ok(())
}

pub(crate) async fn p2_a_retry_is_the_same_message_and_the_first_content_wins(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    let id = new_id();
    let first = device.send(&talk, &id, "first").await?;
    for other in ["first", "something else"] {
        assert_eq!(device.send(&talk, &id, other).await?.message_id, first.message_id);
    }
    // Both users of a direct conversation mean the same one, in whatever order it names them.
    let turned =
        format!("d:{}:{}", talk.split(':').next_back().unwrap_or(""), talk.split(':').nth(1).unwrap_or(""));
    assert_eq!(device.send(&turned, &id, "turned").await?.message_id, first.message_id);
    device.send(&talk, &new_id(), "the end").await?;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|entry| text(entry) != "the end") {
        seen.extend(device.deliver().await?.entries);
    }
    assert_eq!(texts(&seen), ["first", "the end"]);
    assert_eq!(texts(&device.whole_history(&talk).await?), ["first", "the end"]);
    Ok(())
}

pub(crate) async fn p2_a_retry_over_a_new_connection_is_the_same_message(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let ids: Vec<_> = (0..20).map(|_| new_id()).collect();
    let mut device = world.connect(&alice).await?;
    device.pipeline(ids.iter().map(|id| send(&talk, id, id))).await?;
    // The connection breaks before any ack was read: the device can't know which of them the log has.
    device.drop_connection();
    let mut device = world.connect(&alice).await?;
    for id in &ids {
        device.send(&talk, id, id).await?;
    }
    let mark = new_id();
    device.send(&talk, &mark, &mark).await?;
    let mut seen = device.whole_history(&talk).await?;
    while seen.last().is_none_or(|entry| text(entry) != mark) {
        device.deliver().await?;
        seen = device.whole_history(&talk).await?;
    }
    assert_eq!(texts(&seen[..seen.len() - 1]), ids);
    Ok(())
}

pub(crate) async fn p3_pipelined_messages_keep_their_order(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let (mut alices, mut bobs) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let sent: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    // More than may be unanswered at a time: the gateway stops reading until it can go on, and refuses none.
    let ids = alices.pipeline(sent.iter().map(|text| send(&talk, &new_id(), text))).await?;
    for id in ids {
        alices.answer(id).await?;
    }
    assert_eq!(texts(&bobs.entries(200).await?), sent);
    assert_eq!(texts(&bobs.whole_history(&talk).await?), sent);
    Ok(())
}

pub(crate) async fn p4_everybody_sees_the_same_numbers_without_gaps(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let (mut alices, mut bobs) = (world.connect(&alice).await?, world.connect(&bob).await?);
    for round in 0..10 {
        let text = |who, n| send(&talk, &new_id(), &format!("{who} {round}.{n}"));
        let (hers, his) = (
            alices.pipeline((0..5).map(|n| text("alice", n))).await?,
            bobs.pipeline((0..5).map(|n| text("bob", n))).await?,
        );
        for (her, his) in hers.into_iter().zip(his) {
            alices.answer(her).await?;
            bobs.answer(his).await?;
        }
    }
    let (hers, his) = (alices.entries(100).await?, bobs.entries(100).await?);
    assert_eq!(numbers(&hers), (1..=100).collect::<Vec<_>>());
    assert_eq!(hers, his);
    assert_eq!(hers, alices.whole_history(&talk).await?);
    Ok(())
}

pub(crate) async fn p5_json_and_proto_devices_see_the_same(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    let (mut proto, _) = world.connect_as(&bob, Wire::Proto, None).await?;
    let bodies = [
        Body::Text("\u{1f426} \"quoted\" \\ \u{0} \n".into()),
        Body::Data((0..=255).collect::<Vec<u8>>().into()),
        Body::Text(String::new()),
    ];
    for (n, body) in bodies.iter().enumerate() {
        let message = Message { content_type: "application/x-test".into(), body: Some(body.clone()) };
        let frame = |client_msg_id| {
            Frame::Send(Send { conversation: talk.clone(), client_msg_id, message: Some(message.clone()) })
        };
        let sender: &mut Device = if n % 2 == 0 { &mut json } else { &mut proto };
        sender.call(frame(new_id())).await?;
    }
    let (by_json, by_proto) = (json.entries(3).await?, proto.entries(3).await?);
    assert_eq!(by_json, by_proto);
    for (entry, body) in by_json.iter().zip(bodies) {
        let Some(Content::Message(message)) = &entry.content else { bail!("not a message: {entry:?}") };
        assert_eq!((&*message.content_type, message.body.as_ref()), ("application/x-test", Some(&body)));
    }
    assert_eq!(json.whole_history(&talk).await?, by_json);
    assert_eq!(json.heads("", 0).await?.heads[0].conversation_seq, 3);
    Ok(())
}

pub(crate) async fn p7_the_largest_body_passes_and_one_byte_more_does_not(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    for wire in [Wire::Proto, Wire::Json] {
        let (mut device, welcome) = world.connect_as(&alice, wire, None).await?;
        assert_eq!(welcome.max_body_bytes, 16 * 1024);
        let largest = "x".repeat(16 * 1024);
        device.send(&talk, &new_id(), &largest).await?;
        let fault = refusal(device.send(&talk, &new_id(), &format!("{largest}x")).await);
        assert_eq!(fault.code, ErrorCode::TooLarge);
        // Bytes count, not characters.
        assert_eq!(refusal(device.send(&talk, &new_id(), &"é".repeat(8193)).await).code, ErrorCode::TooLarge);
        assert_eq!(text(&device.entries(1).await?[0]).len(), largest.len());
    }
    Ok(())
}

pub(crate) async fn p8_a_malformed_message_is_refused_and_says_why(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut device = world.connect(&alice).await?;
    let long = "x".repeat(65);
    for (conversation, id, named) in [
        ("", "1", "conversation"),
        ("somewhere", "1", "conversation"),
        ("d:alice", "1", "conversation"),
        ("d:alice:bob:carol", "1", "conversation"),
        (&talk, "", "client_msg_id"),
        (&talk, "two words", "client_msg_id"),
        (&talk, "\u{e9}", "client_msg_id"),
        (&talk, &long, "client_msg_id"),
    ] {
        let fault = refusal(device.send(conversation, id, "hello").await);
        assert_eq!(fault.code, ErrorCode::InvalidRequest, "{conversation:?} {id:?}");
        assert!(fault.message.contains(named), "{:?} does not name {named}", fault.message);
    }
    for message in [
        None,
        Some(Message::default()),
        Some(Message { content_type: "x".repeat(128), body: Some(Body::Text("hello".into())) }),
    ] {
        let frame = Frame::Send(Send { conversation: talk.clone(), client_msg_id: new_id(), message });
        assert_eq!(refusal(device.call(frame).await).code, ErrorCode::InvalidRequest);
    }
    // Nothing of that was stored, and the connection still serves.
    let ack = device.send(&talk, &new_id(), "hello").await?;
    assert_eq!(device.entries(1).await?[0].message_id, ack.message_id);
    assert_eq!(device.whole_history(&talk).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_the_sender_is_who_the_token_says(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let mut device = world.connect(&carol).await?;
    let answer = device.call(send(&alice.with(&bob), &new_id(), "I am alice")).await;
    assert_eq!(refusal(answer).code, ErrorCode::Forbidden);
    let answer = device.call(send(&carol.with(&bob), &new_id(), "I am carol")).await?;
    assert!(matches!(answer, server_frame::Frame::Ack(_)));
    let mut bobs = world.connect(&bob).await?;
    let seen = tests::eventually("carol's message is stored", async || {
        let seen = bobs.whole_history(&carol.with(&bob)).await?;
        anyhow::ensure!(!seen.is_empty());
        Ok(seen)
    });
    assert_eq!(seen.await?[0].sender, carol.user);
    Ok(())
}
