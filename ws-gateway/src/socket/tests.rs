mod gateway;
mod hanging_cache;
mod sessions;
mod slow;

use super::*;
use abi::{
    SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    config::{ByteSize, Config},
    v1::{
        Content, Entry, HistoryPage, ServerFrame,
        content::Body::{Data, Text},
        server_frame::Frame,
    },
};
use futures_util::SinkExt as _;
use gateway::{Device, Gateway, receive, send_json, send_proto};
use prost::Message as _;
use std::{sync::atomic::Ordering, time::Duration};
use tokio::{io::AsyncReadExt as _, time::timeout};
use tokio_tungstenite::tungstenite;

#[tokio::test]
async fn p5_an_abandoned_handshake_does_not_replace_a_newer_connection() {
    let gateway = Gateway::start().await;
    let abandoned = gateway.connect().await;
    let mut device = gateway.connect().await;
    assert_eq!(gateway.sockets.len(), 2);
    drop(abandoned);
    let ended = async {
        while gateway.sockets.len() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), ended)
        .await
        .expect("the handshake continues although its device is gone");
    // Now all calls are answered. If the abandoned handshake continued, it would be the later one of the device.
    gateway.answers.add_permits(100);
    assert!(receive(&mut device).await.contains("welcome"));
    send_json(&mut device, r#"{"id":2,"ping":{}}"#).await;
    assert!(receive(&mut device).await.contains("pong"));
}

