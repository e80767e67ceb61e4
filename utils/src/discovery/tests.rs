use super::*;
use crate::{Readiness, Shutdown, grpc, testing::eventually};
use abi::{
    Caller,
    config::Secret,
    v1::{
        PushRequest, PushResponse,
        push_service_client::PushServiceClient,
        push_service_server::{PushService, PushServiceServer},
    },
};
use std::{
    sync::{Arc, Mutex},
    time::Instant,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, service::Routes};

/// The Consul agent that the tests share.
fn consul() -> String {
    std::env::var("GODWIT_TEST_CONSUL").expect(
        "GODWIT_TEST_CONSUL is not set: run tests/run, or set it to http://host:port of a Consul agent",
    )
}

/// A unique prefix, so that concurrent test runs don't see each other.
fn prefix() -> String {
    format!("test-{:016x}", rand::random::<u64>())
}

fn discovery(agent: &str, prefix: &str) -> Discovery {
    zoned(agent, prefix, "here")
}

fn zoned(agent: &str, prefix: &str, zone: &str) -> Discovery {
    let config = abi::config::Discovery {
        zone: zone.to_owned(),
        kind: DiscoveryKind::Consul,
        consul: agent.to_owned(),
        consul_token: Secret::default(),
        prefix: prefix.to_owned(),
        ..abi::config::Discovery::default()
    };
    Discovery::new(&config).unwrap()
}

fn instance(address: String, zone: &str) -> Instance {
    Instance { service: "db".into(), address, version: "1".into(), zone: zone.into(), tls: false }
}

fn addresses(processes: &[&Process]) -> Addresses {
    processes.iter().map(|process| (process.address.clone(), "here".to_owned())).collect()
}

/// A process with a registered gRPC server.
struct Process {
    address: String,
    shutdown: Shutdown,
    calls: Arc<Calls>,
}

/// The arrival times of calls.
#[derive(Default)]
struct Calls(Mutex<Vec<Instant>>);

#[tonic::async_trait]
impl PushService for Calls {
    async fn push(&self, _: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        self.0.lock().unwrap().push(Instant::now());
        Ok(Response::new(PushResponse::default()))
    }
}

impl Process {
    async fn start(discovery: &Discovery) -> Self {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let listener = crate::listener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let calls = Arc::<Calls>::default();
        let routes = Routes::new(PushServiceServer::from_arc(calls.clone()));
        let server = grpc::Server::new(routes, &[], shutdown.readiness().clone());
        let stop = shutdown.token(crate::Phase::StopAccepting);
        shutdown.tasks().spawn_critical("grpc", server.serve(listener, stop));
        Registrar::new(discovery, instance(address.clone(), discovery.zone())).unwrap().attach(&shutdown);
        Self { address, shutdown, calls }
    }

    async fn ready(discovery: &Discovery) -> Self {
        let process = Self::start(discovery).await;
        process.shutdown.readiness().latch("test").ready();
        process
    }

    fn calls(&self) -> usize {
        self.calls.0.lock().unwrap().len()
    }

    async fn stop(&self) {
        self.shutdown.drain().begin("test");
        self.shutdown.run().await;
        assert!(!self.shutdown.tasks().failed());
    }
}

/// Waits until the set contains `address` or no longer does, and returns how long that took.
async fn wait_until(instances: &mut Instances, address: &str, present: bool) -> Duration {
    let start = Instant::now();
    let changed = instances.wait_for(|set| set.contains_key(address) == present);
    tokio::time::timeout(Duration::from_secs(10), changed).await.expect("the set changes within 10 s");
    start.elapsed()
}

#[tokio::test]
async fn p9_discovery_adds_a_ready_instance_and_removes_a_stopping_one_within_a_second() {
    let discovery = discovery(&consul(), &prefix());
    let mut instances = discovery.watch("db", &[]).unwrap();
    let one = Process::start(&discovery).await;
    let two = Process::start(&discovery).await;
    assert!(instances.current().is_empty(), "not ready, so not registered");
    one.shutdown.readiness().latch("test").ready();
    assert!(wait_until(&mut instances, &one.address, true).await < Duration::from_secs(1));
    two.shutdown.readiness().latch("test").ready();
    assert!(wait_until(&mut instances, &two.address, true).await < Duration::from_secs(1));
    assert_eq!(instances.current().len(), 2);

    let (gone_after, ()) = tokio::join!(wait_until(&mut instances, &one.address, false), one.stop());
    assert!(gone_after < Duration::from_secs(1), "{gone_after:?}");
    assert_eq!(instances.current(), addresses(&[&two]));
    two.stop().await;
}

