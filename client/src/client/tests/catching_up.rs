//! Catching up: the entries that the application sees, and the requests for them.

use super::fake_server::{TIMEOUT, at, connect, entries, entry, has};
use crate::{sync, text};
use abi::{
    ApiError,
    v1::{Changes, Deliver, GetHistory, Head, HistoryPage, Signal, client_frame, server_frame::Frame},
};
use std::time::Duration;
use tokio::time::timeout;

fn head(number: u64) -> Head {
    Head { conversation: "c".into(), conversation_seq: number, visible_from: 1, ..Head::default() }
}

fn changes(now: u64, last: u64) -> Changes {
    Changes { receiver_seq: at(now), heads: vec![head(last)], ..Changes::default() }
}

/// The answer of a server with entries up to `head`.
fn page(request: &GetHistory, head: u64) -> HistoryPage {
    let last = head.min(request.after + request.limit as u64);
    HistoryPage { entries: (request.after + 1..=last).map(entry).collect(), more: last < head }
}

#[tokio::test]
async fn p5_a_gap_is_filled_from_history_and_the_state_follows_the_application() {
    let (fake, mut peer, client, mut events) = connect(has(5, &[("c", 2)])).await;
    assert_eq!(peer.hello.have, at(5));
    let deliver = Deliver { receiver_seq: at(8), raised: 1, entries: vec![entry(5)], ..Deliver::default() };
    peer.send(0, Frame::Deliver(deliver)).await;
    for _ in 0..2 {
        match peer.request(8).await {
            (id, client_frame::Frame::Changes(_)) => {
                peer.send(id, Frame::Changes(changes(8, 5))).await;
            }
            (id, client_frame::Frame::History(GetHistory { after: 2, .. })) => {
                let entries = (3..=5).map(entry).collect();
                peer.send(id, Frame::History(HistoryPage { entries, more: false })).await;
            }
            other => panic!("unexpected request: {other:?}"),
        }
    }
    assert_eq!(entries(&mut events, 1).await, [3]);
    assert_eq!(client.state(), has(5, &[("c", 3)]), "the application has taken one");
    assert_eq!(entries(&mut events, 2).await, [4, 5]);
    // The last answer may still be in flight.
    while client.state() != has(8, &[("c", 5)]) {
        timeout(TIMEOUT, async {
            tokio::select! {
                _ = events.next() => {}
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
        })
        .await
        .unwrap();
    }
    drop(peer);
    assert_eq!(fake.welcome(8).await.hello.have, at(8));
}

#[tokio::test]
async fn p5_a_heartbeat_with_another_seq_makes_the_device_catch_up() {
    let (_fake, mut peer, _client, mut events) = connect(has(0, &[])).await;
    let (id, frame) = peer.request(1).await;
    assert!(matches!(frame, client_frame::Frame::Changes(_)), "{frame:?}");
    peer.send(id, Frame::Changes(changes(1, 1))).await;
    let (id, frame) = peer.request(1).await;
    assert!(matches!(frame, client_frame::Frame::History(_)), "{frame:?}");
    peer.send(id, Frame::History(HistoryPage { entries: vec![entry(1)], more: false })).await;
    assert_eq!(entries(&mut events, 1).await, [1]);
}

#[tokio::test]
async fn p7_while_the_application_reads_no_events_entries_stay_at_the_server() {
    let (_fake, mut peer, client, mut events) = connect(has(0, &[("c", 0)])).await;
    let many = 500;
    for number in 1..=many {
        let deliver = Deliver {
            receiver_seq: at(number),
            raised: 1,
            entries: vec![entry(number)],
            ..Deliver::default()
        };
        peer.send(0, Frame::Deliver(deliver)).await;
    }
    // Sending still works: a full queue stops only entries.
    let sending = client.enqueue("c", text("still here"), None).await.unwrap();
    let (id, send) = match peer.request(many).await {
        (id, client_frame::Frame::Send(send)) => (id, send),
        other => panic!("requested more entries than fit: {other:?}"),
    };
    peer.ack(id, &send).await;
    sending.await.unwrap();
    let mut seen = entries(&mut events, sync::PAGE).await;
    let serve = async {
        loop {
            match peer.request(many).await {
                (id, client_frame::Frame::History(request)) => {
                    peer.send(id, Frame::History(page(&request, many))).await;
                }
                other => panic!("not history: {other:?}"),
            }
        }
    };
    let rest = many as usize - seen.len();
    tokio::select! {
        rest = entries(&mut events, rest) => seen.extend(rest),
        () = serve => {}
    }
    assert_eq!(seen, (1..=many).collect::<Vec<_>>());
}

#[tokio::test]
async fn p1_p7_signals_do_not_take_the_slots_of_a_page_in_flight() {
    let (_fake, mut peer, client, mut events) = connect(has(0, &[("c", 0)])).await;
    // Together with the first two events, this leaves slots for exactly one page.
    let (taken, many) = (98, 250);
    let deliver = Deliver {
        receiver_seq: at(taken),
        raised: taken as u32,
        entries: (1..=taken).map(entry).collect(),
        ..Deliver::default()
    };
    peer.send(0, Frame::Deliver(deliver)).await;
    let deliver = Deliver {
        receiver_seq: at(many),
        raised: (many - taken) as u32,
        entries: (taken + 2..=many).map(entry).collect(),
        ..Deliver::default()
    };
    peer.send(0, Frame::Deliver(deliver)).await;
    let (mut signals, mut requested) = (20, Vec::new());
    let serve = async {
        loop {
            match peer.request(many).await {
                (id, client_frame::Frame::Changes(_)) => {
                    peer.send(id, Frame::Changes(changes(many, many))).await;
                }
                (id, client_frame::Frame::History(request)) => {
                    requested.push(request.after);
                    for _ in 0..std::mem::take(&mut signals) {
                        peer.send(0, Frame::Signal(Signal::default())).await;
                    }
                    peer.send(id, Frame::History(page(&request, many))).await;
                }
                other => panic!("neither changes nor history: {other:?}"),
            }
        }
    };
    let slow = async {
        // The page arrives while the application takes no events.
        tokio::time::sleep(Duration::from_millis(300)).await;
        entries(&mut events, many as usize).await
    };
    let seen = tokio::select! {
        seen = slow => seen,
        () = serve => unreachable!("the server never stops"),
    };
    assert_eq!(seen, (1..=many).collect::<Vec<_>>());
    assert_eq!(requested, [98, 198], "a page did not fit completely");
    assert_eq!(client.state().positions["c"], many);
}

#[tokio::test]
async fn p6_waiting_to_retry_a_page_uses_no_cpu() {
    let (_fake, mut peer, _client, mut events) = connect(has(0, &[("c", 0)])).await;
    let deliver = Deliver { receiver_seq: at(2), raised: 2, entries: vec![entry(2)], ..Deliver::default() };
    peer.send(0, Frame::Deliver(deliver)).await;
    let mut is_refused = false;
    while !is_refused {
        match peer.request(2).await {
            (id, client_frame::Frame::Changes(_)) => {
                peer.send(id, Frame::Changes(changes(2, 2))).await;
            }
            (id, _) => {
                let pause =
                    ApiError { retry_after: Some(Duration::from_secs(1)), ..ApiError::unavailable("later") };
                peer.send(id, Frame::Error(pause.into())).await;
                is_refused = true;
            }
        }
    }
    let metrics = tokio::runtime::Handle::current().metrics();
    let (began, busy) = (std::time::Instant::now(), metrics.worker_total_busy_duration(0));
    match peer.request(2).await {
        (id, client_frame::Frame::History(request)) => {
            peer.send(id, Frame::History(page(&request, 2))).await;
        }
        other => panic!("not history: {other:?}"),
    }
    let (busy, all) = (metrics.worker_total_busy_duration(0) - busy, began.elapsed());
    assert!(busy < all / 2, "busy for {busy:?} of {all:?}");
    assert_eq!(entries(&mut events, 2).await, [1, 2]);
}
