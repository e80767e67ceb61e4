//! Connections: authentication, malformed frames, slow readers.

use abi::{
    error::ErrorCode,
    v1::{Hello, Ping, client_frame::Frame, server_frame},
};
use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    device::{Device, Incoming, Wire, new_id, refusal, send},
    http,
    world::World,
};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::{Bytes, Message as WsMessage, protocol::frame::coding::OpCode};

pub(crate) async fn p8_hello_with_an_invalid_token_is_refused(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (head, rest) = alice.access_token.split_once('.').context("the token has no dots")?;
    let other = if rest.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{head}.{other}{}", &rest[1..]);
    // The header {"alg":"none"} claims that the token needs no signature.
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", rest.split('.').next().unwrap_or(""));
    for token in ["", "nonsense", "a.b.c", &forged, &unsigned, &alice.refresh_token] {
        for wire in [Wire::Json, Wire::Proto] {
            let mut device = Device::open(world.gateway(), wire).await?;
            let (code, reason) = device.hello_refused(token).await?;
            assert_eq!(code, ErrorCode::Unauthenticated, "{token:?}");
            assert_eq!(reason, "unauthenticated reconnect=no");
        }
    }
    Ok(())
}

fn hello(token: &str, device: &str) -> Frame {
    Frame::Hello(Hello { token: token.into(), device: device.into(), ..Hello::default() })
}

pub(crate) async fn p8_requests_before_hello_are_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    for frame in [Frame::Ping(Ping {}), send(&alice.conversation_with(&bob), &new_id(), "hello")] {
        let mut device = Device::open(world.gateway(), Wire::Proto).await?;
        device.pipeline([frame]).await?;
        assert_eq!(device.closed().await?.0, ErrorCode::Unauthenticated);
    }
    Ok(())
}

pub(crate) async fn p8_a_second_hello_is_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let mut device = world.connect(&alice).await?;
    // A connection can't change its user.
    let error = refusal(device.call(hello(&bob.access_token, "")).await);
    assert_eq!(error.code, ErrorCode::InvalidRequest);
    device.send(&alice.conversation_with(&bob), &new_id(), "hello").await?;
    assert_eq!(device.entries(1).await?[0].sender, alice.user);
    Ok(())
}

pub(crate) async fn p8_a_token_for_another_device_is_refused(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = Device::open(world.gateway(), Wire::Proto).await?;
    device.pipeline([hello(&alice.access_token, "tablet")]).await?;
    assert_eq!(device.closed().await?.0, ErrorCode::Unauthenticated);
    let mut device = Device::open(world.gateway(), Wire::Proto).await?;
    assert!(matches!(
        device.call(hello(&alice.access_token, "phone")).await?,
        server_frame::Frame::Welcome(_)
    ));
    Ok(())
}

/// Checks that the next frame is an `InvalidRequest` error for the request `id`.
async fn expect_error(device: &mut Device, id: u32) -> Result<()> {
    let frame = device.frame().await?;
    let Some(server_frame::Frame::Error(error)) = &frame.frame else { bail!("not an error: {frame:?}") };
    assert_eq!((frame.id, error.code()), (id, ErrorCode::InvalidRequest), "{error:?}");
    assert!(!error.message.is_empty());
    Ok(())
}

