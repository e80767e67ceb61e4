//! Entries other than messages: replies, edits, recalls, reactions, kinds of the product.

use abi::{
    envelope::{EDIT, REACTION, RECALL},
    error::ErrorCode,
    v1::{Content, Entry, ReactionCount, Send, client_frame::Frame, content::Body},
};
use anyhow::{Context as _, Result, ensure};
use prost::Message as _;
use tests::{
    device::{Device, Wire, content, new_id, refusal, text, texts},
    world::World,
};

/// A change of an entry.
fn change(conversation: &str, kind: &str, refers_to: &str) -> Send {
    Send {
        conversation: conversation.into(),
        kind: kind.into(),
        refers_to: refers_to.into(),
        ..Send::default()
    }
}

fn edit(conversation: &str, refers_to: &str, text: &str) -> Send {
    Send { content: Some(content(text)), ..change(conversation, EDIT, refers_to) }
}

fn reaction(conversation: &str, refers_to: &str, reactions: &[&str]) -> Send {
    let reactions = reactions.iter().map(|reaction| (*reaction).to_owned()).collect();
    Send { reactions, ..change(conversation, REACTION, refers_to) }
}

async fn code(device: &mut Device, send: Send) -> ErrorCode {
    refusal(device.send_entry(send).await).code
}

/// The first entry of a conversation, as a user reads it.
async fn first(device: &mut Device, conversation: &str) -> Result<Entry> {
    device.whole_history(conversation).await?.into_iter().next().context("the conversation is empty")
}

fn counts(entry: &Entry) -> Vec<(&str, u32, bool)> {
    let reactions = entry.state.iter().flat_map(|state| &state.reactions);
    reactions.map(|ReactionCount { reaction, count, mine }| (reaction.as_str(), *count, *mine)).collect()
}

pub(crate) async fn p3_an_edit_changes_the_content_and_keeps_earlier_versions(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let ack = alice_device.send(&conversation, &new_id(), "helo").await?;
    // At once after the ack: the message may not be stored yet.
    alice_device.send_entry(edit(&conversation, &ack.message_id, "hello")).await?;
    let live = bob_device.entries(2).await?;
    assert_eq!(texts(&live), ["helo", "hello"]);
    assert_eq!((&*live[1].kind, &*live[1].refers_to, live[1].refers_to_seq), (EDIT, &*ack.message_id, 1));
    let target = live[1].target_state.as_ref().context("no state of the target")?;
    assert_eq!((target.edits, target.changed_seq), (1, 2));
    alice_device.send_entry(edit(&conversation, &ack.message_id, "hello!")).await?;
    // The ack of a change means that it is in force.
    let entries = bob_device.whole_history(&conversation).await?;
    assert_eq!(texts(&entries), ["hello!", "hello", "hello!"]);
    let state = entries[0].state.clone().context("no state")?;
    assert_eq!((state.edits, state.changed_seq), (2, 3));
    ensure!(state.edited_at_ms > 0);
    let head = bob_device.heads().await?.remove(0);
    assert_eq!((head.unread, head.conversation_seq), (1, 3));
    assert_eq!(head.last.as_ref().map(text), Some("hello!"));
    Ok(())
}

