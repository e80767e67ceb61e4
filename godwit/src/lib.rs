//! All of Godwit in one process, with nothing beside it: the program `godwit`.
//!
//! It holds no logic of its own. It opens the embedded log and store in one folder, takes the cache from memory, and puts
//! the same services together that run as programs of their own elsewhere; they call each other in process. It
//! promises that one folder is used by one process only, and that what stands in it survives any end of that process.
//!
//! [`transfer`] has its other commands: data as a whole, exported, imported, compared and backed up.

mod operator;
pub mod transfer;

use abi::{MESSAGES_TOPIC, config::Config};
use anyhow::Context as _;
use cache::{Cache, MemoryCache};
use kafka_runtime::{Consumer, ConsumerConfig, DeadLetters, Letters, Log, LogConfig, LogTopic, Producer};
use std::{path::Path, sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{Phase, Shutdown, grpc};
use ws_gateway::{App, Dependencies};

pub use ws_gateway::drain_limit;

/// A call between services of this process that takes longer has failed.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Records in flight have so long to reach the log when the process stops.
const FLUSH: Duration = Duration::from_secs(5);
/// In one process there is one gateway, and its address is never dialled.
const GATEWAY: &str = "in-process:0";
/// The consumer group of the one consumer.
const GROUP: &str = "godwit";

/// Where the started program can be reached.
#[derive(Debug)]
pub struct Started {
    /// HTTP and WebSocket, `http://HOST:PORT` or `https://HOST:PORT`.
    pub url: String,
    /// `/livez`, `/readyz`, `/metrics`, and dead letters for who has the operator's token.
    pub admin: std::net::SocketAddr,
}

/// What is wrong with what the program takes from the configuration beyond the values themselves.
pub fn check(config: &Config) -> Vec<String> {
    utils::tls::ServerTls::config_errors(&config.gateway)
}

/// Opens everything, binds, and runs it as tasks of `shutdown`.
///
/// # Errors
/// A sentence: the folder is in use or can't be written, an address is taken.
pub async fn start(mut config: Config, shutdown: &Shutdown) -> anyhow::Result<Started> {
    describe_metrics();
    // The embedded log has one topic, whatever the configuration calls that in Kafka.
    config.kafka.topic = MESSAGES_TOPIC.into();
    let data = Path::new(&config.embedded.data);
    let listener = grpc::bind(&config.gateway.listen).await?;
    let admin = grpc::bind(&config.gateway.admin_listen).await?;
    let admin_address = admin.local_addr()?;
    let log = open_log(data, &config)?;
    let store = db_service::embedded(&data.join(transfer::STORE), &config)
        .with_context(|| format!("the store in {} can't be opened", data.display()))?;
    let db = grpc::local(Routes::new(store), CALL_DEADLINE);
    let cache: Arc<dyn Cache> = Arc::new(MemoryCache::default());
    let producer: Arc<dyn Producer> = Arc::new(log.clone());

    // The gateway calls the pusher and the pusher calls the gateway: the second of them is looked up when it is called.
    let gateway_channel = Arc::new(std::sync::OnceLock::<abi::Channel>::new());
    let gateways = {
        let channel = gateway_channel.clone();
        Arc::new(move |_: &str| channel.get().expect("set before anything runs").clone())
    };
    let push = pusher::server(cache.clone(), gateways.clone(), CALL_DEADLINE);
    let push = grpc::local(Routes::new(push), CALL_DEADLINE);
    let keys = ws_gateway::signing_keys(&config, db.clone()).await;
    let dependencies = Dependencies {
        db: db.clone(),
        push: push.clone(),
        gateways,
        cache: cache.clone(),
        producer: producer.clone(),
    };
    let app = App::build(&config, listener, GATEWAY.into(), &keys, dependencies)?;
    let url = app.url();
    gateway_channel.get_or_init(|| grpc::local(Routes::new(app.grpc()), CALL_DEADLINE));

    let consumer = consume(&log, db, push, cache, &config)?;
    let stop = shutdown.token(Phase::FinishWork);
    shutdown.tasks().spawn_critical("consumer", consumer.run(stop));
    let letters = Letters::new(Arc::new(log.archive(&dead_letter_topic())?), producer.clone());
    let operator = operator::token(data, &config.operator.token)?;
    let letters = consumer::letters::routes(letters, &config.app, operator);
    shutdown.on(Phase::Flush, "log", async move {
        if let Err(error) = producer.flush(FLUSH).await {
            tracing::warn!(%error, "the log was not flushed in time; what was not acknowledged may be missing");
        }
    });
    app.run(shutdown);
    let readiness = shutdown.readiness().clone();
    readiness.latch("log").ready();
    let stop = shutdown.token(Phase::Telemetry);
    shutdown.tasks().spawn("admin", utils::admin::serve(admin, readiness, letters, stop));
    Ok(Started { url, admin: admin_address })
}

fn describe_metrics() {
    kafka_runtime::describe_metrics();
    consumer::describe_metrics();
    db_service::describe_metrics();
    pusher::describe_metrics();
    ws_gateway::describe_metrics();
}

/// What brings the log's records into the store and to the devices.
fn consume(
    log: &Log,
    db: abi::Channel,
    push: abi::Channel,
    cache: Arc<dyn Cache>,
    config: &Config,
) -> anyhow::Result<Consumer> {
    let handler = consumer::handler(db.clone(), push, cache);
    let source = Arc::new(log.source(GROUP, &[MESSAGES_TOPIC])?);
    Ok(Consumer::batches(source, handler)
        .dead_letters(DeadLetters::new(Arc::new(log.clone()), dead_letter_topic()))
        .config(ConsumerConfig {
            max_records: config.consumer.max_batch as usize,
            ..ConsumerConfig::default()
        })
        .before_commit(consumer::before_commit(db)))
}

fn dead_letter_topic() -> String {
    format!("{MESSAGES_TOPIC}.dead")
}

fn open_log(data: &Path, config: &Config) -> anyhow::Result<Log> {
    let topics = vec![LogTopic::new(MESSAGES_TOPIC, 1), LogTopic::kept(dead_letter_topic())];
    let settings = LogConfig {
        max_backlog: config.embedded.max_backlog as usize,
        produce_timeout: config.kafka.produce_timeout,
        ..LogConfig::new(data.join(transfer::LOG), topics)
    };
    Log::open(settings).map_err(|error| match error {
        kafka_runtime::Error::Locked { .. } => anyhow::anyhow!(
            "the data in {} are in use by another godwit; stop it, or choose another folder with --data",
            data.display()
        ),
        error => anyhow::Error::new(error).context(format!("the log in {} can't be opened", data.display())),
    })
}
