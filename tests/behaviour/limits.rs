//! Limits, on a system whose limits can be reached in a second.

use abi::{
    error::ErrorCode,
    v1::{GetHeads, client_frame::Frame, server_frame},
};
use anyhow::{Result, ensure};
use std::time::Duration;
use tests::{
    device::{Device, Wire, new_id, refusal, send},
    eventually,
    world::World,
};
use tokio::time::sleep;

pub(crate) async fn p7_who_sends_too_fast_is_told_how_long_to_wait(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let gateway = world.first_gateway();
    let (mut device, welcome) = Device::connect(gateway, Wire::Proto, &alice.access_token, None).await?;
    assert_eq!(welcome.max_in_flight, 8);
    let ids = device.pipeline((0..60).map(|_| send(&talk, &new_id(), "hello"))).await?;
    let (mut acknowledged, mut wait) = (0, None);
    for id in ids {
        match device.answer(id).await {
            Ok(_) => acknowledged += 1,
            refused => {
                let fault = refusal(refused);
                assert_eq!(fault.code, ErrorCode::RateLimited);
                wait = fault.retry_after;
            }
        }
    }
    ensure!((20..40).contains(&acknowledged), "{acknowledged} of 60 passed a limit of 20 and 5 a second");
    let wait = wait.expect("some were refused, each with a time to wait");
    ensure!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    // One user's limit is no other's, and who has waited as told may go on.
    let (mut bobs, _) =
        Device::connect(gateway, Wire::Proto, &world.refresh(&bob).await?.access_token, None).await?;
    bobs.send(&talk, &new_id(), "hello").await?;
    sleep(wait).await;
    device.send(&talk, &new_id(), "hello").await?;
    Ok(())
}

pub(crate) async fn p7_who_asks_too_much_is_told_how_long_to_wait(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let ids = device.pipeline((0..100).map(|_| Frame::Heads(GetHeads::default()))).await?;
    let (mut answered, mut wait) = (0, None);
    for id in ids {
        match device.answer(id).await {
            Ok(server_frame::Frame::Heads(_)) => answered += 1,
            refused => {
                let fault = refusal(refused);
                assert_eq!(fault.code, ErrorCode::RateLimited);
                wait = fault.retry_after;
            }
        }
    }
    ensure!((40..80).contains(&answered), "{answered} of 100 passed a limit of 40 and 20 a second");
    sleep(wait.expect("some were refused, each with a time to wait")).await;
    device.heads("", 0).await?;
    Ok(())
}

pub(crate) async fn p7_a_user_has_so_many_connections(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut sessions = Vec::new();
    for name in ["one", "two", "three", "four"] {
        sessions.push(world.log_in(&alice, name).await?);
    }
    let mut open = Vec::new();
    for session in &sessions[..3] {
        open.push(Device::connect(world.first_gateway(), Wire::Proto, &session.access_token, None).await?.0);
    }
    let mut fourth = Device::open(world.first_gateway(), Wire::Proto).await?;
    assert_eq!(fourth.hello_refused(&sessions[3].access_token).await?.0, ErrorCode::RateLimited);
    open.remove(0).drop_connection();
    eventually("there is room again", async || {
        let token = world.refresh(&sessions[3]).await.map(|session| {
            let token = session.access_token.clone();
            sessions[3] = session;
            token
        })?;
        Device::connect(world.first_gateway(), Wire::Proto, &token, None).await
    })
    .await?;
    Ok(())
}

pub(crate) async fn p7_a_silent_connection_is_closed(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut device, welcome) = world.connect_as(&alice, Wire::Proto, None).await?;
    assert_eq!(welcome.heartbeat_ms, 1_000);
    for _ in 0..3 {
        sleep(Duration::from_millis(1_000)).await;
        device.ping().await?;
    }
    // From here on it says nothing, as if its network was gone.
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::IdleTimeout, "idle_timeout reconnect=0"));
    Ok(())
}

pub(crate) async fn p7_hello_comes_in_time_or_the_connection_is_closed(world: World) -> Result<()> {
    let mut device = Device::open(world.gateway(), Wire::Json).await?;
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::HelloTimeout, "hello_timeout reconnect=0"));
    Ok(())
}

pub(crate) async fn p8_an_expired_token_is_told_apart_and_a_refresh_helps(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    eventually("the token expires", async || {
        let mut device = Device::open(world.gateway(), Wire::Proto).await?;
        let (code, reason) = device.hello_refused(&alice.access_token).await?;
        ensure!(code == ErrorCode::TokenExpired, "{code:?}");
        assert_eq!(reason, "token_expired reconnect=no");
        Ok(())
    })
    .await?;
    let answer = world.http("DELETE", "/v1/sessions/current", Some(&alice.access_token), None).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (401, "token_expired"));
    let alice = world.refresh(&alice).await?;
    world.connect(&alice).await?.ping().await.map(|_| ())
}
