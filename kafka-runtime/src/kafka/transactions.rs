//! Outputs and offsets in one Kafka transaction.
//!
//! One thread owns the transactional producer, whose calls block. It takes what has queued up into one transaction; if that
//! fails, each part is tried alone, so that a bad output of one partition does not hold up the others.
//!
//! Only the owner of a partition may commit. The brokers check the generation of the group that is named with the offsets, and
//! that is read before the partition's queue is found open: a partition that was lost and came back has another queue.
//!
//! A commit whose answer got lost may have happened. The next producer settles it either way as it begins, and what the
//! group has committed then tells which it was, before anything is written again.

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

/// The brokers abort a transaction that is open for so long. Until then a crashed member's partitions are not read.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(10);
/// A step may take so long.
const STEP_TIMEOUT: Duration = Duration::from_secs(8);
/// Most requests of one transaction.
const MAX_TOGETHER: usize = 64;
/// Requests that wait for the thread: each worker has one.
pub(super) const QUEUE: usize = 64;

/// The outputs of a batch and the offset after it.
pub(super) struct Request {
    pub(super) from: AssignedPartition,
    pub(super) next: i64,
    pub(super) outputs: Vec<ProducerRecord>,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

pub(super) struct Transactor {
    consumer: Weak<BaseConsumer<Assignment>>,
    config: ClientConfig,
    /// Threaded, because taking a transaction back waits for the outcomes of its records.
    producer: Option<ThreadedProducer<Context>>,
    /// Partitions with a commit that may have happened.
    in_doubt: HashSet<TopicPartition>,
}

impl Transactor {
    pub(super) fn new(consumer: Weak<BaseConsumer<Assignment>>, source: &KafkaSourceConfig) -> Self {
        // A name that is the same after a restart ends at once what a crash has left open.
        let member = source.instance_id.clone().unwrap_or_else(|| format!("{:016x}", rand::random::<u64>()));
        let timeout = source.outputs.timeout.min(TRANSACTION_TIMEOUT);
        let producer = KafkaProducerConfig { linger_ms: 0, max_in_flight: 5, ..source.outputs.clone() };
        let mut config = producer.client(&source.kafka);
        config
            .set("transactional.id", transactional_id(&source.group, &member))
            // A record that is given up takes the transaction with it.
            .set("message.timeout.ms", timeout.as_millis().max(1).to_string())
            .set("transaction.timeout.ms", TRANSACTION_TIMEOUT.as_millis().to_string());
        Self { consumer, config, producer: None, in_doubt: HashSet::new() }
    }

    /// Serves requests until the last sender is gone.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut together = vec![first];
            while together.len() < MAX_TOGETHER
                && let Ok(request) = requests.try_recv()
            {
                together.push(request);
            }
            let is_done = together.len() > 1 && self.transact(&together).is_ok();
            for request in together {
                let result = if is_done { Ok(()) } else { self.transact(slice::from_ref(&request)) };
                // A worker that has gone does not care.
                drop(request.reply.send(result));
            }
        }
    }

    fn transact(&mut self, requests: &[Request]) -> Result<(), Error> {
        let consumer = self.consumer.upgrade().ok_or(Error::Closed)?;
        self.begin()?;
        let metadata = consumer.group_metadata().ok_or(Error::Closed)?;
        let mut waiting: Vec<&Request> = requests.iter().collect();
        if waiting.iter().any(|request| request.from.queue.is_closed()) {
            return Err(Error::Closed);
        }
        self.settle(&consumer, &mut waiting)?;
        if waiting.is_empty() {
            return Ok(());
        }
        let Some(producer) = &self.producer else { return Err(Error::Closed) };
        let mut offsets = list([]);
        for Request { from: AssignedPartition { partition, .. }, next, .. } in &waiting {
            offsets
                .add_partition_offset(&partition.topic, partition.partition, Offset::Offset(*next))
                .map_err(failed("write offsets"))?;
        }
        let fill = || {
            producer.begin_transaction().map_err(failed("begin a transaction"))?;
            write(producer, waiting.iter().flat_map(|request| &request.outputs))?;
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
            self.in_doubt.extend(waiting.iter().map(|request| request.from.partition.clone()));
        }
        Err(failed("commit a transaction")(error))
    }

    /// Makes a producer if there is none. That ends a transaction which an earlier one of this name has left open.
    fn begin(&mut self) -> Result<(), Error> {
        if self.producer.is_none() {
            let context = Context { refused: Mutex::new(None) };
            let producer =
                ThreadedProducer::from_config_and_context(&self.config, context).map_err(Error::Client)?;
            producer.init_transactions(STEP_TIMEOUT).map_err(failed("begin with transactions"))?;
            self.producer = Some(producer);
        }
        Ok(())
    }

    /// Finds out what became of commits in doubt, and takes those that have happened out of `waiting`.
    fn settle(
        &mut self,
        consumer: &BaseConsumer<Assignment>,
        waiting: &mut Vec<&Request>,
    ) -> Result<(), Error> {
        let in_doubt = waiting.iter().map(|request| &request.from.partition);
        let in_doubt: Vec<TopicPartition> = in_doubt.filter(|p| self.in_doubt.contains(p)).cloned().collect();
        if in_doubt.is_empty() {
            return Ok(());
        }
        let ask = failed("read committed offsets");
        let committed = consumer.committed_offsets(list(&in_doubt), STEP_TIMEOUT).map_err(ask)?;
        self.leave_out(&committed, waiting)
    }

    /// Takes what is committed out of `waiting`.
    fn leave_out(
        &mut self,
        committed: &TopicPartitionList,
        waiting: &mut Vec<&Request>,
    ) -> Result<(), Error> {
        for partition in committed.elements() {
            partition.error().map_err(failed("read a committed offset"))?;
            let Offset::Offset(committed) = partition.offset() else { continue };
            waiting.retain(|Request { from: AssignedPartition { partition: own, .. }, next, .. }| {
                let is_same = *own.topic == *partition.topic() && own.partition == partition.partition();
                !is_same || *next > committed
            });
        }
        // What is left is written now; if its outcome is not learnt either, it is in doubt again. Of a partition with nothing left
        // an earlier part of what was committed may come next, and is not to be written again.
        self.in_doubt.retain(|partition| waiting.iter().all(|request| request.from.partition != *partition));
        Ok(())
    }

    /// Takes the open transaction back. A producer that can't is replaced, which does the same.
    fn abort(&mut self) {
        let Some(producer) = &self.producer else { return };
        if let Err(error) = producer.abort_transaction(STEP_TIMEOUT) {
            tracing::warn!(%error, "cannot abort a transaction, making a new producer");
            self.producer = None;
        }
    }
}

