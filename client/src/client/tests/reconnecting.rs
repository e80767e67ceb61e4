//! Connecting, reconnecting, and the errors that end a client.

use super::fake_server::{CountedTokens, FakeServer, TIMEOUT, connect, has};
use crate::{Client, Error, Event, Options, State, text};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{ReadPosition, client_frame, server_frame::Frame},
};
use std::time::Duration;
use tokio::time::timeout;

#[tokio::test]
async fn an_expired_token_is_replaced_and_the_device_reconnects() {
    let (fake, peer, _client, _events) = connect(has(0, &[])).await;
    assert_eq!(peer.hello.token, "token-1");
    peer.close(ApiError::new(ErrorCode::TokenExpired, "expired")).await;
    assert_eq!(fake.welcome(0).await.hello.token, "token-2");
}

#[tokio::test]
async fn a_replaced_device_does_not_reconnect_and_reports_the_reason() {
    let (fake, peer, client, mut events) = connect(has(0, &[])).await;
    let sending = client.enqueue("c", text("1"), None).await.unwrap();
    peer.close(ApiError::new(ErrorCode::Replaced, "another")).await;
    let ended = async {
        loop {
            if let Some(Event::Ended(error)) = events.next().await {
                return error;
            }
        }
    };
    assert_eq!(timeout(TIMEOUT, ended).await.unwrap().code(), Some(ErrorCode::Replaced));
    assert!(events.next().await.is_none());
    assert_eq!(sending.await.unwrap_err().code(), Some(ErrorCode::Replaced));
    assert_eq!(client.send("c", text("2")).await.unwrap_err().code(), Some(ErrorCode::Replaced));
    assert!(timeout(Duration::from_millis(300), fake.listener.accept()).await.is_err(), "it reconnected");
}

#[tokio::test]
async fn p9_a_device_replaced_by_its_own_abandoned_hello_reconnects_once() {
    let (server, peer, _client, mut events) = connect(State::default()).await;
    drop(peer);
    // A hello without an answer: the server may receive it later and take it for the newest connection.
    drop(server.accept().await);
    for reconnects in [true, false] {
        server.welcome(0).await.close(ApiError::new(ErrorCode::Replaced, "another connection")).await;
        let mut ended = false;
        while let Ok(event) = timeout(TIMEOUT, events.next()).await {
            match event {
                Some(Event::Disconnected { error, .. }) if error.code() == Some(ErrorCode::Replaced) => break,
                Some(Event::Ended(error)) => {
                    assert_eq!(error.code(), Some(ErrorCode::Replaced));
                    ended = true;
                    break;
                }
                other => assert!(other.is_some(), "it ends with a reason"),
            }
        }
        assert_eq!(ended, !reconnects);
    }
}

#[tokio::test]
async fn an_unreachable_server_is_reported_at_once() {
    let (fake, server) = FakeServer::new().await;
    drop(fake);
    let error = Client::connect(server, CountedTokens::default(), Options::default(), State::default()).await;
    assert!(matches!(error, Err(Error::Connect { .. })), "{error:?}");
}

#[tokio::test]
async fn connect_retries_a_busy_server_but_not_a_refusal() {
    let (fake, server) = FakeServer::new().await;
    let serve = async {
        fake.accept().await.close(ApiError::rate_limited("busy", Duration::from_millis(20))).await;
        fake.accept().await.close(ApiError::new(ErrorCode::Unauthenticated, "who are you")).await;
    };
    let (connected, ()) = tokio::join!(
        Client::connect(server, CountedTokens::default(), Options::default(), State::default()),
        serve
    );
    assert_eq!(connected.unwrap_err().code(), Some(ErrorCode::Unauthenticated));
}

#[tokio::test]
async fn queries_survive_a_lost_connection() {
    let (fake, mut peer, client, _events) = connect(has(0, &[])).await;
    let serve = async {
        peer.request(0).await;
        drop(peer);
        let mut peer = fake.welcome(0).await;
        let (id, frame) = peer.request(0).await;
        assert!(matches!(frame, client_frame::Frame::Read(_)), "{frame:?}");
        peer.send(id, Frame::Read(ReadPosition { read_seq: 7, ..ReadPosition::default() })).await;
        peer
    };
    let (read, _peer) = tokio::join!(client.mark_read("c", 7), serve);
    assert_eq!(read.unwrap().read_seq, 7);
}
