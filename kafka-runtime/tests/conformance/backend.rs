//! The two logs under test, each with its own topic of four partitions, dead-letter topic and group.

use async_trait::async_trait;
use kafka_runtime::topics::{self, TopicSpec};
use kafka_runtime::{
    Archive, InitialOffset, KafkaArchive, KafkaConfig, KafkaProducer, KafkaProducerConfig, KafkaSource,
    KafkaSourceConfig, Log, LogConfig, LogTopic, Producer, Record, Source,
};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PARTITIONS: usize = 4;

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    fn topic(&self) -> Arc<str>;
    fn dead_topic(&self) -> Arc<str>;
    /// A topic with one partition for the outputs of a consumer.
    fn out_topic(&self) -> Arc<str>;
    /// A producer that may be shared.
    fn producer(&self) -> Arc<dyn Producer>;
    /// A producer that the test drops.
    fn own_producer(self) -> Arc<dyn Producer>;
    fn source(&self) -> Arc<dyn Source> {
        self.source_from(InitialOffset::Earliest)
    }
    fn source_from(&self, initial: InitialOffset) -> Arc<dyn Source>;
    /// A member of another group, on any topics.
    fn source_of(&self, group: &str, topics: &[&str]) -> Arc<dyn Source>;
    /// The committed offsets of the group.
    async fn committed(&self) -> BTreeMap<i32, i64>;
    async fn dead_letters(&self) -> Vec<Record>;
    /// The outputs of committed transactions.
    async fn outputs(&self) -> Vec<Record>;
    /// The dead-letter topic.
    fn archive(&self) -> Arc<dyn Archive>;
}

pub(crate) struct Embedded {
    log: Log,
    config: LogConfig,
    directory: TempDir,
}

impl Embedded {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(adjust: impl FnOnce(&mut LogConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let events = LogTopic::new("events", PARTITIONS as u32);
        let topics = vec![events, LogTopic::untrimmed("events.dead"), LogTopic::untrimmed("events.out")];
        let mut config = LogConfig::new(directory.path(), topics);
        adjust(&mut config);
        let log = Log::open(config.clone()).unwrap();
        Self { log, config, directory }
    }

    pub(crate) fn log(&self) -> &Log {
        &self.log
    }

    /// Closes the log and opens it again.
    pub(crate) fn reopen(self) -> Self {
        let Self { log, config, directory } = self;
        drop(log);
        let log = Log::open(config.clone()).unwrap();
        Self { log, config, directory }
    }
}

#[async_trait]
impl Backend for Embedded {
    fn topic(&self) -> Arc<str> {
        "events".into()
    }

    fn dead_topic(&self) -> Arc<str> {
        "events.dead".into()
    }

    fn out_topic(&self) -> Arc<str> {
        "events.out".into()
    }

    fn producer(&self) -> Arc<dyn Producer> {
        Arc::new(self.log.clone())
    }

    fn own_producer(self) -> Arc<dyn Producer> {
        Arc::new(self.log)
    }

    fn source_from(&self, initial: InitialOffset) -> Arc<dyn Source> {
        Arc::new(self.log.source("group", &["events"]).unwrap().initial_offset(initial))
    }

    fn source_of(&self, group: &str, topics: &[&str]) -> Arc<dyn Source> {
        Arc::new(self.log.source(group, topics).unwrap())
    }

    async fn committed(&self) -> BTreeMap<i32, i64> {
        let committed =
            |partition| Some((partition, self.log.committed("group", "events", partition).unwrap()?));
        // The embedded log stores the start offset of a group at once, even if it is 0.
        (0..PARTITIONS as i32).filter_map(committed).filter(|(_, next)| *next > 0).collect()
    }

    async fn dead_letters(&self) -> Vec<Record> {
        self.log.read("events.dead", 0, 0, usize::MAX).unwrap()
    }

    async fn outputs(&self) -> Vec<Record> {
        self.log.read("events.out", 0, 0, usize::MAX).unwrap()
    }

