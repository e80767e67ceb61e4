//! The program: records from Kafka, members and counters in Redis, db-service and pusher found through discovery.

use abi::{
    Caller, Channel,
    config::{self, Config, Secret},
    v1::{SyncRequest, db_service_client::DbServiceClient},
};
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use kafka_runtime::{
    Consumer, ConsumerConfig, DeadLetters, Health, Letters, Producer, Source,
    kafka::{KafkaArchive, KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource, KafkaSourceConfig},
    topics::{TopicSpec, ensure},
};
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    discovery::Discovery,
    grpc::{self, balanced},
    host::Host,
    tls::{self, MutualTls},
};

/// Name of the service in discovery.
const NAME: &str = "consumer";
/// Dependencies are asked this often whether they answer.
const PROBE: Duration = Duration::from_secs(2);
/// Brokers have so long to answer before it is said that they don't.
const TOPICS: Duration = Duration::from_secs(20);
/// Dead letters in flight have so long to reach the log when the process stops.
const FLUSH: Duration = Duration::from_secs(5);

/// Bound and not running.
#[derive(Debug)]
pub struct App {
    host: Host,
    tls: Option<MutualTls>,
    cache: Arc<RedisCache>,
    discovery: Discovery,
    addresses: config::Discovery,
    kafka: config::Kafka,
    max_batch: u32,
    app: String,
    operator: Secret,
}

/// Binds the addresses of a consumer. Needs none of its dependencies yet.
///
/// # Errors
/// An address can't be bound, or a URL or an address in the configuration is none.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    kafka_runtime::describe_metrics();
    cache::describe_metrics();
    crate::describe_metrics();
    let consumer = &config.consumer;
    let tls = MutualTls::new(&config.tls, NAME)?;
    Ok(App {
        cache: Arc::new(RedisCache::new(&config.redis).context("redis.url")?),
        discovery: Discovery::new(&config.discovery)?,
        addresses: config.discovery.clone(),
        host: Host::bind(&consumer.grpc_listen, "", &consumer.admin_listen).await?.tls(tls.clone()),
        tls,
        kafka: config.kafka.clone(),
        max_batch: consumer.max_batch,
        app: config.app.clone(),
        operator: config.operator.token.clone(),
    })
}

impl App {
    /// Waits for Kafka, which must have the topics, then consumes until `shutdown` stops it; returns once everything is
    /// running. It is ready when Kafka, db-service and Redis have answered; until then records wait in the log.
    ///
    /// # Errors
    /// An address in the configuration is not `host:port`, or a setting of Kafka or a topic can't be used.
    pub async fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { host, tls, cache, discovery, addresses, kafka, max_batch, app, operator } = self;
        let options = grpc::Options { tls, ..grpc::Options::default() };
        let db = balanced("db-service", discovery.watch("db-service", &addresses.db)?, options.clone());
        let push = balanced("pusher", discovery.watch("pusher", &addresses.pusher)?, options);
        let brokers = brokers(&kafka)?;
        let producer: Arc<dyn Producer> =
            Arc::new(KafkaProducer::new(&brokers, KafkaProducerConfig::default())?);
        let source: Arc<dyn Source> = Arc::new(KafkaSource::new(KafkaSourceConfig {
            session_timeout: kafka.session_timeout,
            ..KafkaSourceConfig::new(brokers.clone(), &kafka.group, &[&kafka.topic])
        }));
        probes(shutdown, Arc::clone(&source), db.clone(), Arc::clone(&cache));
        let archive = Arc::new(KafkaArchive::new(brokers.clone(), dead_letter_topic(&kafka)));
        let letters = Letters::new(archive, Arc::clone(&producer));
        let grpc =
            host.operator_routes(crate::letters::routes(letters, &app, operator)).serve_admin(shutdown);
        // Nobody calls a consumer; its health is for whoever watches it.
        grpc.serve(NAME, env!("CARGO_PKG_VERSION"), Routes::default(), &discovery, shutdown)?;

