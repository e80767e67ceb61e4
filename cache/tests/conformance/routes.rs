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
    let order = cache.connect("app", "niaj", "renewed", "gw:2", short).await.unwrap().order;
    cache.renew("app", "niaj", "renewed", "gw:2", order, LONG).await.unwrap();
    cache.connect("app", "olivia", "short", "gw:1", short).await.unwrap();
    eventually("the leases expire", async || {
        routes(cache, "app", &["niaj", "olivia"]).await == [vec!["gw:2"], vec![]]
    })
    .await;
    // A later connection does not restore an expired one.
    cache.connect("app", "olivia", "long", "gw:3", LONG).await.unwrap();
    assert_eq!(routes(cache, "app", &["olivia"]).await, [["gw:3"]]);
}

pub(crate) async fn p9_a_later_connection_has_a_larger_order(cache: &dyn Cache) {
    let mut last = 0;
    for number in 0..20 {
        let (connection, gateway) = (format!("c{number}"), format!("gw:{}", number % 3));
        let connected = cache.connect("app", "peggy", &connection, &gateway, LONG).await.unwrap();
        assert!(connected.order > last, "{} after {last}", connected.order);
        last = connected.order;
        // A repeated call is the same connection.
        let repeated = cache.connect("app", "peggy", &connection, &gateway, LONG).await.unwrap();
        assert_eq!(repeated.order, last);
        if number % 2 == 0 {
            cache.disconnect("app", "peggy", &connection).await.unwrap();
        }
    }
}

pub(crate) async fn p9_a_renewal_keeps_the_order(cache: &dyn Cache) {
    let old = cache.connect("app", "rupert", "old", "gw:1", LONG).await.unwrap();
    let new = cache.connect("app", "rupert", "new", "gw:2", LONG).await.unwrap();
    cache.renew("app", "rupert", "old", "gw:1", old.order, LONG).await.unwrap();
    for (connection, order) in [("old", old.order), ("new", new.order)] {
        let repeated = cache.connect("app", "rupert", connection, "gw:1", LONG).await.unwrap();
        assert_eq!(repeated.order, order);
    }
}

pub(crate) async fn p9_a_renewal_of_a_lost_route_raises_later_orders(cache: &dyn Cache) {
    let now = cache.connect("app", "sybil", "now", "gw:1", LONG).await.unwrap().order;
    // The cache that gave this order to the connection has lost its data.
    let earlier = now + 1_000_000;
    cache.renew("app", "sybil", "earlier", "gw:1", earlier, LONG).await.unwrap();
    assert_eq!(cache.connect("app", "sybil", "earlier", "gw:1", LONG).await.unwrap().order, earlier);
    assert!(cache.connect("app", "sybil", "later", "gw:2", LONG).await.unwrap().order > earlier);
    assert!(cache.connect("app", "trent", "later", "gw:2", LONG).await.unwrap().order > earlier);
}
