//! Fences of removals, and the doubt while a cache may have lost them.

use crate::support::{LONG, TestRedis, eventually};
use cache::{Cache, Doubt, FenceState, Groups as _, Logged, MemoryCache};
use deadpool_redis::redis::AsyncCommands as _;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const SHORT: Duration = Duration::from_millis(100);

/// A message to a partition whose sender was checked just now.
fn message(partition: i32) -> Logged {
    Logged { partition, checked: Instant::now() }
}

async fn state(cache: &dyn Cache, app: &str, group: &str, user: &str) -> FenceState {
    let state = cache.fence_state(app, group, user, message(0)).await.unwrap();
    if let Some(local) = cache.local_fence_state(app, group, user, message(0)) {
        assert_eq!(local, state);
    }
    state
}

async fn doubt(cache: &dyn Cache, app: &str, partition: i32) -> Doubt {
    match cache.fence_state(app, "g:none", "alice", message(partition)).await.unwrap() {
        FenceState::Unknown(doubt) => doubt,
        state => panic!("the cache cannot be sure, but answers {state:?}"),
    }
}

/// Ends the doubt about the fences of a partition.
pub(crate) async fn complete(cache: &dyn Cache, app: &str, partition: i32) {
    for _ in 0..2 {
        let doubt = doubt(cache, app, partition).await;
        // Clocks may be coarse.
        sleep(Duration::from_millis(2)).await;
        cache.message_saved(app, message(partition), doubt).await.unwrap();
    }
}

pub(crate) async fn p1_a_fence_covers_its_users_until_it_expires(cache: &dyn Cache) {
    complete(cache, "app", 0).await;
    complete(cache, "other", 0).await;
    cache.fence("app", "g:6", &["alice", "bob"], "r1", LONG).await.unwrap();
    cache.fence("app", "g:6", &["carol"], "r2", SHORT).await.unwrap();
    cache.fence("app", "g:6", &["dave"], "r3", LONG).await.unwrap();
    for (user, is_fenced) in [("alice", true), ("bob", true), ("dave", true), ("erin", false)] {
        let expected = if is_fenced { FenceState::Fenced } else { FenceState::Clear };
        assert_eq!(state(cache, "app", "g:6", user).await, expected, "{user}");
    }
    assert_eq!(state(cache, "app", "g:7", "alice").await, FenceState::Clear);
    assert_eq!(state(cache, "other", "g:6", "alice").await, FenceState::Clear);
    let ends = async || state(cache, "app", "g:6", "carol").await == FenceState::Clear;
    eventually("it expires", ends).await;
}

pub(crate) async fn p1_a_fence_ends_soon_after_the_last_removal_is_decided(cache: &dyn Cache) {
    complete(cache, "app", 0).await;
    let is_fenced = async |user: &str| state(cache, "app", "g:1", user).await == FenceState::Fenced;
    cache.fence("app", "g:1", &["alice", "bob"], "r1", LONG).await.unwrap();
    cache.fence("app", "g:1", &["alice"], "r2", LONG).await.unwrap();
    cache.release("app", "g:1", &["alice", "bob"], "r1", SHORT).await.unwrap();
    assert!(is_fenced("bob").await, "messages just behind the removal are asked about");
    eventually("it ends", async || !is_fenced("bob").await).await;
    assert!(is_fenced("alice").await, "another removal is not decided yet");
    // Neither a repeated release nor one of an unknown removal ends it.
    for removal in ["r1", "r3"] {
        cache.release("app", "g:1", &["alice", "erin"], removal, Duration::ZERO).await.unwrap();
    }
    assert!(is_fenced("alice").await);
    assert!(!is_fenced("erin").await);
    cache.release("app", "g:1", &["alice"], "r2", SHORT).await.unwrap();
    // The next removal extends the fence again.
    cache.fence("app", "g:1", &["alice"], "r4", LONG).await.unwrap();
    sleep(2 * SHORT).await;
    assert!(is_fenced("alice").await);
    cache.release("app", "g:1", &["alice"], "r4", SHORT).await.unwrap();
    eventually("it ends", async || !is_fenced("alice").await).await;
}