        let handler = crate::handler(db.clone(), push, cache);
        let dead_letters = DeadLetters::new(Arc::clone(&producer), dead_letter_topic(&kafka));
        let consumer = Consumer::batches(source, handler)
            .named(NAME)
            .dead_letters(dead_letters)
            .config(ConsumerConfig {
                max_records: usize::try_from(max_batch).unwrap_or(usize::MAX).max(1),
                ..ConsumerConfig::default()
            })
            .before_commit(crate::before_commit(db));
        ensure_topics(&brokers, &kafka).await?;
        let stop = shutdown.token(Phase::FinishWork);
        shutdown.tasks().spawn_critical("consumer", consumer.run(stop));
        shutdown.on(Phase::Flush, "producer", async move {
            if let Err(error) = producer.flush(FLUSH).await {
                tracing::warn!(%error, "dead letters were not flushed in time; their records will be delivered again");
            }
        });
        Ok(())
    }
}

/// What is wrong with what the program `consumer` takes from the configuration beyond the values themselves.
pub fn check(config: &Config) -> Vec<String> {
    let mut faults = MutualTls::config_errors(&config.tls, NAME);
    faults.extend(tls::checks::consul(&config.discovery));
    faults.extend(tls::checks::kafka(&config.kafka, kafka_runtime::TLS));
    faults.extend(RedisCache::new(&config.redis).err().map(|error| error.to_string()));
    faults
}

/// How to reach the brokers.
fn brokers(kafka: &config::Kafka) -> Result<KafkaConfig, kafka_runtime::Error> {
    KafkaConfig::with_options(kafka.brokers.clone(), "godwit-consumer", &kafka.options())
}

fn dead_letter_topic(kafka: &config::Kafka) -> String {
    format!("{}.dead", kafka.topic)
}

/// Makes the topics, for as long as it takes.
async fn ensure_topics(brokers: &KafkaConfig, kafka: &config::Kafka) -> Result<(), kafka_runtime::Error> {
    use kafka_runtime::Error;

    let spec = |name: &str, partitions| TopicSpec {
        allow_fewer_replicas: kafka.allow_fewer_replicas,
        ..TopicSpec::new(name, partitions, kafka.replication)
    };
    let mut dead = spec(&dead_letter_topic(kafka), 1);
    // They are for people, who may be on holiday.
    dead.settings.push(("retention.ms".into(), "-1".into()));
    let specs = [spec(&kafka.topic, kafka.partitions), dead];
    loop {
        match ensure(brokers, &specs, TOPICS).await {
            Err(error @ (Error::Kafka { .. } | Error::Unreachable { .. } | Error::NotReady { .. })) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "kafka is not ready; waiting for it"
                );
            }
            result => return result,
        }
    }
}

/// Keeps the latches of all dependencies.
fn probes(shutdown: &Shutdown, source: Arc<dyn Source>, db: Channel, cache: Arc<RedisCache>) {
    let latch = |name: &str| shutdown.readiness().latch(name);
    let stop = shutdown.drain().token();
    let health = move || {
        std::future::ready(match source.health() {
            Health::Ready => Ok(()),
            Health::Starting => Err("no broker has answered yet".to_owned()),
            Health::Failing { reason } => Err(reason),
        })
    };
    shutdown.tasks().spawn("probe kafka", latch("kafka").probe(PROBE, stop.clone(), health));
    let client = DbServiceClient::new(Caller::new(db));
    let sync = move || {
        let mut client = client.clone();
        async move { client.sync(SyncRequest {}).await.map(drop).map_err(|status| status.message().to_owned()) }
    };
    shutdown.tasks().spawn("probe db-service", latch("db-service").probe(PROBE, stop.clone(), sync));
    let ping = move || {
        let cache = Arc::clone(&cache);
        async move { cache.ping().await.map_err(|error| error.to_string()) }
    };
    shutdown.tasks().spawn("probe redis", latch("redis").probe(PROBE, stop, ping));
}