#[tokio::test]
async fn p3_messages_sent_after_a_refused_one_do_not_overtake_it() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    let send = |id: u32, message: &str| {
        format!(
            r#"{{"id":{id},"send":{{"conversation":"d:alice:bob","clientMsgId":"{message}","content":{{"text":"hi"}}}}}}"#
        )
    };
    // The log refuses only the first message. The device sends the second one before it receives the refusal.
    send_json(&mut device, &send(2, "first")).await;
    send_json(&mut device, &send(3, "second")).await;
    for id in [2, 3] {
        let answer = receive(&mut device).await;
        assert!(answer.contains(&format!(r#""id":{id}"#)) && answer.contains("error"), "{answer}");
    }
    // It sends both again, in order.
    send_json(&mut device, &send(4, "first")).await;
    send_json(&mut device, &send(5, "second")).await;
    for id in [4, 5] {
        let answer = receive(&mut device).await;
        assert!(answer.contains(&format!(r#""id":{id}"#)) && answer.contains("ack"), "{answer}");
    }
}

#[tokio::test]
async fn p7_a_page_of_history_comes_in_frames_within_the_limit() {
    let cases = [
        (SUBPROTOCOL_JSON, 100, Data(vec![0xff; 16 << 10].into())),
        (SUBPROTOCOL_PROTO, 500, Text("x".repeat(2_000))),
    ];
    for (subprotocol, count, body) in cases {
        let mut config = Config::default();
        let max_frame = config.gateway.max_frame.bytes();
        config.gateway.max_requests = 1;
        config.gateway.max_outbox = ByteSize::new(3 * max_frame as u64);
        let content = Content { content_type: String::new(), body: Some(body) };
        let entry = Entry { content: Some(content), ..Entry::default() };
        let history = HistoryPage { entries: vec![entry; count], more: true };
        let gateway = Gateway::start_with(config, history.clone()).await;
        gateway.answers.add_permits(100);
        let mut device = gateway.connect_as(subprotocol).await;
        device.next().await.unwrap().unwrap();
        let get_history = r#"{"id":2,"history":{"conversation":"d:alice:bob"}}"#;
        match subprotocol {
            SUBPROTOCOL_PROTO => send_proto(&mut device, get_history).await,
            _ => send_json(&mut device, get_history).await,
        }
        let (mut entries, mut parts) = (Vec::new(), 0);
        loop {
            let message = device.next().await.unwrap().unwrap();
            assert!(message.len() <= max_frame, "a frame of {} bytes in {subprotocol}", message.len());
            let frame: ServerFrame = match subprotocol {
                SUBPROTOCOL_PROTO => ServerFrame::decode(message.into_data()).unwrap(),
                _ => serde_json::from_slice(&message.into_data()).unwrap(),
            };
            let Some(Frame::History(page)) = frame.frame else { panic!("{frame:?}") };
            assert_eq!(
                (frame.id, page.more),
                (2, !frame.more_parts),
                "only the last part says that there is more"
            );
            entries.extend(page.entries);
            parts += 1;
            if !frame.more_parts {
                break;
            }
        }
        assert!(entries == history.entries && parts > 10, "a page in {subprotocol}, in {parts} parts");
    }
}

#[tokio::test]
async fn p7_refused_sends_count_towards_the_rate_limit() {
    let mut config = Config::default();
    (config.limits.sends_per_second, config.limits.send_burst) = (1, 1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    for code in ["INVALID_REQUEST", "RATE_LIMITED"] {
        send_json(&mut device, r#"{"id":2,"send":{"conversation":"nonsense","clientMsgId":"m"}}"#).await;
        let answer = receive(&mut device).await;
        assert!(answer.contains(code), "{answer}");
    }
}

#[tokio::test]
async fn p7_requests_over_http_are_rate_limited_by_user() {
    let mut config = Config::default();
    (config.limits.requests_per_second, config.limits.request_burst) = (1, 2);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    gateway.answers.add_permits(100);
    for (path, status) in [
        ("/v1/groups/g:x/members", "403"),
        ("/v1/conversations/d:alice:bob/entries", "200"),
        ("/v1/conversations/d:alice:bob/entries", "429"),
        ("/v1/groups/g:x/members", "429"),
    ] {
        let mut answer = String::new();
        let mut request = gateway.request(&format!("GET {path}")).await;
        request.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
}

#[tokio::test]
async fn p9_a_device_gets_the_close_reason_even_if_the_cache_hangs() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut old = gateway.connect().await;
    assert!(receive(&mut old).await.contains("welcome"));
    let mut new = gateway.connect().await;
    assert!(receive(&mut new).await.contains("welcome"));
    let closed =
        timeout(Duration::from_secs(10), receive(&mut old)).await.expect("the close waits for the cache");
    assert!(closed.contains("REPLACED"), "{closed}");
}

/// Frames that the device receives, as JSON.
async fn next_frame(device: &mut Device) -> ServerFrame {
    let frame = timeout(Duration::from_secs(10), receive(device)).await.expect("nothing arrives");
    serde_json::from_str(&frame).unwrap()
}

fn send_frame(id: u32, message: &str) -> String {
    format!(
        r#"{{"id":{id},"send":{{"conversation":"d:alice:bob","clientMsgId":"{message}","content":{{"text":"hi"}}}}}}"#
    )
}

/// A device that is welcomed, at a gateway whose log accepts its next message. db-service then answers no call.
async fn device_of_a_hanging_store(gateway: &Gateway) -> Device {
    // Two for the welcome, and two for the message: whether its receiver exists, and has blocked the sender.
    gateway.answers.add_permits(4);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    send_json(&mut device, &send_frame(2, "first")).await;
    assert!(
        matches!(next_frame(&mut device).await.frame, Some(Frame::Error(_))),
        "the log refuses the first one"
    );
    while gateway.calls.try_acquire().map(tokio::sync::SemaphorePermit::forget).is_ok() {}
    device
}

#[tokio::test]
async fn p1_acks_and_pongs_do_not_wait_for_requests_while_the_store_hangs() {
    let gateway = Gateway::start().await;
    let mut device = device_of_a_hanging_store(&gateway).await;
    for id in 10..20 {
        send_json(&mut device, &format!(r#"{{"id":{id},"history":{{"conversation":"d:alice:bob"}}}}"#)).await;
    }
    send_json(&mut device, &send_frame(3, "first")).await;
    let frame = next_frame(&mut device).await;
    assert!(frame.id == 3 && matches!(frame.frame, Some(Frame::Ack(_))), "{frame:?}");
    send_json(&mut device, r#"{"id":4,"ping":{}}"#).await;
    let frame = next_frame(&mut device).await;
    assert!(frame.id == 4 && matches!(frame.frame, Some(Frame::Pong(_))), "{frame:?}");
    assert_eq!(gateway.calls.available_permits(), 4, "only a few requests run at a time");
    gateway.answers.add_permits(100);
    let mut ids = Vec::new();
    while ids.len() < 10 {
        let frame = next_frame(&mut device).await;
        assert!(matches!(frame.frame, Some(Frame::History(_))), "{frame:?}");
        ids.push(frame.id);
    }
    ids.sort_unstable();
    assert_eq!(ids, (10..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn p3_a_message_whose_check_hangs_delays_no_pong_and_is_not_overtaken() {
    let gateway = Gateway::start().await;
    let mut device = device_of_a_hanging_store(&gateway).await;
    let to_carol = send_frame(3, "second").replace("bob", "carol");
    send_json(&mut device, &to_carol).await;
    send_json(&mut device, &send_frame(4, "first")).await;
    send_json(&mut device, r#"{"id":5,"ping":{}}"#).await;
    assert_eq!(next_frame(&mut device).await.id, 5);
    gateway.answers.add_permits(2);
    assert_eq!(next_frame(&mut device).await.id, 3);
    assert_eq!(next_frame(&mut device).await.id, 4);
}

#[tokio::test]
async fn frames_with_id_0_are_answered_only_with_errors() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    send_json(&mut device, &send_frame(0, "first")).await;
    let refused = next_frame(&mut device).await;
    assert!(refused.id == 0 && matches!(refused.frame, Some(Frame::Error(_))), "{refused:?}");
    for frame in [&*send_frame(0, "first"), r#"{"ping":{}}"#, r#"{"read":{"conversation":"d:alice:bob"}}"#] {
        send_json(&mut device, frame).await;
    }
    send_json(&mut device, r#"{"history":{"conversation":"d:alice:bob"}}"#).await;
    let Some(Frame::Error(error)) = next_frame(&mut device).await.frame else { panic!("no error") };
    assert!(error.message.contains("history needs an id"), "{}", error.message);
    send_json(&mut device, r#"{"id":9,"ping":{}}"#).await;
    assert_eq!(next_frame(&mut device).await.id, 9, "the others are not answered");
}

#[tokio::test]
async fn the_welcome_tells_the_limits_and_a_long_client_name_is_refused() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    let Some(Frame::Welcome(welcome)) = next_frame(&mut device).await.frame else { panic!("no welcome") };
    let limits =
        [welcome.max_body_bytes, welcome.max_frame_bytes, welcome.max_in_flight, welcome.max_requests];
    assert_eq!(limits, [16 << 10, 64 << 10, 64, 4]);
    assert_eq!(welcome.max_page, 500);
    assert_eq!(welcome.server_version, env!("CARGO_PKG_VERSION"));
    assert!((utils::clock::now_ms() - welcome.server_time_ms).abs() < 60_000);
    let hello = gateway.hello_with(&format!(r#""client":"{}""#, "x".repeat(65)));
    let mut device = gateway.open(SUBPROTOCOL_JSON).await;
    send_json(&mut device, &hello).await;
    let Some(Frame::Error(error)) = next_frame(&mut device).await.frame else { panic!("no error") };
    assert_eq!(error.message, "hello.client has 65 bytes; 64 are allowed");
}

#[tokio::test]
async fn a_ping_of_the_websocket_is_answered_and_an_offer_of_compression_is_left_out() {
    let gateway = Gateway::start().await;
    gateway.answers.add_permits(100);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    device.send(tungstenite::Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
    let answer = device.next().await.unwrap().unwrap();
    assert_eq!(answer, tungstenite::Message::Pong(Bytes::from_static(b"there?")));
    let answer =
        gateway.handshake("sec-websocket-version: 13\r\nsec-websocket-extensions: permessage-deflate").await;
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(!answer.to_lowercase().contains("extensions"), "{answer}");
    let answer = gateway.handshake("sec-websocket-version: 12").await;
    assert!(answer.starts_with("HTTP/1.1 426") && answer.contains("sec-websocket-version: 13"), "{answer}");
}

#[tokio::test]
async fn p7_a_device_that_never_reads_holds_a_few_frames_and_not_its_pages() {
    let content = Content { content_type: String::new(), body: Some(Text("x".repeat(2_000))) };
    let entry = Entry { content: Some(content), ..Entry::default() };
    let history = HistoryPage { entries: vec![entry; 20], more: true };
    let config = Config::default();
    let max_frame = config.gateway.max_frame.bytes();
    let gateway = Gateway::start_with(config, history).await;
    gateway.answers.add_permits(100_000);
    let mut device = gateway.connect().await;
    assert!(receive(&mut device).await.contains("welcome"));
    let memory = gateway.memory();
    // The device asks for pages of 1 MB each. Kernel buffers take some megabytes.
    for id in 10..60 {
        send_json(
            &mut device,
            &format!(r#"{{"id":{id},"history":{{"conversation":"d:alice:bob","limit":500}}}}"#),
        )
        .await;
    }
    let (mut most, mut last) = (0, usize::MAX);
    while memory.used() != last || most == 0 {
        last = memory.used();
        most = most.max(last);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(last > max_frame, "the device is too fast: {last} bytes are queued");
    // Four requests with two frames each, and the queue.
    assert!(most <= 14 * max_frame, "{most} bytes");
    drop(device);
    let freed = async {
        while memory.used() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), freed).await.expect("the memory is not freed");
}
