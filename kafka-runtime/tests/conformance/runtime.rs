//! A runtime: several consumers and producers, configured by addresses, in one process.

use crate::backend::brokers;
use crate::support::{Handled, enqueue, eventually};
use kafka_runtime::{
    Address, Batch, Error, HandlerError, Health, Message, Outcome, Producer, ProducerRecord, Record,
    RecordHandler, Runtime,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The location of a test's topics.
struct Location {
    text: String,
    unique: String,
    _folder: TempDir,
}

impl Location {
    fn kafka() -> Self {
        let text = format!("kafka://{}?replication=1", brokers().join(","));
        Self { text, unique: unique(), _folder: tempfile::tempdir().unwrap() }
    }

    fn log() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("log://{}?log.backlog=5000", folder.path().display());
        Self { text, unique: unique(), _folder: folder }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.unique)
    }

    fn address(&self, topics: &[&str], group: &str, more: &str) -> Address {
        let topics: Vec<String> = topics.iter().map(|topic| self.topic(topic)).collect();
        let group = format!("{}-{group}", self.unique);
        let text = format!("{}&partitions=3&topics={}&group={group}{more}", self.text, topics.join(","));
        text.parse().unwrap()
    }

    async fn produce(&self, producer: &Arc<dyn Producer>, topic: &str, count: usize) {
        for n in 0..count {
            let record = ProducerRecord::new(self.topic(topic).into(), n.to_string(), format!("{topic}:{n}"));
            producer.send(record).await.expect("acknowledged");
        }
    }
}

fn unique() -> String {
    format!("test-{}", uuid::Uuid::new_v4().simple())
}

#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn handler(&self) -> impl RecordHandler {
        let seen = self.clone();
        tower::service_fn(move |message: Message| {
            let seen = seen.clone();
            async move {
                let payload = String::from_utf8(message.record.payload.to_vec()).unwrap();
                if payload.ends_with(":3") {
                    return Err(HandlerError::reject("a three"));
                }
                seen.0.lock().unwrap().push(payload);
                Ok(())
            }
        })
    }

    async fn wait_for(&self, count: usize) {
        eventually(&format!("{count} records"), async || self.0.lock().unwrap().len() >= count).await;
    }

    fn of(&self, topic: &str) -> usize {
        let seen = self.0.lock().unwrap();
        seen.iter().filter(|payload| payload.starts_with(&format!("{topic}:"))).count()
    }
}

