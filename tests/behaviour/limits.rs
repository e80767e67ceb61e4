//! Limits, on a system whose limits a test can reach within a second.

use abi::{
    error::ErrorCode,
    v1::{GetChanges, client_frame::Frame, server_frame},
};
use anyhow::{Result, ensure};
use std::time::Duration;
use tests::{
    device::{Device, Wire, new_id, refusal, send},
    eventually,
    world::World,
};
use tokio::time::sleep;

pub(crate) async fn p7_sends_above_the_rate_limit_are_refused_with_a_retry_delay(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let gateway = world.first_gateway();
    let (mut device, welcome) = Device::connect(gateway, Wire::Proto, &alice.access_token, None).await?;
    assert_eq!(welcome.max_in_flight, 8);
    let ids = device.pipeline((0..60).map(|_| send(&conversation, &new_id(), "hello"))).await?;
    let (mut acknowledged, mut wait) = (0, None);
    for id in ids {
        match device.answer(id).await {
            Ok(_) => acknowledged += 1,
            refused => {
                let error = refusal(refused);
                assert_eq!(error.code, ErrorCode::RateLimited);
                wait = error.retry_after;
            }
        }
    }
    ensure!(
        (20..40).contains(&acknowledged),
        "{acknowledged} of 60 sends passed a burst of 20 and a rate of 5 per second"
    );
    let wait = wait.expect("some were refused, each with a delay");
    ensure!(wait > Duration::ZERO && wait <= Duration::from_secs(1), "{wait:?}");
    // Limits are per user, and a send after the delay is accepted.
    let (mut bob_device, _) =
        Device::connect(gateway, Wire::Proto, &world.refresh(&bob).await?.access_token, None).await?;
    bob_device.send(&conversation, &new_id(), "hello").await?;
    sleep(wait).await;
    device.send(&conversation, &new_id(), "hello").await?;
    Ok(())
}

pub(crate) async fn p7_requests_above_the_rate_limit_are_refused_with_a_retry_delay(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    let ids = device.pipeline((0..100).map(|_| Frame::Changes(GetChanges::default()))).await?;
    let (mut answered, mut wait) = (0, None);
    for id in ids {
        match device.answer(id).await {
            Ok(server_frame::Frame::Changes(_)) => answered += 1,
            refused => {
                let error = refusal(refused);
                assert_eq!(error.code, ErrorCode::RateLimited);
                wait = error.retry_after;
            }
        }
    }
    ensure!(
        (40..80).contains(&answered),
        "{answered} of 100 requests passed a burst of 40 and a rate of 20 per second"
    );
    sleep(wait.expect("some were refused, each with a delay")).await;
    device.heads().await?;
    Ok(())
}

pub(crate) async fn p7_connections_per_user_are_limited(world: World) -> Result<()> {
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
    eventually("a closed connection no longer counts", async || {
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

pub(crate) async fn p7_an_idle_connection_is_closed(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut device, welcome) = world.connect_as(&alice, Wire::Proto, None).await?;
    assert_eq!(welcome.heartbeat_ms, 1_000);
    for _ in 0..3 {
        sleep(Duration::from_millis(1_000)).await;
        device.ping().await?;
    }
    // The device now sends nothing, as after a network failure.
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::IdleTimeout, "idle_timeout reconnect=0"));
    Ok(())
}

pub(crate) async fn p7_a_connection_without_hello_is_closed_after_a_timeout(world: World) -> Result<()> {
    let mut device = Device::open(world.gateway(), Wire::Json).await?;
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::HelloTimeout, "hello_timeout reconnect=0"));
    Ok(())
}

pub(crate) async fn p8_an_expired_token_has_its_own_error_and_can_be_refreshed(world: World) -> Result<()> {
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
