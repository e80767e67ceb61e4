//! The program `ws-gateway`.

use abi::config::Config;
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use clap::Parser;
use kafka_runtime::{
    Health, Producer,
    kafka::{KafkaConfig, KafkaProducer, KafkaProducerConfig},
};
use std::{process::ExitCode, sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    cli::{Options, Program, Threads, run_main},
    discovery::Discovery,
    grpc::{self, KeyedPool, balanced},
    host::{Host, announce},
    tls::MutualTls,
};
use ws_gateway::{App, Dependencies, NAME, signing_keys};

/// Dependencies are asked this often whether they answer.
const PROBE: Duration = Duration::from_secs(2);
/// A gateway that was asked about a log-out has so long.
const PEER_DEADLINE: Duration = Duration::from_secs(2);
/// Records in flight have so long to reach the log when the process stops.
const FLUSH: Duration = Duration::from_secs(5);

/// The edge of Godwit: HTTP for accounts and groups, a WebSocket per device.
#[derive(Parser)]
#[command(name = "ws-gateway", version)]
struct Args {
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    let program = Program {
        name: NAME,
        version: env!("CARGO_PKG_VERSION"),
        admin: |config| &config.gateway.admin_listen,
        threads: Threads::Cores,
        drain_limit: ws_gateway::drain_limit,
        check: ws_gateway::check,
    };
    run_main(program, &Args::parse().options, |config, shutdown| async move {
        start(&config, &shutdown, program.version).await
    })
}

async fn start(config: &Config, shutdown: &Shutdown, version: &str) -> anyhow::Result<()> {
    kafka_runtime::describe_metrics();
    cache::describe_metrics();
    ws_gateway::describe_metrics();
    let gateway = &config.gateway;
    let tls = MutualTls::new(&config.tls, NAME)?;
    let listener = grpc::bind(&gateway.listen).await?;
    let host = Host::bind(&gateway.grpc_listen, &gateway.grpc_advertise, &gateway.admin_listen)
        .await?
        .tls(tls.clone());
    let discovery = Discovery::new(&config.discovery)?;
    let host = host.serve_admin(shutdown);
    let latch = |name: &str| shutdown.readiness().latch(name);
    let (db_latch, redis_latch, kafka_latch) = (latch("db-service"), latch("redis"), latch("kafka"));

    let instances = discovery.watch("db-service", &config.discovery.db)?;
    let options = grpc::Options { tls: tls.clone(), ..grpc::Options::default() };
    let db = balanced("db-service", instances, options.clone());
    let push = balanced("pusher", discovery.watch("pusher", &config.discovery.pusher)?, options);
    let peers = KeyedPool::new(NAME, PEER_DEADLINE, Duration::from_secs(300), 1_024).tls(tls);
    let cache: Arc<dyn Cache> = Arc::new(RedisCache::new(&config.redis).context("redis.url")?);
    let kafka = KafkaConfig::with_options(
        config.kafka.brokers.clone(),
        "godwit-ws-gateway",
        &config.kafka.options(),
    )?;
    let settings = KafkaProducerConfig {
        linger_ms: u32::try_from(config.kafka.linger.as_millis()).unwrap_or(u32::MAX),
        timeout: config.kafka.produce_timeout,
        ..KafkaProducerConfig::default()
    };
    let producer: Arc<dyn Producer> = Arc::new(KafkaProducer::new(&kafka, settings)?);

    let (stop, asked) = (shutdown.drain().token(), cache.clone());
    let ping = move || {
        let cache = asked.clone();
        async move { cache.ping().await.map_err(|error| error.to_string()) }
    };
    shutdown.tasks().spawn("probe redis", redis_latch.probe(PROBE, stop.clone(), ping));
    let asked = producer.clone();
    let health = move || std::future::ready(kafka_health(asked.health()));
    shutdown.tasks().spawn("probe kafka", kafka_latch.probe(PROBE, stop, health));
    let keys = signing_keys(config, db.clone()).await;
    db_latch.ready();

    let dependencies = Dependencies {
        db,
        push,
        gateways: Arc::new(move |address| peers.get(address)),
        cache,
        producer: producer.clone(),
    };
    let app = App::build(config, listener, host.advertised().to_owned(), &keys, dependencies)?;
    let url = app.url();
    host.serve(NAME, version, Routes::new(app.grpc()), &discovery, shutdown)?;
    app.run(shutdown);
    shutdown.on(Phase::Flush, "producer", async move {
        if let Err(error) = producer.flush(FLUSH).await {
            tracing::warn!(%error, "the log was not flushed in time; what was not acknowledged may be missing");
        }
    });
    announce(format_args!("listening on {url}"));
    Ok(())
}

fn kafka_health(health: Health) -> Result<(), String> {
    match health {
        Health::Ready => Ok(()),
        Health::Starting => Err("no broker has answered yet".into()),
        Health::Failing { reason } => Err(reason),
    }
}