async fn several_consumers_run_and_stop_together(location: Location) {
    let both = location.address(&["a", "b"], "both", &format!("&dead_letters={}", location.topic("dead")));
    let one = location.address(&["b"], "one", "&batch.records=2");
    let dead = location.address(&["dead"], "people", "");
    let (records, batches, letters) = (Seen::default(), Handled::default(), Handled::default());

    let mut runtime = Runtime::new();
    let producer = runtime.producer(&both).unwrap();
    let most = Arc::new(Mutex::new(0));
    let largest = Arc::clone(&most);
    let counting = batches.handler_with(move |batch| {
        let mut largest = largest.lock().unwrap();
        *largest = batch.records.len().max(*largest);
        Ok(Outcome::default())
    });
    let runtime = runtime.records("both", &both, records.handler()).unwrap();
    let runtime = runtime.batches("one", &one, counting).unwrap();
    let runtime = runtime.batches("letters", &dead, letters.handler()).unwrap();
    let health = runtime.health();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(runtime.run(stop.clone()));

    eventually("the runtime is ready", async || health() == Health::Ready).await;
    location.produce(&producer, "a", 10).await;
    location.produce(&producer, "b", 20).await;
    records.wait_for(28).await;
    batches.wait_for(20).await;
    letters.wait_for(2).await;
    stop.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(20), running.join_next()).await;
    ended.expect("it must stop").unwrap().unwrap().expect("it must end without an error");
    assert_eq!((records.of("a"), records.of("b")), (9, 19));
    assert!(*most.lock().unwrap() <= 2, "batch.records");
    drop((producer, health));

    // Each group resumes at its committed offset.
    let again = Seen::default();
    let mut runtime = Runtime::new();
    let producer = runtime.producer(&both).unwrap();
    let runtime = runtime.records("both", &both, again.handler()).unwrap();
    let stop = CancellationToken::new();
    running.spawn(runtime.run(stop.clone()));
    location.produce(&producer, "new", 0).await;
    let record = ProducerRecord::new(location.topic("a").into(), "k", "new:1");
    producer.send(record).await.unwrap();
    again.wait_for(1).await;
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(*again.0.lock().unwrap(), ["new:1"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_consumers_run_and_stop_together_on_the_embedded_log() {
    several_consumers_run_and_stop_together(Location::log()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_consumers_run_and_stop_together_on_kafka() {
    several_consumers_run_and_stop_together(Location::kafka()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runtime_that_is_dropped_leaves_its_group_at_once() {
    let location = Location::kafka();
    let address = location.address(&["a"], "same", "");
    let start = |seen: &Seen| {
        let mut runtime = Runtime::new();
        let producer = runtime.producer(&address).unwrap();
        let runtime = runtime.records("reader", &address, seen.handler()).unwrap();
        let (health, mut running) = (runtime.health(), JoinSet::new());
        running.spawn(runtime.run(CancellationToken::new()));
        (producer, health, running)
    };
    let (first, second) = (Seen::default(), Seen::default());
    let (producer, health, mut running) = start(&first);
    eventually("the runtime is ready", async || health() == Health::Ready).await;
    location.produce(&producer, "a", 1).await;
    first.wait_for(1).await;
    running.shutdown().await;
    // Holding the health function must not keep the runtime alive.
    let has_ended = || matches!(health(), Health::Failing { reason } if reason.contains("has ended"));
    eventually("the first runtime has ended", async || has_ended()).await;
    let (producer, _, _running) = start(&second);
    location.produce(&producer, "a", 2).await;
    second.wait_for(2).await;
    assert!(has_ended());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_consumer_stops_the_others_and_is_named() {
    let location = Location::log();
    let address = location.address(&["a"], "same", "");
    let other = location.address(&["b"], "other", "");
    let seen = Seen::default();
    let runtime = Runtime::new().records("first", &address, seen.handler()).unwrap();
    // The embedded log allows one consumer per group and topic.
    let runtime = runtime.records("second", &address, seen.handler()).unwrap();
    let runtime = runtime.records("other", &other, seen.handler()).unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(20), runtime.run(CancellationToken::new())).await;
    match ended.expect("all consumers must stop") {
        Err(Error::Consumer { name, source }) => {
            assert!(["first", "second"].contains(&&*name), "{name}");
            assert!(matches!(*source, Error::Attached { .. }), "{source}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_consumers_are_refused_when_they_are_added() {
    let location = Location::log();
    let seen = Seen::default();
    let config_error = |result: Result<Runtime, Error>| match result {
        Err(Error::Consumer { source, .. }) => source.to_string(),
        other => panic!("{other:?}"),
    };
    let address = location.address(&["a"], "g", "");
    let runtime = || Runtime::new().records("a", &address, seen.handler()).unwrap();
    assert_eq!(
        config_error(runtime().records("a", &address, seen.handler())),
        "another consumer has this name"
    );
    let without: Address = "log:data".parse().unwrap();
    assert!(config_error(runtime().records("b", &without, seen.handler())).contains("needs a `group`"));
    let by_key = location.address(&["a"], "g", "&ordering=key");
    let handled = Handled::default();
    assert!(config_error(runtime().batches("b", &by_key, handled.handler())).contains("`ordering=key`"));
    let uncommitted = "kafka://h:1?topics=a&group=g&isolation=read_uncommitted".parse().unwrap();
    let nothing = tower::service_fn(|_: Batch| async { Ok::<_, HandlerError>(Vec::new()) });
    assert!(
        config_error(runtime().transform("b", &uncommitted, nothing))
            .contains("`isolation=read_uncommitted`")
    );
    let other = location.address(&["a"], "g", "&log.keep=7");
    assert!(
        config_error(runtime().records("b", &other, seen.handler())).contains("is open with other options")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_topic_fails_the_start() {
    let location = Location::kafka();
    let text = format!("{}&topics={}&group=g", location.text, location.topic("missing"));
    let address: Address = text.parse().unwrap();
    let seen = Seen::default();
    let runtime = Runtime::new().records("missing", &address, seen.handler()).unwrap();
    let error = runtime.run(CancellationToken::new()).await.expect_err("the topic does not exist");
    assert!(matches!(&error, Error::Topic { reason, .. } if reason.contains("does not exist")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_is_created_if_any_address_specifies_its_partitions() {
    let location = Location::kafka();
    let text = format!("{}&topics={}&group={}-g", location.text, location.topic("a"), location.unique);
    let (without, with) = (text.parse().unwrap(), location.address(&["a"], "with", ""));
    let seen = Seen::default();
    let runtime = Runtime::new().records("without", &without, seen.handler()).unwrap();
    let runtime = runtime.records("with", &with, seen.handler()).unwrap();
    let (stop, mut running, health) = (CancellationToken::new(), JoinSet::new(), runtime.health());
    running.spawn(runtime.run(stop.clone()));
    tokio::select! {
        () = eventually("both read", async || health() == Health::Ready) => {}
        ended = running.join_next() => panic!("{ended:?}"),
    }
    stop.cancel();
    running.join_next().await.unwrap().unwrap().expect("it must end without an error");
}

async fn records_are_transformed(location: Location) {
    let read = location.address(&["in"], "making", "");
    let made = location.address(&["out"], "reading", "");
    let topic: Arc<str> = location.topic("out").into();
    let double = tower::service_fn(move |batch: Batch| {
        let topic = Arc::clone(&topic);
        async move {
            let twice = |record: &Record| [0, 1].map(|_| (record.key.clone(), record.payload.clone()));
            let outputs = batch.records.iter().flat_map(twice);
            let outputs = outputs.map(|(key, payload)| ProducerRecord::new(Arc::clone(&topic), key, payload));
            Ok::<_, HandlerError>(outputs.collect::<Vec<_>>())
        }
    });
    let handled = Handled::default();
    let mut runtime = Runtime::new();
    let producer = runtime.producer(&read).unwrap();
    drop(runtime.producer(&made).unwrap());
    let runtime = runtime.transform("making", &read, double).unwrap();
    let runtime = runtime.batches("reading", &made, handled.handler()).unwrap();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(runtime.run(stop.clone()));
    eventually("the topic takes records", async || {
        producer.send(ProducerRecord::new(location.topic("in").into(), "k", "in:0")).await.is_ok()
    })
    .await;
    handled.wait_for(2).await;
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(handled.payloads(), ["in:0", "in:0"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_transformed_on_the_embedded_log() {
    records_are_transformed(Location::log()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_transformed_on_kafka() {
    records_are_transformed(Location::kafka()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queued_records_are_written_before_the_runtime_ends() {
    let location = Location::kafka();
    // The linger time exceeds the time that everything else takes.
    let address = location.address(&["a"], "g", "&produce.linger=1500ms");
    let mut runtime = Runtime::new();
    let producer = runtime.producer(&address).unwrap();
    let health = runtime.health();
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(runtime.run(stop.clone()));
    location.produce(&producer, "a", 1).await;
    assert_eq!(health(), Health::Ready);
    let mut answer = enqueue(producer.as_ref(), ProducerRecord::new(location.topic("a").into(), "k", "a:1"));
    stop.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
    assert!(matches!(answer.try_recv(), Ok(Ok(_))), "{answer:?}");

    // Also if it is stopped before it is started.
    let mut runtime = Runtime::new();
    let producer = runtime.producer(&address).unwrap();
    let mut answer = enqueue(producer.as_ref(), ProducerRecord::new(location.topic("a").into(), "k", "a:2"));
    runtime.run(stop).await.unwrap();
    assert!(matches!(answer.try_recv(), Ok(Ok(_))), "{answer:?}");
}
