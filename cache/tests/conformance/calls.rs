//! Calls in general.

use crate::support::routes;
use cache::Cache;

pub(crate) async fn an_empty_request_has_an_empty_result(cache: &dyn Cache) {
    assert!(cache.increment("app", &[]).await.unwrap().is_empty());
    assert!(routes(cache, "app", &[]).await.is_empty());
}

pub(crate) async fn ping_succeeds(cache: &dyn Cache) {
    cache.ping().await.unwrap();
}
