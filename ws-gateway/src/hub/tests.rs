use super::*;
use crate::outbox::{Outbox, Taken};
use abi::{
    config::Config,
    v1::{
        Content, Deliver, Entry, PushedEntry, ReceiverSeq, ServerFrame, content::Body, server_frame::Frame,
    },
};
use axum::extract::ws::Message;
use futures_util::FutureExt as _;
use prost::Message as _;
use std::future::poll_fn;

/// A hub with these limits of connections per user and of bytes per delivery.
fn hub(connections_per_user: usize, max_delivery: usize) -> Hub {
    Hub::new(Limits { connections_per_user, max_delivery, ..Limits::new(&Config::default()) })
}

fn connection(user: &str, device: &str, id: &str) -> Arc<Connection> {
    connection_as(Format::Proto, user, device, id)
}

fn connection_as(format: Format, user: &str, device: &str, id: &str) -> Arc<Connection> {
    Arc::new(Connection {
        id: id.into(),
        identity: Identity { user: user.into(), device: device.into(), session: format!("s-{device}") },
        order: Order::default(),
        format,
        outbox: Arc::new(Outbox::new(10_000, Memory::new(usize::MAX))),
        watched: Mutex::default(),
    })
}

fn push(user: &str, entries: Vec<u32>) -> PushRequest {
    PushRequest {
        app: "default".into(),
        entries: vec![PushedEntry::default(), PushedEntry::default()],
        receivers: vec![Receiver {
            user: user.into(),
            receiver_seq: Some(ReceiverSeq { epoch: 1, seq: 1 }),
            raised: 1,
            entries,
            updates: Vec::new(),
        }],
        ..PushRequest::default()
    }
}

fn text(text: &str) -> PushedEntry {
    let content = Content { body: Some(Body::Text(text.into())), ..Content::default() };
    let entry = Entry { content: Some(content), ..Entry::default() };
    PushedEntry { entry: entry.encode_to_vec().into(), ..PushedEntry::default() }
}

async fn delivered(connection: &Connection) -> Vec<Deliver> {
    let frames = match taken(connection).await {
        Taken::Frames(frames) => frames,
        Taken::Close(error) => panic!("closed: {error}"),
    };
    let deliver = |outgoing| {
        let frame = match outgoing {
            Outgoing::Delivery { frame, .. } | Outgoing::Encoded(frame) => frame,
            other => panic!("no delivery: {other:?}"),
        };
        let frame: ServerFrame = match frame.message() {
            Message::Text(text) => serde_json::from_str(text).unwrap(),
            Message::Binary(bytes) => ServerFrame::decode(bytes.clone()).unwrap(),
            other => panic!("no frame: {other:?}"),
        };
        match frame.frame {
            Some(Frame::Deliver(deliver)) => deliver,
            other => panic!("no delivery: {other:?}"),
        }
    };
    frames.into_iter().map(deliver).collect()
}

async fn taken(connection: &Connection) -> Taken {
    poll_fn(|cx| connection.outbox.poll_take(cx, true, usize::MAX)).await
}

#[tokio::test]
async fn p7_a_delivery_over_the_limit_is_sent_without_its_entries() {
    let hub = hub(4, 1_000);
    let phone = connection("alice", "phone", "1");
    let laptop = connection_as(Format::Json, "alice", "laptop", "2");
    hub.add(phone.clone()).unwrap();
    hub.add(laptop.clone()).unwrap();
    // Large only in JSON, large in both formats, and small.
    for texts in [
        ["\u{1}".repeat(250), String::new()],
        ["x".repeat(600), "y".repeat(600)],
        [const { String::new() }; 2],
    ] {
        let mut push = push("alice", vec![0, 1]);
        push.entries = texts.iter().map(|body| text(body)).collect();
        push.receivers[0].raised = 2;
        assert_eq!(hub.deliver(push, &Spans::default()).await, 2);
    }
    for (device, entries) in [(phone, [2, 0, 2]), (laptop, [0, 0, 2])] {
        let deliveries = delivered(&device).await;
        assert_eq!(deliveries.iter().map(|deliver| deliver.entries.len()).collect::<Vec<_>>(), entries);
        assert!(deliveries.iter().all(|deliver| deliver.raised == 2 && deliver.receiver_seq.is_some()));
    }
}

