//! `PushService` at its wire: real gRPC servers stand for gateways, alive, dead, hanging and failing.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod gateways;
mod program;

use abi::v1::{
    Entry, PushRequest, ReadReceipt, Receipt, Receiver, ReceiverSeq, push_service_client::PushServiceClient,
};
use cache::{Cache, MemoryCache};
use gateways::{Gateway, Manner, channel};
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

fn entry(conversation_seq: u64) -> Entry {
    Entry { conversation: "d:alice:bob".into(), conversation_seq, ..Entry::default() }
}

fn receiver(user: &str, entries: &[u32]) -> Receiver {
    Receiver {
        user: user.into(),
        receiver_seq: Some(ReceiverSeq { epoch: 7, seq: 9 }),
        raised: entries.len() as u32,
        entries: entries.to_vec(),
    }
}

fn request(entries: u64, receivers: &[Receiver]) -> PushRequest {
    let entries = (1..=entries).map(entry).collect();
    PushRequest { app: "app".into(), entries, receivers: receivers.to_vec(), receipts: Vec::new() }
}

#[tokio::test]
async fn p5_without_anybody_online_a_push_is_nothing() {
    let pusher = Pusher::new(LONG);
    assert_eq!(pusher.push(request(1, &[receiver("alice", &[0]), receiver("bob", &[0])])).await, 0);
    assert_eq!(pusher.push(PushRequest::default()).await, 0);
}

#[tokio::test]
async fn p5_a_gateway_gets_what_concerns_its_users_and_no_more() {
    let (one, two) = (Gateway::start(Manner::Takes).await, Gateway::start(Manner::Takes).await);
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
    let push = one.taken().await;
    assert_eq!(push.receivers, [receiver("alice", &[0, 1])]);
    assert_eq!(push.entries, [entry(1), entry(3)]);
    let push = two.taken().await;
    assert_eq!(push.receivers, [receiver("bob", &[0, 1]), receiver("carol", &[])]);
    assert_eq!(push.entries, [entry(2), entry(3)]);
}

#[tokio::test]
async fn p5_a_user_on_two_gateways_gets_it_on_both() {
    let (one, two) = (Gateway::start(Manner::Takes).await, Gateway::start(Manner::Takes).await);
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    pusher.online("alice", &two.address).await;
    let push = request(1, &[receiver("alice", &[0])]);
    assert_eq!(pusher.push(push.clone()).await, 2);
    assert_eq!(one.taken().await, push);
    assert_eq!(two.taken().await, push);
}

#[tokio::test]
async fn receipts_go_the_same_way() {
    let (one, two) = (Gateway::start(Manner::Takes).await, Gateway::start(Manner::Takes).await);
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    pusher.online("bob", &two.address).await;
    let receipt = |users: &[&str]| Receipt {
        receipt: Some(ReadReceipt { conversation: "g:1".into(), user: "erin".into(), conversation_seq: 3 }),
        users: users.iter().map(|user| (*user).to_owned()).collect(),
    };
    let push = PushRequest {
        app: "app".into(),
        receipts: vec![receipt(&["alice", "bob", "nobody"]), receipt(&["nobody"])],
        ..PushRequest::default()
    };
    pusher.push(push).await;
    assert_eq!(one.taken().await.receipts, [receipt(&["alice"])]);
    assert_eq!(two.taken().await.receipts, [receipt(&["bob"])]);
}

#[tokio::test]
async fn p5_gateways_that_are_dead_or_fail_cost_others_nothing_and_are_asked_again() {
    let alive = Gateway::start(Manner::Takes).await;
    let failing = Gateway::start(Manner::Fails).await;
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &alive.address).await;
    pusher.online("bob", "127.0.0.1:1").await;
    pusher.online("carol", &failing.address).await;
    for _ in 0..3 {
        let everybody = [receiver("alice", &[0]), receiver("bob", &[0]), receiver("carol", &[0])];
        assert_eq!(pusher.push(request(1, &everybody)).await, 1);
        alive.taken().await;
        failing.taken().await;
    }
}

#[tokio::test]
async fn p5_a_gateway_that_hangs_does_not_hold_up_the_others_and_comes_back() {
    let deadline = Duration::from_millis(500);
    let alive = Gateway::start(Manner::Takes).await;
    let hanging = Gateway::start(Manner::Hangs).await;
    let pusher = Pusher::new(deadline);
    pusher.online("alice", &alive.address).await;
    pusher.online("bob", &hanging.address).await;
    let push = request(1, &[receiver("alice", &[0]), receiver("bob", &[0])]);
    assert_eq!(pusher.push(push.clone()).await, 1);
    // From now on it rests, so a push waits for nobody.
    let began = Instant::now();
    for _ in 0..5 {
        assert_eq!(pusher.push(push.clone()).await, 1);
    }
    assert!(began.elapsed() < deadline, "pushes waited {:?} for a gateway that hangs", began.elapsed());
    hanging.set(Manner::Takes);
    gateways::eventually("the gateway is asked again", async || pusher.push(push.clone()).await == 2).await;
}

#[tokio::test]
async fn p7_a_push_as_large_as_a_batch_gets_through() {
    let one = Gateway::start(Manner::Takes).await;
    let pusher = Pusher::new(LONG);
    pusher.online("alice", &one.address).await;
    let mut push = request(1, &[receiver("alice", &[0])]);
    push.entries[0].client_msg_id = "x".repeat(8 << 20);
    assert_eq!(pusher.push(push).await, 1);
}
