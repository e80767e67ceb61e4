//! Test fixtures: caches, a proxy to Redis, and polling.

use abi::v1::ReceiverSeq;
use cache::{Cache, Increment, RedisCache};
use deadpool_redis::redis::{self, AsyncCommands as _};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::{net::TcpListener, net::TcpStream, task::JoinSet};

/// The lease of a route, or the time to live of members, that no test outlasts.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// A cache on the shared test server, with a unique key prefix.
pub(crate) struct TestRedis {
    pub(crate) cache: RedisCache,
    url: String,
    prefix: String,
}

impl TestRedis {
    pub(crate) fn new() -> Self {
        let url = std::env::var("GODWIT_TEST_REDIS")
            .expect("GODWIT_TEST_REDIS must be the URL of a Redis for tests: run tests/run, or set it");
        let prefix = format!("test-{}", uuid::Uuid::new_v4());
        Self { cache: cache(&url, &prefix), url, prefix }
    }

    /// A cache with the same keys that connects to another URL.
    pub(crate) fn through(&self, url: &str) -> RedisCache {
        cache(url, &self.prefix)
    }

    /// The cache of another process.
    pub(crate) fn another(&self) -> RedisCache {
        self.through(&self.url)
    }

    /// `host:port` of the test server.
    pub(crate) fn address(&self) -> String {
        let rest = self.url.trim_start_matches("redis://").trim_end_matches('/');
        rest.rsplit('@').next().unwrap().to_owned()
    }

    /// A separate connection, for changing Redis behind the cache's back.
    pub(crate) async fn connection(&self) -> redis::aio::MultiplexedConnection {
        let client = redis::Client::open(self.url.as_str()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    /// A key of this test.
    pub(crate) fn key(&self, rest: &str) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// All keys of this test.
    pub(crate) async fn keys(&self) -> Vec<String> {
        self.keys_matching("*").await
    }

    /// The keys of this test that match a pattern.
    pub(crate) async fn keys_matching(&self, pattern: &str) -> Vec<String> {
        let mut connection = self.connection().await;
        let mut keys = connection.scan_match(self.key(pattern)).await.unwrap();
        // A scan may return a key twice.
        let mut found = BTreeSet::new();
        while let Some(key) = keys.next_item().await {
            found.insert(key.unwrap());
        }
        found.into_iter().collect()
    }

    /// Deletes all keys of this test.
    pub(crate) async fn clear(&self) {
        self.clear_matching("*").await;
    }

    /// Deletes the keys of this test that match a pattern.
    pub(crate) async fn clear_matching(&self, pattern: &str) {
        let keys = self.keys_matching(pattern).await;
        if !keys.is_empty() {
            let _: u64 = self.connection().await.del(keys).await.unwrap();
        }
    }
}

/// Polls a condition until it holds. Panics after 10 s.
pub(crate) async fn eventually(description: &str, condition: impl AsyncFn() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < Duration::from_secs(10), "not within 10 s: {description}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn cache(url: &str, prefix: &str) -> RedisCache {
    let url = abi::config::Secret::new(url);
    RedisCache::new(&abi::config::Redis {
        url,
        prefix: prefix.into(),
        max_connections: 2,
        ..abi::config::Redis::default()
    })
    .unwrap()
}

/// The current counter of a user.
pub(crate) async fn current(cache: &dyn Cache, app: &str, user: &str) -> ReceiverSeq {
    cache.changes(app, user, ReceiverSeq::default()).await.unwrap().now
}

/// Increments the counters of users. One conversation has changed for all of them.
pub(crate) async fn increment(cache: &dyn Cache, app: &str, users: &[(&str, u32)]) -> Vec<ReceiverSeq> {
    let increments: Vec<_> =
        users.iter().map(|&(user, by)| Increment { user, by, subjects: vec!["g:1"] }).collect();
    cache.increment(app, &increments).await.unwrap()
}

/// The gateways of users, sorted by name.
pub(crate) async fn routes(cache: &dyn Cache, app: &str, users: &[&str]) -> Vec<Vec<String>> {
    let sorted = |gateways: Vec<std::sync::Arc<str>>| {
        let mut names: Vec<_> = gateways.iter().map(|gateway| gateway.to_string()).collect();
        names.sort();
        names
    };
    cache.routes(app, users).await.unwrap().into_iter().map(sorted).collect()
}

/// A proxy to a server. Its connections can be cut.
pub(crate) struct Proxy {
    address: std::net::SocketAddr,
    target: String,
    tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn new(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut proxy = Self { address: listener.local_addr().unwrap(), target, tasks: JoinSet::new() };
        proxy.serve(listener);
        proxy
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Closes all connections, then accepts new ones.
    pub(crate) async fn cut(&mut self) {
        self.tasks.shutdown().await;
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.serve(listener);
    }

    fn serve(&mut self, listener: TcpListener) {
        let target = self.target.clone();
        self.tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let mut far = TcpStream::connect(&target).await.unwrap();
                connections.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
            }
        });
    }
}