#[tokio::test]
async fn p7_a_delivery_to_many_devices_is_written_while_it_is_queued() {
    let hub = hub(4, usize::MAX);
    let mut push = push("0", vec![0]);
    push.entries = vec![text(&"x".repeat(YIELD_AFTER / 4))];
    let mut devices = tokio::task::JoinSet::new();
    for number in 0..8 {
        let user = number.to_string();
        let outbox = Arc::new(Outbox::new(2 * YIELD_AFTER, Memory::new(usize::MAX)));
        let device = Connection { outbox, ..Arc::into_inner(connection(&user, "phone", &user)).unwrap() };
        let device = Arc::new(device);
        hub.add(device.clone()).unwrap();
        devices.spawn(async move { delivered(&device).await });
        push.receivers.push(Receiver { user, ..push.receivers[0].clone() });
    }
    // The test runs on one thread: frames that are written by now were written before the delivery had ended.
    hub.deliver(push, &Spans::default()).await;
    let written = std::iter::from_fn(|| devices.try_join_next()).count();
    assert!((4..8).contains(&written), "{written} devices had received it");
}

#[tokio::test]
async fn p5_removing_a_replaced_connection_keeps_the_new_one() {
    let hub = hub(4, 1_000);
    let (old, new) = (connection("alice", "phone", "1"), connection("alice", "phone", "2"));
    hub.add(old.clone()).unwrap();
    hub.add(new.clone()).unwrap();
    assert!(matches!(taken(&old).await, Taken::Close(error) if error.code == ErrorCode::Replaced));
    hub.remove(&old);
    assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()).await, 1);
    hub.remove(&new);
    assert_eq!(hub.deliver(push("alice", vec![0]), &Spans::default()).await, 0);
}

#[tokio::test]
async fn p5_a_registration_that_is_not_kept_is_removed() {
    let hub = hub(4, 1_000);
    let (left, stayed) = (connection("alice", "phone", "1"), connection("bob", "phone", "2"));
    hub.add(left.clone()).unwrap();
    drop(hub.registration(&left));
    hub.add(stayed.clone()).unwrap();
    hub.registration(&stayed).keep();
    let delivered = async |user| hub.deliver(push(user, vec![0]), &Spans::default()).await;
    assert_eq!((delivered("alice").await, delivered("bob").await), (0, 1));
}

#[test]
fn p7_connections_of_a_user_are_limited() {
    let hub = hub(2, 1_000);
    hub.add(connection("alice", "phone", "1")).unwrap();
    hub.add(connection("alice", "tablet", "2")).unwrap();
    assert_eq!(hub.add(connection("alice", "laptop", "3")).unwrap_err().code, ErrorCode::RateLimited);
    hub.add(connection("bob", "phone", "4")).unwrap();
}

#[tokio::test]
async fn p8_only_the_receiver_gets_a_delivery_and_a_wrong_index_is_ignored() {
    let hub = hub(2, 1_000);
    hub.add(connection("alice", "phone", "1")).unwrap();
    assert_eq!(hub.deliver(push("bob", vec![0]), &Spans::default()).await, 0);
    assert_eq!(hub.deliver(push("alice", vec![99]), &Spans::default()).await, 1);
}

/// Whether a connection was asked to close, and why.
fn closed(connection: &Connection) -> Option<ErrorCode> {
    match taken(connection).now_or_never()? {
        Taken::Close(reason) => Some(reason.code),
        Taken::Frames(_) => None,
    }
}

#[test]
fn p8_the_end_of_a_session_closes_only_its_connections() {
    let hub = hub(4, 1_000);
    let (phone, tablet) = (connection("alice", "phone", "1"), connection("alice", "tablet", "2"));
    hub.add(phone.clone()).unwrap();
    hub.add(tablet.clone()).unwrap();
    hub.revoke("alice", "s-other");
    hub.revoke("bob", "s-phone");
    assert_eq!(closed(&phone), None);
    hub.revoke("alice", "s-phone");
    assert_eq!((closed(&phone), closed(&tablet)), (Some(ErrorCode::Revoked), None));
}

