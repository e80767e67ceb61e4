//! A user's own state on all devices: read positions, settings, blocks, profiles; and catching up with them.

use abi::{
    error::ErrorCode,
    v1::{
        Block, ConversationSettings, GetBlocks, GetChanges, GetProfiles, GetReaders, Profile, SetSettings,
        client_frame::Frame, server_frame, update::Kind,
    },
};
use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    device::{Device, Wire, new_id, refusal, text},
    world::World,
};

/// Sends messages and waits until they are stored.
async fn say(device: &mut Device, conversation: &str, count: usize) -> Result<()> {
    for number in 1..=count {
        device.send(conversation, &new_id(), &format!("message {number}")).await?;
    }
    device.entries(count).await.map(drop)
}

async fn profiles(device: &mut Device, users: &[&str]) -> Result<Vec<Profile>> {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    match device.call(Frame::Profiles(GetProfiles { users })).await? {
        server_frame::Frame::Profiles(found) => Ok(found.profiles),
        other => bail!("profiles were answered with {other:?}"),
    }
}

fn block(user: &str, blocked: bool) -> Frame {
    Frame::Block(Block { user: user.into(), blocked })
}

pub(crate) async fn p5_reading_on_one_device_reaches_the_others(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let tablet = world.log_in(&bob, "tablet").await?;
    let (mut alice_device, mut phone) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let mut laptop = world.connect(&world.log_in(&bob, "laptop").await?).await?;
    say(&mut alice_device, &conversation, 5).await?;
    laptop.entries(5).await?;
    let known = laptop.ping().await?.receiver_seq;
    let position = phone.mark_read(&conversation, 4).await?;
    assert_eq!((position.read_seq, position.unread, position.countable_seq), (4, 1, 5));
    // The connected device is told.
    let deliver = laptop.deliver().await?;
    assert_eq!((deliver.raised, deliver.updates.len()), (1, 1), "{deliver:?}");
    assert_eq!(deliver.updates[0].kind, Some(Kind::Read(position)));
    // A device that was away sees that something has changed, and asks for one head.
    let (mut away, welcome) = world.connect_as(&tablet, Wire::Json, known).await?;
    assert_ne!(welcome.receiver_seq, known);
    let changes = away.changes(GetChanges { have: known, ..GetChanges::default() }).await?;
    assert!(!changes.everything && changes.next.is_empty(), "{changes:?}");
    assert_eq!(changes.receiver_seq, welcome.receiver_seq);
    let [head] = &changes.heads[..] else { bail!("not one head: {changes:?}") };
    assert_eq!((&*head.conversation, head.read_seq, head.unread), (&*conversation, 4, 1));
    Ok(())
}

pub(crate) async fn p4_what_a_user_wrote_is_never_unread(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    say(&mut alice_device, &conversation, 3).await?;
    assert_eq!(alice_device.heads().await?[0].unread, 0);
    bob_device.entries(3).await?;
    say(&mut bob_device, &conversation, 1).await?;
    assert_eq!(bob_device.heads().await?[0].unread, 3);
    alice_device.entries(1).await?;
    assert_eq!(alice_device.heads().await?[0].unread, 1);
    // Reading up to the own messages in between leaves what came after.
    bob_device.mark_read(&conversation, 2).await?;
    assert_eq!(bob_device.heads().await?[0].unread, 1);
    let notes = abi::ids::direct(&alice.user, &alice.user);
    say(&mut alice_device, &notes, 1).await?;
    let heads = alice_device.heads().await?;
    assert_eq!(heads.iter().find(|head| head.conversation == notes).map(|head| head.unread), Some(0));
    Ok(())
}

pub(crate) async fn p5_an_author_who_was_away_finds_out_who_has_read(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let group = world.group(&alice, &[&bob, &carol], "all").await?;
    let mut alice_device = world.connect(&alice).await?;
    alice_device.send(&group, &new_id(), "read this").await?;
    let known = tests::eventually("the message is stored", async || {
        ensure!(alice_device.whole_history(&group).await?.len() == 2);
        Ok(alice_device.ping().await?.receiver_seq)
    })
    .await?;
    alice_device.drop_connection();
    world.connect(&bob).await?.mark_read(&group, 2).await?;
    let (mut alice_device, welcome) = world.connect_as(&alice, Wire::Proto, known).await?;
    assert_ne!(welcome.receiver_seq, known);
    let changes = alice_device.changes(GetChanges { have: known, ..GetChanges::default() }).await?;
    let head = changes.heads.first().context("no head")?;
    assert_eq!((head.read_by_any_seq, head.read_by_all_seq), (2, 1.min(head.read_by_all_seq)));
    ensure!(head.read_by_all_seq < 2, "carol has not read: {head:?}");
    let page = GetReaders { conversation: group.clone(), conversation_seq: 2, ..GetReaders::default() };
    let server_frame::Frame::Readers(readers) = alice_device.call(Frame::Readers(page)).await? else {
        bail!("readers were answered with another frame");
    };
    let readers: Vec<_> = readers.readers.iter().map(|reader| (&*reader.user, reader.has_read)).collect();
    assert_eq!(readers, [(&*bob.user, true), (&*carol.user, false)]);
    Ok(())
}

