//! A topic of Kafka as an [`Archive`].

use super::config::KafkaConfig;
use super::errors::QuietContext;
use crate::archive::{Archive, READ_BYTES};
use crate::error::Error;
use crate::record::Record;
use async_trait::async_trait;
use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Time limit of each request to the brokers.
const TIMEOUT: Duration = Duration::from_secs(10);

impl ConsumerContext for QuietContext {}

/// A whole topic of Kafka. Connects at the first request. Joins no group and commits nothing.
pub struct KafkaArchive {
    kafka: KafkaConfig,
    topic: Arc<str>,
    /// One caller at a time uses it, on a blocking thread.
    reader: Arc<Mutex<Option<BaseConsumer<QuietContext>>>>,
}

impl std::fmt::Debug for KafkaArchive {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaArchive").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl KafkaArchive {
    /// Access to the topic of this name.
    pub fn new(kafka: KafkaConfig, topic: impl Into<Arc<str>>) -> Self {
        Self { kafka, topic: topic.into(), reader: Arc::default() }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        action: &'static str,
        read: impl FnOnce(&BaseConsumer<QuietContext>, &Arc<str>) -> KafkaResult<T> + Send + 'static,
    ) -> Result<T, Error> {
        let (reader, kafka, topic) = (Arc::clone(&self.reader), self.kafka.clone(), Arc::clone(&self.topic));
        let run = move || {
            let mut reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
            let open = match reader.take() {
                Some(open) => open,
                None => connect(&kafka).map_err(Error::Client)?,
            };
            let result = read(&open, &topic).map_err(|source| Error::Kafka { action, source })?;
            // A reader that failed is not reused.
            *reader = Some(open);
            Ok(result)
        };
        tokio::task::spawn_blocking(run).await.map_err(|_| Error::Closed)?
    }
}

impl KafkaArchive {
    /// The offset at which a group resumes, by partition; `None` where it has committed none.
    ///
    /// # Errors
    /// The brokers do not answer in time.
    pub async fn committed(&self, group: &str) -> Result<Vec<Option<i64>>, Error> {
        let partitions = self.bounds().await?.len();
        let mut client = self.kafka.client();
        // Reading committed offsets does not join the group.
        client.set("group.id", group).set("enable.auto.commit", "false");
        let (kafka, topic) = (self.kafka.clone(), Arc::clone(&self.topic));
        let query = move || {
            let client = kafka.with_properties(client);
            let reader: BaseConsumer<QuietContext> =
                BaseConsumer::from_config_and_context(&client, QuietContext).map_err(Error::Client)?;
            let mut list = TopicPartitionList::new();
            for partition in (0..).take(partitions) {
                list.add_partition(&topic, partition);
            }
            let failed = |source| Error::Kafka { action: "read committed offsets", source };
            let list = reader.committed_offsets(list, TIMEOUT).map_err(failed)?;
            let of = |partition| list.find_partition(&topic, partition).map(|place| place.offset());
            let of = |partition| match of(partition) {
                Some(Offset::Offset(offset)) => Some(offset),
                _ => None,
            };
            Ok((0..).take(partitions).map(of).collect())
        };
        tokio::task::spawn_blocking(query).await.map_err(|_| Error::Closed)?
    }
}

fn connect(kafka: &KafkaConfig) -> KafkaResult<BaseConsumer<QuietContext>> {
    let mut client = kafka.client();
    client
        // librdkafka requires the name of a group. No member joins it.
        .set("group.id", format!("{}-archive", kafka.client_id))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        // If an offset was removed, continue with the first stored one.
        .set("auto.offset.reset", "earliest")
        .set("queued.min.messages", "10000")
        .set("queued.max.messages.kbytes", "8192")
        // By default librdkafka stops fetching for 1 s whenever this queue is full.
        .set("fetch.queue.backoff.ms", "10")
        .set("fetch.error.backoff.ms", "100")
        .set("fetch.wait.max.ms", "100");
    BaseConsumer::from_config_and_context(&kafka.with_properties(client), QuietContext)
}

fn record(topic: &Arc<str>, message: &BorrowedMessage<'_>) -> Record {
    let bytes = |bytes: Option<&[u8]>| Bytes::copy_from_slice(bytes.unwrap_or_default());
    let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
    Record {
        topic: Arc::clone(topic),
        partition: message.partition(),
        offset: message.offset(),
        key: bytes(message.key()),
        payload: bytes(message.payload()),
        headers: headers.map(|header| (header.key.to_owned(), bytes(header.value))).collect(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
    }
}

#[async_trait]
impl Archive for KafkaArchive {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    async fn bounds(&self) -> Result<Vec<Range<i64>>, Error> {
        let bounds = |reader: &BaseConsumer<QuietContext>, topic: &Arc<str>| {
            let metadata = reader.fetch_metadata(Some(topic), TIMEOUT)?;
            let mut partitions: Vec<i32> =
                metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|p| p.id()).collect();
            partitions.sort_unstable();
            let of = |partition| reader.fetch_watermarks(topic, partition, TIMEOUT);
            partitions.into_iter().map(|partition| of(partition).map(|(low, end)| low..end)).collect()
        };
        self.blocking("read the bounds of a topic", bounds).await
    }

    async fn read(&self, partition: i32, from: i64, limit: usize) -> Result<Vec<Record>, Error> {
        let read = move |reader: &BaseConsumer<QuietContext>, topic: &Arc<str>| {
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(topic, partition, Offset::Offset(from))?;
            reader.assign(&place)?;
            let (mut records, mut bytes) = (Vec::new(), 0);
            let until = Instant::now() + TIMEOUT;
            let outcome = loop {
                if records.len() >= limit || bytes >= READ_BYTES {
                    break Ok(());
                }
                match reader.poll(until.saturating_duration_since(Instant::now())) {
                    Some(Ok(message)) => {
                        let record = record(topic, &message);
                        bytes += record.size();
                        records.push(record);
                    }
                    Some(Err(KafkaError::PartitionEOF(_))) => break Ok(()),
                    // Brief losses of a connection are reported here as well; the client recovers by itself.
                    Some(Err(error)) if Instant::now() >= until => break Err(error),
                    Some(Err(_)) => {}
                    None if Instant::now() >= until => break Err(KafkaError::NoMessageReceived),
                    None => {}
                }
            };
            // An assigned reader keeps fetching ahead.
            reader.assign(&TopicPartitionList::new())?;
            outcome.map(|()| records)
        };
        self.blocking("read a topic", read).await
    }

    async fn remove_before(&self, partition: i32, offset: i64) -> Result<(), Error> {
        let failed = |source| Error::Kafka { action: "remove records", source };
        let config = self.kafka.with_properties(self.kafka.client());
        let admin = AdminClient::from_config_and_context(&config, QuietContext).map_err(Error::Client)?;
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(offset)).map_err(failed)?;
        let options = AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT));
        let removed = admin.delete_records(&list, &options).await;
        // Dropping the client waits for its threads.
        tokio::task::spawn_blocking(move || drop(admin)).await.map_err(|_| Error::Closed)?;
        let removed = removed.map_err(failed)?;
        removed.elements().iter().try_for_each(|place| place.error()).map_err(failed)
    }
}
