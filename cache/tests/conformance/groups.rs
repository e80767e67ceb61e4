//! Cached members of groups.

use crate::support::{LONG, eventually};
use abi::v1::{Member, Members};
use cache::{Cache, Membership};
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

pub(crate) async fn p8_a_single_member_is_found_with_the_version(cache: &dyn Cache) {
    assert_eq!(cache.member("app", "g:4", "alice").await.unwrap(), None);
    cache.put_members("app", "g:4", &members(6, &["carol", "alice", "bob"]), LONG).await.unwrap();
    for user in ["alice", "bob", "carol"] {
        let member = Some(Member { user: user.into(), role: 1, visible_from: 6 });
        let membership = Membership { version: 6, member };
        assert_eq!(cache.member("app", "g:4", user).await.unwrap(), Some(membership));
    }
    let nobody = Some(Membership { version: 6, member: None });
    assert_eq!(cache.member("app", "g:4", "dave").await.unwrap(), nobody);
    // A newer version removes the members that it does not have.
    cache.put_members("app", "g:4", &members(7, &["bob"]), LONG).await.unwrap();
    cache.put_members("app", "g:4", &members(6, &["alice"]), LONG).await.unwrap();
    let removed = Some(Membership { version: 7, member: None });
    assert_eq!(cache.member("app", "g:4", "alice").await.unwrap(), removed);
    assert_eq!(cache.member("other", "g:4", "bob").await.unwrap(), None);
    cache.put_members("app", "g:5", &members(1, &["bob"]), Duration::from_millis(100)).await.unwrap();
    eventually("it expires", async || cache.member("app", "g:5", "bob").await.unwrap().is_none()).await;
}
