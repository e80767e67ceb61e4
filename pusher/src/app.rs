//! The program: routes come from Redis, gateways are reached at the addresses in the routes.

use abi::config::Config;
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Shutdown,
    cli::{Program, Threads},
    discovery::Discovery,
    grpc::KeyedPool,
    host::Host,
    tls::{self, MutualTls},
};

/// The program `pusher`.
pub const PROGRAM: Program = Program {
    name: "pusher",
    version: env!("CARGO_PKG_VERSION"),
    admin: |config| &config.pusher.admin_listen,
    threads: Threads::Cores,
    drain_limit: |config| config.discovery.drain_grace + Duration::from_secs(15),
    check,
};
/// A connection to a gateway is closed after this idle time.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
/// Most gateways to which connections are kept.
const MAX_GATEWAYS: usize = 4_096;

/// The program before it runs: its listeners are bound, and no task is started.
#[derive(Debug)]
pub struct App {
    host: Host,
    tls: Option<MutualTls>,
    cache: Arc<RedisCache>,
    discovery: Discovery,
    deadline: Duration,
}

/// Binds the addresses of a pusher. Redis need not be reachable yet.
///
/// # Errors
/// An address can't be bound, or an address or URL in the configuration is invalid.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    cache::describe_metrics();
    crate::describe_metrics();
    let pusher = &config.pusher;
    let tls = MutualTls::new(&config.tls, PROGRAM.name)?;
    let host = Host::bind(&pusher.grpc_listen, &pusher.grpc_advertise, &pusher.admin_listen).await?;
    Ok(App {
        cache: Arc::new(RedisCache::new(&config.redis).context("redis.url")?),
        discovery: Discovery::new(&config.discovery)?,
        host: host.tls(tls.clone()),
        tls,
        deadline: pusher.deliver_timeout,
    })
}

/// Config errors that only this program can detect: unusable files and URLs.
fn check(config: &Config) -> Vec<String> {
    let mut errors = MutualTls::config_errors(&config.tls, PROGRAM.name);
    errors.extend(tls::checks::consul(&config.discovery));
    errors.extend(RedisCache::new(&config.redis).err().map(|error| error.to_string()));
    errors
}

impl App {
    /// The `host:port` under which other services reach this pusher.
    pub fn address(&self) -> &str {
        self.host.advertised()
    }

    /// Serves until `shutdown`. Returns once everything runs. The program is ready, and registered, when Redis has answered.
    ///
    /// # Errors
    /// The advertised address is not `host:port`.
    pub fn run(self, shutdown: &Shutdown) -> anyhow::Result<()> {
        let Self { host, tls, cache, discovery, deadline } = self;
        let cache: Arc<dyn Cache> = cache;
        shutdown.probe("redis", cache::probe(Arc::clone(&cache)));
        // The pool's deadline only backs up the shorter ones of `slow_gateways`.
        let pool = KeyedPool::new("ws-gateway", deadline * 2, IDLE_TIMEOUT, MAX_GATEWAYS).tls(tls);
        let gateways = Arc::new(move |address: &str| pool.get(address));
        let routes = Routes::new(crate::server(cache, gateways, deadline));
        let grpc = host.serve_admin(shutdown);
        Ok(grpc.serve(PROGRAM.name, PROGRAM.version, routes, &discovery, shutdown)?)
    }
}
