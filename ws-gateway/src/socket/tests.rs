mod gateway;

use super::*;
use abi::{
    SUBPROTOCOL_JSON, SUBPROTOCOL_PROTO,
    config::Config,
    v1::{
        self, Entry, HistoryPage,
        entry::Content,
        message::Body::{Data, Text},
    },
};
use gateway::{Gateway, receive, send_json, send_proto};
use prost::Message as _;
use std::sync::atomic::Ordering;
use tokio::io::AsyncReadExt as _;

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
            r#"{{"id":{id},"send":{{"conversation":"d:alice:bob","clientMsgId":"{message}","message":{{"text":"hi"}}}}}}"#
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
async fn p5_a_page_of_history_may_exceed_the_frame_limit_of_devices() {
    let cases = [
        (SUBPROTOCOL_JSON, 100, Data(vec![0xff; 16 << 10].into())),
        (SUBPROTOCOL_PROTO, 500, Text("x".repeat(2_000))),
    ];
    for (subprotocol, count, body) in cases {
        let mut config = Config::default();
        config.gateway.max_outbox = config.gateway.max_frame;
        let message = v1::Message { content_type: String::new(), body: Some(body) };
        let entry = Entry { content: Some(Content::Message(message)), ..Entry::default() };
        let history = HistoryPage { entries: vec![entry; count], more: true };
        let gateway = Gateway::start_with(config, history.clone()).await;
        gateway.answers.add_permits(100);
        let mut device = gateway.connect_as(subprotocol).await;
        device.next().await.unwrap().unwrap();
        let get_history = r#"{"id":2,"history":{"conversation":"d:alice:bob"}}"#;
        let frame: v1::ServerFrame = if subprotocol == SUBPROTOCOL_PROTO {
            send_proto(&mut device, get_history).await;
            v1::ServerFrame::decode(device.next().await.unwrap().unwrap().into_data()).unwrap()
        } else {
            send_json(&mut device, get_history).await;
            serde_json::from_str(&receive(&mut device).await).unwrap()
        };
        assert!(frame.frame == Some(Frame::History(history)), "a page in {subprotocol}");
    }
}

#[tokio::test]
async fn p8_a_session_that_ends_during_the_handshake_is_refused() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    // The first check succeeds. The session ends before a route tells other gateways about this connection.
    gateway.answers.add_permits(1);
    gateway.calls.acquire().await.unwrap().forget();
    gateway.is_logged_out.store(true, Ordering::Relaxed);
    gateway.answers.add_permits(100);
    assert!(receive(&mut device).await.contains("REVOKED"));
}

#[tokio::test]
async fn p8_an_unanswered_recheck_delays_no_frame_and_its_answer_counts() {
    let mut config = Config::default();
    config.auth.access_token_life = Duration::from_secs(1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    let mut device = gateway.connect().await;
    gateway.answers.add_permits(2);
    assert!(receive(&mut device).await.contains("welcome"));
    gateway.calls.acquire().await.unwrap().forget();
    // The third call is the recheck.
    gateway.calls.acquire().await.unwrap().forget();
    send_json(&mut device, r#"{"id":2,"ping":{}}"#).await;
    assert!(receive(&mut device).await.contains("pong"));
    gateway.is_logged_out.store(true, Ordering::Relaxed);
    gateway.answers.add_permits(1);
    assert!(receive(&mut device).await.contains("REVOKED"));
}

#[tokio::test]
async fn p8_a_log_out_closes_the_connection_even_if_its_client_disconnects() {
    let gateway = Gateway::start().await;
    let mut device = gateway.connect().await;
    gateway.answers.add_permits(2);
    assert!(receive(&mut device).await.contains("welcome"));
    gateway.calls.acquire().await.unwrap().forget();
    let request = gateway.request("DELETE /v1/sessions/current").await;
    // The token is valid; now the session is being ended.
    gateway.calls.acquire().await.unwrap().forget();
    gateway.answers.add_permits(1);
    gateway.calls.acquire().await.unwrap().forget();
    drop(request);
    // Time to notice that the client has disconnected.
    tokio::time::sleep(Duration::from_millis(50)).await;
    gateway.answers.add_permits(1);
    let closed =
        timeout(Duration::from_secs(10), receive(&mut device)).await.expect("the connection is still open");
    assert!(closed.contains("REVOKED"), "{closed}");
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
async fn p7_requests_for_group_members_are_rate_limited() {
    let mut config = Config::default();
    (config.limits.sends_per_second, config.limits.send_burst) = (1, 1);
    let gateway = Gateway::start_with(config, HistoryPage::default()).await;
    gateway.answers.add_permits(100);
    for status in ["403", "429"] {
        let mut answer = String::new();
        let mut request = gateway.request("GET /v1/groups/g:x/members").await;
        request.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
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
