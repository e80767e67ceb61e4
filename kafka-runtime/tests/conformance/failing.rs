//! A partition whose handler fails for long, on Kafka. Guards P1, P3 and P6.

use crate::backend::{Backend, Kafka, brokers};
use crate::support::{Running, enqueue, eventually, payload};
use kafka_runtime::{Consumer, HandlerError, Message, Observer, ProducerRecord, QueueLimits, TopicPartition};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// Each key gets a record this often.
const EVERY: Duration = Duration::from_millis(100);

/// Longer than the session of a member (6 s) by default, or `GODWIT_TEST_FAILING_SECONDS`.
fn failing_time() -> Duration {
    let seconds = std::env::var("GODWIT_TEST_FAILING_SECONDS");
    Duration::from_secs(seconds.map_or(20, |text| text.parse().expect("a number of seconds")))
}

#[derive(Default)]
struct Rebalances(AtomicUsize);

impl Observer for Rebalances {
    fn assigned(&self, _: &str, _: &[TopicPartition]) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn revoked(&self, _: &str, _: &[TopicPartition]) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self, _: &str, _: &[TopicPartition]) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// The ids of the group's members, as the broker knows them.
async fn members(group: String) -> Vec<String> {
    let ask = move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers().join(",")).create().unwrap();
        let list = consumer.fetch_group_list(Some(&group), Duration::from_secs(10)).unwrap();
        list.groups()[0].members().iter().map(|member| member.id().to_owned()).collect()
    };
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[derive(Default)]
struct Seen {
    /// When each payload was handled.
    handled: BTreeMap<String, Instant>,
    /// Payloads of each partition in the order in which they were handled.
    order: BTreeMap<i32, Vec<String>>,
    attempts: u32,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_fails_for_long_keeps_its_member_and_its_order_and_disturbs_nobody() {
    let mut backend = Kafka::new().await;
    // Small, so that fetching is paused and goes on.
    backend.source_config.queue = QueueLimits { records: 500, bytes: 1 << 20 };
    let producer = backend.producer();
    let send = |key: &str, n: usize| {
        let record = ProducerRecord::new(backend.topic(), key.to_owned(), format!("{key}:{n}"));
        enqueue(producer.as_ref(), record)
    };
    let mut sent = BTreeMap::<String, (i32, Instant)>::new();
    let victim = send("a", 0).await.unwrap().unwrap().partition;
    sent.insert("a:0".into(), (victim, Instant::now()));

    let (seen, fails) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(true)));
    let (sees, failing) = (Arc::clone(&seen), Arc::clone(&fails));
    let handler = tower::service_fn(move |Message { record, attempt }: Message| {
        let mut seen = sees.lock().unwrap();
        let outcome = if record.partition == victim && failing.load(Ordering::SeqCst) {
            seen.attempts = seen.attempts.max(attempt);
            Err(HandlerError::retry("the store is away"))
        } else {
            seen.handled.insert(payload(&record), Instant::now());
            seen.order.entry(record.partition).or_default().push(payload(&record));
            Ok(())
        };
        async { outcome }
    });
    let rebalances = Arc::new(Rebalances::default());
    let observer: Arc<dyn Observer> = Arc::clone(&rebalances) as Arc<dyn Observer>;
    let running = Running::of(Consumer::records(backend.source(), handler).observe(observer));
    eventually("the victim is tried", async || seen.lock().unwrap().attempts > 0).await;
    let group = backend.source_config.group.clone();
    let before = members(group.clone()).await;
    assert_eq!((before.len(), rebalances.0.load(Ordering::SeqCst)), (1, 1));

    let (began, time) = (Instant::now(), failing_time());
    let mut n = 0;
    while began.elapsed() < time {
        n += 1;
        let answers: Vec<_> =
            KEYS.iter().map(|key| (format!("{key}:{n}"), Instant::now(), send(key, n))).collect();
        for (payload, at, answer) in answers {
            sent.insert(payload, (answer.await.unwrap().unwrap().partition, at));
        }
        tokio::time::sleep(EVERY).await;
    }
    assert!(!seen.lock().unwrap().order.contains_key(&victim), "nothing of it is handled while it fails");
    let others = sent.values().filter(|(partition, _)| *partition != victim).count();
    eventually("all of the others are handled", async || seen.lock().unwrap().handled.len() == others).await;
    assert_eq!(members(group).await, before, "the same member");
    assert_eq!(rebalances.0.load(Ordering::SeqCst), 1, "nothing was taken from it");
    let committed = backend.committed().await;
    assert!(!committed.contains_key(&victim) && committed.len() > 1, "{committed:?}");

    fails.store(false, Ordering::SeqCst);
    let healed = Instant::now();
    eventually("all are handled", async || seen.lock().unwrap().handled.len() == sent.len()).await;
    running.stop().await;

    let seen = seen.lock().unwrap();
    let first = seen.handled["a:0"].duration_since(healed);
    let last = seen.handled[&format!("a:{n}")].duration_since(healed);
    let delays = sent.iter().filter(|(_, (partition, _))| *partition != victim);
    let mut delays: Vec<_> =
        delays.map(|(payload, (_, at))| seen.handled[payload].duration_since(*at)).collect();
    delays.sort();
    println!(
        "failed for {:?}, {} attempts; went on after {first:?}, had caught up with {} records after {last:?}; \
         meanwhile {others} others took {:?} from send to handler (median), {:?} at most",
        time,
        seen.attempts,
        sent.len() - others,
        delays[delays.len() / 2],
        delays[delays.len() - 1],
    );
    assert!(first < Duration::from_secs(1), "it went on after {first:?}");
    assert!(
        delays[delays.len() - 1] < Duration::from_secs(5),
        "others waited for {:?}",
        delays[delays.len() - 1]
    );
    for key in KEYS {
        let partition = sent[&format!("{key}:1")].0;
        let order = seen.order[&partition].iter().filter(|payload| payload.starts_with(&format!("{key}:")));
        let first = usize::from(key != "a");
        let expected: Vec<String> = (first..=n).map(|n| format!("{key}:{n}")).collect();
        assert_eq!(order.cloned().collect::<Vec<_>>(), expected, "each once and in order");
    }
}