pub(crate) async fn p7_an_unknown_or_malformed_frame_gets_an_error_and_the_connection_stays_open(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    for (text, id) in [
        ("", 0),
        ("{", 0),
        ("[]", 0),
        ("null", 0),
        ("17", 0),
        (r#"{"id":"x"}"#, 0),
        (r#"{"id":-1,"ping":{}}"#, 0),
        (r#"{"id":5,"shout":{}}"#, 5),
        (r#"{"id":6}"#, 6),
        (r#"{"id":7,"ping":{},"heads":{}}"#, 7),
        (r#"{"id":8,"send":{"message":{"text":"half an emoji: \ud83d"}}}"#, 8),
        (r#"{"history":{"conversation":7},"id":9}"#, 9),
        (r#"{"id":10,"history":{"conversation":"#, 10),
    ] {
        json.write(WsMessage::text(text)).await?;
        expect_error(&mut json, id).await.with_context(|| text.to_owned())?;
    }
    json.ping().await?;
    let tablet = world.log_in(&alice, "tablet").await?;
    let (mut proto, _) = world.connect_as(&tablet, Wire::Proto, None).await?;
    // Field 1 is the id, 3 `send` with the conversation in its field 1, 127 undefined.
    for (bytes, id) in [
        (&[0xff_u8][..], 0),
        (&[0x12], 0),
        (&[0x12, 0x7f, 1], 0),
        (&[0x1a, 0x03, 0x0a, 0x01, 0xff], 0),
        (&[0x08, 6, 0xfa, 0x07, 0x00], 6),
        (&[0x08, 7], 7),
        (&[0x08, 8, 0x1a, 0x03, 0x0a, 0x01, 0xff], 8),
        (&[0x1a, 0x03, 0x0a, 0x01, 0xff, 0x08, 9], 9),
        (&[0x08, 10, 0x1a, 0x7f, 0x0a], 10),
    ] {
        proto.write(WsMessage::binary(bytes.to_vec())).await?;
        expect_error(&mut proto, id).await.with_context(|| format!("{bytes:?}"))?;
    }
    proto.ping().await?;
    Ok(())
}

pub(crate) async fn p7_a_json_frame_may_use_every_form_of_a_value_and_members_of_later_versions(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut device, _) = world.connect_as(&alice, Wire::Json, None).await?;
    let conversation = format!("d:{0}:{0}", alice.user);
    device.send(&conversation, "first", "hello").await?;
    device.entries(1).await?;
    for (id, (after, count)) in (1_000..).zip([
        ("0", 1),
        ("1", 0),
        (r#""1""#, 0),
        ("1.0", 0),
        ("1e0", 0),
        (r#""1e0""#, 0),
        ("null", 1),
        (r#""18446744073709551615""#, 0),
    ]) {
        device
            .write(WsMessage::text(format!(
                r#"{{"history":{{"conversation":"{conversation}","after":{after},"later":[{{}}]}},"id":{id}.0,"new":null}}"#
            )))
            .await?;
        let server_frame::Frame::History(page) = device.answer(id).await? else { bail!("not a page") };
        ensure!(page.entries.len() == count, "{} entries after {after}", page.entries.len());
    }
    Ok(())
}

pub(crate) async fn p7_an_error_names_the_member_and_the_value(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut device, _) = world.connect_as(&alice, Wire::Json, None).await?;
    for (text, member, value) in [
        (r#"{"id":5,"history":{"after":1.5}}"#, "`history.after`", "1.5"),
        (r#"{"id":5,"history":{"after":"abc"}}"#, "`history.after`", r#""abc""#),
        (r#"{"id":5,"send":{"content":{"text":{}}}}"#, "`send.content.text`", "an object"),
        (r#"{"id":1764500000000,"ping":{}}"#, "`id`", "1764500000000"),
        (r#"{"id":5,"shout":{}}"#, "`shout`", "does not know"),
    ] {
        device.write(WsMessage::text(text)).await?;
        let Some(server_frame::Frame::Error(error)) = device.frame().await?.frame else { bail!("no error") };
        ensure!(error.message.contains(member) && error.message.contains(value), "{text}: {}", error.message);
    }
    Ok(())
}

pub(crate) async fn p7_a_frame_in_the_other_wire_format_gets_an_error(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    json.write(WsMessage::binary(vec![0x08, 1, 0x3a, 0])).await?;
    expect_error(&mut json, 0).await?;
    json.ping().await?;
    let (mut proto, _) = world.connect_as(&world.log_in(&alice, "tablet").await?, Wire::Proto, None).await?;
    proto.write(WsMessage::text(r#"{"id":1,"ping":{}}"#)).await?;
    expect_error(&mut proto, 0).await?;
    proto.ping().await?;
    Ok(())
}

pub(crate) async fn p7_an_oversized_frame_closes_the_connection(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    device.write(WsMessage::binary(vec![0; 64 * 1024 + 1])).await?;
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::TooLarge, "too_large reconnect=no"));
    world.connect(&alice).await?.ping().await?;
    Ok(())
}

pub(crate) async fn p7_invalid_utf8_closes_the_connection(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut device, _) = world.connect_as(&alice, Wire::Json, None).await?;
    let text = Bytes::from_static(b"{\"id\":1,\"ping\":\"\xff\xfe\"}");
    let frame = tokio_tungstenite::tungstenite::protocol::frame::Frame::message(
        text,
        OpCode::Data(tokio_tungstenite::tungstenite::protocol::frame::coding::Data::Text),
        true,
    );
    device.write(WsMessage::Frame(frame)).await?;
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::InvalidRequest, "invalid_request reconnect=no"));
    world.connect(&alice).await?.ping().await?;
    Ok(())
}

pub(crate) async fn p7_an_unknown_subprotocol_is_refused(world: World) -> Result<()> {
    let gateway = world.gateway();
    let handshake = format!(
        "GET /v1/ws HTTP/1.1\r\nhost: {gateway}\r\nconnection: upgrade, close\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\
         sec-websocket-protocol: godwit.v999\r\n\r\n"
    );
    let stream = tokio::time::timeout(tests::PATIENCE, http::raw(gateway, handshake.as_bytes())).await;
    let answer = stream.context("an unknown subprotocol was accepted")??;
    assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"));
    // A request without a WebSocket handshake is refused too.
    let answer = http::request(gateway, "GET", "/v1/ws", None, None).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"));
    Ok(())
}

pub(crate) async fn p7_a_device_that_does_not_read_is_disconnected_and_catches_up(
    world: World,
) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let conversation = alice.conversation_with(&bob);
    let mut alice_device = world.connect(&alice).await?;
    // A small receive window keeps the kernel's buffers small, so the device's queue fills sooner.
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let stream = socket.connect(world.gateway().parse()?).await?;
    let mut bob_device = Device::over(stream, Wire::Proto).await?;
    bob_device.hello(&bob.access_token, None).await?;
    let body = "x".repeat(16 * 1024);
    let count = 640; // 10 MiB: the queue of a device holds 1 MiB, and the kernel buffers up to 4 MiB
    // Bursts of 8 messages are below the limit for deliveries with entries.
    for _ in 0..count / 8 {
        let ids = alice_device.pipeline((0..8).map(|_| send(&conversation, &new_id(), &body))).await?;
        for id in ids {
            alice_device.answer(id).await?;
        }
        alice_device.entries(8).await?;
    }
    let mut seen = 0;
    let code = loop {
        match bob_device.next().await? {
            Incoming::Closed(code, _) => break code,
            Incoming::Frame(frame) => {
                if let Some(server_frame::Frame::Deliver(deliver)) = frame.frame {
                    seen += deliver.entries.len();
                }
            }
        }
    };
    // If the close frame does not fit into the buffers either, the connection ends without it.
    assert!(code.is_none() || code == Some(ErrorCode::TooSlow.close()), "closed with {code:?}");
    assert!(seen < count, "all {seen} messages were queued for a device that does not read");
    let mut bob_device = world.connect(&bob).await?;
    assert_eq!(bob_device.whole_history(&conversation).await?.len(), count);
    Ok(())
}
