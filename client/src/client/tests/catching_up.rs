//! What the application sees, and what is asked for it.

use super::*;

fn head(number: u64) -> Head {
    Head { conversation: "c".into(), conversation_seq: number, visible_from: 1, ..Head::default() }
}

/// What a server with so many entries answers.
fn page(request: &GetHistory, many: u64) -> HistoryPage {
    let last = many.min(request.after + request.limit as u64);
    HistoryPage { entries: (request.after + 1..=last).map(entry).collect(), more: last < many }
}

#[tokio::test]
async fn p5_a_gap_is_filled_from_history_and_the_state_follows_the_application() {
    let (fake, mut peer, client, mut events) = connect(has(5, &[("c", 2)])).await;
    assert_eq!(peer.hello.have, at(5));
    let deliver = Deliver { receiver_seq: at(8), raised: 1, entries: vec![entry(5)] };
    peer.send(0, Frame::Deliver(deliver)).await;
    for _ in 0..2 {
        match peer.ask(8).await {
            (id, client_frame::Frame::Heads(_)) => {
                peer.send(id, Frame::Heads(HeadsPage { heads: vec![head(5)], more: false })).await;
            }
            (id, client_frame::Frame::History(GetHistory { after: 2, .. })) => {
                let entries = (3..=5).map(entry).collect();
                peer.send(id, Frame::History(HistoryPage { entries, more: false })).await;
            }
            other => panic!("not what is missing: {other:?}"),
        }
    }
    assert_eq!(entries(&mut events, 1).await, [3]);
    assert_eq!(client.state(), has(5, &[("c", 3)]), "the application has taken one");
    assert_eq!(entries(&mut events, 2).await, [4, 5]);
    // The last of the answers may still be on its way.
    while client.state() != has(8, &[("c", 5)]) {
        timeout(LONG, async {
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
async fn p5_a_heartbeat_that_shows_another_seq_makes_the_device_catch_up() {
    let (_fake, mut peer, _client, mut events) = connect(has(0, &[])).await;
    let (id, frame) = peer.ask(1).await;
    assert!(matches!(frame, client_frame::Frame::Heads(_)), "{frame:?}");
    peer.send(id, Frame::Heads(HeadsPage { heads: vec![head(1)], more: false })).await;
    let (id, frame) = peer.ask(1).await;
    assert!(matches!(frame, client_frame::Frame::History(_)), "{frame:?}");
    peer.send(id, Frame::History(HistoryPage { entries: vec![entry(1)], more: false })).await;
    assert_eq!(entries(&mut events, 1).await, [1]);
}

#[tokio::test]
async fn p7_an_application_that_takes_nothing_leaves_entries_at_the_server() {
    let (_fake, mut peer, client, mut events) = connect(has(0, &[("c", 0)])).await;
    let many = 500;
    for number in 1..=many {
        let deliver = Deliver { receiver_seq: at(number), raised: 1, entries: vec![entry(number)] };
        peer.send(0, Frame::Deliver(deliver)).await;
    }
    // It still answers: a queue that is full stops nothing but entries.
    let sending = client.enqueue("c", text("still here"), None).await.unwrap();
    let (id, send) = match peer.ask(many).await {
        (id, client_frame::Frame::Send(send)) => (id, send),
        other => panic!("asked for more than there is room for: {other:?}"),
    };
    peer.ack(id, &send).await;
    sending.await.unwrap();
    let mut seen = entries(&mut events, crate::sync::PAGE).await;
    let serve = async {
        loop {
            match peer.ask(many).await {
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
async fn p1_p7_receipts_do_not_take_the_places_of_a_page_that_is_on_its_way() {
    let (_fake, mut peer, client, mut events) = connect(has(0, &[("c", 0)])).await;
    // With the two events of the beginning, this leaves room for exactly one page.
    let (taken, many) = (98, 250);
    let deliver =
        Deliver { receiver_seq: at(taken), raised: taken as u32, entries: (1..=taken).map(entry).collect() };
    peer.send(0, Frame::Deliver(deliver)).await;
    let deliver = Deliver {
        receiver_seq: at(many),
        raised: (many - taken) as u32,
        entries: (taken + 2..=many).map(entry).collect(),
    };
    peer.send(0, Frame::Deliver(deliver)).await;
    let (mut receipts, mut asked) = (20, Vec::new());
    let serve = async {
        loop {
            match peer.ask(many).await {
                (id, client_frame::Frame::Heads(_)) => {
                    peer.send(id, Frame::Heads(HeadsPage { heads: vec![head(many)], more: false })).await;
                }
                (id, client_frame::Frame::History(request)) => {
                    asked.push(request.after);
                    for _ in 0..std::mem::take(&mut receipts) {
                        peer.send(0, Frame::Receipt(ReadReceipt::default())).await;
                    }
                    peer.send(id, Frame::History(page(&request, many))).await;
                }
                other => panic!("neither heads nor history: {other:?}"),
            }
        }
    };
    let slow = async {
        // The page comes while nothing is taken.
        tokio::time::sleep(Duration::from_millis(300)).await;
        entries(&mut events, many as usize).await
    };
    let seen = tokio::select! {
        seen = slow => seen,
        () = serve => unreachable!("it serves for ever"),
    };
    assert_eq!(seen, (1..=many).collect::<Vec<_>>());
    assert_eq!(asked, [98, 198], "a page found no room for all of it");
    assert_eq!(client.state().positions["c"], many);
}

#[tokio::test]
async fn p6_a_page_that_is_to_be_asked_for_later_costs_nothing_meanwhile() {
    let (_fake, mut peer, _client, mut events) = connect(has(0, &[("c", 0)])).await;
    let deliver = Deliver { receiver_seq: at(2), raised: 2, entries: vec![entry(2)] };
    peer.send(0, Frame::Deliver(deliver)).await;
    let mut is_refused = false;
    while !is_refused {
        match peer.ask(2).await {
            (id, client_frame::Frame::Heads(_)) => {
                peer.send(id, Frame::Heads(HeadsPage { heads: vec![head(2)], more: false })).await;
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
    match peer.ask(2).await {
        (id, client_frame::Frame::History(request)) => {
            peer.send(id, Frame::History(page(&request, 2))).await;
        }
        other => panic!("not history: {other:?}"),
    }
    let (busy, all) = (metrics.worker_total_busy_duration(0) - busy, began.elapsed());
    assert!(busy < all / 2, "busy for {busy:?} of {all:?}");
    assert_eq!(entries(&mut events, 2).await, [1, 2]);
}
