//! Records that can't be handled, kept for people.

use super::handler::Rejected;
use crate::backoff::Backoff;
use crate::producer::{ProduceError, Producer};
use crate::record::{ProducerRecord, Record};
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;

/// Names of the headers that a dead letter has beside those of its record.
pub mod header {
    /// The topic that the record was read from.
    pub const TOPIC: &str = "dead-letter-topic";
    /// The partition that the record was read from, in decimal.
    pub const PARTITION: &str = "dead-letter-partition";
    /// The offset that the record was read from, in decimal.
    pub const OFFSET: &str = "dead-letter-offset";
    /// Why it was rejected.
    pub const REASON: &str = "dead-letter-reason";
    /// How often it was handed to the handler, in decimal.
    pub const ATTEMPTS: &str = "dead-letter-attempts";
    /// Present, with the number of bytes, if the payload was too large for the dead-letter topic and was left out.
    pub const OMITTED: &str = "dead-letter-omitted-bytes";
}

/// Where rejected records go.
#[derive(Clone)]
pub struct DeadLetters {
    producer: Arc<dyn Producer>,
    topic: Arc<str>,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Writes them to `topic` through `producer`.
    pub fn new(producer: Arc<dyn Producer>, topic: impl Into<Arc<str>>) -> Self {
        Self { producer, topic: topic.into() }
    }

    /// Writes all rejected ones of `records` and returns when the log has every one. Retries for ever.
    pub(super) async fn bury(
        &self,
        records: &[Record],
        rejected: &[Rejected],
        attempts: u32,
        backoff: Backoff,
    ) {
        // Whatever the order in which the handler found them: they are replayed in that of the letters.
        let mut rejected: Vec<&Rejected> = rejected.iter().collect();
        rejected.sort_by_key(|rejected| rejected.index);
        join_all(rejected.into_iter().filter_map(|rejected| {
            let record = records.get(rejected.index)?;
            tracing::warn!(
                topic = %record.topic, partition = record.partition, offset = record.offset,
                attempts, reason = %rejected.reason, "record rejected"
            );
            Some(self.bury_one(self.letter(record, &rejected.reason, attempts), backoff))
        }))
        .await;
    }

    async fn bury_one(&self, mut letter: ProducerRecord, backoff: Backoff) {
        let mut attempt = 0;
        while let Err(error) = self.producer.send(letter.clone()).await {
            attempt += 1;
            tracing::warn!(topic = %letter.topic, %error, attempt, "dead letter not written, trying again");
            if error == ProduceError::TooLarge && !letter.payload.is_empty() {
                // One bad record must not stop its partition: what is known about it is kept without what it said.
                letter.headers.push((header::OMITTED.into(), letter.payload.len().to_string().into()));
                letter.payload = Bytes::new();
                continue;
            }
            tokio::time::sleep(backoff.delay(attempt)).await;
        }
    }

    fn letter(&self, record: &Record, reason: &str, attempts: u32) -> ProducerRecord {
        let mut headers = record.headers.clone();
        headers.extend([
            (header::TOPIC.to_owned(), Bytes::copy_from_slice(record.topic.as_bytes())),
            (header::PARTITION.to_owned(), record.partition.to_string().into()),
            (header::OFFSET.to_owned(), record.offset.to_string().into()),
            (header::REASON.to_owned(), Bytes::copy_from_slice(reason.as_bytes())),
            (header::ATTEMPTS.to_owned(), attempts.to_string().into()),
        ]);
        let (key, payload) = (record.key.clone(), record.payload.clone());
        ProducerRecord { topic: Arc::clone(&self.topic), key, payload, headers }
    }
}
