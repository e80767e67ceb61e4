use super::*;
use crate::{Readiness, Shutdown, grpc, testing::eventually};
use abi::config::Secret;
use std::time::{Duration, Instant};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// The shared Consul of a test run.
fn consul() -> String {
    std::env::var("GODWIT_TEST_CONSUL").expect(
        "GODWIT_TEST_CONSUL is not set: run tests/run, or set it to http://host:port of a Consul agent",
    )
}

/// A prefix that no other test run has.
fn prefix() -> String {
    format!("test-{:016x}", rand::random::<u64>())
}

fn discovery(agent: &str, prefix: &str) -> Discovery {
    let config = abi::config::Discovery {
        kind: DiscoveryKind::Consul,
        consul: agent.to_owned(),
        consul_token: Secret::default(),
        prefix: prefix.to_owned(),
        ..abi::config::Discovery::default()
    };
    Discovery::new(&config).unwrap()
}

fn instance(address: String) -> Instance {
    Instance { service: "db".into(), address, version: "1".into(), zone: "here".into() }
}

/// A process with a gRPC server that is registered.
struct Process {
    address: String,
    shutdown: Shutdown,
}

impl Process {
    async fn start(discovery: &Discovery) -> Self {
        let shutdown = Shutdown::new(Duration::from_secs(10));
        let listener = grpc::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = grpc::Server::new(Routes::default(), &[], shutdown.readiness().clone());
        let stop = shutdown.token(crate::Phase::StopAccepting);
        shutdown.tasks().spawn_critical("grpc", server.serve(listener, stop));
        Registrar::new(discovery, instance(address.clone())).unwrap().attach(&shutdown);
        Self { address, shutdown }
    }

    async fn stop(&self) {
        self.shutdown.drain().begin("test");
        self.shutdown.run().await;
        assert!(!self.shutdown.tasks().failed());
    }
}

async fn seen(instances: &mut Instances, address: &str, there: bool) -> Duration {
    let start = Instant::now();
    let waited = instances.wait_for(|set| set.contains(address) == there);
    tokio::time::timeout(Duration::from_secs(10), waited).await.expect("the change is seen");
    start.elapsed()
}

#[tokio::test]
async fn p9_an_instance_is_seen_at_once_when_it_is_ready_and_gone_at_once_when_it_stops() {
    let discovery = discovery(&consul(), &prefix());
    let mut instances = discovery.watch("db", &[]).unwrap();
    let one = Process::start(&discovery).await;
    let two = Process::start(&discovery).await;
    assert!(instances.current().is_empty(), "not ready, so not registered");
    one.shutdown.readiness().latch("test").ready();
    assert!(seen(&mut instances, &one.address, true).await < Duration::from_secs(1));
    two.shutdown.readiness().latch("test").ready();
    assert!(seen(&mut instances, &two.address, true).await < Duration::from_secs(1));
    assert_eq!(instances.current().len(), 2);

    let (gone_after, ()) = tokio::join!(seen(&mut instances, &one.address, false), one.stop());
    assert!(gone_after < Duration::from_secs(1), "{gone_after:?}");
    assert_eq!(instances.current(), Addresses::from([two.address.clone()]));
    two.stop().await;
}

#[tokio::test]
async fn p9_an_instance_that_is_not_ready_any_more_is_taken_off_by_its_health_check() {
    let discovery = discovery(&consul(), &prefix());
    let mut instances = discovery.watch("db", &[]).unwrap();
    let process = Process::start(&discovery).await;
    let latch = process.shutdown.readiness().latch("postgres");
    latch.ready();
    seen(&mut instances, &process.address, true).await;
    latch.unready("away");
    seen(&mut instances, &process.address, false).await;
    latch.ready();
    seen(&mut instances, &process.address, true).await;
    process.stop().await;
}

#[tokio::test]
async fn an_instance_that_the_agent_has_lost_registers_again() {
    let (agent, prefix) = (consul(), prefix());
    let discovery = discovery(&agent, &prefix);
    let mut instances = discovery.watch("db", &[]).unwrap();
    let process = Process::start(&discovery).await;
    process.shutdown.readiness().latch("test").ready();
    seen(&mut instances, &process.address, true).await;

    let client = Client::new(&agent, &Secret::default()).unwrap();
    let id = format!("{prefix}-db-{}", process.address.replace(':', "-"));
    let path = format!("/v1/agent/service/deregister/{id}");
    client.put(&path, &serde_json::Value::Null, Duration::from_secs(2)).await.unwrap();
    seen(&mut instances, &process.address, false).await;
    seen(&mut instances, &process.address, true).await;
    process.stop().await;
}

/// Stands between us and the agent, and can be taken away.
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
async fn p9_while_consul_is_away_the_last_known_set_stays_and_then_changes_again() {
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
    seen(&mut instances, &one.address, true).await;

    stop.cancel();
    proxies.join_next().await;
    let two = Process::start(&direct).await;
    two.shutdown.readiness().latch("test").ready();
    seen(&mut direct.watch("db", &[]).unwrap(), &two.address, true).await;
    assert_eq!(instances.current(), Addresses::from([one.address.clone()]), "away: nothing changes");

    let listener = TcpListener::bind(address).await.unwrap();
    proxies.spawn(proxy(through, listener, CancellationToken::new()));
    seen(&mut instances, &two.address, true).await;
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn an_agent_that_can_t_be_reached_gives_an_empty_set_and_stops_nobody() {
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
async fn what_follows_a_service_ends_with_the_last_who_wants_to_know() {
    let (ended, mut has_ended) = tokio::sync::oneshot::channel::<()>();
    let instances = Instances::followed(|set| async move {
        let _ended = ended;
        set.send_replace(Addresses::from(["a:1".to_owned()]));
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
async fn names_are_resolved() {
    let config = abi::config::Discovery { kind: DiscoveryKind::Dns, ..abi::config::Discovery::default() };
    let mut instances = Discovery::new(&config).unwrap().watch("db", &["localhost:7471".to_owned()]).unwrap();
    instances.wait_for(|set| set.contains("127.0.0.1:7471")).await;
}

#[tokio::test]
async fn fixed_addresses_are_what_they_are() {
    let fixed = Discovery::new(&abi::config::Discovery::default()).unwrap();
    let mut instances = fixed.watch("db", &["a:1".to_owned(), "b:2".to_owned()]).unwrap();
    assert_eq!(instances.current(), Addresses::from(["a:1".to_owned(), "b:2".to_owned()]));
    let registrar = Registrar::new(&fixed, instance("a:1".into())).unwrap();
    registrar.run(Readiness::new(), CancellationToken::new()).await;
}

#[test]
fn addresses_are_told_from_nonsense() {
    for address in ["db:7471", "10.0.0.1:1", "[::1]:80", "a.b.c:65535"] {
        check_address(address).unwrap();
    }
    for text in ["", "db", ":80", "db:", "db:99999", "http://db:1", "u@db:1", "a b:1"] {
        assert!(check_address(text).is_err(), "{text}");
    }
    for agent in ["consul:8500", "https://consul:8500", "http://consul"] {
        assert!(Client::new(agent, &Secret::default()).is_err(), "{agent}");
    }
}
