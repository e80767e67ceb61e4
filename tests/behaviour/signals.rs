//! Signals and presence.

use abi::{
    error::ErrorCode,
    v1::{
        Block, CustomSignal, Delivered, Ping, Presence, Profile, Signal, Typing, WatchPresence,
        client_frame::Frame, server_frame, signal::Kind,
    },
};
use anyhow::{Result, bail, ensure};
use tests::{
    device::{Device, Wire, content, refusal},
    world::World,
};

fn signal(conversation: &str, kind: Kind) -> Frame {
    Frame::Signal(Signal { conversation: conversation.into(), user: String::new(), kind: Some(kind) })
}

async fn watch(device: &mut Device, users: &[&str]) -> Result<Vec<Presence>> {
    let users = users.iter().map(|user| (*user).to_owned()).collect();
    match device.call(Frame::Watch(WatchPresence { users })).await? {
        server_frame::Frame::Presences(found) => Ok(found.presences),
        other => bail!("watch was answered with {other:?}"),
    }
}

async fn presence(device: &mut Device) -> Result<Presence> {
    match device.signal().await?.kind {
        Some(Kind::Presence(presence)) => Ok(presence),
        other => bail!("{other:?} instead of a presence"),
    }
}

pub(crate) async fn p5_signals_reach_the_other_members_and_are_not_stored(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let group = world.group(&alice, &[&bob, &carol], "all").await?;
    let mut alice_device = world.connect(&alice).await?;
    let (mut bob_device, _) = world.connect_as(&bob, Wire::Json, None).await?;
    let mut carol_device = world.connect(&carol).await?;
    let kinds = [
        Kind::Typing(Typing { stopped: false }),
        Kind::Delivered(Delivered { conversation_seq: 1 }),
        Kind::Custom(CustomSignal {
            kind: "acme.call".into(),
            content: Some(content("ringing")),
            to: Vec::new(),
        }),
    ];
    for kind in kinds {
        alice_device.done(signal(&group, kind.clone())).await?;
        let expected = Signal { conversation: group.clone(), user: alice.user.clone(), kind: Some(kind) };
        assert_eq!(bob_device.signal().await?, expected);
        assert_eq!(carol_device.signal().await?, expected);
    }
    // To one member only.
    let custom = |to: &str| CustomSignal { kind: "acme.call".into(), content: None, to: vec![to.into()] };
    alice_device.done(signal(&group, Kind::Custom(custom(&carol.user)))).await?;
    alice_device.done(signal(&group, Kind::Typing(Typing { stopped: true }))).await?;
    assert!(matches!(carol_device.signal().await?.kind, Some(Kind::Custom(_))));
    assert!(matches!(bob_device.signal().await?.kind, Some(Kind::Typing(_))));
    assert_eq!(bob_device.whole_history(&group).await?.len(), 1);
    Ok(())
}

pub(crate) async fn p8_signals_of_strangers_are_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let carol = world.user("carol").await?;
    let conversation = alice.conversation_with(&bob);
    let group = world.group(&alice, &[&bob], "all").await?;
    let mut device = world.connect(&carol).await?;
    for target in [conversation.as_str(), &group, "g:unknown"] {
        // A repetition is refused as well, although repetitions of allowed signals are dropped.
        for _ in 0..2 {
            let typing = signal(target, Kind::Typing(Typing::default()));
            assert_eq!(refusal(device.call(typing).await).code, ErrorCode::Forbidden, "{target}");
        }
    }
    let mut device = world.connect(&alice).await?;
    for kind in [
        Kind::Delivered(Delivered::default()),
        Kind::Custom(CustomSignal { kind: "call".into(), ..CustomSignal::default() }),
        Kind::Custom(CustomSignal {
            kind: "acme.call".into(),
            content: Some(content(&"x".repeat(5_000))),
            to: Vec::new(),
        }),
    ] {
        refusal(device.call(signal(&group, kind)).await);
    }
    Ok(())
}

pub(crate) async fn p5_watchers_see_who_comes_and_goes(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let mut bob_device = world.connect(&bob).await?;
    let found = watch(&mut bob_device, &[&alice.user, "nobody-there"]).await?;
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].user, found[0].online), (&*alice.user, false));
    let mut alice_device = world.connect(&alice).await?;
    let seen = presence(&mut bob_device).await?;
    assert_eq!((&*seen.user, seen.online), (&*alice.user, true));
    let text = Kind::Presence(Presence { text: "at lunch".into(), ..Presence::default() });
    alice_device.done(signal("", text)).await?;
    assert_eq!(presence(&mut bob_device).await?.text, "at lunch");
    alice_device.drop_connection();
    let seen = presence(&mut bob_device).await?;
    assert!(!seen.online && seen.last_seen_ms > 0, "{seen:?}");
    // Nobody sees a user who wants that, and such a user sees nobody.
    let mut alice_device = world.connect(&alice).await?;
    let hidden = Profile { privacy: 2, ..Profile::default() };
    alice_device.done(Frame::Profile(hidden)).await?;
    assert_eq!(watch(&mut bob_device, &[&alice.user]).await?, []);
    assert_eq!(watch(&mut alice_device, &[&bob.user]).await?, []);
    ensure!(watch(&mut bob_device, &[]).await?.is_empty());
    Ok(())
}

pub(crate) async fn p5_a_user_who_registers_later_can_be_watched(world: World) -> Result<()> {
    let bob = world.user("bob").await?;
    let mut bob_device = world.connect(&bob).await?;
    let name = format!("friend-of-{}", bob.user);
    assert_eq!(watch(&mut bob_device, &[&name]).await?, []);
    let friend = world.user_named(&name, "phone").await?;
    let _friend_device = world.connect(&friend).await?;
    let seen = presence(&mut bob_device).await?;
    assert_eq!((seen.user, seen.online), (name, true));
    Ok(())
}

pub(crate) async fn p8_a_change_of_presence_is_told_to_those_who_may_see_it_now(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let (carol, dave) = (world.user("carol").await?, world.user("dave").await?);
    let mut devices = Vec::new();
    for watcher in [&bob, &carol, &dave] {
        let mut device = world.connect(watcher).await?;
        assert_eq!(watch(&mut device, &[&alice.user]).await?.len(), 1);
        devices.push(device);
    }
    // Alice blocks bob, and carol leaves presence. A ping renews what a connection watches.
    let mut alice_device = world.connect(&alice).await?;
    for device in &mut devices {
        assert!(presence(device).await?.online);
    }
    let block = |blocked| Frame::Block(Block { user: bob.user.clone(), blocked });
    alice_device.done(block(true)).await?;
    devices[1].done(Frame::Profile(Profile { privacy: 2, ..Profile::default() })).await?;
    for device in &mut devices {
        device.call(Frame::Ping(Ping {})).await?;
    }
    let text = |text: &str| signal("", Kind::Presence(Presence { text: text.into(), ..Presence::default() }));
    alice_device.done(text("unseen")).await?;
    assert_eq!(presence(&mut devices[2]).await?.text, "unseen");
    // Both are told again, and of nothing in between.
    alice_device.done(block(false)).await?;
    devices[1].done(Frame::Profile(Profile::default())).await?;
    alice_device.done(text("seen")).await?;
    for device in &mut devices {
        assert_eq!(presence(device).await?.text, "seen");
    }
    Ok(())
}
