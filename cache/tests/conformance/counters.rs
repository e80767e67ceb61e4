//! Counters: receiver seqs and their epochs.

use crate::support::{LONG, current, routes};
use abi::v1::ReceiverSeq;
use cache::Cache;

pub(crate) async fn p4_a_counter_increases_within_its_epoch(cache: &dyn Cache) {
    let first = current(cache, "app", "alice").await;
    assert_ne!(first.epoch, 0);
    assert_eq!(first.seq, 0);
    let incremented = cache.increment("app", &[("alice", 3)]).await.unwrap();
    assert_eq!(incremented, [ReceiverSeq { epoch: first.epoch, seq: 3 }]);
    let incremented = cache.increment("app", &[("alice", 1)]).await.unwrap();
    assert_eq!(incremented, [ReceiverSeq { epoch: first.epoch, seq: 4 }]);
    assert_eq!(current(cache, "app", "alice").await, incremented[0]);
}

pub(crate) async fn p4_a_missing_counter_starts_an_epoch(cache: &dyn Cache) {
    let incremented = cache.increment("app", &[("bob", 2), ("carol", 1)]).await.unwrap();
    assert_eq!(incremented.iter().map(|seq| seq.seq).collect::<Vec<_>>(), [2, 1]);
    assert!(incremented.iter().all(|seq| seq.epoch != 0));
    assert_eq!(current(cache, "app", "bob").await, incremented[0]);
}

pub(crate) async fn p4_each_user_of_each_application_has_a_counter(cache: &dyn Cache) {
    cache.increment("app", &[("dave", 5)]).await.unwrap();
    assert_eq!(current(cache, "other", "dave").await.seq, 0);
    assert_eq!(current(cache, "app", "dav").await.seq, 0);
}

pub(crate) async fn p4_concurrent_increments_all_count(cache: &dyn Cache) {
    let increment = |_| cache.increment("app", &[("erin", 1), ("frank", 2)]);
    let calls: Vec<_> = (0..50).map(increment).collect();
    let incremented = futures_util::future::join_all(calls).await;
    let epoch = cache.connect("app", "erin", "c", "gw:1", LONG).await.unwrap().epoch;
    let mut seen = Vec::new();
    for seqs in incremented {
        let erin = seqs.unwrap()[0];
        assert_eq!(erin.epoch, epoch, "two calls started an epoch");
        seen.push(erin.seq);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    assert_eq!(current(cache, "app", "frank").await.seq, 100);
}

pub(crate) async fn p5_connect_returns_the_counter_without_incrementing_it(cache: &dyn Cache) {
    let made = cache.connect("app", "grace", "c1", "gw:1", LONG).await.unwrap();
    assert_eq!(made.seq, 0);
    let incremented = cache.increment("app", &[("grace", 7)]).await.unwrap()[0];
    assert_eq!(incremented.epoch, made.epoch);
    assert_eq!(cache.connect("app", "grace", "c1", "gw:1", LONG).await.unwrap(), incremented);
    assert_eq!(routes(cache, "app", &["grace"]).await, [["gw:1"]]);
}
