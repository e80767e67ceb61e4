//! Outputs and offsets in one Kafka transaction.
//!
//! One thread owns the transactional producer, whose calls block. It writes all queued requests in one
//! transaction. If that fails, it retries each request alone, so that an invalid output of one partition does
//! not block the others.
//!
//! Only the owner of a partition may commit. The brokers check the generation of the group that is sent with
//! the offsets. It is read before checking that the partition's queue is open: a partition that was lost and
//! assigned again has a new queue.
//!
//! A commit whose answer was lost may have succeeded. Initializing the next producer completes or aborts it,
//! and the group's committed offset then shows which of the two happened, before anything is written again.

use super::assignment::{Assignment, list};
use super::config::{KafkaProducerConfig, KafkaSourceConfig};
use super::errors;
use crate::error::Error;
use crate::producer::ProduceError;
use crate::record::{ProducerRecord, TopicPartition};
use crate::source::AssignedPartition;
use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::{ClientConfig, ClientContext};
use std::collections::HashSet;
use std::slice;
use std::sync::{Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// The brokers abort a transaction that is open for longer than this. Until then, the partitions of a crashed
/// member cannot be read.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Time limit of each step of a transaction.
const STEP_TIMEOUT: Duration = Duration::from_secs(8);
/// Limit of requests in one transaction.
const MAX_REQUESTS: usize = 64;
/// Capacity of the queue of requests. Each worker has one request in flight.
pub(super) const QUEUE: usize = 64;

/// The outputs of a batch and the offset after the batch.
pub(super) struct Request {
    pub(super) from: AssignedPartition,
    pub(super) next: i64,
    pub(super) outputs: Vec<ProducerRecord>,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

pub(super) struct Transactor {
    consumer: Weak<BaseConsumer<Assignment>>,
    config: ClientConfig,
    /// Has its own thread, because aborting a transaction waits for the outcomes of its records.
    producer: Option<ThreadedProducer<Context>>,
    /// Partitions with a commit that may have succeeded.
    in_doubt: HashSet<TopicPartition>,
}

impl Transactor {
    pub(super) fn new(consumer: Weak<BaseConsumer<Assignment>>, source: &KafkaSourceConfig) -> Self {
        // The name survives restarts, so the next producer aborts at once a transaction that a crash has left open.
        let member = source.instance_id.clone().unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
        let timeout = source.outputs.timeout.min(TRANSACTION_TIMEOUT);
        let producer = KafkaProducerConfig { linger_ms: 0, max_in_flight: 5, ..source.outputs.clone() };
        let mut config = producer.client(&source.kafka);
        config
            .set("transactional.id", transactional_id(&source.group, &member))
            // A record that times out fails the whole transaction.
            .set("message.timeout.ms", timeout.as_millis().max(1).to_string())
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        Self { consumer, config, producer: None, in_doubt: HashSet::new() }
    }

    /// Serves requests until the last sender is dropped.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut batch = vec![first];
            while batch.len() < MAX_REQUESTS
                && let Ok(request) = requests.try_recv()
            {
                batch.push(request);
            }
            let is_done = batch.len() > 1 && self.transact(&batch).is_ok();
            for request in batch {
                let result = if is_done { Ok(()) } else { self.transact(slice::from_ref(&request)) };
                // The worker may have ended.
                drop(request.reply.send(result));
            }
        }
    }

    fn transact(&mut self, requests: &[Request]) -> Result<(), Error> {
        let consumer = self.consumer.upgrade().ok_or(Error::Closed)?;
        self.begin()?;
        let metadata = consumer.group_metadata().ok_or(Error::Closed)?;
        let mut pending: Vec<&Request> = requests.iter().collect();
        if pending.iter().any(|request| request.from.queue.is_closed()) {
            return Err(Error::Closed);
        }
        self.resolve_in_doubt(&consumer, &mut pending)?;
        if pending.is_empty() {
            return Ok(());
        }
        let Some(producer) = &self.producer else { return Err(Error::Closed) };
        let mut offsets = list([]);
        for Request { from: AssignedPartition { partition, .. }, next, .. } in &pending {
            offsets
                .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*next))
                .map_err(failed("write offsets"))?;
        }
        let fill = || {
            producer.begin_transaction().map_err(failed("begin a transaction"))?;
            write(producer, pending.iter().flat_map(|request| &request.outputs))?;
            let sent = producer.send_offsets_to_transaction(&offsets, &metadata, STEP_TIMEOUT);
            sent.map_err(failed("write offsets in a transaction"))
        };
        if let Err(error) = fill() {
            self.abort();
            return Err(error);
        }
        let Err(error) = commit(producer) else { return Ok(()) };
        if requires_abort(&error) {
            self.abort();
        } else {
            self.producer = None;
            self.in_doubt.extend(pending.iter().map(|request| request.from.partition.clone()));
        }
        Err(failed("commit a transaction")(error))
    }

    /// Creates a producer if there is none. This aborts a transaction that an earlier producer with this id has
    /// left open.
    fn begin(&mut self) -> Result<(), Error> {
        if self.producer.is_none() {
            let context = Context { rejected: Mutex::new(None) };
            let producer =
                ThreadedProducer::from_config_and_context(&self.config, context).map_err(Error::Client)?;
            producer.init_transactions(STEP_TIMEOUT).map_err(failed("initialize transactions"))?;
            self.producer = Some(producer);
        }
        Ok(())
    }

    /// Resolves commits in doubt: removes the requests from `pending` whose commit has succeeded.
    fn resolve_in_doubt(
        &mut self,
        consumer: &BaseConsumer<Assignment>,
        pending: &mut Vec<&Request>,
    ) -> Result<(), Error> {
        let in_doubt = pending.iter().map(|request| &request.from.partition);
        let in_doubt: Vec<TopicPartition> = in_doubt.filter(|p| self.in_doubt.contains(p)).cloned().collect();
        if in_doubt.is_empty() {
            return Ok(());
        }
        let committed = consumer.committed_offsets(list(&in_doubt), STEP_TIMEOUT);
        let committed = committed.map_err(failed("read committed offsets"))?;
        self.remove_committed(&committed, pending)
    }

    /// Removes the requests from `pending` that are committed.
    fn remove_committed(
        &mut self,
        committed: &TopicPartitionList,
        pending: &mut Vec<&Request>,
    ) -> Result<(), Error> {
        for partition in committed.elements() {
            partition.error().map_err(failed("read a committed offset"))?;
            let Offset::Offset(committed) = partition.offset() else { continue };
            pending.retain(|Request { from: AssignedPartition { partition: own, .. }, next, .. }| {
                let is_same = *own.topic == *partition.topic() && own.partition == partition.partition();
                !is_same || *next > committed
            });
        }
        // The remaining requests are written now; if their outcome is lost too, they become in doubt again. A
        // partition without remaining requests stays in doubt: an earlier part of the committed batch may be
        // requested next and must not be written again.
        self.in_doubt.retain(|partition| pending.iter().all(|request| request.from.partition != *partition));
        Ok(())
    }

    /// Aborts the open transaction. If that fails, replaces the producer, which has the same effect.
    fn abort(&mut self) {
        let Some(producer) = &self.producer else { return };
        if let Err(error) = producer.abort_transaction(STEP_TIMEOUT) {
            tracing::warn!(%error, "cannot abort a transaction, replacing the producer");
            self.producer = None;
        }
    }
}

