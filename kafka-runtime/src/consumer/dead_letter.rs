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
    /// Why it was rejected, up to 8 KiB of it.
    pub const REASON: &str = "dead-letter-reason";
    /// How often it was handed to the handler, in decimal.
    pub const ATTEMPTS: &str = "dead-letter-attempts";
    /// Present, with the number of bytes, if the record was too large for the dead-letter topic and its payload was left out,
    /// or, where that was not enough, all of it.
    pub const OMITTED: &str = "dead-letter-omitted-bytes";
}

/// Most bytes of a reason: it may quote what was rejected.
const MAX_REASON: usize = 8 << 10;

/// How much of its record a letter keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kept {
    Whole,
    WithoutPayload,
    /// Only where it lay.
    Nothing,
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
            Some(self.bury_one(record, &rejected.reason, attempts, backoff))
        }))
        .await;
    }

    async fn bury_one(&self, record: &Record, reason: &str, attempts: u32, backoff: Backoff) {
        let (mut attempt, mut kept) = (0, Kept::Whole);
        while let Err(error) = self.producer.send(self.letter(record, reason, attempts, kept)).await {
            attempt += 1;
            tracing::warn!(topic = %self.topic, %error, attempt, "dead letter not written, trying again");
            // One bad record must not stop its partition: what is known about it is kept without what it said.
            kept = match (error, kept) {
                (ProduceError::TooLarge, Kept::Whole) => Kept::WithoutPayload,
                (ProduceError::TooLarge, Kept::WithoutPayload) => Kept::Nothing,
                _ => {
                    tokio::time::sleep(backoff.delay(attempt)).await;
                    kept
                }
            };
        }
    }

    fn letter(&self, record: &Record, reason: &str, attempts: u32, kept: Kept) -> ProducerRecord {
        let Record { key, payload, headers, .. } = record.clone();
        let (key, payload, mut headers, omitted) = match kept {
            Kept::Whole => (key, payload, headers, None),
            Kept::WithoutPayload => (key, Bytes::new(), headers, Some(payload.len())),
            Kept::Nothing => (Bytes::new(), Bytes::new(), Vec::new(), Some(record.size())),
        };
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
        headers.extend([
            (header::TOPIC.to_owned(), Bytes::copy_from_slice(record.topic.as_bytes())),
            (header::PARTITION.to_owned(), record.partition.to_string().into()),
            (header::OFFSET.to_owned(), record.offset.to_string().into()),
            (header::REASON.to_owned(), Bytes::copy_from_slice(reason.as_bytes())),
            (header::ATTEMPTS.to_owned(), attempts.to_string().into()),
        ]);
        headers.extend(omitted.map(|bytes| (header::OMITTED.to_owned(), bytes.to_string().into())));
        ProducerRecord { topic: Arc::clone(&self.topic), key, payload, headers }
    }
}
