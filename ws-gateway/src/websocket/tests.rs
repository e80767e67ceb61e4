//! The frames of this module against a WebSocket library as the client, and against bytes that no library would send.

use super::*;
use axum::extract::ws::{CloseFrame, Message};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use proptest::prelude::*;
use std::{
    future::poll_fn,
    task::{Context, Poll},
};
use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self,
        protocol::{Role, WebSocketConfig},
    },
};

const MAX: usize = 64 << 10;

async fn read(reader: &mut Reader, stream: &mut DuplexStream) -> Option<Result<Incoming, ReadError>> {
    poll_fn(|cx| reader.poll_next(stream, cx)).await
}

async fn write(stream: &mut DuplexStream, messages: &[Message]) {
    let mut writer = Writer::default();
    let mut start = |cx: &mut Context<'_>, stream: &mut _| {
        with_batch(|bytes| {
            messages.iter().for_each(|message| put_message(bytes, message));
            writer.start(stream, cx, bytes)
        })
    };
    poll_fn(|cx| Poll::Ready(start(cx, stream))).await.unwrap();
    poll_fn(|cx| writer.poll_flush(stream, cx)).await.unwrap();
    assert!(writer.is_idle() && writer.take_progress());
}

async fn client(stream: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, Role::Client, Some(WebSocketConfig::default())).await
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Sizes around the limits of the three forms of a length.
fn payload() -> impl Strategy<Value = Vec<u8>> {
    let size = prop_oneof![0usize..300, 65_500usize..=MAX, 125usize..=126];
    (size, any::<u8>()).prop_map(|(size, first)| (0..size).map(|at| (at as u8).wrapping_add(first)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Frames that a library sends in pieces of any size are read unchanged, and nothing stays in memory.
    #[test]
    fn frames_of_a_client_are_read(payloads in proptest::collection::vec(payload(), 1..4), piece in 1usize..9_000) {
        runtime().block_on(async {
            let (stream, mut server) = duplex(piece);
            let sent = payloads.clone();
            let sending = async move {
                let mut client = client(stream).await;
                for payload in sent {
                    client.send(tungstenite::Message::binary(payload)).await.unwrap();
                    client.send(tungstenite::Message::Ping(Bytes::from_static(b"there?"))).await.unwrap();
                }
                client.send(tungstenite::Message::text("é")).await.unwrap();
                client.close(None).await.unwrap();
                client
            };
            let reading = async {
                let mut reader = Reader::new(MAX);
                for payload in payloads {
                    let message = Incoming::Message(Message::Binary(payload.into()));
                    assert_eq!(read(&mut reader, &mut server).await.unwrap().unwrap(), message);
                    let ping = Incoming::Ping(Bytes::from_static(b"there?"));
                    assert_eq!(read(&mut reader, &mut server).await.unwrap().unwrap(), ping);
                }
                let text = Incoming::Message(Message::Text("é".into()));
                assert_eq!(read(&mut reader, &mut server).await.unwrap().unwrap(), text);
                assert_eq!(read(&mut reader, &mut server).await.unwrap().unwrap(), Incoming::Close(None));
                assert_eq!(reader.held(), 0);
            };
            tokio::join!(sending, reading)
        });
    }

    /// A library reads the written frames, however little the stream takes at a time.
    #[test]
    fn written_frames_are_read_by_a_client(payloads in proptest::collection::vec(payload(), 1..4), piece in 1usize..9_000) {
        runtime().block_on(async {
            let (stream, mut server) = duplex(piece);
            let messages: Vec<_> = payloads.iter().map(|payload| Message::Binary(payload.clone().into())).collect();
            let writing = async {
                write(&mut server, &messages).await;
                let close = CloseFrame { code: 4012, reason: "too_slow reconnect=1000".into() };
                write(&mut server, &[Message::Text("é".into()), Message::Close(Some(close))]).await;
            };
            let reading = async {
                let mut client = client(stream).await;
                for payload in &payloads {
                    assert_eq!(client.next().await.unwrap().unwrap().into_data(), payload);
                }
                assert_eq!(client.next().await.unwrap().unwrap().into_text().unwrap(), "é");
                let tungstenite::Message::Close(Some(close)) = client.next().await.unwrap().unwrap() else {
                    panic!("not a close")
                };
                assert_eq!((u16::from(close.code), close.reason.as_str()), (4012, "too_slow reconnect=1000"));
            };
            tokio::join!(writing, reading)
        });
    }

    #[test]
    fn any_bytes_are_read_without_a_panic_and_within_the_limit(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        runtime().block_on(async {
            let (mut stream, mut server) = duplex(1 << 10);
            stream.write_all(&bytes).await.unwrap();
            drop(stream);
            let mut reader = Reader::new(100);
            while let Some(Ok(incoming)) = read(&mut reader, &mut server).await {
                if let Incoming::Message(message) = incoming {
                    assert!(message.into_data().len() <= 100);
                }
            }
        });
    }
}

/// A frame of a client, with a mask of zeros.
fn raw(first: u8, length: usize, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(length).unwrap().to_be_bytes();
    [&[first, 0x80 | 126], &length[..], &[0; 4], payload].concat()
}

async fn read_raw(bytes: &[u8]) -> Result<Vec<Incoming>, ReadError> {
    let (mut stream, mut server) = duplex(1 << 20);
    stream.write_all(bytes).await.unwrap();
    drop(stream);
    let (mut reader, mut all) = (Reader::new(1_000), Vec::new());
    while let Some(incoming) = read(&mut reader, &mut server).await {
        all.push(incoming?);
    }
    Ok(all)
}

const TEXT: u8 = 1;
const FINAL: u8 = 0x80;
const COMPRESSED: u8 = 0x40;

#[tokio::test]
async fn a_fragmented_message_is_joined_around_control_frames() {
    let half = "é".as_bytes();
    let bytes = [
        raw(TEXT, 1, &half[..1]),
        raw(FINAL | 9, 2, b"up"),
        raw(0, 0, b""),
        raw(FINAL, 1, &half[1..]),
        raw(FINAL | 10, 0, b""),
        raw(FINAL | 8, 2, &1000u16.to_be_bytes()),
    ];
    let expected = [
        Incoming::Ping(Bytes::from_static(b"up")),
        Incoming::Message(Message::Text("é".into())),
        Incoming::Pong,
        Incoming::Close(Some(1000)),
    ];
    assert_eq!(read_raw(&bytes.concat()).await.unwrap(), expected);
}

#[tokio::test]
async fn p7_a_message_is_limited_as_a_whole_and_by_its_header() {
    let fragments = [raw(TEXT, 600, &[b'x'; 600]), raw(FINAL, 600, &[])].concat();
    // The header alone is enough to refuse it: nobody waits for the payload.
    for bytes in [raw(FINAL | TEXT, 1_001, &[]), fragments] {
        let error = read_raw(&bytes).await.unwrap_err();
        assert!(matches!(error, ReadError::TooLarge { size: 1_001 | 1_200, max: 1_000 }), "{error}");
    }
    let huge = [&[FINAL | TEXT, 0x80 | 127][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    assert!(matches!(read_raw(&huge).await, Err(ReadError::TooLarge { .. })));
}

#[tokio::test]
async fn frames_that_the_standard_forbids_are_refused_with_a_reason() {
    let cases = [
        (raw(FINAL | COMPRESSED | TEXT, 1, b"x"), "compression"),
        (vec![FINAL | TEXT, 1, b'x'], "not masked"),
        (raw(9, 1, b"x"), "fragmented"),
        (raw(FINAL | 9, 126, &[0; 126]), "125"),
        (raw(FINAL, 1, b"x"), "begins with a continuation"),
        ([raw(TEXT, 1, b"x"), raw(FINAL | TEXT, 1, b"x")].concat(), "inside of another"),
        (raw(FINAL | 3, 1, b"x"), "reserved"),
        (raw(FINAL | TEXT, 1, &[0xff]), "UTF-8"),
    ];
    for (bytes, reason) in cases {
        let error = read_raw(&bytes).await.unwrap_err().to_string();
        assert!(error.contains(reason), "{error}, and not {reason}");
    }
}

#[tokio::test]
async fn p7_only_what_the_stream_does_not_take_is_kept() {
    let (mut stream, server) = duplex(1_000);
    let mut writer = Writer::default();
    let mut start = |cx: &mut Context<'_>| writer.start(&mut stream, cx, &[7; 5_000]);
    poll_fn(|cx| Poll::Ready(start(cx))).await.unwrap();
    assert_eq!((writer.held(), writer.take_progress()), (4_000, true));
    let flushed = poll_fn(|cx| Poll::Ready(writer.poll_flush(&mut stream, cx).is_ready()));
    assert!(!flushed.await && !writer.take_progress(), "the client reads nothing");
    let mut client = server;
    let mut sink = tokio::io::sink();
    let reading = tokio::io::copy(&mut client, &mut sink);
    let writing = async {
        poll_fn(|cx| writer.poll_flush(&mut stream, cx)).await.unwrap();
        assert_eq!((writer.held(), writer.is_idle()), (0, true));
        drop(stream);
    };
    assert_eq!(tokio::join!(reading, writing).0.unwrap(), 5_000);
}
