//! Order per key: different keys concurrently, records of one key never. Guards P1 and P3.

use crate::backend::Backend;
use crate::support::{Handled, Running, config, eventually, expected, produce, records, without_repeats};
use kafka_runtime::{ConsumerConfig, HandlerError, Message, Ordering as Order};
use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
const CONCURRENCY: usize = 3;

fn per_key() -> ConsumerConfig {
    let concurrency = NonZeroUsize::new(CONCURRENCY).unwrap();
    ConsumerConfig { ordering: Order::Key { concurrency }, ..config() }
}

/// The keys being handled by partition, and the largest number of keys that one partition had at a time.
#[derive(Default)]
struct Busy {
    keys: HashMap<i32, Vec<String>>,
    most: usize,
    overlaps: Vec<String>,
}

impl Busy {
    fn begin(&mut self, partition: i32, key: &str) {
        let keys = self.keys.entry(partition).or_default();
        if keys.iter().any(|busy| busy == key) {
            self.overlaps.push(key.to_owned());
        }
        keys.push(key.to_owned());
        self.most = self.most.max(keys.len());
    }

    fn end(&mut self, partition: i32, key: &str) {
        let keys = self.keys.entry(partition).or_default();
        keys.remove(keys.iter().position(|busy| busy == key).expect("the key must be busy"));
    }
}

/// Takes a few milliseconds per record. The first attempts of some records fail.
async fn sometimes_failing(message: &Message) -> Result<(), HandlerError> {
    let offset = message.record.offset as u64;
    tokio::time::sleep(Duration::from_millis(1 + offset * 7 % 5)).await;
    match u64::from(message.attempt) <= offset % 3 {
        true => Err(HandlerError::retry("a temporary failure")),
        false => Ok(()),
    }
}

fn key(message: &Message) -> String {
    String::from_utf8(message.record.key.to_vec()).unwrap()
}

pub(crate) async fn keys_are_handled_concurrently_and_each_in_order(backend: impl Backend) {
    let (handled, busy) = (Handled::default(), Arc::new(Mutex::new(Busy::default())));
    let (adds, seen) = (handled.clone(), Arc::clone(&busy));
    let handler = tower::service_fn(move |message: Message| {
        let (adds, seen) = (adds.clone(), Arc::clone(&seen));
        async move {
            let (partition, key) = (message.record.partition, key(&message));
            seen.lock().unwrap().begin(partition, &key);
            let result = sometimes_failing(&message).await;
            seen.lock().unwrap().end(partition, &key);
            result.map(|()| adds.add_one(message.record))
        }
    });
    produce(&backend, &KEYS, 30).await;
    let running = Running::spawn(records(&backend, handler).config(per_key()));
    handled.wait_for(KEYS.len() * 30).await;
    running.stop().await;

    for (key, payloads) in handled.by_key() {
        assert_eq!(payloads, expected(&key, 30), "key {key}");
    }
    let busy = std::mem::take(&mut *busy.lock().unwrap());
    assert!(
        busy.overlaps.is_empty(),
        "a key must not be handled concurrently with itself: {:?}",
        busy.overlaps
    );
    assert_eq!(busy.most, CONCURRENCY, "the concurrency must be used");
    let committed: i64 = backend.committed().await.values().sum();
    assert_eq!(committed, (KEYS.len() * 30) as i64);
}

pub(crate) async fn a_failing_key_delays_only_itself_and_the_commit(backend: impl Backend) {
    let positions = produce(&backend, &KEYS, 20).await;
    let (victim, first_offset) = (positions[0].partition, positions[0].offset);
    let neighbours =
        positions.iter().enumerate().filter(|(index, at)| at.partition == victim && index % KEYS.len() != 0);
    assert!(neighbours.count() >= 20, "another key must share the partition");
    let (handled, fails) = (Handled::default(), Arc::new(AtomicBool::new(true)));
    let failing = Arc::clone(&fails);
    let handler = handled.record_handler_with(move |message| {
        match key(message) == "a" && failing.load(Ordering::SeqCst) {
            true => Err(HandlerError::retry("this key fails")),
            false => Ok(()),
        }
    });
    let running = Running::spawn(records(&backend, handler.clone()).config(per_key()));
    handled.wait_for((KEYS.len() - 1) * 20).await;
    eventually("the others are committed", async || backend.committed().await.len() > 1).await;
    let committed = backend.committed().await.get(&victim).copied().unwrap_or(0);
    assert!(committed <= first_offset, "{committed} passes {first_offset}, which is unprocessed");

    // After a crash the records that were handled ahead of the failing key are delivered again; the key itself
    // continues in order.
    running.kill().await;
    let running = Running::spawn(records(&backend, handler).config(per_key()));
    fails.store(false, Ordering::SeqCst);
    eventually("the key is handled", async || handled.by_key().get("a").is_some_and(|a| a.len() >= 20)).await;
    eventually("all records are committed", async || {
        backend.committed().await.values().sum::<i64>() == positions.len() as i64
    })
    .await;
    running.stop().await;
    for (key, payloads) in handled.by_key() {
        assert_eq!(without_repeats(payloads), expected(&key, 20), "key {key}");
    }
    assert_eq!(
        handled.by_key()["a"],
        expected("a", 20),
        "it failed first, so no record of it must come twice"
    );
}

pub(crate) async fn the_commit_never_passes_an_unprocessed_record(backend: impl Backend) {
    let handled = Handled::default();
    let adds = handled.clone();
    let handler = tower::service_fn(move |message: Message| {
        let adds = adds.clone();
        async move { sometimes_failing(&message).await.map(|()| adds.add_one(message.record)) }
    });
    let config = ConsumerConfig { commit_interval: Duration::from_millis(1), ..per_key() };
    let mut running = Running::spawn(records(&backend, handler.clone()).config(config));
    produce(&backend, &KEYS, 40).await;
    let total = KEYS.len() * 40;
    let mut crashes = 0;
    loop {
        let is_done = without_repeats(handled.payloads()).len() == total;
        // Read the committed offsets first: the records below them must have been handled earlier.
        let committed = backend.committed().await;
        let done = handled.records();
        for (partition, next) in committed {
            let below = done.iter().filter(|record| record.partition == partition && record.offset < next);
            let below: std::collections::BTreeSet<i64> = below.map(|record| record.offset).collect();
            assert_eq!(
                below.len() as i64,
                next,
                "partition {partition}: every record below the committed offset must be handled"
            );
        }
        if is_done {
            break;
        }
        if done.len() > (crashes + 1) * total / 4 && crashes < 2 {
            crashes += 1;
            running.kill().await;
            running = Running::spawn(records(&backend, handler.clone()).config(config));
        }
    }
    running.stop().await;
    for (key, payloads) in handled.by_key() {
        assert_eq!(without_repeats(payloads), expected(&key, 40), "key {key}");
    }
    assert_eq!(crashes, 2);
}
