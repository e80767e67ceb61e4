//! The program: routes from Redis, gateways by their addresses.

use abi::config::Config;
use anyhow::Context as _;
use cache::{Cache, RedisCache};
use std::{sync::Arc, time::Duration};
use tonic::service::Routes;
use utils::{
    Shutdown,
    discovery::Discovery,
    grpc::KeyedPool,
    host::Host,
    tls::{self, MutualTls},
};

/// Name of the service in discovery.
const NAME: &str = "pusher";
/// Redis is asked this often whether it answers.
const PROBE: Duration = Duration::from_secs(2);
/// Connections to gateways that nobody needed for so long are closed.
const IDLE: Duration = Duration::from_secs(300);
/// Most gateways that it keeps connections to.
const MAX_GATEWAYS: usize = 4_096;

/// Bound and not running.
#[derive(Debug)]
pub struct App {
    host: Host,
    tls: Option<MutualTls>,
    cache: Arc<RedisCache>,
    discovery: Discovery,
    deadline: Duration,
}

/// Binds the addresses of a pusher. Needs no Redis yet.
///
/// # Errors
/// An address can't be bound, or a URL or an address in the configuration is none.
pub async fn build(config: &Config) -> anyhow::Result<App> {
    cache::describe_metrics();
    crate::describe_metrics();
    let pusher = &config.pusher;
    let tls = MutualTls::new(&config.tls, NAME)?;
    let host = Host::bind(&pusher.grpc_listen, &pusher.grpc_advertise, &pusher.admin_listen).await?;
    Ok(App {
        cache: Arc::new(RedisCache::new(&config.redis).context("redis.url")?),
        discovery: Discovery::new(&config.discovery)?,
        host: host.tls(tls.clone()),
        tls,
        deadline: pusher.deliver_timeout,
    })
}

/// What is wrong with what the program `pusher` takes from the configuration beyond the values themselves.
pub fn check(config: &Config) -> Vec<String> {
    let mut faults = MutualTls::config_errors(&config.tls, NAME);
    faults.extend(tls::checks::consul(&config.discovery));
    faults.extend(RedisCache::new(&config.redis).err().map(|error| error.to_string()));
    faults
}

impl App {
    /// Serves until `shutdown` stops it; returns once everything is running. It is ready, and registered, when Redis has
    /// answered. Gives the `host:port` under which others reach it.
    ///
    /// # Errors
    /// The advertised address is not `host:port`.
    pub fn run(self, shutdown: &Shutdown) -> anyhow::Result<String> {
        let Self { host, tls, cache, discovery, deadline } = self;
        let latch = shutdown.readiness().latch("redis");
        let grpc = host.serve_admin(shutdown);
        let address = grpc.advertised().to_owned();
        // The pusher's own deadlines are the shorter ones: see `rest`.
        let pool = KeyedPool::new("ws-gateway", deadline * 2, IDLE, MAX_GATEWAYS).tls(tls);
        let gateways = Arc::new(move |address: &str| pool.get(address));
        let asked = Arc::clone(&cache);
        let routes = Routes::new(crate::server(cache, gateways, deadline));
        grpc.serve(NAME, env!("CARGO_PKG_VERSION"), routes, &discovery, shutdown)?;
        let ping = move || {
            let cache = Arc::clone(&asked);
            async move { cache.ping().await.map_err(|error| error.to_string()) }
        };
        shutdown.tasks().spawn("probe redis", latch.probe(PROBE, shutdown.drain().token(), ping));
        Ok(address)
    }
}
