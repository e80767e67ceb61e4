//! The program: all services over the data folder, connected in process.

use crate::{
    data::{CALL_DEADLINE, STORE, consume, open_log},
    operator,
};
use abi::{EMBEDDED_TOPIC, config::Config, dead_letter_topic};
use anyhow::Context as _;
use cache::{Cache, MemoryCache};
use kafka_runtime::{Consumer, Letters, Producer};
use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpListener;
use tonic::service::Routes;
use utils::{
    Phase, Shutdown,
    cli::{Program, Threads},
    grpc, listener,
};
use ws_gateway::{Dependencies, Gateway, drain_limit};

/// The program `godwit`.
pub const PROGRAM: Program = Program {
    name: "godwit",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.gateway.admin_listen,
    threads: Threads::Current,
    drain_limit,
    check,
};
/// Address of the one gateway in the routes. It is never dialled.
const GATEWAY: &str = "in-process:0";

/// The program before it runs: log and store are open, listeners are bound, and no task is started.
pub struct App {
    gateway: Gateway,
    consumer: Consumer,
    producer: Arc<dyn Producer>,
    store: db_service::Service,
    admin: TcpListener,
    /// Routes of the admin port that need the operator's token.
    operator_routes: axum::Router,
}

/// Config errors that only this program can detect: unusable certificates and missing build features.
fn check(config: &Config) -> Vec<String> {
    let mut errors = utils::tls::ServerTls::config_errors(&config.gateway);
    errors.extend(utils::trace::config_errors(&config.trace));
    errors
}

/// Opens the log and the store, and binds the addresses.
///
/// # Errors
/// The folder is in use or not writable, or an address is taken.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    describe_metrics();
    let mut config = config.clone();
    // `kafka.topic` names the topic in Kafka. The embedded log has one topic with a fixed name.
    config.kafka.topic = EMBEDDED_TOPIC.into();
    let data = Path::new(&config.embedded.data);
    let devices = listener::bind(&config.gateway.listen).await?;
    let admin = listener::bind(&config.gateway.admin_listen).await?;
    let log = open_log(data, &config)?;
    let store = db_service::embedded(&data.join(STORE), &config)
        .with_context(|| format!("the store in {} cannot be opened", data.display()))?;
    let db = grpc::local(Routes::new(store.clone().server()), CALL_DEADLINE);
    let cache: Arc<dyn Cache> = Arc::new(MemoryCache::default());
    let producer: Arc<dyn Producer> = Arc::new(log.clone());

    // Gateway and pusher call each other. The pusher is built first and looks up the gateway's channel with each call.
    let gateway_channel = Arc::new(OnceLock::<abi::Channel>::new());
    let gateways: abi::Gateways = {
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
    let gateway = Gateway::build(&config, devices, GATEWAY.into(), &keys, dependencies)?;
    gateway_channel.get_or_init(|| grpc::local(Routes::new(gateway.grpc()), CALL_DEADLINE));

    let consumer = consume(&log, db, push, cache, &config)?;
    let archive = log.archive(&dead_letter_topic(EMBEDDED_TOPIC))?;
    let letters = Letters::new(Arc::new(archive), producer.clone());
    let token = operator::token(data, &config.operator.token)?;
    let operator_routes = consumer::dead_letters::routes(letters, &config.app, token);
    Ok(App { gateway, consumer, producer, store, admin, operator_routes })
}

impl App {
    /// Where HTTP and WebSocket are served, `http://HOST:PORT` or `https://HOST:PORT`.
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// The URL for clients on this machine: an address to which they can connect, even if the program listens on all
    /// addresses.
    pub fn client_url(&self) -> String {
        self.gateway.client_url()
    }

    /// The address of `/livez`, `/readyz`, `/metrics` and, for operators, dead letters.
    ///
    /// # Errors
    /// The system does not know the address of the listener.
    pub fn admin(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Serves until `shutdown`. Returns once everything runs.
    pub fn run(self, shutdown: &Shutdown) {
        let Self { gateway, consumer, producer, store, admin, operator_routes } = self;
        let stop = shutdown.token(Phase::FinishWork);
        shutdown.tasks().spawn_critical("consumer", consumer.run(stop));
        let log = Arc::clone(&producer);
        shutdown.probe("log", move || std::future::ready(log.health().into_result()));
        shutdown.probe("store", move || std::future::ready(store.health()));
        shutdown.flush(move |timeout| async move { producer.flush(timeout).await });
        gateway.run(shutdown);
        let readiness = shutdown.readiness().clone();
        let stop = shutdown.token(Phase::Telemetry);
        shutdown.tasks().spawn("admin", utils::admin::serve(admin, readiness, operator_routes, stop));
    }
}

fn describe_metrics() {
    kafka_runtime::describe_metrics();
    consumer::describe_metrics();
    db_service::describe_metrics();
    pusher::describe_metrics();
    ws_gateway::describe_metrics();
}