pub(crate) async fn p5_settings_are_the_same_on_all_devices(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut phone = world.connect(&alice).await?;
    let (mut laptop, _) = world.connect_as(&world.log_in(&alice, "laptop").await?, Wire::Json, None).await?;
    say(&mut phone, &conversation, 1).await?;
    laptop.entries(1).await?;
    let change = SetSettings {
        conversation: conversation.clone(),
        pinned: Some(true),
        muted_until_ms: Some(9_007_199_254_740_991),
        draft: Some("unsent".into()),
        ..SetSettings::default()
    };
    phone.done(Frame::Settings(change)).await?;
    let change = SetSettings {
        conversation: conversation.clone(),
        archived: Some(true),
        marked_unread: Some(true),
        draft: Some(String::new()),
        ..SetSettings::default()
    };
    phone.done(Frame::Settings(change)).await?;
    let expected = ConversationSettings {
        muted_until_ms: 9_007_199_254_740_991,
        pinned: true,
        archived: true,
        marked_unread: true,
        draft: String::new(),
    };
    let mut last = None;
    for _ in 0..2 {
        let Kind::Settings(changed) = laptop.update().await? else { bail!("another update") };
        last = changed.settings;
    }
    assert_eq!(last.as_ref(), Some(&expected));
    assert_eq!(laptop.heads().await?[0].settings.as_ref(), Some(&expected));
    // Others do not see them.
    assert_eq!(
        world.connect(&bob).await?.heads().await?[0].settings.clone().unwrap_or_default(),
        ConversationSettings::default()
    );
    let long = SetSettings { conversation, draft: Some("x".repeat(5_000)), ..SetSettings::default() };
    let error = refusal(phone.call(Frame::Settings(long)).await);
    assert!(matches!(error.code, ErrorCode::TooLarge | ErrorCode::InvalidRequest), "{error}");
    Ok(())
}

pub(crate) async fn p8_a_blocked_user_reaches_the_blocker_in_no_way(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    bob_device.send(&conversation, &new_id(), "hello").await?;
    alice_device.entries(1).await?;
    let mut laptop = world.connect(&world.log_in(&alice, "laptop").await?).await?;
    alice_device.done(block(&bob.user, true)).await?;
    assert_eq!(laptop.update().await?, Kind::Block(Block { user: bob.user.clone(), blocked: true }));
    tests::eventually("the block is in force on all gateways", async || {
        let sent = bob_device.send(&conversation, &new_id(), "please").await;
        ensure!(sent.is_err_and(|error| {
            error.downcast_ref::<abi::ApiError>().is_some_and(|error| error.code == ErrorCode::Forbidden)
        }));
        Ok(())
    })
    .await?;
    let body = serde_json::json!({ "name": "trap", "members": [alice.user] });
    let answer = world.http("POST", "/v1/groups", Some(&bob.access_token), Some(body)).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (403, "forbidden"));
    // The blocker may still write, and sees the list.
    alice_device.send(&conversation, &new_id(), "I have blocked you").await?;
    let server_frame::Frame::Blocks(blocks) = alice_device.call(Frame::Blocks(GetBlocks::default())).await?
    else {
        bail!("blocks were answered with another frame");
    };
    assert_eq!(blocks.users, [&*bob.user]);
    alice_device.done(block(&bob.user, false)).await?;
    tests::eventually("the block is gone on all gateways", async || {
        bob_device.send(&conversation, &new_id(), "thanks").await.map(drop)
    })
    .await
}

pub(crate) async fn p5_a_profile_is_shown_to_others_and_its_privacy_is_not(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let (mut alice_device, mut bob_device) = (world.connect(&alice).await?, world.connect(&bob).await?);
    let profile = Profile {
        user: String::new(),
        name: "Alice in Chains".into(),
        avatar_url: "https://example.com/a.png".into(),
        custom: [("team".to_owned(), "blue".to_owned())].into(),
        privacy: 2,
    };
    alice_device.done(Frame::Profile(profile.clone())).await?;
    let own = profiles(&mut alice_device, &[&alice.user]).await?;
    assert_eq!(own, [Profile { user: alice.user.clone(), ..profile.clone() }]);
    let seen = profiles(&mut bob_device, &[&alice.user, "nobody-there"]).await?;
    assert_eq!(seen, [Profile { user: alice.user.clone(), privacy: 0, ..profile }]);
    for invalid in [
        Profile { name: "x".repeat(129), ..Profile::default() },
        Profile { name: "\u{202e}".into(), ..Profile::default() },
        Profile { avatar_url: "javascript:alert(1)".into(), ..Profile::default() },
        Profile { custom: [("x".repeat(65), String::new())].into(), ..Profile::default() },
    ] {
        refusal(alice_device.call(Frame::Profile(invalid)).await);
    }
    Ok(())
}

pub(crate) async fn p5_changes_of_many_conversations_cost_one_small_page(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let mut conversations = Vec::new();
    for number in 0..12 {
        let friend = world.user(&format!("friend{number}")).await?;
        let conversation = alice.conversation_with(&friend);
        say(&mut device, &conversation, 1).await?;
        conversations.push((friend, conversation));
    }
    let known = device.ping().await?.receiver_seq;
    for (friend, conversation) in &conversations[4..7] {
        let mut friend = world.connect(friend).await?;
        friend.send(conversation, &new_id(), "news").await?;
        device.entries(1).await?;
    }
    let changes = device.changes(GetChanges { have: known, ..GetChanges::default() }).await?;
    assert!(!changes.everything && changes.next.is_empty());
    let named: Vec<_> = changes.heads.iter().map(|head| head.conversation.as_str()).collect();
    let expected: Vec<_> =
        conversations[4..7].iter().rev().map(|(_, conversation)| conversation.as_str()).collect();
    assert_eq!(named, expected);
    assert_eq!(changes.heads[0].last.as_ref().map(text), Some("news"));
    // The device that has everything gets nothing.
    let have = changes.receiver_seq;
    let none = device.changes(GetChanges { have, ..GetChanges::default() }).await?;
    assert_eq!((none.heads.len(), none.everything), (0, false));
    Ok(())
}
