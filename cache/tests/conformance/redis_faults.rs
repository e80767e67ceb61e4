//! Behaviour when Redis loses scripts, data or its last writes, and when it is unavailable.

use crate::support::{LONG, Proxy, TestRedis, current, increment, routes};
use abi::config::{Redis, Secret};
use cache::{Cache as _, Counters as _, Groups as _, Increment, Presences as _, RedisCache, Routes as _};
use deadpool_redis::redis::{self, AsyncCommands as _};
use std::time::{Duration, Instant};

#[tokio::test]
async fn p4_lost_scripts_are_loaded_again() {
    let server = TestRedis::new();
    let before = increment(&server.cache, "app", &[("alice", 1)]).await[0];
    redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut server.connection().await).await.unwrap();
    let after = increment(&server.cache, "app", &[("alice", 1)]).await[0];
    assert_eq!((after.epoch, after.seq), (before.epoch, before.seq + 1));
    server.cache.connect("app", "alice", "c", "gw:1", LONG).await.unwrap();
    assert_eq!(routes(&server.cache, "app", &["alice"]).await, [["gw:1"]]);
    server.clear().await;
}

#[tokio::test]
async fn p4_lost_counters_start_a_new_epoch() {
    let server = TestRedis::new();
    let before = increment(&server.cache, "app", &[("alice", 5), ("bob", 5)]).await;
    server.clear().await;
    let alice = increment(&server.cache, "app", &[("alice", 5)]).await[0];
    let bob = server.cache.connect("app", "bob", "c", "gw:1", LONG).await.unwrap().receiver_seq;
    assert_ne!(alice.epoch, before[0].epoch);
    assert_ne!(bob.epoch, before[1].epoch);
    server.clear().await;
}

#[tokio::test]
async fn p4_counters_of_an_earlier_run_of_redis_are_replaced_by_a_new_epoch() {
    let server = TestRedis::new();
    let users = [("alice", 5), ("bob", 5), ("carol", 5)];
    let before = increment(&server.cache, "app", &users).await;
    // After a restart or a failover Redis has the counters of an earlier run, perhaps with lower values than before.
    let mut connection = server.connection().await;
    for user in ["alice", "bob"] {
        let counter = server.key(&format!("app:s:{user}:"));
        let present = server.keys().await.into_iter().find(|key| key.starts_with(&counter)).unwrap();
        let () = connection.rename(present, format!("{counter}0123456701234567")).await.unwrap();
    }
    let alice = increment(&server.cache, "app", &[("alice", 2)]).await[0];
    assert_ne!(alice.epoch, before[0].epoch);
    assert_eq!(alice.seq, 2);
    let bob = server.cache.connect("app", "bob", "c", "gw:1", LONG).await.unwrap().receiver_seq;
    assert_ne!(bob.epoch, before[1].epoch);
    assert_eq!(current(&server.cache, "app", "bob").await, bob);
    assert_eq!(current(&server.cache, "app", "carol").await, before[2]);
    server.clear().await;
}

#[tokio::test]
async fn p8_members_of_an_earlier_run_of_redis_are_ignored() {
    let server = TestRedis::new();
    server.cache.put_members("app", "g:1", &abi::v1::Members::default(), LONG).await.unwrap();
    assert!(server.cache.members("app", "g:1").await.unwrap().is_some());
    // After a restart or a failover Redis has entries of an earlier run, perhaps from before a member was removed.
    let present = server.keys().await.remove(0);
    let earlier = present.rsplit_once(':').map(|(members, _)| format!("{members}:0123456701234567")).unwrap();
    let () = server.connection().await.rename(present, earlier).await.unwrap();
    assert_eq!(server.cache.members("app", "g:1").await.unwrap(), None);
    server.clear().await;
}

#[tokio::test]
async fn p7_every_key_expires() {
    let server = TestRedis::new();
    let cache = &server.cache;
    increment(cache, "app", &[("alice", 1)]).await;
    cache.connect("app", "bob", "c", "gw:1", LONG).await.unwrap();
    cache.connect("app", "carol", "c", "gw:1", LONG).await.unwrap();
    cache.disconnect("app", "carol", "c").await.unwrap();
    cache.set_presence_text("app", "dave", "busy").await.unwrap();
    cache.watch("app", "alice", &["bob"], LONG).await.unwrap();
    cache.put_members("app", "g:1", &abi::v1::Members::default(), LONG).await.unwrap();
    cache.fence("app", "g:1", &["alice"], "r1", LONG).await.unwrap();
    cache.fence("app", "g:1", &["bob"], "r2", LONG).await.unwrap();
    cache.release("app", "g:1", &["bob"], "r2", LONG).await.unwrap();
    crate::fences::complete(cache, "app", 0).await;
    let keys = server.keys().await;
    let mut kinds: Vec<&str> = keys.iter().filter_map(|key| key.split(':').nth(2)).collect();
    kinds.dedup();
    assert_eq!(kinds, ["c", "f", "m", "o", "p", "r", "s", "w"], "{keys:?}");
    for key in keys {
        let ttl: i64 = server.connection().await.pttl(&key).await.unwrap();
        assert!(ttl > 0, "{key} never expires");
    }
    server.clear().await;
}