    fn archive(&self) -> Arc<dyn Archive> {
        Arc::new(self.log.archive("events.dead").unwrap())
    }
}

/// The brokers to test against.
pub(crate) fn brokers() -> Vec<String> {
    let brokers = std::env::var("GODWIT_TEST_KAFKA")
        .expect("GODWIT_TEST_KAFKA names no Kafka broker: run tests/run, or set it to HOST:PORT");
    vec![brokers]
}

pub(crate) struct Kafka {
    topic: Arc<str>,
    producer: Arc<KafkaProducer>,
    pub(crate) source_config: KafkaSourceConfig,
}

impl Kafka {
    pub(crate) async fn new() -> Self {
        Self::with_partitions(PARTITIONS as u32).await
    }

    pub(crate) async fn with_partitions(partitions: u32) -> Self {
        let topic: Arc<str> = format!("test-{}", uuid::Uuid::new_v4().simple()).into();
        let kafka = KafkaConfig::new(brokers(), "conformance");
        let one = |name: &str| TopicSpec::new(&format!("{topic}.{name}"), 1, 1);
        let specs = [TopicSpec::new(&topic, partitions, 1), one("dead"), one("out")];
        topics::ensure(&kafka, &specs, Duration::from_secs(20)).await.expect("the topics can be created");
        let producer = Arc::new(KafkaProducer::new(&kafka, KafkaProducerConfig::default()).unwrap());
        let mut source_config = KafkaSourceConfig::new(kafka, &format!("{topic}-group"), &[&topic]);
        source_config.session_timeout = Duration::from_secs(6);
        Self { topic, producer, source_config }
    }
}

#[async_trait]
impl Backend for Kafka {
    fn topic(&self) -> Arc<str> {
        Arc::clone(&self.topic)
    }

    fn dead_topic(&self) -> Arc<str> {
        format!("{}.dead", self.topic).into()
    }

    fn out_topic(&self) -> Arc<str> {
        format!("{}.out", self.topic).into()
    }

    fn producer(&self) -> Arc<dyn Producer> {
        Arc::clone(&self.producer) as Arc<dyn Producer>
    }

    fn own_producer(self) -> Arc<dyn Producer> {
        self.producer
    }

    fn source_from(&self, initial: InitialOffset) -> Arc<dyn Source> {
        let config = KafkaSourceConfig { initial_offset: initial, ..self.source_config.clone() };
        Arc::new(KafkaSource::new(config))
    }

    fn source_of(&self, group: &str, topics: &[&str]) -> Arc<dyn Source> {
        let kafka = self.source_config.kafka.clone();
        let group = format!("{}-{group}", self.topic);
        Arc::new(KafkaSource::new(KafkaSourceConfig::new(kafka, &group, topics)))
    }

    async fn committed(&self) -> BTreeMap<i32, i64> {
        let (group, topic) = (self.source_config.group.clone(), self.topic.to_string());
        let read = move || {
            let consumer: BaseConsumer = ClientConfig::new()
                .set("bootstrap.servers", brokers().join(","))
                .set("group.id", group)
                .create()
                .unwrap();
            let mut list = TopicPartitionList::new();
            list.add_partition_range(&topic, 0, PARTITIONS as i32 - 1);
            let committed = consumer.committed_offsets(list, Duration::from_secs(10)).unwrap();
            let offsets = committed.elements();
            offsets
                .iter()
                .filter_map(|e| e.offset().to_raw().filter(|n| *n >= 0).map(|n| (e.partition(), n)))
                .collect()
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    async fn dead_letters(&self) -> Vec<Record> {
        let topic = self.dead_topic();
        tokio::task::spawn_blocking(move || read_all(&topic)).await.unwrap()
    }

    async fn outputs(&self) -> Vec<Record> {
        let topic = self.out_topic();
        tokio::task::spawn_blocking(move || read_all(&topic)).await.unwrap()
    }

    fn archive(&self) -> Arc<dyn Archive> {
        Arc::new(KafkaArchive::new(self.source_config.kafka.clone(), self.dead_topic()))
    }
}

fn read_all(topic: &Arc<str>) -> Vec<Record> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers().join(","))
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut records = Vec::new();
    while let Some(Ok(message)) = consumer.poll(Duration::from_secs(10)) {
        let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
        records.push(Record {
            topic: Arc::clone(topic),
            partition: 0,
            offset: message.offset(),
            key: message.key().unwrap_or_default().to_vec().into(),
            payload: message.payload().unwrap_or_default().to_vec().into(),
            headers: headers
                .map(|h| (h.key.to_owned(), h.value.unwrap_or_default().to_vec().into()))
                .collect(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        });
    }
    records
}