#[tokio::test]
async fn p9_the_health_check_removes_an_instance_that_is_no_longer_ready() {
    let discovery = discovery(&consul(), &prefix());
    let mut instances = discovery.watch("db", &[]).unwrap();
    let process = Process::start(&discovery).await;
    let latch = process.shutdown.readiness().latch("postgres");
    latch.ready();
    wait_until(&mut instances, &process.address, true).await;
    latch.unready("unavailable");
    wait_until(&mut instances, &process.address, false).await;
    latch.ready();
    wait_until(&mut instances, &process.address, true).await;
    process.stop().await;
}

/// Runs eight concurrent callers without retries until `stop`. Returns the number of successful calls and all errors.
async fn call_until(channel: crate::Channel, stop: CancellationToken) -> (usize, Vec<Status>) {
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (mut client, stop) = (PushServiceClient::new(Caller::new(channel.clone())), stop.clone());
        callers.spawn(async move {
            let (mut answered, mut failed) = (0, Vec::new());
            while !stop.is_cancelled() {
                match client.push(PushRequest::default()).await {
                    Ok(_) => answered += 1,
                    Err(status) => failed.push(status),
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            (answered, failed)
        });
    }
    let all = callers.join_all().await;
    let (answered, failed): (Vec<usize>, Vec<_>) = all.into_iter().unzip();
    (answered.iter().sum(), failed.concat())
}

#[tokio::test]
async fn p9_no_call_fails_when_an_instance_leaves_and_none_reaches_it_after_the_grace_period() {
    let discovery = discovery(&consul(), &prefix());
    let (one, two) = (Process::ready(&discovery).await, Process::ready(&discovery).await);
    let mut instances = discovery.watch("db", &[]).unwrap();
    instances.wait_for(|set| set.len() == 2).await;
    // No retries: a retry would hide the error of the first attempt.
    let options = grpc::Options { tries: 1, ..grpc::Options::default() };
    let channel = grpc::balanced("db", instances, options);
    let stop = CancellationToken::new();
    let mut calls = JoinSet::new();
    calls.spawn(call_until(channel, stop.clone()));
    eventually(async || one.calls() > 20 && two.calls() > 20).await;

    let left = Instant::now();
    one.stop().await;
    let stopped = left.elapsed();
    let before = two.calls();
    eventually(async || two.calls() > before + 200).await;
    stop.cancel();
    let (answered, failed) = calls.join_next().await.unwrap().unwrap();
    assert!(failed.is_empty(), "{} of {answered} calls failed: {:?}", failed.len(), failed[0]);
    let last = one.calls.0.lock().unwrap().last().map_or(Duration::ZERO, |last| *last - left);
    println!("{answered} calls, none failed; the last one {last:.0?} after the stop, the end {stopped:.0?}");
    assert!(last < Duration::from_millis(900), "the grace period is too short: {last:?} of {stopped:?}");
    two.stop().await;
}

#[tokio::test]
async fn p9_calls_stay_in_the_callers_zone_until_its_last_instance_stops() {
    let (agent, prefix) = (consul(), prefix());
    let near = Process::ready(&zoned(&agent, &prefix, "here")).await;
    let far = Process::ready(&zoned(&agent, &prefix, "there")).await;
    let mut instances = discovery(&agent, &prefix).watch("db", &[]).unwrap();
    instances.wait_for(|set| set.len() == 2).await;
    let channel = grpc::balanced("db", instances, grpc::Options::default());
    let mut client = PushServiceClient::new(Caller::new(channel));
    for _ in 0..20 {
        client.push(PushRequest::default()).await.unwrap();
    }
    assert_eq!((near.calls(), far.calls()), (20, 0));
    near.stop().await;
    for _ in 0..20 {
        client.push(PushRequest::default()).await.unwrap();
    }
    assert_eq!((near.calls(), far.calls()), (20, 20));
    far.stop().await;
}

#[tokio::test]
async fn an_instance_registers_again_when_the_agent_has_lost_it() {
    let (agent, prefix) = (consul(), prefix());
    let discovery = discovery(&agent, &prefix);
    let mut instances = discovery.watch("db", &[]).unwrap();
    let process = Process::start(&discovery).await;
    process.shutdown.readiness().latch("test").ready();
    wait_until(&mut instances, &process.address, true).await;

    let client = Client::new(&agent, "", &Secret::default()).unwrap();
    let id = format!("{prefix}-db-{}", process.address.replace(':', "-"));
    let path = format!("/v1/agent/service/deregister/{id}");
    client.put(&path, &serde_json::Value::Null, Duration::from_secs(2)).await.unwrap();
    wait_until(&mut instances, &process.address, false).await;
    wait_until(&mut instances, &process.address, true).await;
    process.stop().await;
}

/// A proxy in front of the agent. Stopping it makes the agent unreachable.
async fn proxy(to: String, listener: TcpListener, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => {
                let (mut client, _) = accepted.unwrap();
                let to = to.clone();
                connections.spawn(async move {
                    let mut agent = TcpStream::connect(to).await.unwrap();
                    let _ = copy_bidirectional(&mut client, &mut agent).await;
                });
            }
        }
    }
}

