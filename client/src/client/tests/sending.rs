//! Sending: retries, order, limits.

use super::fake_server::{CountedTokens, FakeServer, TIMEOUT, at, connect, entries, entry, has, welcome};
use crate::{Client, Error, Options, text};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{ClientFrame, Deliver, Entry, GetHistory, Pong, Welcome, client_frame, server_frame::Frame},
};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Raw;

#[tokio::test]
async fn p2_after_a_lost_ack_the_same_message_is_sent_again() {
    let (fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("hello"), None).await.unwrap();
    let (_, first) = peer.next_send().await;
    drop(peer);
    let mut peer = fake.welcome(0).await;
    let (id, second) = peer.next_send().await;
    assert_eq!(first, second);
    peer.ack(id, &second).await;
    assert_eq!(sending.await.unwrap().client_msg_id, first.client_msg_id);
}

#[tokio::test]
async fn p3_a_refused_message_is_sent_again_before_the_next_one() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let first = client.enqueue("c", text("1"), None).await.unwrap();
    let second = client.enqueue("c", text("2"), None).await.unwrap();
    let (id, refused) = peer.next_send().await;
    let wait = Duration::from_millis(150);
    let began = std::time::Instant::now();
    peer.send(id, Frame::Error(ApiError::rate_limited("wait", wait).into())).await;
    let (id, again) = peer.next_send().await;
    assert!(began.elapsed() >= wait, "it did not wait as long as the server asked");
    assert_eq!(refused, again);
    peer.ack(id, &again).await;
    first.await.unwrap();
    let (id, next) = peer.next_send().await;
    assert_ne!(next.client_msg_id, again.client_msg_id);
    peer.ack(id, &next).await;
    second.await.unwrap();
}

#[tokio::test]
async fn a_permanent_error_is_returned_with_its_code() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    let (id, _) = peer.next_send().await;
    peer.send(id, Frame::Error(ApiError::forbidden("blocked").into())).await;
    assert_eq!(sending.await.unwrap_err().code(), Some(ErrorCode::Forbidden));
}

#[tokio::test]
async fn a_queue_of_size_zero_holds_one_message() {
    let (fake, server) = FakeServer::new().await;
    let options = Options { queue: 0, ..Options::default() };
    let (client, _events) = Client::start(server, CountedTokens::default(), options, has(0, &[]));
    let mut peer = fake.welcome(0).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    let (id, send) = peer.next_send().await;
    peer.ack(id, &send).await;
    sending.await.unwrap();
}

#[tokio::test]
async fn a_request_larger_than_the_servers_frame_limit_fails_alone() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let large = client.enqueue("c", text("x".repeat(6_000)), None).await.unwrap();
    let next = client.enqueue("c", text("2"), None).await.unwrap();
    let (id, send) = peer.next_send().await;
    assert!(send.content == Some(text("2")), "the server would close the connection");
    peer.ack(id, &send).await;
    next.await.unwrap();
    assert_eq!(large.await.unwrap_err().code(), Some(ErrorCode::TooLarge));
    let query = GetHistory { conversation: "x".repeat(6_000), ..GetHistory::default() };
    for _ in 0..20 {
        let refused = timeout(TIMEOUT, client.history(query.clone())).await.unwrap();
        assert_eq!(refused.unwrap_err().code(), Some(ErrorCode::TooLarge));
    }
}

#[tokio::test]
async fn p7_no_more_sends_are_in_flight_than_the_server_allows() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    for number in 0..20 {
        client.enqueue(&format!("c{number}"), text("x"), None).await.unwrap();
    }
    let mut sends = Vec::new();
    for _ in 0..8 {
        sends.push(peer.next_send().await);
    }
    // Heartbeats continue, so a ninth send would come before the third heartbeat.
    for _ in 0..3 {
        let ClientFrame { id, frame } = peer.next().await;
        assert!(matches!(frame, Some(client_frame::Frame::Ping(_))), "more than eight in flight: {frame:?}");
        peer.send(id, Frame::Pong(Pong { receiver_seq: at(0) })).await;
    }
    let (id, send) = &sends[0];
    peer.ack(*id, send).await;
    peer.next_send().await;
}

#[tokio::test]
async fn p7_a_device_reads_while_it_writes() {
    const MIB: usize = 1024 * 1024;
    let (fake, server) = FakeServer::new().await;
    let (client, mut events) =
        Client::start(server, CountedTokens::default(), Options::default(), has(0, &[("c", 0)]));
    let mut peer = fake
        .welcome_with(Welcome { heartbeat_ms: 30_000, max_body_bytes: 5 * MIB as u32, ..welcome(0) })
        .await;
    let mut sendings = Vec::new();
    for number in 0..4 {
        let text = text("x".repeat(5 * MIB));
        sendings.push(client.enqueue(&format!("c{number}"), text, None).await.unwrap());
    }
    // Each direction carries more than the socket buffers hold.
    let serve = async {
        for number in 1..=16 {
            let content = Some(text("y".repeat(MIB)));
            let entries = vec![Entry { content, ..entry(number) }];
            peer.send(
                0,
                Frame::Deliver(Deliver {
                    receiver_seq: at(number),
                    raised: 1,
                    entries,
                    ..Deliver::default()
                }),
            )
            .await;
        }
        for _ in 0..4 {
            let (id, send) = peer.next_send().await;
            peer.ack(id, &send).await;
        }
    };
    timeout(TIMEOUT, serve).await.expect("deadlock: both sides wait for the other to read");
    for sending in sendings {
        sending.await.unwrap();
    }
    assert_eq!(entries(&mut events, 16).await, (1..=16).collect::<Vec<_>>());
}

#[tokio::test]
async fn close_fails_pending_messages() {
    let (_fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    peer.next_send().await;
    let (_, is_closed) = tokio::join!(client.close(), async {
        while let Some(Ok(frame)) = peer.socket.next().await {
            if matches!(frame, Raw::Close(_)) {
                return true;
            }
        }
        false
    });
    assert!(is_closed, "closed without a close frame");
    assert!(matches!(sending.await, Err(Error::Stopped)));
}
