//! The conformance suite of [`Cache`], run over both implementations: in memory and in Redis.

use crate::support::{conformance, eventually, routes};
use abi::v1::{Member, Members, ReceiverSeq};
use cache::Cache;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

conformance! {
    p4_a_counter_increases_within_its_epoch,
    p4_a_missing_counter_starts_an_epoch,
    p4_each_user_of_each_application_has_a_counter,
    p4_concurrent_raises_all_count,
    p5_connect_returns_the_counter_without_incrementing_it,
    p5_disconnect_removes_only_the_route_of_that_connection,
    p5_routes_list_each_gateway_once,
    p5_a_route_moves_with_its_connection,
    p9_a_route_expires_unless_its_lease_is_renewed,
    p8_an_older_version_of_members_never_replaces_a_newer,
    p8_members_expire_after_their_ttl,
    an_empty_request_has_an_empty_result,
    ping_succeeds,
}

/// The current counter of a user.
pub(crate) async fn current(cache: &dyn Cache, app: &str, user: &str) -> ReceiverSeq {
    cache.raise(app, &[(user, 0)]).await.unwrap()[0]
}

async fn p4_a_counter_increases_within_its_epoch(cache: &dyn Cache) {
    let first = current(cache, "app", "alice").await;
    assert_ne!(first.epoch, 0);
    assert_eq!(first.seq, 0);
    let raised = cache.raise("app", &[("alice", 3)]).await.unwrap();
    assert_eq!(raised, [ReceiverSeq { epoch: first.epoch, seq: 3 }]);
    let raised = cache.raise("app", &[("alice", 1)]).await.unwrap();
    assert_eq!(raised, [ReceiverSeq { epoch: first.epoch, seq: 4 }]);
    assert_eq!(current(cache, "app", "alice").await, raised[0]);
}

async fn p4_a_missing_counter_starts_an_epoch(cache: &dyn Cache) {
    let raised = cache.raise("app", &[("bob", 2), ("carol", 1)]).await.unwrap();
    assert_eq!(raised.iter().map(|seq| seq.seq).collect::<Vec<_>>(), [2, 1]);
    assert!(raised.iter().all(|seq| seq.epoch != 0));
    assert_eq!(current(cache, "app", "bob").await, raised[0]);
}

async fn p4_each_user_of_each_application_has_a_counter(cache: &dyn Cache) {
    cache.raise("app", &[("dave", 5)]).await.unwrap();
    assert_eq!(current(cache, "other", "dave").await.seq, 0);
    assert_eq!(current(cache, "app", "dav").await.seq, 0);
}

async fn p4_concurrent_raises_all_count(cache: &dyn Cache) {
    let raise = |_| cache.raise("app", &[("erin", 1), ("frank", 2)]);
    let calls: Vec<_> = (0..50).map(raise).collect();
    let raised = futures_util::future::join_all(calls).await;
    let epoch = cache.connect("app", "erin", "c", "gw:1", LONG).await.unwrap().epoch;
    let mut seen = Vec::new();
    for seqs in raised {
        let erin = seqs.unwrap()[0];
        assert_eq!(erin.epoch, epoch, "two calls started an epoch");
        seen.push(erin.seq);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    assert_eq!(current(cache, "app", "frank").await.seq, 100);
}

async fn p5_connect_returns_the_counter_without_incrementing_it(cache: &dyn Cache) {
    let made = cache.connect("app", "grace", "c1", "gw:1", LONG).await.unwrap();
    assert_eq!(made.seq, 0);
    let raised = cache.raise("app", &[("grace", 7)]).await.unwrap()[0];
    assert_eq!(raised.epoch, made.epoch);
    assert_eq!(cache.connect("app", "grace", "c1", "gw:1", LONG).await.unwrap(), raised);
    assert_eq!(routes(cache, "app", &["grace"]).await, [["gw:1"]]);
}

async fn p5_disconnect_removes_only_the_route_of_that_connection(cache: &dyn Cache) {
    cache.connect("app", "heidi", "old", "gw:1", LONG).await.unwrap();
    cache.connect("app", "heidi", "new", "gw:2", LONG).await.unwrap();
    cache.disconnect("app", "heidi", "old").await.unwrap();
    cache.disconnect("app", "heidi", "old").await.unwrap();
    assert_eq!(routes(cache, "app", &["heidi"]).await, [["gw:2"]]);
    cache.disconnect("app", "heidi", "new").await.unwrap();
    assert!(routes(cache, "app", &["heidi"]).await[0].is_empty());
}

async fn p5_routes_list_each_gateway_once(cache: &dyn Cache) {
    for (user, connection, gateway) in
        [("ivan", "a", "gw:1"), ("ivan", "b", "gw:1"), ("ivan", "c", "gw:2"), ("judy", "d", "gw:2")]
    {
        cache.connect("app", user, connection, gateway, LONG).await.unwrap();
    }
    let routes_of = routes(cache, "app", &["judy", "nobody", "ivan"]).await;
    assert_eq!(routes_of[0], ["gw:2"]);
    assert!(routes_of[1].is_empty());
    assert_eq!(routes_of[2], ["gw:1", "gw:2"]);
    assert!(routes(cache, "other", &["ivan"]).await[0].is_empty());
}

async fn p5_a_route_moves_with_its_connection(cache: &dyn Cache) {
    cache.connect("app", "mike", "c", "gw:1", LONG).await.unwrap();
    cache.connect("app", "mike", "c", "gw:2", LONG).await.unwrap();
    assert_eq!(routes(cache, "app", &["mike"]).await, [["gw:2"]]);
}

async fn p9_a_route_expires_unless_its_lease_is_renewed(cache: &dyn Cache) {
    let short = Duration::from_millis(200);
    cache.connect("app", "niaj", "short", "gw:1", short).await.unwrap();
    cache.connect("app", "niaj", "renewed", "gw:2", short).await.unwrap();
    cache.connect("app", "niaj", "renewed", "gw:2", LONG).await.unwrap();
    cache.connect("app", "olivia", "short", "gw:1", short).await.unwrap();
    eventually("the leases expire", async || {
        routes(cache, "app", &["niaj", "olivia"]).await == [vec!["gw:2"], vec![]]
    })
    .await;
    // A later connection does not restore an expired one.
    cache.connect("app", "olivia", "long", "gw:3", LONG).await.unwrap();
    assert_eq!(routes(cache, "app", &["olivia"]).await, [["gw:3"]]);
}

fn members(version: u64, users: &[&str]) -> Members {
    let member = |user: &&str| Member { user: (*user).into(), role: 1, visible_from: version };
    Members { version, members: users.iter().map(member).collect() }
}

async fn p8_an_older_version_of_members_never_replaces_a_newer(cache: &dyn Cache) {
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

async fn p8_members_expire_after_their_ttl(cache: &dyn Cache) {
    cache.put_members("app", "g:3", &members(5, &["alice"]), Duration::from_millis(100)).await.unwrap();
    eventually("the entry expires", async || cache.members("app", "g:3").await.unwrap().is_none()).await;
    // An expired entry does not block an older version.
    cache.put_members("app", "g:3", &members(4, &["bob"]), LONG).await.unwrap();
    assert_eq!(cache.members("app", "g:3").await.unwrap().unwrap().version, 4);
}

async fn an_empty_request_has_an_empty_result(cache: &dyn Cache) {
    assert!(cache.raise("app", &[]).await.unwrap().is_empty());
    assert!(routes(cache, "app", &[]).await.is_empty());
}

async fn ping_succeeds(cache: &dyn Cache) {
    cache.ping().await.unwrap();
}
