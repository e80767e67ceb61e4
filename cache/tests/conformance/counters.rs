//! Counters: receiver seqs and their epochs.

use crate::support::{LONG, current, increment, routes};
use abi::v1::ReceiverSeq;
use cache::{Cache, Changes, Increment, MAX_SUBJECTS};

pub(crate) async fn p4_a_counter_increases_within_its_epoch(cache: &dyn Cache) {
    let first = current(cache, "app", "alice").await;
    assert_ne!(first.epoch, 0);
    assert_eq!(first.seq, 0);
    let incremented = increment(cache, "app", &[("alice", 3)]).await;
    assert_eq!(incremented, [ReceiverSeq { epoch: first.epoch, seq: 3 }]);
    let incremented = increment(cache, "app", &[("alice", 1)]).await;
    assert_eq!(incremented, [ReceiverSeq { epoch: first.epoch, seq: 4 }]);
    assert_eq!(current(cache, "app", "alice").await, incremented[0]);
}

pub(crate) async fn p4_a_missing_counter_starts_an_epoch(cache: &dyn Cache) {
    let incremented = increment(cache, "app", &[("bob", 2), ("carol", 1)]).await;
    assert_eq!(incremented.iter().map(|seq| seq.seq).collect::<Vec<_>>(), [2, 1]);
    assert!(incremented.iter().all(|seq| seq.epoch != 0));
    assert_eq!(current(cache, "app", "bob").await, incremented[0]);
}

pub(crate) async fn p4_each_user_of_each_application_has_a_counter(cache: &dyn Cache) {
    increment(cache, "app", &[("dave", 5)]).await;
    assert_eq!(current(cache, "other", "dave").await.seq, 0);
    assert_eq!(current(cache, "app", "dav").await.seq, 0);
}

pub(crate) async fn p4_concurrent_increments_all_count(cache: &dyn Cache) {
    let calls: Vec<_> = (0..50).map(|_| increment(cache, "app", &[("erin", 1), ("frank", 2)])).collect();
    let incremented = futures_util::future::join_all(calls).await;
    let epoch = current(cache, "app", "erin").await.epoch;
    let mut seen = Vec::new();
    for seqs in incremented {
        let erin = seqs[0];
        assert_eq!(erin.epoch, epoch, "two calls started an epoch");
        seen.push(erin.seq);
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
    assert_eq!(current(cache, "app", "frank").await.seq, 100);
}

pub(crate) async fn p5_connect_returns_the_counter_without_incrementing_it(cache: &dyn Cache) {
    let made = cache.connect("app", "grace", "c1", "gw:1", LONG).await.unwrap();
    assert_eq!(made.receiver_seq.seq, 0);
    let incremented = increment(cache, "app", &[("grace", 7)]).await[0];
    assert_eq!(incremented.epoch, made.receiver_seq.epoch);
    let renewed = cache.renew("app", "grace", "c1", "gw:1", made.order, LONG).await.unwrap();
    assert_eq!(renewed, incremented);
    assert_eq!(routes(cache, "app", &["grace"]).await, [["gw:1"]]);
}

/// Increments a user's counter by the number of subjects.
async fn change(cache: &dyn Cache, user: &str, subjects: &[&str]) -> ReceiverSeq {
    let increment = Increment { user, by: subjects.len().try_into().unwrap(), subjects: subjects.to_vec() };
    cache.increment("app", &[increment]).await.unwrap()[0]
}

/// The sorted subjects that changed.
async fn changed(cache: &dyn Cache, user: &str, since: ReceiverSeq) -> Option<Vec<String>> {
    let Changes { now, subjects } = cache.changes("app", user, since).await.unwrap();
    assert_eq!(now, current(cache, "app", user).await);
    let mut subjects = subjects?;
    subjects.sort();
    Some(subjects)
}

pub(crate) async fn p5_changes_are_the_distinct_subjects_since_a_position(cache: &dyn Cache) {
    let first = change(cache, "alice", &["g:1", "d:alice:bob"]).await;
    let second = change(cache, "alice", &["g:2"]).await;
    let third = change(cache, "alice", &["g:1"]).await;
    change(cache, "bob", &["g:9"]).await;
    assert_eq!(cache.changes("app", "alice", first).await.unwrap().subjects.unwrap(), ["g:1", "g:2"]);
    assert_eq!(changed(cache, "alice", second).await.unwrap(), ["g:1"]);
    assert!(changed(cache, "alice", third).await.unwrap().is_empty());
    let before = ReceiverSeq { seq: 0, ..first };
    assert_eq!(changed(cache, "alice", before).await.unwrap(), ["d:alice:bob", "g:1", "g:2"]);
}

pub(crate) async fn p5_changes_since_an_unknown_position_are_not_known(cache: &dyn Cache) {
    let now = change(cache, "alice", &["g:1"]).await;
    let epoch = now.epoch % 1_000 + 1_000;
    for since in [
        ReceiverSeq { epoch, seq: 0 },
        ReceiverSeq::default(),
        ReceiverSeq { seq: now.seq + 1, ..now },
        ReceiverSeq { epoch: u32::MAX, seq: u64::MAX },
        ReceiverSeq { seq: u64::MAX, ..now },
    ] {
        assert_eq!(cache.changes("app", "alice", since).await.unwrap(), Changes { now, subjects: None });
    }
    // A counter that does not exist begins.
    let made = cache.changes("app", "carol", ReceiverSeq::default()).await.unwrap();
    assert_ne!(made.now.epoch, 0);
    assert_eq!(made.subjects, None);
    assert_eq!(made.now, current(cache, "app", "carol").await);
}

pub(crate) async fn p5_an_increment_without_subjects_makes_earlier_positions_unknown(cache: &dyn Cache) {
    let first = change(cache, "alice", &["g:1"]).await;
    let unnamed = Increment { user: "alice", by: 1, subjects: Vec::new() };
    let second = cache.increment("app", &[unnamed]).await.unwrap()[0];
    change(cache, "alice", &["g:2"]).await;
    assert_eq!(changed(cache, "alice", first).await, None);
    assert_eq!(changed(cache, "alice", second).await.unwrap(), ["g:2"]);
}

pub(crate) async fn p7_the_index_keeps_the_last_changed_subjects(cache: &dyn Cache) {
    let names: Vec<String> = (0..4 * MAX_SUBJECTS).map(|number| format!("g:{number}")).collect();
    let mut positions = vec![current(cache, "app", "alice").await];
    for name in &names {
        positions.push(change(cache, "alice", &[name]).await);
    }
    let since = |back: usize| changed(cache, "alice", positions[names.len() - back]);
    assert_eq!(since(MAX_SUBJECTS).await.unwrap().len(), MAX_SUBJECTS);
    assert_eq!(since(2 * MAX_SUBJECTS).await, None);
    // One increment with more subjects than the index keeps.
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let last = change(cache, "alice", &names).await;
    assert_eq!(changed(cache, "alice", positions[400]).await, None);
    assert!(changed(cache, "alice", last).await.unwrap().is_empty());
}