/// Starts with the group, for access control lists, and ends with its length. Both parts may contain any
/// character, and members of two groups must not abort each other's transactions.
fn transactional_id(group: &str, member: &str) -> String {
    format!("{group}-{member}-{}", group.len())
}

fn commit(producer: &ThreadedProducer<Context>) -> Result<(), KafkaError> {
    let until = Instant::now() + STEP_TIMEOUT;
    loop {
        match producer.commit_transaction(STEP_TIMEOUT) {
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < until => {}
            result => return result,
        }
    }
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.txn_requires_abort())
}

fn failed(action: &'static str) -> impl FnOnce(KafkaError) -> Error {
    move |source| Error::Kafka { action, source }
}

/// Keeps the error of the first output that the brokers rejected.
struct Context {
    rejected: Mutex<Option<ProduceError>>,
}

impl Context {
    fn rejected(&self) -> Option<ProduceError> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        errors::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka transactions");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            let mut rejected = self.rejected.lock().unwrap_or_else(PoisonError::into_inner);
            rejected.get_or_insert_with(|| errors::produce_error(error));
        }
    }
}

/// Writes outputs in the open transaction. Returns when the brokers have all of them.
fn write<'a>(
    producer: &ThreadedProducer<Context>,
    outputs: impl Iterator<Item = &'a ProducerRecord>,
) -> Result<(), Error> {
    // Discards the error of an aborted transaction.
    drop(producer.context().rejected());
    let until = Instant::now() + STEP_TIMEOUT;
    for output in outputs {
        let headers = OwnedHeaders::new_with_capacity(output.headers.len());
        let headers = output
            .headers
            .iter()
            .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(&value[..]) }));
        let mut record =
            BaseRecord::to(&output.topic).key(&output.key[..]).payload(&output.payload[..]).headers(headers);
        while let Err((error, back)) = producer.send(record) {
            let is_full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
            if !is_full || Instant::now() > until {
                return Err(Error::Output(errors::produce_error(&error)));
            }
            producer.poll(Duration::from_millis(10));
            record = back;
        }
    }
    producer.flush(STEP_TIMEOUT).map_err(failed("write outputs"))?;
    producer.context().rejected().map_or(Ok(()), |rejected| Err(Error::Output(rejected)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::KafkaConfig;
    use crate::source::{Queue, QueueLimits};
    use std::sync::Arc;

    #[test]
    fn outputs_use_the_settings_of_the_producer() {
        let mut source = KafkaSourceConfig::new(KafkaConfig::new(vec![], "test"), "g", &["t"]);
        source.outputs.max_record_bytes = 5_000_000;
        source.outputs.compression = "lz4".into();
        source.outputs.timeout = Duration::from_secs(60);
        let config = Transactor::new(Weak::new(), &source).config;
        assert_eq!(config.get("message.max.bytes"), Some("5000000"));
        assert_eq!(config.get("compression.type"), Some("lz4"));
        assert_eq!(config.get("message.timeout.ms"), config.get("transaction.timeout.ms"), "capped");
    }

    #[test]
    fn no_two_members_have_one_transactional_id() {
        assert_ne!(transactional_id("a-b", "c"), transactional_id("a", "b-c"));
    }

    #[test]
    fn p2_a_commit_in_doubt_is_remembered_until_a_later_offset_is_written() {
        let config = KafkaSourceConfig::new(KafkaConfig::new(vec![], "test"), "g", &["t"]);
        let mut transactor = Transactor::new(Weak::new(), &config);
        let partition = TopicPartition { topic: "t".into(), partition: 3 };
        transactor.in_doubt.insert(partition.clone());
        let mut committed = TopicPartitionList::new();
        committed.add_partition_offset("t", 3, Offset::Offset(100)).unwrap();
        let mut is_pending = |next| {
            let queue = Arc::new(Queue::new(QueueLimits { records: 1, bytes: 1 }, -1, None));
            let from = AssignedPartition { partition: partition.clone(), queue };
            let request = Request { from, next, outputs: Vec::new(), reply: oneshot::channel().0 };
            let mut pending = vec![&request];
            transactor.remove_committed(&committed, &mut pending).unwrap();
            (!pending.is_empty(), transactor.in_doubt.len())
        };
        // 90 to 99 were written in one transaction, and are requested again one by one.
        for next in 91..=100 {
            assert_eq!(is_pending(next), (false, 1), "{next}");
        }
        assert_eq!(is_pending(101), (true, 0));
    }
}