#[tokio::test]
async fn p9_orders_increase_after_redis_has_lost_its_data() {
    let server = TestRedis::new();
    let connect = async |connection: &str| {
        server.cache.connect("app", "alice", connection, "gw:1", LONG).await.unwrap().order
    };
    let before = connect("before").await;
    server.clear().await;
    let after = connect("after").await;
    assert!(after > before);
    // The successor's clock is behind, and the route survived.
    let newest = server.keys_matching("app:o:*").await.remove(0);
    let () = server.connection().await.set(&newest, 5).await.unwrap();
    let survived = connect("survived").await;
    assert!(survived > after);
    // The successor's clock is behind, and the connection has renewed its lost route.
    server.clear_matching("app:r:*").await;
    let () = server.connection().await.set(&newest, 5).await.unwrap();
    server.cache.renew("app", "alice", "survived", "gw:1", survived, LONG).await.unwrap();
    assert!(connect("renewed").await > survived);
    server.clear().await;
}

#[tokio::test]
async fn p4_a_counter_that_overflows_starts_an_epoch() {
    let server = TestRedis::new();
    let first = increment(&server.cache, "app", &[("alice", 1)]).await[0];
    let last = increment(&server.cache, "app", &[("alice", (1 << 22) - 2)]).await[0];
    assert_eq!((last.epoch, last.seq), (first.epoch, (1 << 22) - 1));
    let next = increment(&server.cache, "app", &[("alice", 1)]).await[0];
    assert_ne!(next.epoch, first.epoch);
    assert_eq!(server.cache.changes("app", "alice", last).await.unwrap().subjects, None);
    let changes = server.cache.changes("app", "alice", next).await.unwrap();
    assert_eq!((changes.now, changes.subjects), (next, Some(Vec::new())));
    server.clear().await;
}

#[tokio::test]
async fn a_batch_of_several_round_trips_keeps_its_order() {
    let server = TestRedis::new();
    let names: Vec<_> = (0..5_000).map(|number| format!("user{number}")).collect();
    let users: Vec<_> = names.iter().zip(1..).map(|(name, by)| (name.as_str(), by)).collect();
    let seqs = increment(&server.cache, "app", &users).await;
    assert!(seqs.iter().map(|seq| seq.seq).eq(1..=5_000));
    let subjects: Vec<&str> = names[..1_500].iter().map(String::as_str).collect();
    let increment = |by| Increment { user: "alice", by, subjects: subjects.clone() };
    let seqs = server.cache.increment("app", &[1, 0, 2, 3].map(increment)).await.unwrap();
    assert!(seqs.iter().map(|seq| seq.seq).eq([1, 1, 3, 6]));
    server.cache.connect("app", "user4999", "c", "gw:1", LONG).await.unwrap();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let routes = routes(&server.cache, "app", &names).await;
    assert!(routes[..4_999].iter().all(Vec::is_empty));
    assert_eq!(routes[4_999], ["gw:1"]);
    server.clear().await;
}

#[tokio::test]
async fn p9_a_broken_connection_is_replaced_within_the_call() {
    let server = TestRedis::new();
    let mut proxy = Proxy::new(server.address()).await;
    let cache = server.through(&proxy.url());
    for round in 1..=8 {
        assert_eq!(increment(&cache, "app", &[("alice", 1)]).await[0].seq, round);
        if round % 2 == 0 {
            proxy.cut().await;
        }
    }
    server.clear().await;
}

#[tokio::test]
async fn p6_an_unavailable_redis_is_an_error_within_the_time_limit() {
    // This server accepts connections and never responds.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("redis://{}", listener.local_addr().unwrap());
    for url in [silent.as_str(), "redis://127.0.0.1:1"] {
        let config = Redis { url: Secret::new(url), ..Redis::default() };
        let cache = RedisCache::new(&config).unwrap();
        let began = Instant::now();
        let error = cache.ping().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert!(began.elapsed() < Duration::from_secs(4));
    }
}

#[test]
fn p8_an_invalid_url_is_rejected_without_showing_it() {
    let config = Redis { url: Secret::new("no url with hunter2"), ..Redis::default() };
    let error = RedisCache::new(&config).unwrap_err();
    assert!(!error.is_retryable());
    assert!(!format!("{error:?} {error}").contains("hunter2"));
}
