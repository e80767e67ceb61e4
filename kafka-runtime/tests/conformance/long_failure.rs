//! A partition whose handler fails for a long time, on Kafka. Guards P1, P3 and P6.

use crate::backend::{Backend, Kafka, brokers};
use crate::support::{Answer, Running, enqueue, eventually, payload};
use kafka_runtime::{
    Consumer, HandlerError, Message, Observer, ProducerRecord, QueueLimits, RecordHandler, TopicPartition,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const KEYS: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
/// The interval at which each key gets a record.
const EVERY: Duration = Duration::from_millis(100);

/// `GODWIT_TEST_FAILING_SECONDS`, or 20 s, which exceeds the session timeout of 6 s.
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

/// The ids of the group's members, according to the broker.
async fn members(group: String) -> Vec<String> {
    let query = move || {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", brokers().join(",")).create().unwrap();
        let list = consumer.fetch_group_list(Some(&group), Duration::from_secs(10)).unwrap();
        list.groups()[0].members().iter().map(|member| member.id().to_owned()).collect()
    };
    tokio::task::spawn_blocking(query).await.unwrap()
}

#[derive(Default)]
struct Seen {
    /// The time at which each payload was handled.
    handled: BTreeMap<String, Instant>,
    /// Payloads of each partition, in the order of handling.
    order: BTreeMap<i32, Vec<String>>,
    attempts: u32,
}

/// A handler whose calls fail for one partition while `fails` is set.
#[derive(Clone)]
struct Handler {
    seen: Arc<Mutex<Seen>>,
    fails: Arc<AtomicBool>,
    victim: i32,
}

impl Handler {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    fn service(&self) -> impl RecordHandler {
        let handler = self.clone();
        tower::service_fn(move |Message { record, attempt }: Message| {
            let mut seen = handler.seen();
            let outcome = if record.partition == handler.victim && handler.fails.load(Ordering::SeqCst) {
                seen.attempts = seen.attempts.max(attempt);
                Err(HandlerError::retry("the store is unavailable"))
            } else {
                seen.handled.insert(payload(&record), Instant::now());
                seen.order.entry(record.partition).or_default().push(payload(&record));
                Ok(())
            };
            async { outcome }
        })
    }
}

/// The partition of each payload and the time at which it was sent.
type Sent = BTreeMap<String, (i32, Instant)>;

fn send(backend: &Kafka, key: &str, n: usize) -> Answer {
    let record = ProducerRecord::new(backend.topic(), key.to_owned(), format!("{key}:{n}"));
    enqueue(backend.producer().as_ref(), record)
}

/// Sends records to all keys for a while. Returns the number of the last record of each key.
async fn send_for(time: Duration, backend: &Kafka, sent: &mut Sent) -> usize {
    let (start, mut n) = (Instant::now(), 0);
    while start.elapsed() < time {
        n += 1;
        let answers: Vec<_> =
            KEYS.iter().map(|key| (format!("{key}:{n}"), Instant::now(), send(backend, key, n))).collect();
        for (payload, at, answer) in answers {
            sent.insert(payload, (answer.await.unwrap().unwrap().partition, at));
        }
        tokio::time::sleep(EVERY).await;
    }
    n
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_partition_keeps_its_member_and_order_and_does_not_delay_others() {
    let mut backend = Kafka::new().await;
    // Small, so that fetching is paused and resumed.
    backend.source_config.queue = QueueLimits { records: 500, bytes: 1 << 20 };
    let victim = send(&backend, "a", 0).await.unwrap().unwrap().partition;
    let mut sent = Sent::from([("a:0".into(), (victim, Instant::now()))]);

    let handler = Handler { seen: Arc::default(), fails: Arc::new(AtomicBool::new(true)), victim };
    let rebalances = Arc::new(Rebalances::default());
    let observer: Arc<dyn Observer> = Arc::clone(&rebalances) as Arc<dyn Observer>;
    let running = Running::spawn(Consumer::records(backend.source(), handler.service()).observe(observer));
    eventually("the failing partition is tried", async || handler.seen().attempts > 0).await;
    let group = backend.source_config.group.clone();
    let before = members(group.clone()).await;
    assert_eq!((before.len(), rebalances.0.load(Ordering::SeqCst)), (1, 1));

    let time = failing_time();
    let last = send_for(time, &backend, &mut sent).await;
    assert!(!handler.seen().order.contains_key(&victim), "no record of a failing partition must be handled");
    let others = sent.values().filter(|(partition, _)| *partition != victim).count();
    eventually("the other records are handled", async || handler.seen().handled.len() == others).await;
    assert_eq!(members(group).await, before, "the member must stay in its group");
    assert_eq!(rebalances.0.load(Ordering::SeqCst), 1, "it must keep its partitions");
    let committed = backend.committed().await;
    assert!(!committed.contains_key(&victim) && committed.len() > 1, "{committed:?}");

    handler.fails.store(false, Ordering::SeqCst);
    let recovered = Instant::now();
    eventually("all records are handled", async || handler.seen().handled.len() == sent.len()).await;
    running.stop().await;

    check_delays(&handler, &sent, recovered, last);
    check_order(&handler.seen(), &sent, last);
}

/// Checks that the failing partition resumed soon, and that the others were never delayed. Prints the figures.
#[expect(clippy::print_stdout, reason = "prints the figures")]
fn check_delays(handler: &Handler, sent: &Sent, recovered: Instant, last: usize) {
    let seen = handler.seen();
    let resumed = seen.handled["a:0"].duration_since(recovered);
    let caught_up = seen.handled[&format!("a:{last}")].duration_since(recovered);
    let others = sent.iter().filter(|(_, (partition, _))| *partition != handler.victim);
    let mut delays: Vec<_> =
        others.map(|(payload, (_, at))| seen.handled[payload].duration_since(*at)).collect();
    delays.sort();
    let (median, longest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    println!(
        "failed for {:?} and {} attempts; resumed after {resumed:?}; caught up with {} records after {caught_up:?}; \
         {} records of other partitions took {median:?} from producer to handler (median), {longest:?} at most",
        failing_time(),
        seen.attempts,
        sent.len() - delays.len(),
        delays.len(),
    );
    assert!(resumed < Duration::from_secs(1), "it resumed after {resumed:?}");
    assert!(longest < Duration::from_secs(5), "other partitions waited for {longest:?}");
}

fn check_order(seen: &Seen, sent: &Sent, last: usize) {
    for key in KEYS {
        let partition = sent[&format!("{key}:1")].0;
        let order = seen.order[&partition].iter().filter(|payload| payload.starts_with(&format!("{key}:")));
        let first = usize::from(key != "a");
        let expected: Vec<String> = (first..=last).map(|n| format!("{key}:{n}")).collect();
        assert_eq!(order.cloned().collect::<Vec<_>>(), expected, "each record once and in order");
    }
}
