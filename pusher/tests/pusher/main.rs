//! `PushService` over gRPC, with gateways that accept, fail, hang or are dead.

#![allow(clippy::unwrap_used, reason = "tests panic when a step fails")]

mod gateways;
mod program;

use abi::v1::{
    Outcome, PushRequest, PushedEntry, PushedSignal, Receiver, ReceiverSeq,
    push_service_client::PushServiceClient,
};
use cache::{Cache, MemoryCache, Routes as _};
use gateways::{Behaviour, Gateway, channel};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tonic::service::Routes;

const LONG: Duration = Duration::from_secs(60);

struct Pusher {
    cache: Arc<MemoryCache>,
    client: PushServiceClient<abi::Caller>,
}

impl Pusher {
    fn new(deadline: Duration) -> Self {
        let cache = Arc::new(MemoryCache::default());
        let server = pusher::server(Arc::clone(&cache) as Arc<dyn Cache>, Arc::new(channel), deadline);
        let local = utils::grpc::local(Routes::new(server), LONG);
        Self { cache, client: PushServiceClient::new(abi::Caller::new(local)) }
    }

    async fn online(&self, user: &str, gateway: &str) {
        self.cache.connect("app", user, gateway, gateway, LONG).await.unwrap();
    }

    async fn push(&self, request: PushRequest) -> u32 {
        self.client.clone().push(request).await.unwrap().into_inner().connections
    }
}

fn entry(number: u64) -> PushedEntry {
    PushedEntry { message_id: number.to_string(), ..PushedEntry::default() }
}

fn receiver(user: &str, entries: &[u32]) -> Receiver {
    Receiver {
        user: user.into(),
        receiver_seq: Some(ReceiverSeq { epoch: 7, seq: 9 }),
        raised: entries.len() as u32,
        entries: entries.to_vec(),
        updates: Vec::new(),
    }
}

fn request(entries: u64, receivers: &[Receiver]) -> PushRequest {
    let entries = (1..=entries).map(entry).collect();
    PushRequest { app: "app".into(), entries, receivers: receivers.to_vec(), ..PushRequest::default() }
}

#[tokio::test]
async fn p5_a_push_to_offline_users_reaches_no_connection() {
    let pusher = Pusher::new(LONG);
    assert_eq!(pusher.push(request(1, &[receiver("alice", &[0]), receiver("bob", &[0])])).await, 0);
    assert_eq!(pusher.push(PushRequest::default()).await, 0);
}

#[tokio::test]
async fn p5_a_gateway_gets_only_the_entries_of_its_users() {
    let (one, two) = (Gateway::start(Behaviour::Accept).await, Gateway::start(Behaviour::Accept).await);
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    pusher.online("bob", &two.address).await;
    pusher.online("carol", &two.address).await;
    let receivers = [
        receiver("alice", &[0, 2]),
        receiver("bob", &[1, 2]),
        receiver("carol", &[]),
        receiver("dave", &[3]),
    ];
    assert_eq!(pusher.push(request(4, &receivers)).await, 3);
    let push = one.received().await;
    assert_eq!(push.receivers, [receiver("alice", &[0, 1])]);
    assert_eq!(push.entries, [entry(1), entry(3)]);
    let push = two.received().await;
    assert_eq!(push.receivers, [receiver("bob", &[0, 1]), receiver("carol", &[])]);
    assert_eq!(push.entries, [entry(2), entry(3)]);
}

#[tokio::test]
async fn p5_a_user_on_two_gateways_is_reached_on_both() {
    let (one, two) = (Gateway::start(Behaviour::Accept).await, Gateway::start(Behaviour::Accept).await);
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    pusher.online("alice", &two.address).await;
    let push = request(1, &[receiver("alice", &[0])]);
    assert_eq!(pusher.push(push.clone()).await, 2);
    assert_eq!(one.received().await, push);
    assert_eq!(two.received().await, push);
}

#[tokio::test]
async fn signals_are_delivered_like_entries() {
    let (one, two) = (Gateway::start(Behaviour::Accept).await, Gateway::start(Behaviour::Accept).await);
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    pusher.online("bob", &two.address).await;
    let signal = |users: &[&str]| PushedSignal {
        signal: "any bytes".into(),
        users: users.iter().map(|user| (*user).to_owned()).collect(),
    };
    let push = PushRequest {
        app: "app".into(),
        signals: vec![signal(&["alice", "bob", "mallory"]), signal(&["mallory"])],
        ..PushRequest::default()
    };
    pusher.push(push).await;
    assert_eq!(one.received().await.signals, [signal(&["alice"])]);
    assert_eq!(two.received().await.signals, [signal(&["bob"])]);
}

#[tokio::test]
async fn p5_dead_or_failing_gateways_do_not_affect_others_and_are_retried() {
    let alive = Gateway::start(Behaviour::Accept).await;
    let failing = Gateway::start(Behaviour::Fail).await;
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &alive.address).await;
    pusher.online("bob", "127.0.0.1:1").await;
    pusher.online("carol", &failing.address).await;
    for _ in 0..3 {
        let receivers = [receiver("alice", &[0]), receiver("bob", &[0]), receiver("carol", &[0])];
        assert_eq!(pusher.push(request(1, &receivers)).await, 1);
        alive.received().await;
        failing.received().await;
    }
}

#[tokio::test]
async fn p5_a_hanging_gateway_does_not_delay_others_and_is_retried() {
    let deadline = Duration::from_millis(500);
    let alive = Gateway::start(Behaviour::Accept).await;
    let hanging = Gateway::start(Behaviour::Hang).await;
    let pusher = Pusher::new(deadline);
    pusher.online("alice", &alive.address).await;
    pusher.online("bob", &hanging.address).await;
    let push = request(1, &[receiver("alice", &[0]), receiver("bob", &[0])]);
    assert_eq!(pusher.push(push.clone()).await, 1);
    // Now the hanging gateway is skipped, so pushes are fast.
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(pusher.push(push.clone()).await, 1);
    }
    assert!(began.elapsed() < deadline, "pushes waited {:?} for a gateway that hangs", began.elapsed());
    hanging.set(Behaviour::Accept);
    gateways::eventually("the gateway is retried", async || pusher.push(push.clone()).await == 2).await;
}

#[tokio::test]
async fn p7_a_push_as_large_as_a_batch_is_delivered() {
    let one = Gateway::start(Behaviour::Accept).await;
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    let mut push = request(1, &[receiver("alice", &[0])]);
    push.entries[0].message_id = "x".repeat(8 << 20);
    assert_eq!(pusher.push(push).await, 1);
}

#[tokio::test]
async fn an_outcome_reaches_the_gateway_that_waits_for_it() {
    let gateway = Gateway::start(Behaviour::Accept).await;
    let pusher = Pusher::new(LONG);
    let outcome = Outcome { gateway: gateway.address.clone(), message_id: "1".into(), result: None };
    let push = PushRequest { app: "app".into(), outcomes: vec![outcome], ..PushRequest::default() };
    pusher.push(push.clone()).await;
    assert_eq!(gateway.received().await, push);
}
