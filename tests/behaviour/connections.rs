//! The edge of a connection: who is let in, and what happens to frames that are none.

use abi::{
    error::ErrorCode,
    v1::{Hello, Ping, client_frame::Frame, server_frame},
};
use anyhow::{Context as _, Result, bail};
use tests::{
    device::{Device, Incoming, Wire, new_id, refusal, send},
    http,
    world::World,
};
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::{Bytes, Message as WsMessage, protocol::frame::coding::OpCode};

pub(crate) async fn p8_without_a_good_token_there_is_no_welcome(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (head, rest) = alice.access_token.split_once('.').context("no token of three parts")?;
    let other = if rest.starts_with('A') { 'B' } else { 'A' };
    let forged = format!("{head}.{other}{}", &rest[1..]);
    // {"alg":"none"}: a token that says of itself that it needs no signature.
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
    Frame::Hello(Hello { token: token.into(), device: device.into(), have: None })
}

pub(crate) async fn p8_nothing_is_served_before_hello(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    for frame in [Frame::Ping(Ping {}), send(&alice.with(&bob), &new_id(), "hello")] {
        let mut device = Device::open(world.gateway(), Wire::Proto).await?;
        device.pipeline([frame]).await?;
        assert_eq!(device.closed().await?.0, ErrorCode::Unauthenticated);
    }
    Ok(())
}

pub(crate) async fn p8_a_second_hello_is_refused(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let mut device = world.connect(&alice).await?;
    // Not even with the token of somebody else does a connection become theirs.
    let fault = refusal(device.call(hello(&bob.access_token, "")).await);
    assert_eq!(fault.code, ErrorCode::InvalidRequest);
    device.send(&alice.with(&bob), &new_id(), "hello").await?;
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

/// The next frame must be a refusal of that request.
async fn refused(device: &mut Device, id: u32) -> Result<()> {
    let frame = device.frame().await?;
    let Some(server_frame::Frame::Error(error)) = &frame.frame else { bail!("no error: {frame:?}") };
    assert_eq!((frame.id, error.code()), (id, ErrorCode::InvalidRequest), "{error:?}");
    assert!(!error.message.is_empty());
    Ok(())
}

pub(crate) async fn p7_an_unknown_or_broken_frame_is_answered_and_the_connection_lives(
    world: World,
) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    for text in
        ["", "{", "[]", "null", "17", r#"{"id":"x"}"#, r#"{"id":5,"shout":{}}"#, r#"{"id":-1,"ping":{}}"#]
    {
        json.write(WsMessage::text(text)).await?;
        refused(&mut json, 0).await.with_context(|| text.to_owned())?;
    }
    json.write(WsMessage::text(r#"{"id":6}"#)).await?;
    refused(&mut json, 6).await?;
    json.ping().await?;
    let tablet = world.log_in(&alice, "tablet").await?;
    let (mut proto, _) = world.connect_as(&tablet, Wire::Proto, None).await?;
    for bytes in [&[0xff_u8][..], &[0x12], &[0x12, 0x7f, 1], &[0x1a, 0x03, 0x0a, 0x01, 0xff]] {
        proto.write(WsMessage::binary(bytes.to_vec())).await?;
        refused(&mut proto, 0).await.with_context(|| format!("{bytes:?}"))?;
    }
    // Field 1 (id) = 6, and a field that nobody has defined yet.
    proto.write(WsMessage::binary(vec![0x08, 6, 0xfa, 0x07, 0x00])).await?;
    refused(&mut proto, 6).await?;
    proto.ping().await?;
    Ok(())
}

pub(crate) async fn p7_a_frame_of_the_other_format_is_answered(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let (mut json, _) = world.connect_as(&alice, Wire::Json, None).await?;
    json.write(WsMessage::binary(vec![0x08, 1, 0x3a, 0])).await?;
    refused(&mut json, 0).await?;
    json.ping().await?;
    let (mut proto, _) = world.connect_as(&world.log_in(&alice, "tablet").await?, Wire::Proto, None).await?;
    proto.write(WsMessage::text(r#"{"id":1,"ping":{}}"#)).await?;
    refused(&mut proto, 0).await?;
    proto.ping().await?;
    Ok(())
}

pub(crate) async fn p7_a_frame_that_is_too_large_closes_the_connection(world: World) -> Result<()> {
    let alice = world.user("alice").await?;
    let mut device = world.connect(&alice).await?;
    device.write(WsMessage::binary(vec![0; 64 * 1024 + 1])).await?;
    let (code, reason) = device.closed().await?;
    assert_eq!((code, reason.as_str()), (ErrorCode::TooLarge, "too_large reconnect=no"));
    world.connect(&alice).await?.ping().await?;
    Ok(())
}

pub(crate) async fn p7_text_that_is_not_utf8_closes_the_connection(world: World) -> Result<()> {
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
    let answer = stream.context("an unknown subprotocol was let in")??;
    assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"));
    // Without a handshake the path has nothing to give either.
    let answer = http::request(gateway, "GET", "/v1/ws", None, None).await?;
    assert_eq!((answer.status, answer.problem()?.as_str()), (400, "invalid_request"));
    Ok(())
}

pub(crate) async fn p7_a_device_that_does_not_read_is_cut_off_and_catches_up(world: World) -> Result<()> {
    let (alice, bob) = world.two_users().await?;
    let talk = alice.with(&bob);
    let mut alices = world.connect(&alice).await?;
    // With a small window it takes less to fill what the kernel buffers between the two.
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(8 * 1024)?;
    let stream = socket.connect(world.gateway().parse()?).await?;
    let mut bobs = Device::over(stream, Wire::Proto).await?;
    bobs.hello(&bob.access_token, None).await?;
    let body = "x".repeat(16 * 1024);
    let count = 640; // 10 MiB: what waits for a device is bounded by 1 MiB, and the kernel takes up to 4 MiB
    // Few enough to come with their entries.
    for _ in 0..count / 8 {
        let ids = alices.pipeline((0..8).map(|_| send(&talk, &new_id(), &body))).await?;
        for id in ids {
            alices.answer(id).await?;
        }
        alices.entries(8).await?;
    }
    let mut seen = 0;
    let code = loop {
        match bobs.next().await? {
            Incoming::Closed(code, _) => break code,
            Incoming::Frame(frame) => {
                if let Some(server_frame::Frame::Deliver(deliver)) = frame.frame {
                    seen += deliver.entries.len();
                }
            }
        }
    };
    // Where not even a goodbye fits, the connection just ends.
    assert!(code.is_none() || code == Some(ErrorCode::TooSlow.close()), "closed with {code:?}");
    assert!(seen < count, "all {seen} messages were kept for a device that did not read");
    let mut bobs = world.connect(&bob).await?;
    assert_eq!(bobs.whole_history(&talk).await?.len(), count);
    Ok(())
}
