use super::*;
use crate::{Counters as _, Increment, Presences as _, Routes as _};
use abi::v1::ReceiverSeq;
use std::time::Duration;

async fn increment(cache: &MemoryCache, user: &str, by: u32) -> ReceiverSeq {
    let increment = Increment { user, by, subjects: vec!["d:a:b"] };
    cache.increment("app", &[increment]).await.unwrap()[0]
}

#[tokio::test]
async fn p7_unused_users_are_evicted_and_get_a_new_epoch() {
    let cache = MemoryCache::with_limits(100, 100);
    let first = increment(&cache, "first", 0).await;
    let active = increment(&cache, "active", 0).await;
    for number in 0..200 {
        increment(&cache, &format!("user{number}"), 1).await;
        cache.connect("app", "active", "c", "gateway", Duration::from_secs(60)).await.unwrap();
    }
    assert_eq!(increment(&cache, "active", 0).await, active);
    assert_eq!(&*cache.routes("app", &["active"]).await.unwrap()[0][0], "gateway");
    assert_ne!(increment(&cache, "first", 0).await.epoch, first.epoch);
    let users = cache.with_app("app", |app| app.users.len());
    assert!(users <= 101, "{users} users are cached");
}

#[tokio::test]
async fn p7_users_with_many_changes_take_the_space_of_several() {
    let cache = MemoryCache::with_limits(1_000, 100);
    let subjects: Vec<String> = (0..crate::MAX_SUBJECTS).map(|number| format!("g:{number}")).collect();
    for number in 0..1_000 {
        let (user, subjects) = (number.to_string(), subjects.iter().map(String::as_str).collect());
        cache.increment("app", &[Increment { user: &user, by: 1, subjects }]).await.unwrap();
    }
    let users = cache.with_app("app", |app| app.users.len());
    assert!((30..80).contains(&users), "{users} users are cached");
}

#[tokio::test]
async fn p7_watchers_of_many_users_are_bounded() {
    let cache = MemoryCache::default();
    let users: Vec<String> = (0..MAX_WATCHES + 1_000).map(|number| number.to_string()).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    cache.watch("app", "alice", &users, Duration::from_secs(60)).await.unwrap();
    assert!(cache.with_app("app", |app| app.watchers.len()) <= MAX_WATCHES);
    assert_eq!(cache.watchers("app", users[MAX_WATCHES]).await.unwrap(), ["alice"]);
}
