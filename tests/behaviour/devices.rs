//! Several devices of one user, and one device that connects again.

use abi::error::ErrorCode;
use anyhow::Result;
use tests::{
    device::{Device, Wire, new_id, text, texts},
    eventually,
    world::World,
};

pub(crate) async fn p2_every_device_gets_a_message_once_the_senders_others_too(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut devices = Vec::new();
    for user in [&alice, &bob] {
        devices.push(world.connect(user).await?);
        for name in ["tablet", "desktop"] {
            devices.push(world.connect(&world.log_in(user, name).await?).await?);
        }
    }
    let sent: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for text in &sent {
        devices[0].send(&talk, &new_id(), text).await?;
    }
    devices[3].send(&talk, &new_id(), "the end").await?;
    // One too many anywhere would come before the end, for the order is one.
    for device in &mut devices {
        let mut seen = Vec::new();
        while seen.last().is_none_or(|entry| text(entry) != "the end") {
            seen.extend(device.deliver().await?.entries);
        }
        assert_eq!(texts(&seen)[..20], sent);
        assert_eq!(seen.len(), 21);
    }
    Ok(())
}

pub(crate) async fn p5_a_new_connection_of_a_device_replaces_the_old_one(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    // Also over another gateway, where there are two.
    let connect = || Device::connect(world.gateway(), Wire::Proto, &alice.access_token, None);
    let (mut old, _) = connect().await?;
    let (mut new, _) = connect().await?;
    let (code, reason) = old.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::Replaced, "replaced reconnect=no"));
    new.ping().await?;
    Ok(())
}

pub(crate) async fn p5_the_end_of_an_old_connection_leaves_the_new_one_alone(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    for round in 0..5 {
        // Both ends of the race: the old connection is cut before, or ends while the new one begins.
        let old = world.connect(&bob).await?;
        if round % 2 == 0 {
            old.drop_connection();
        }
        let mut new = world.connect(&bob).await?;
        let sent = alices.send(&talk, &new_id(), "are you there").await?;
        assert_eq!(new.entries(1).await?[0].message_id, sent.message_id);
    }
    Ok(())
}

pub(crate) async fn p8_logging_out_closes_the_device_and_its_token(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let tablet = world.log_in(&alice, "tablet").await?;
    let (mut phones, mut tablets) = (world.connect(&alice).await?, world.connect(&tablet).await?);
    let answer = world.http("DELETE", "/v1/sessions/current", Some(&tablet.access_token), None).await?;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let (code, reason) = tablets.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::Revoked, "revoked reconnect=no"));
    phones.ping().await?;

    let mut again = Device::open(world.gateway(), Wire::Proto).await?;
    assert_eq!(again.hello_refused(&tablet.access_token).await?.0, ErrorCode::Revoked);
    world.refresh(&tablet).await.expect_err("a session that was ended can't be refreshed");
    let answer = world.http("DELETE", "/v1/sessions/current", Some(&tablet.access_token), None).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (401, "revoked"));
    Ok(())
}

pub(crate) async fn p8_logging_in_again_ends_the_sessions_before_of_that_device(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut old = world.connect(&alice).await?;
    let again = world.log_in(&alice, "phone").await?;
    assert_ne!(again.session, alice.session);
    assert_eq!(old.closed().await?.0, ErrorCode::Revoked);
    world.refresh(&alice).await.expect_err("the older session was ended");
    eventually("the new session serves", async || world.connect(&again).await).await?.ping().await?;
    Ok(())
}