pub(crate) async fn p1_the_absence_of_a_fence_means_nothing_until_two_messages_are_saved(cache: &dyn Cache) {
    let first = doubt(cache, "app", 0).await;
    cache.message_saved("app", message(0), first).await.unwrap();
    doubt(cache, "app", 0).await;
    sleep(Duration::from_millis(2)).await;
    let checked_before = message(0);
    sleep(Duration::from_millis(2)).await;
    cache.message_saved("app", message(0), first).await.unwrap();
    assert_eq!(state(cache, "app", "g:1", "alice").await, FenceState::Clear);
    // Its sender may have passed the check with old members.
    let state = cache.fence_state("app", "g:1", "alice", checked_before).await.unwrap();
    assert!(matches!(state, FenceState::Unknown(_)), "{state:?}");
    // Nothing follows for other partitions and applications.
    doubt(cache, "app", 1).await;
    doubt(cache, "other", 0).await;
}

pub(crate) async fn p1_two_messages_sent_at_once_do_not_end_the_doubt(cache: &dyn Cache) {
    let (both, first) = (message(0), doubt(cache, "app", 0).await);
    for _ in 0..3 {
        cache.message_saved("app", both, first).await.unwrap();
        doubt(cache, "app", 0).await;
    }
}

#[tokio::test]
async fn p1_all_processes_share_the_complete_partitions_of_a_run_of_redis() {
    let server = TestRedis::new();
    complete(&server.cache, "app", 0).await;
    let other = server.another();
    // The first message may have been checked while the fences were not complete.
    assert!(matches!(state(&other, "app", "g:1", "alice").await, FenceState::Unknown(_)));
    assert_eq!(state(&other, "app", "g:1", "alice").await, FenceState::Clear);
    // A process that has learnt it does not ask again.
    server.clear().await;
    assert_eq!(state(&other, "app", "g:1", "alice").await, FenceState::Clear);
    doubt(&server.another(), "app", 0).await;
    server.clear().await;
}

#[tokio::test]
async fn p1_a_run_of_redis_that_follows_another_began_when_it_was_first_met() {
    let server = TestRedis::new();
    let marker = server.key("run");
    let log_time = Duration::from_secs(60);
    let later = || Logged { partition: 0, checked: Instant::now() + Duration::from_secs(61) };
    // After a failover Redis has the marker of the run before. The uptime of the replica says nothing.
    let mut connection = server.connection().await;
    let () = connection.hset_multiple(&marker, &[("run", "0123456701234567"), ("began", "0")]).await.unwrap();
    for cache in [server.another(), server.another()] {
        let doubt = doubt(&cache, "app", 0).await;
        assert!(!doubt.is_before(message(0), log_time), "a removal may still be logged");
        assert!(doubt.is_before(later(), log_time));
    }
    let () = connection.hset(&marker, "began", "0").await.unwrap();
    assert!(doubt(&server.another(), "app", 0).await.is_before(message(0), log_time), "it began long ago");
    server.clear().await;
}

#[tokio::test]
async fn p1_evicted_fences_leave_a_doubt() {
    let log_time = Duration::from_secs(60);
    let cache = MemoryCache::default();
    complete(&cache, "app", 0).await;
    cache.fence("app", "g:1", &["alice"], "r", LONG).await.unwrap();
    let users: Vec<String> = (0..40_000).map(|number| format!("user{number}")).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    let began = doubt(&cache, "app", 1).await;
    assert!(began.is_before(message(0), log_time), "no other process sets fences");
    let fence = async |groups: std::ops::Range<u32>, ttl| {
        for group in groups {
            cache.fence("app", &format!("g:{group}"), &users, "r", ttl).await.unwrap();
        }
    };
    fence(10..16, LONG).await;
    let evicted = doubt(&cache, "app", 0).await;
    assert!(!evicted.is_before(message(0), log_time), "the removal may still be logged");
    for _ in 0..3 {
        sleep(Duration::from_millis(2)).await;
        cache.message_saved("app", message(0), began).await.unwrap();
        doubt(&cache, "app", 0).await;
    }
    complete(&cache, "app", 0).await;
    // Expired fences are no loss.
    fence(20..26, Duration::ZERO).await;
    complete(&cache, "app", 0).await;
    fence(30..36, Duration::ZERO).await;
    assert_eq!(state(&cache, "app", "g:1", "alice").await, FenceState::Clear);
}