pub(crate) async fn p8_only_the_author_edits_and_recalls(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let conversation = alice.conversation_with(&bob);
    let mut devices = Vec::new();
    for user in [&alice, &bob, &carol] {
        devices.push(world.connect(user).await?);
    }
    let [alice_device, bob_device, carol_device] = &mut devices[..] else { unreachable!("three users") };
    let target = alice_device.send(&conversation, &new_id(), "mine").await?.message_id;
    bob_device.entries(1).await?;
    for send in [edit(&conversation, &target, "yours"), change(&conversation, RECALL, &target)] {
        assert_eq!(code(bob_device, send.clone()).await, ErrorCode::Forbidden);
        assert_eq!(code(carol_device, send).await, ErrorCode::Forbidden);
    }
    assert_eq!(code(carol_device, reaction(&conversation, &target, &["+1"])).await, ErrorCode::Forbidden);
    // A refused change leaves no trace.
    assert_eq!(bob_device.whole_history(&conversation).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_a_recalled_message_is_gone_everywhere_and_not_unread(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let target = alice_device.send(&conversation, &new_id(), "secret").await?.message_id;
    alice_device.send_entry(edit(&conversation, &target, "secret 2")).await?;
    alice_device.send(&conversation, &new_id(), "hello").await?;
    alice_device.send_entry(change(&conversation, RECALL, &target)).await?;
    let entries = bob_device.whole_history(&conversation).await?;
    assert_eq!(texts(&entries), ["", "", "hello", ""]);
    assert!(entries[0].content.is_none() && entries[1].content.is_none(), "{entries:?}");
    assert_eq!(entries[0].state.as_ref().map(|state| &*state.recalled_by), Some(&*alice.user));
    assert_eq!(bob_device.heads().await?[0].unread, 1);
    for send in [
        edit(&conversation, &target, "back"),
        change(&conversation, RECALL, &target),
        reaction(&conversation, &target, &["+1"]),
    ] {
        assert_eq!(code(&mut alice_device, send).await, ErrorCode::Conflict);
    }
    Ok(())
}

pub(crate) async fn p8_a_group_owner_recalls_what_a_member_wrote(world: World) -> Result<()> {
    let (alice, bob, carol) = world.three_users().await?;
    let group = world.group(&alice, &[&bob, &carol], "all").await?;
    let mut bob_device = world.connect(&bob).await?;
    let target = bob_device.send(&group, &new_id(), "spam").await?.message_id;
    let recall = change(&group, RECALL, &target);
    assert_eq!(code(&mut world.connect(&carol).await?, recall.clone()).await, ErrorCode::Forbidden);
    world.connect(&alice).await?.send_entry(recall).await?;
    let entries = bob_device.whole_history(&group).await?;
    assert_eq!(entries[1].state.as_ref().map(|state| &*state.recalled_by), Some(&*alice.user));
    Ok(())
}

pub(crate) async fn p4_reactions_are_a_set_per_user_with_counts(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let target = alice_device.send(&conversation, &new_id(), "good news").await?.message_id;
    bob_device.send_entry(reaction(&conversation, &target, &["\u{1f389}", "+1"])).await?;
    alice_device.send_entry(reaction(&conversation, &target, &["+1"])).await?;
    let seen = first(&mut bob_device, &conversation).await?;
    assert_eq!(counts(&seen), [("\u{1f389}", 1, true), ("+1", 2, true)]);
    let live = alice_device.entries(3).await?;
    let state = live[2].target_state.clone().context("no state of the target")?;
    assert_eq!(state.reactions.iter().map(|count| count.count).collect::<Vec<_>>(), [1, 2]);
    // The whole set is replaced, also by an empty one.
    bob_device.send_entry(reaction(&conversation, &target, &["+1"])).await?;
    assert_eq!(counts(&first(&mut alice_device, &conversation).await?), [("+1", 2, true)]);
    bob_device.send_entry(reaction(&conversation, &target, &[])).await?;
    assert_eq!(counts(&first(&mut bob_device, &conversation).await?), [("+1", 1, false)]);
    assert_eq!(bob_device.heads().await?[0].unread, 1);
    Ok(())
}

pub(crate) async fn p2_a_repeated_change_is_the_same_change(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    let target = device.send(&conversation, &new_id(), "one").await?.message_id;
    let send = Send { client_msg_id: new_id(), ..edit(&conversation, &target, "two") };
    for _ in 0..3 {
        device.call(Frame::Send(send.clone())).await?;
    }
    let entries = device.whole_history(&conversation).await?;
    assert_eq!((entries.len(), entries[0].state.as_ref().map(|state| state.edits)), (2, Some(1)));
    Ok(())
}

pub(crate) async fn p7_a_change_of_nothing_or_of_a_change_is_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut device = world.connect(&alice).await?;
    let target = device.send(&conversation, &new_id(), "one").await?.message_id;
    let made = device.send_entry(edit(&conversation, &target, "two")).await?.message_id;
    let unknown = "00".repeat(16);
    assert_eq!(code(&mut device, edit(&conversation, &unknown, "x")).await, ErrorCode::NotFound);
    assert_eq!(code(&mut device, edit(&conversation, &made, "x")).await, ErrorCode::InvalidRequest);
    for send in [
        edit(&conversation, "", "x"),
        edit(&conversation, "no id", "x"),
        change(&conversation, EDIT, &target),
        edit(&conversation, &target, &"x".repeat(20_000)),
        reaction(&conversation, &target, &["x"; 2]),
        reaction(&conversation, &target, &[&"x".repeat(65)]),
        change(&conversation, "shout", &target),
        change(&conversation, "group", &target),
    ] {
        let refused = code(&mut device, send.clone()).await;
        assert!(matches!(refused, ErrorCode::InvalidRequest | ErrorCode::TooLarge), "{send:?}: {refused:?}");
    }
    assert_eq!(device.whole_history(&conversation).await?.len(), 2);
    Ok(())
}

pub(crate) async fn p4_a_reply_names_the_entry_that_it_answers(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let question = alice_device.send(&conversation, &new_id(), "ready?").await?.message_id;
    let reply = Send { content: Some(content("yes")), ..change(&conversation, "", &question) };
    bob_device.send_entry(reply).await?;
    let live = alice_device.entries(2).await?;
    assert_eq!((&*live[1].refers_to, live[1].refers_to_seq, live[1].countable), (&*question, 1, true));
    assert_eq!(alice_device.whole_history(&conversation).await?, live);
    Ok(())
}

pub(crate) async fn p6_kinds_of_the_product_arrive_unchanged_and_count_as_the_sender_says(
    world: World,
) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    let content = Content {
        content_type: "application/x-order".into(),
        body: Some(Body::Data(vec![0, 159, 146, 150].into())),
    };
    for countable in [true, false] {
        let kind = "acme.order".into();
        let send = Send { kind, countable, content: Some(content.clone()), ..change(&conversation, "", "") };
        alice_device.send_entry(send).await?;
    }
    let live = alice_device.entries(2).await?;
    for wire in [Wire::Json, Wire::Proto] {
        let (mut bob_device, _) = world.connect_as(&bob, wire, None).await?;
        assert_eq!(bob_device.whole_history(&conversation).await?, live);
        assert_eq!(bob_device.heads().await?[0].unread, 1);
    }
    assert_eq!(live[0].content.as_ref().map(Content::encode_to_vec), Some(content.encode_to_vec()));
    assert_eq!(live.iter().map(|entry| entry.countable_seq).collect::<Vec<_>>(), [1, 1]);
    Ok(())
}
