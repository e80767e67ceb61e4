//! The program: reads records from Kafka, keeps members and receiver seqs in Redis, finds db-service and pusher by
//! discovery.

use abi::{
    Caller, Channel,
    config::{self, Config, Secret},
    dead_letter_topic,
    v1::{SyncRequest, db_service_client::DbServiceClient},
};
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use kafka_runtime::{
    Consumer, ConsumerConfig, DeadLetters, Letters, Producer, Source,
    kafka::{KafkaArchive, KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource, KafkaSourceConfig},
    topics::{TopicSpec, ensure},
};
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    cli::{Program, Threads},
    discovery::Discovery,
    grpc::{self, balanced},
    host::Host,
    tls::{self, MutualTls},
};

/// The program `consumer`.
pub const PROGRAM: Program = Program {
    name: "consumer",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.consumer.admin_listen,
    threads: Threads::Cores,
    drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(25),
    check,
};
/// Timeout of one attempt to create the topics. After it, the program logs that the brokers don't answer, and tries again.
const TOPICS_TIMEOUT: Duration = Duration::from_secs(20);

/// The program before it runs: its listeners are bound, and no task is started.
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

/// Binds the addresses of a consumer. Its dependencies need not be reachable yet.
///
/// # Errors
/// An address can't be bound, or an address or URL in the configuration is invalid.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    kafka_runtime::describe_metrics();
    cache::describe_metrics();
    crate::describe_metrics();
    let consumer = &config.consumer;
    let tls = MutualTls::new(&config.tls, PROGRAM.name)?;
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

/// Config errors that only this program can detect: unusable files, URLs and build features.
fn check(config: &Config) -> Vec<String> {
    let mut errors = MutualTls::config_errors(&config.tls, PROGRAM.name);
    errors.extend(tls::checks::consul(&config.discovery));
    errors.extend(tls::checks::kafka(&config.kafka, kafka_runtime::TLS));
    errors.extend(RedisCache::new(&config.redis).err().map(|error| error.to_string()));
    errors
}

impl App {
    /// Waits until the topics exist in Kafka, then consumes until `shutdown`. Returns once everything runs. The program is
    /// ready when Kafka, db-service and Redis have answered; until then records wait in the log.
    ///
    /// # Errors
    /// An address in the configuration is not `host:port`, or Kafka rejects a setting or a topic.
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
        probe(shutdown, Arc::clone(&source), db.clone(), Arc::clone(&cache) as _);
        let archive = Arc::new(KafkaArchive::new(brokers.clone(), dead_letter_topic(&kafka.topic)));
        let letters = Letters::new(archive, Arc::clone(&producer));
        let grpc =
            host.operator_routes(crate::dead_letters::routes(letters, &app, operator)).serve_admin(shutdown);
        // The consumer has no gRPC service of its own: this serves health checks only.
        grpc.serve(PROGRAM.name, PROGRAM.version, Routes::default(), &discovery, shutdown)?;

        let handler = crate::handler(db.clone(), push, cache);
        let dead_letters = DeadLetters::new(Arc::clone(&producer), dead_letter_topic(&kafka.topic));
        let consumer = Consumer::batches(source, handler)
            .named(PROGRAM.name)
            .dead_letters(dead_letters)
            .config(ConsumerConfig {
                max_records: usize::try_from(max_batch).unwrap_or(usize::MAX).max(1),
                ..ConsumerConfig::default()
            })
            .start_offsets(crate::start_offsets(db.clone()))
            .before_commit(crate::before_commit(db));
        ensure_topics(&brokers, &kafka).await?;
        let stop = shutdown.token(Phase::FinishWork);
        shutdown.tasks().spawn_critical("consumer", consumer.run(stop));
        shutdown.flush(move |timeout| async move { producer.flush(timeout).await });
        Ok(())
    }
}

fn brokers(kafka: &config::Kafka) -> Result<KafkaConfig, kafka_runtime::Error> {
    KafkaConfig::with_options(kafka.brokers.clone(), "godwit-consumer", &kafka.options())
}

/// Creates the topics. Retries as long as Kafka is unavailable.
async fn ensure_topics(brokers: &KafkaConfig, kafka: &config::Kafka) -> Result<(), kafka_runtime::Error> {
    use kafka_runtime::Error;

    let spec = |name: &str, partitions| TopicSpec {
        allow_fewer_replicas: kafka.allow_fewer_replicas,
        ..TopicSpec::new(name, partitions, kafka.replication)
    };
    let mut dead = spec(&dead_letter_topic(&kafka.topic), 1);
    // Dead letters wait for an operator, however long that takes: no retention limit.
    dead.settings.push(("retention.ms".into(), "-1".into()));
    let specs = [spec(&kafka.topic, kafka.partitions), dead];
    loop {
        match ensure(brokers, &specs, TOPICS_TIMEOUT).await {
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

/// Probes all dependencies for readiness.
fn probe(shutdown: &Shutdown, source: Arc<dyn Source>, db: Channel, cache: Arc<dyn Cache>) {
    shutdown.probe("kafka", move || std::future::ready(source.health().into_result()));
    let client = DbServiceClient::new(Caller::new(db));
    shutdown.probe("db-service", move || {
        let mut client = client.clone();
        async move { client.sync(SyncRequest {}).await.map(drop).map_err(|status| status.message().to_owned()) }
    });
    shutdown.probe("redis", cache::probe(cache));
}
