//! The program: a gateway over Kafka and Redis that finds the other services by discovery.

use crate::{
    dependencies::Dependencies,
    gateway::{Gateway, drain_limit, signing_keys},
};
use abi::config::Config;
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use kafka_runtime::{
    Producer,
    kafka::{KafkaConfig, KafkaProducer, KafkaProducerConfig},
};
use std::{sync::Arc, time::Duration};
use tokio::net::TcpListener;
use tonic::service::Routes;
use utils::{
    Shutdown,
    cli::{Program, Threads},
    discovery::Discovery,
    grpc::{self, KeyedPool, balanced},
    host::{Host, announce},
    listener,
    tls::{self, MutualTls, ServerTls},
};

/// The program `ws-gateway`.
pub const PROGRAM: Program = Program {
    name: "ws-gateway",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.gateway.admin_listen,
    threads: Threads::Cores,
    drain_limit,
    check,
};
/// Deadline of a call to another gateway.
const PEER_DEADLINE: Duration = Duration::from_secs(2);
/// A connection to another gateway is closed after this idle time.
const PEER_IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Most gateways to which connections are kept.
const MAX_PEERS: usize = 1_024;

/// The program before it runs: its listeners are bound, and no task is started.
pub struct App {
    config: Config,
    listener: TcpListener,
    host: Host,
    tls: Option<MutualTls>,
    discovery: Discovery,
    cache: Arc<dyn Cache>,
}

/// Binds the addresses of a gateway. Its dependencies need not be reachable yet.
///
/// # Errors
/// An address can't be bound, or an address or URL in the configuration is invalid.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    kafka_runtime::describe_metrics();
    cache::describe_metrics();
    crate::describe_metrics();
    let gateway = &config.gateway;
    let tls = MutualTls::new(&config.tls, PROGRAM.name)?;
    let host = Host::bind(&gateway.grpc_listen, &gateway.grpc_advertise, &gateway.admin_listen).await?;
    Ok(App {
        listener: listener::bind(&gateway.listen).await?,
        host: host.tls(tls.clone()),
        tls,
        discovery: Discovery::new(&config.discovery)?,
        cache: Arc::new(RedisCache::new(&config.redis).context("redis.url")?),
        config: config.clone(),
    })
}

/// Config errors that only this program can detect: unusable files, URLs and build features.
fn check(config: &Config) -> Vec<String> {
    let mut errors = ServerTls::config_errors(&config.gateway);
    errors.extend(MutualTls::config_errors(&config.tls, PROGRAM.name));
    errors.extend(tls::checks::consul(&config.discovery));
    errors.extend(tls::checks::kafka(&config.kafka, kafka_runtime::TLS));
    errors.extend(RedisCache::new(&config.redis).err().map(|error| error.to_string()));
    errors
}

impl App {
    /// Waits until db-service has given the signing keys, then serves until `shutdown`. Returns once everything runs. The
    /// program is ready, and registered, when db-service, Redis and Kafka have answered.
    ///
    /// # Errors
    /// An address in the configuration is not `host:port`, or a setting of Kafka, TLS or Argon2id is invalid.
    pub async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { config, listener, host, tls, discovery, cache } = self;
        // The latch exists before the first probe answers, so that the program is not ready without db-service.
        let db_latch = shutdown.readiness().latch("db-service");
        let address = host.advertised().to_owned();
        let host = host.serve_admin(shutdown);
        let producer: Arc<dyn Producer> = Arc::new(producer(&config)?);
        shutdown.probe("redis", cache::probe(Arc::clone(&cache)));
        let probed = Arc::clone(&producer);
        shutdown.probe("kafka", move || std::future::ready(probed.health().into_result()));

        let options = grpc::Options { tls: tls.clone(), ..grpc::Options::default() };
        let instances = discovery.watch("db-service", &config.discovery.db)?;
        let db = balanced("db-service", instances, options.clone());
        let push = balanced("pusher", discovery.watch("pusher", &config.discovery.pusher)?, options);
        let peers = KeyedPool::new(PROGRAM.name, PEER_DEADLINE, PEER_IDLE_TIMEOUT, MAX_PEERS).tls(tls);
        let keys = signing_keys(&config, db.clone()).await;
        db_latch.ready();
        let dependencies = Dependencies {
            db,
            push,
            gateways: Arc::new(move |address| peers.get(address)),
            cache,
            producer: Arc::clone(&producer),
        };
        let gateway = Gateway::build(&config, listener, address, &keys, dependencies)?;
        let url = gateway.url();
        host.serve(PROGRAM.name, PROGRAM.version, Routes::new(gateway.grpc()), &discovery, shutdown)?;
        gateway.run(shutdown);
        shutdown.flush(move |timeout| async move { producer.flush(timeout).await });
        announce(format_args!("listening on {url}"));
        Ok(())
    }
}

fn producer(config: &Config) -> Result<KafkaProducer, kafka_runtime::Error> {
    let kafka = &config.kafka;
    let brokers = KafkaConfig::with_options(kafka.brokers.clone(), "godwit-ws-gateway", &kafka.options())?;
    let settings = KafkaProducerConfig {
        linger_ms: u32::try_from(kafka.linger.as_millis()).unwrap_or(u32::MAX),
        timeout: kafka.produce_timeout,
        ..KafkaProducerConfig::default()
    };
    KafkaProducer::new(&brokers, settings)
}