#[test]
fn p9_a_connection_is_replaced_only_by_a_later_one() {
    let hub = hub(4, 1_000);
    let phone = connection("alice", "phone", "1");
    hub.add(phone.clone()).unwrap();
    hub.set_order(&phone, 7);
    hub.replace("alice", "s-phone", 6);
    hub.replace("alice", "s-phone", 7);
    hub.replace("alice", "s-tablet", 8);
    assert_eq!(closed(&phone), None);
    hub.replace("alice", "s-phone", 8);
    assert_eq!(closed(&phone), Some(ErrorCode::Replaced));
}

#[test]
fn p9_a_connection_that_was_replaced_while_it_registered_its_route_is_closed() {
    for (replaced_by, code) in [(6, None), (8, Some(ErrorCode::Replaced))] {
        let hub = hub(4, 1_000);
        let phone = connection("alice", "phone", "1");
        hub.add(phone.clone()).unwrap();
        hub.replace("alice", "s-phone", replaced_by);
        assert_eq!(closed(&phone), None);
        hub.set_order(&phone, 7);
        assert_eq!(closed(&phone), code);
    }
}

#[tokio::test]
async fn p5_a_delivery_larger_than_a_frame_is_split_and_each_frame_counts_its_entries() {
    for format in [Format::Proto, Format::Json] {
        let max_frame = 2_000;
        let limits = Limits { max_frame, max_delivery: 1 << 20, ..Limits::new(&Config::default()) };
        let hub = Hub::new(limits);
        let device = connection_as(format, "alice", "phone", "1");
        hub.add(device.clone()).unwrap();
        let mut push = push("alice", (0..10).collect());
        push.entries = (0..10).map(|n| text(&n.to_string().repeat(500))).collect();
        push.receivers[0].raised = 10;
        push.receivers[0].receiver_seq = Some(ReceiverSeq { epoch: 1, seq: 30 });
        hub.deliver(push.clone(), &Spans::default()).await;
        let (mut seq, mut entries) = (20, 0);
        let deliveries = delivered(&device).await;
        assert!(deliveries.len() > 2, "{} frames", deliveries.len());
        for deliver in deliveries {
            assert!(deliver.encoded_len() <= max_frame);
            assert_eq!(deliver.raised as usize, deliver.entries.len());
            seq += u64::from(deliver.raised);
            entries += deliver.entries.len();
            assert_eq!(deliver.receiver_seq, Some(ReceiverSeq { epoch: 1, seq }));
        }
        assert_eq!((seq, entries), (30, 10));
        // The device has a gap that no frame can tell it about.
        push.receivers[0].raised = 11;
        hub.deliver(push, &Spans::default()).await;
        let deliveries = delivered(&device).await;
        assert_eq!((deliveries.len(), deliveries[0].raised, deliveries[0].entries.len()), (1, 11, 0));
    }
}

#[tokio::test]
async fn p7_over_the_gateways_limit_the_largest_queues_are_closed() {
    let max_outbox_total = 100_000;
    let hub = Hub::new(Limits { max_outbox_total, ..Limits::new(&Config::default()) });
    let connect = |user: &str| {
        let outbox = Arc::new(Outbox::new(usize::MAX, hub.memory().clone()));
        let device = Connection { outbox, ..Arc::into_inner(connection(user, "phone", user)).unwrap() };
        let device = Arc::new(device);
        hub.add(device.clone()).unwrap();
        device
    };
    let slow: Vec<_> = (0..5).map(|number| connect(&format!("slow{number}"))).collect();
    let normal = connect("normal");
    let deliver = async |user: &str, bytes| {
        let mut push = push(user, vec![0]);
        push.entries = vec![text(&"x".repeat(bytes))];
        hub.deliver(push, &Spans::default()).await;
    };
    deliver("normal", 1_000).await;
    for round in 0..20 {
        for (number, device) in slow.iter().enumerate() {
            deliver(&device.identity.user, 1_000 + 100 * number).await;
        }
        assert!(hub.memory().used() <= max_outbox_total, "{} in round {round}", hub.memory().used());
    }
    let closed = slow.iter().filter(|device| device.outbox.queued_bytes().is_none()).count();
    assert!((1..5).contains(&closed), "{closed} are closed");
    assert!(slow[4].outbox.queued_bytes().is_none(), "the largest one is closed first");
    assert!(normal.outbox.queued_bytes().is_some());
}
