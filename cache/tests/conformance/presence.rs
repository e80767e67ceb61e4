//! Presence: who is online, since when not, and who watches.

use crate::support::{LONG, eventually};
use cache::{Cache, MAX_WATCHERS, Presence};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

async fn presence(cache: &dyn Cache, user: &str) -> Presence {
    cache.presence("app", &[user]).await.unwrap().remove(0)
}

fn unix_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}

fn assert_recent(last_seen_ms: Option<i64>) {
    let ago = unix_ms() - last_seen_ms.expect("the user was seen");
    assert!((-100..5_000).contains(&ago), "{ago} ms ago");
}

pub(crate) async fn a_user_is_online_from_the_first_connection_to_the_last(cache: &dyn Cache) {
    let unknown = Presence { online: false, last_seen_ms: None, text: String::new() };
    assert_eq!(cache.presence("app", &["alice", "bob"]).await.unwrap(), [unknown.clone(), unknown.clone()]);
    assert!(cache.connect("app", "alice", "phone", "gw:1", LONG).await.unwrap().was_offline);
    assert!(!cache.connect("app", "alice", "laptop", "gw:2", LONG).await.unwrap().was_offline);
    let online = Presence { online: true, ..unknown.clone() };
    assert_eq!(cache.presence("app", &["bob", "alice"]).await.unwrap(), [unknown.clone(), online]);
    assert_eq!(cache.presence("other", &["alice"]).await.unwrap(), [unknown]);
    assert!(!cache.disconnect("app", "alice", "phone").await.unwrap());
    assert!(presence(cache, "alice").await.online);
    assert!(cache.disconnect("app", "alice", "laptop").await.unwrap());
    let offline = presence(cache, "alice").await;
    assert!(!offline.online);
    assert_recent(offline.last_seen_ms);
    assert!(cache.connect("app", "alice", "phone", "gw:1", LONG).await.unwrap().was_offline);
    assert_eq!(presence(cache, "alice").await.last_seen_ms, None);
}

pub(crate) async fn a_repeated_call_reports_the_same_transition(cache: &dyn Cache) {
    for _ in 0..2 {
        assert!(cache.connect("app", "bob", "c", "gw:1", LONG).await.unwrap().was_offline);
    }
    assert!(cache.disconnect("app", "bob", "c").await.unwrap());
    let seen = presence(cache, "bob").await.last_seen_ms;
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert!(cache.disconnect("app", "bob", "c").await.unwrap());
    assert_eq!(presence(cache, "bob").await.last_seen_ms, seen);
}

pub(crate) async fn an_expired_lease_ends_the_presence_at_its_expiry(cache: &dyn Cache) {
    cache.connect("app", "carol", "c", "gw:1", Duration::from_millis(100)).await.unwrap();
    cache.set_presence_text("app", "carol", "at lunch").await.unwrap();
    assert!(presence(cache, "carol").await.online);
    eventually("the lease expires", async || !presence(cache, "carol").await.online).await;
    let expired = presence(cache, "carol").await;
    assert_recent(expired.last_seen_ms);
    assert_eq!(expired.text, "");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let later = presence(cache, "carol").await.last_seen_ms.unwrap();
    assert!((later - expired.last_seen_ms.unwrap()).abs() <= 1, "{later} {expired:?}");
    assert!(cache.connect("app", "carol", "d", "gw:1", LONG).await.unwrap().was_offline);
    assert_eq!(presence(cache, "carol").await.text, "");
}

pub(crate) async fn a_presence_text_ends_with_the_last_connection(cache: &dyn Cache) {
    let text = async || presence(cache, "dave").await.text;
    cache.set_presence_text("app", "dave", "before connecting").await.unwrap();
    assert_eq!(text().await, "");
    cache.connect("app", "dave", "phone", "gw:1", LONG).await.unwrap();
    assert_eq!(text().await, "");
    cache.set_presence_text("app", "dave", "on holiday: 2 weeks").await.unwrap();
    cache.connect("app", "dave", "laptop", "gw:1", LONG).await.unwrap();
    cache.disconnect("app", "dave", "phone").await.unwrap();
    assert_eq!(text().await, "on holiday: 2 weeks");
    cache.set_presence_text("app", "dave", "").await.unwrap();
    assert_eq!(text().await, "");
    cache.set_presence_text("app", "dave", "back").await.unwrap();
    cache.disconnect("app", "dave", "laptop").await.unwrap();
    cache.connect("app", "dave", "phone", "gw:1", LONG).await.unwrap();
    assert_eq!(text().await, "");
}

pub(crate) async fn a_watcher_is_listed_until_its_lease_expires(cache: &dyn Cache) {
    let watchers = async |user| {
        let mut watchers = cache.watchers("app", user).await.unwrap();
        watchers.sort();
        watchers
    };
    let short = Duration::from_millis(200);
    cache.watch("app", "erin", &["alice", "bob"], LONG).await.unwrap();
    cache.watch("app", "frank", &["alice"], short).await.unwrap();
    cache.watch("app", "grace", &["alice"], short).await.unwrap();
    cache.watch("app", "grace", &["alice"], LONG).await.unwrap();
    assert_eq!(watchers("bob").await, ["erin"]);
    eventually("a lease expires", async || watchers("alice").await == ["erin", "grace"]).await;
    assert_eq!(watchers("bob").await, ["erin"]);
    assert!(watchers("nobody").await.is_empty());
    assert!(cache.connect("app", "bob", "phone", "gw:1", LONG).await.unwrap().is_watched);
    assert!(!cache.connect("app", "nobody", "phone", "gw:1", LONG).await.unwrap().is_watched);
    assert!(cache.watchers("other", "alice").await.unwrap().is_empty());
}

pub(crate) async fn p7_a_user_has_a_bounded_number_of_watchers(cache: &dyn Cache) {
    let short = Duration::from_millis(500);
    let watch = |number: usize, ttl| async move {
        cache.watch("app", &number.to_string(), &["alice"], ttl).await.unwrap();
    };
    futures_util::future::join_all((1..MAX_WATCHERS).map(|number| watch(number, LONG))).await;
    watch(0, short).await;
    watch(MAX_WATCHERS, LONG).await;
    let watchers = cache.watchers("app", "alice").await.unwrap();
    assert_eq!(watchers.len(), MAX_WATCHERS);
    assert!(!watchers.contains(&MAX_WATCHERS.to_string()));
    // An expired lease makes room.
    tokio::time::sleep(short).await;
    watch(MAX_WATCHERS, LONG).await;
    let watchers = cache.watchers("app", "alice").await.unwrap();
    assert!(watchers.contains(&MAX_WATCHERS.to_string()) && !watchers.contains(&"0".to_string()));
}
