//! Routes: the gateways of a user's connections.

use crate::support::{LONG, eventually, routes};
use cache::Cache;
use std::time::Duration;

pub(crate) async fn p5_disconnect_removes_only_the_route_of_that_connection(cache: &dyn Cache) {
    cache.connect("app", "heidi", "old", "gw:1", LONG).await.unwrap();
    cache.connect("app", "heidi", "new", "gw:2", LONG).await.unwrap();
    cache.disconnect("app", "heidi", "old").await.unwrap();
    cache.disconnect("app", "heidi", "old").await.unwrap();
    assert_eq!(routes(cache, "app", &["heidi"]).await, [["gw:2"]]);
    cache.disconnect("app", "heidi", "new").await.unwrap();
    assert!(routes(cache, "app", &["heidi"]).await[0].is_empty());
}

pub(crate) async fn p5_routes_list_each_gateway_once(cache: &dyn Cache) {
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

pub(crate) async fn p5_a_route_moves_with_its_connection(cache: &dyn Cache) {
    cache.connect("app", "mike", "c", "gw:1", LONG).await.unwrap();
    cache.connect("app", "mike", "c", "gw:2", LONG).await.unwrap();
    assert_eq!(routes(cache, "app", &["mike"]).await, [["gw:2"]]);
}

pub(crate) async fn p9_a_route_expires_unless_its_lease_is_renewed(cache: &dyn Cache) {
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