/// Begins with the group, for access lists, and ends with its length: both parts may hold any character, and members of two
/// groups must not end each other's transactions.
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

/// Notes the first output that the brokers did not take.
struct Context {
    refused: Mutex<Option<ProduceError>>,
}

impl Context {
    fn refused(&self) -> Option<ProduceError> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).take()
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
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert_with(|| errors::produce_error(error));
        }
    }
}

/// Writes outputs in the open transaction; returns when the brokers have all of them.
fn write<'a>(
    producer: &ThreadedProducer<Context>,
    outputs: impl Iterator<Item = &'a ProducerRecord>,
) -> Result<(), Error> {
    // Of a transaction that was taken back.
    drop(producer.context().refused());
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
    producer.context().refused().map_or(Ok(()), |refused| Err(Error::Output(refused)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::KafkaConfig;
    use crate::source::{Queue, QueueLimits};
    use std::sync::Arc;

    #[test]
    fn outputs_are_written_as_producers_are_told_to_write() {
        let mut source = KafkaSourceConfig::new(KafkaConfig::new(vec![], "test"), "g", &["t"]);
        source.outputs.max_record_bytes = 5_000_000;
        source.outputs.compression = "lz4".into();
        source.outputs.timeout = Duration::from_secs(60);
        let config = Transactor::new(Weak::new(), &source).config;
        assert_eq!(config.get("message.max.bytes"), Some("5000000"));
        assert_eq!(config.get("compression.type"), Some("lz4"));
        assert_eq!(config.get("message.timeout.ms"), config.get("transaction.timeout.ms"), "no longer");
    }

    #[test]
    fn no_two_members_have_one_transactional_id() {
        assert_ne!(transactional_id("a-b", "c"), transactional_id("a", "b-c"));
    }

    #[test]
    fn p2_a_commit_that_has_happened_is_known_until_something_behind_it_is_written() {
        let config = KafkaSourceConfig::new(KafkaConfig::new(vec![], "test"), "g", &["t"]);
        let mut transactor = Transactor::new(Weak::new(), &config);
        let partition = TopicPartition { topic: "t".into(), partition: 3 };
        transactor.in_doubt.insert(partition.clone());
        let mut committed = TopicPartitionList::new();
        committed.add_partition_offset("t", 3, Offset::Offset(100)).unwrap();
        let mut is_left = |next| {
            let queue = Arc::new(Queue::new(QueueLimits { records: 1, bytes: 1 }, -1, None));
            let from = AssignedPartition { partition: partition.clone(), queue };
            let request = Request { from, next, outputs: Vec::new(), reply: oneshot::channel().0 };
            let mut waiting = vec![&request];
            transactor.leave_out(&committed, &mut waiting).unwrap();
            (!waiting.is_empty(), transactor.in_doubt.len())
        };
        // 90 to 99 were written together, and come again one by one.
        for next in 91..=100 {
            assert_eq!(is_left(next), (false, 1), "{next}");
        }
        assert_eq!(is_left(101), (true, 0));
    }
}
