//! Devices that read slowly, or not at all, over a stream that holds few bytes.

use super::gateway::Gateway;
use crate::{codec::Format, socket::serve};
use abi::{
    config::Config,
    v1::{self, Entry, HistoryPage, ServerFrame, entry::Content, message::Body, server_frame::Frame},
};
use std::{io::Cursor, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
    task::JoinSet,
    time::Instant,
};
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;

/// Bytes that the stream holds.
const STREAM: usize = 1_000;
/// A ping with a mask of zeros and no payload.
const PING: [u8; 6] = [0x89, 0x80, 0, 0, 0, 0];

/// A connection whose device has asked for a page of 40 KB. The server closes it after 2.5 s without a sign of life.
async fn asking_device() -> (Gateway, JoinSet<()>, DuplexStream) {
    let message = v1::Message { content_type: String::new(), body: Some(Body::Text("x".repeat(2_000))) };
    let entry = Entry { content: Some(Content::Message(message)), ..Entry::default() };
    let mut config = Config::default();
    config.gateway.heartbeat = Duration::from_secs(1);
    let gateway = Gateway::start_with(config, HistoryPage { entries: vec![entry; 20], more: false }).await;
    gateway.answers.add_permits(100);
    let (mut device, stream) = duplex(STREAM);
    let mut server = JoinSet::new();
    server.spawn(serve(gateway.backend().clone(), stream, Format::Json));
    for frame in [&*gateway.hello_with(""), r#"{"id":2,"history":{"conversation":"d:alice:bob"}}"#] {
        let length = u16::try_from(frame.len()).unwrap().to_be_bytes();
        device
            .write_all(&[&[0x81, 0x80 | 126], &length[..], &[0; 4], frame.as_bytes()].concat())
            .await
            .unwrap();
    }
    (gateway, server, device)
}

/// The whole frames among the bytes that a device received.
fn frames(bytes: &[u8]) -> Vec<ServerFrame> {
    let (mut frames, mut rest) = (Vec::new(), bytes);
    loop {
        let mut cursor = Cursor::new(rest);
        let Some((_, length)) = FrameHeader::parse(&mut cursor).unwrap() else { return frames };
        let begin = usize::try_from(cursor.position()).unwrap();
        let Some(payload) = rest.get(begin..begin + usize::try_from(length).unwrap()) else { return frames };
        // Pongs of the WebSocket are empty.
        frames.extend((!payload.is_empty()).then(|| serde_json::from_slice::<ServerFrame>(payload).unwrap()));
        rest = &rest[begin + payload.len()..];
    }
}

#[tokio::test(start_paused = true)]
async fn p7_a_slow_device_gets_a_whole_page_as_long_as_it_takes_bytes() {
    let (_gateway, server, mut device) = asking_device().await;
    let (began, mut received) = (Instant::now(), Vec::new());
    loop {
        tokio::time::sleep(Duration::from_secs(2)).await;
        device.write_all(&PING).await.unwrap();
        let mut bytes = [0; STREAM];
        let count = device.read(&mut bytes).await.unwrap();
        assert!(count > 0, "the server has closed after {:?}", began.elapsed());
        received.extend_from_slice(&bytes[..count]);
        match frames(&received).last().and_then(|frame| frame.frame.as_ref()) {
            Some(Frame::History(page)) => {
                assert_eq!(page.entries.len(), 20);
                break;
            }
            frame => assert!(matches!(frame, None | Some(Frame::Welcome(_))), "{frame:?}"),
        }
    }
    assert!(began.elapsed() > Duration::from_secs(60), "the page took {:?}", began.elapsed());
    assert_eq!(server.len(), 1, "the connection is still open");
}

#[tokio::test(start_paused = true)]
async fn p7_a_device_that_takes_no_bytes_is_given_up_although_it_sends_pings() {
    let (gateway, _server, mut device) = asking_device().await;
    let memory = gateway.memory();
    while memory.used() < 10 * STREAM {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let began = Instant::now();
    // The cache of this gateway never removes a route, so the connection has ended once its memory is free.
    while memory.used() > 0 {
        assert!(began.elapsed() < Duration::from_secs(10), "the connection is still open");
        tokio::time::sleep(Duration::from_millis(100)).await;
        // Fails once the server has closed.
        let _ = device.write_all(&PING).await;
    }
    assert!(began.elapsed() > Duration::from_secs(2), "given up after {:?}", began.elapsed());
}
