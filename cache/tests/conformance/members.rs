//! Cached members of groups.

use crate::support::{LONG, eventually};
use abi::v1::{Member, Members};
use cache::Cache;
use std::time::Duration;

fn members(version: u64, users: &[&str]) -> Members {
    let member = |user: &&str| Member { user: (*user).into(), role: 1, visible_from: version };
    Members { version, members: users.iter().map(member).collect() }
}

pub(crate) async fn p8_an_older_version_of_members_never_replaces_a_newer(cache: &dyn Cache) {
    assert_eq!(cache.members("app", "g:1").await.unwrap(), None);
    let (older, newer) = (members(9, &["alice", "bob"]), members(10, &["alice"]));
    cache.put_members("app", "g:1", &older, LONG).await.unwrap();
    assert_eq!(*cache.members("app", "g:1").await.unwrap().unwrap(), older);
    cache.put_members("app", "g:1", &newer, LONG).await.unwrap();
    cache.put_members("app", "g:1", &older, LONG).await.unwrap();
    assert_eq!(*cache.members("app", "g:1").await.unwrap().unwrap(), newer);
    assert_eq!(cache.members("app", "g:2").await.unwrap(), None);
    assert_eq!(cache.members("other", "g:1").await.unwrap(), None);
}

pub(crate) async fn p8_members_expire_after_their_ttl(cache: &dyn Cache) {
    cache.put_members("app", "g:3", &members(5, &["alice"]), Duration::from_millis(100)).await.unwrap();
    eventually("the entry expires", async || cache.members("app", "g:3").await.unwrap().is_none()).await;
    // An expired entry does not block an older version.
    cache.put_members("app", "g:3", &members(4, &["bob"]), LONG).await.unwrap();
    assert_eq!(cache.members("app", "g:3").await.unwrap().unwrap().version, 4);
}