#[tokio::test]
async fn p9_the_last_known_set_stays_while_consul_is_unavailable_and_updates_afterwards() {
    let (agent, prefix) = (consul(), prefix());
    let through = agent.strip_prefix("http://").unwrap().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (mut proxies, stop) = (JoinSet::new(), CancellationToken::new());
    proxies.spawn(proxy(through.clone(), listener, stop.clone()));

    let direct = discovery(&agent, &prefix);
    let mut instances = discovery(&format!("http://{address}"), &prefix).watch("db", &[]).unwrap();
    let one = Process::start(&direct).await;
    one.shutdown.readiness().latch("test").ready();
    wait_until(&mut instances, &one.address, true).await;

    stop.cancel();
    proxies.join_next().await;
    let two = Process::start(&direct).await;
    two.shutdown.readiness().latch("test").ready();
    wait_until(&mut direct.watch("db", &[]).unwrap(), &two.address, true).await;
    assert_eq!(instances.current(), addresses(&[&one]), "consul is unavailable: nothing changes");

    let listener = TcpListener::bind(address).await.unwrap();
    proxies.spawn(proxy(through, listener, CancellationToken::new()));
    wait_until(&mut instances, &two.address, true).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn with_an_unreachable_agent_the_set_is_empty_and_a_stop_does_not_hang() {
    let discovery = discovery("http://127.0.0.1:1", &prefix());
    let mut instances = discovery.watch("db", &[]).unwrap();
    let process = Process::start(&discovery).await;
    process.shutdown.readiness().latch("test").ready();
    assert!(instances.current().is_empty());
    tokio::time::timeout(Duration::from_secs(5), process.stop())
        .await
        .expect("stopping does not wait for consul");
}

#[tokio::test]
async fn the_updating_task_ends_when_the_last_clone_is_dropped() {
    let (ended, mut has_ended) = tokio::sync::oneshot::channel::<()>();
    let instances = Instances::updated_by(|set| async move {
        let _ended = ended;
        set.send_replace(Addresses::from([("a:1".to_owned(), String::new())]));
        std::future::pending().await
    });
    let mut clone = instances.clone();
    drop(instances);
    clone.wait_for(|set| !set.is_empty()).await;
    assert!(has_ended.try_recv().is_err_and(|e| e == tokio::sync::oneshot::error::TryRecvError::Empty));
    drop(clone);
    eventually(async || {
        has_ended.try_recv().is_err_and(|e| e != tokio::sync::oneshot::error::TryRecvError::Empty)
    })
    .await;
}

#[tokio::test]
async fn dns_names_are_resolved() {
    let config = abi::config::Discovery { kind: DiscoveryKind::Dns, ..abi::config::Discovery::default() };
    let mut instances = Discovery::new(&config).unwrap().watch("db", &["localhost:7471".to_owned()]).unwrap();
    instances.wait_for(|set| set.contains_key("127.0.0.1:7471")).await;
}

#[tokio::test]
async fn fixed_addresses_are_used_as_configured() {
    let fixed = Discovery::new(&abi::config::Discovery::default()).unwrap();
    let mut instances = fixed.watch("db", &["a:1".to_owned(), "b:2".to_owned()]).unwrap();
    assert_eq!(instances.current().into_keys().collect::<Vec<_>>(), ["a:1", "b:2"]);
    let registrar = Registrar::new(&fixed, instance("a:1".into(), "")).unwrap();
    let readiness = Readiness::new();
    readiness.latch("test").ready();
    let ended =
        tokio::time::timeout(Duration::from_secs(5), registrar.run(readiness, CancellationToken::new()));
    ended.await.expect("with fixed addresses clients cannot notice, so there is no grace period");
}

#[test]
fn invalid_addresses_are_rejected() {
    for address in ["db:7471", "10.0.0.1:1", "[::1]:80", "a.b.c:65535"] {
        check_address(address).unwrap();
    }
    for text in ["", "db", ":80", "db:", "db:99999", "http://db:1", "u@db:1", "a b:1"] {
        assert!(check_address(text).is_err(), "{text}");
    }
    for agent in ["consul:8500", "ftp://consul:8500", "http://consul"] {
        assert!(Client::new(agent, "", &Secret::default()).is_err(), "{agent}");
    }
}
