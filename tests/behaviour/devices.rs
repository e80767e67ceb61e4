//! Several devices of one user, and devices that reconnect.

use abi::error::ErrorCode;
use anyhow::Result;
use tests::{
    device::{Device, Wire, new_id, text, texts},
    eventually,
    world::World,
};

pub(crate) async fn p2_every_device_gets_each_message_once_including_the_senders_other_devices(
    world: World,
) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut devices = Vec::new();
    for user in [&alice, &bob] {
        devices.push(world.connect(user).await?);
        for name in ["tablet", "desktop"] {
            devices.push(world.connect(&world.log_in(user, name).await?).await?);
        }
    }
    let sent: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for text in &sent {
        devices[0].send(&conversation, &new_id(), text).await?;
    }
    devices[3].send(&conversation, &new_id(), "the end").await?;
    // All devices see the same order, so a duplicate would arrive before "the end".
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
    // In the distributed mode the two connections are at different gateways.
    let connect = || Device::connect(world.gateway(), Wire::Proto, &alice.access_token, None);
    let (mut old, _) = connect().await?;
    let (mut new, _) = connect().await?;
    let (code, reason) = old.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::Replaced, "replaced reconnect=no"));
    new.ping().await?;
    Ok(())
}

pub(crate) async fn p5_closing_an_old_connection_does_not_affect_the_new_one(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    for round in 0..5 {
        // In even rounds the old connection breaks first; in odd rounds the new one replaces it.
        let old = world.connect(&bob).await?;
        if round % 2 == 0 {
            old.drop_connection();
        }
        let mut new = world.connect(&bob).await?;
        let sent = alice_device.send(&conversation, &new_id(), "are you there").await?;
        assert_eq!(new.entries(1).await?[0].message_id, sent.message_id);
    }
    Ok(())
}

pub(crate) async fn p8_logging_out_closes_the_connection_and_revokes_the_token(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let tablet = world.log_in(&alice, "tablet").await?;
    let (mut phone_device, mut tablet_device) = (world.connect(&alice).await?, world.connect(&tablet).await?);
    let answer = world.http("DELETE", "/v1/sessions/current", Some(&tablet.access_token), None).await?;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let (code, reason) = tablet_device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::Revoked, "revoked reconnect=no"));
    phone_device.ping().await?;

    let mut again = Device::open(world.gateway(), Wire::Proto).await?;
    assert_eq!(again.hello_refused(&tablet.access_token).await?.0, ErrorCode::Revoked);
    world.refresh(&tablet).await.expect_err("the session has ended");
    let answer = world.http("DELETE", "/v1/sessions/current", Some(&tablet.access_token), None).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (401, "revoked"));
    Ok(())
}

pub(crate) async fn p8_logging_in_again_ends_the_earlier_session_of_the_device(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut old = world.connect(&alice).await?;
    let again = world.log_in(&alice, "phone").await?;
    assert_ne!(again.session, alice.session);
    assert_eq!(old.closed().await?.0, ErrorCode::Revoked);
    world.refresh(&alice).await.expect_err("the earlier session has ended");
    eventually("the new session works", async || world.connect(&again).await).await?.ping().await?;
    Ok(())
}
