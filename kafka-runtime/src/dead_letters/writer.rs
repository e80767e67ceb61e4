//! Writing dead letters, for consumers.

use super::header;
use crate::backoff::Backoff;
use crate::consumer::Rejected;
use crate::producer::{ProduceError, Producer};
use crate::record::{ProducerRecord, Record};
use bytes::Bytes;
use futures_util::future::join_all;
use std::sync::Arc;

/// Bytes of a reason that are kept. A reason may quote the record, so it can be long.
const MAX_REASON_BYTES: usize = 8 << 10;

/// The part of its record that a letter contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    Whole,
    WithoutPayload,
    /// Topic, partition and offset of the record only.
    Origin,
}

/// Writes rejected records to the dead-letter topic.
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
    /// Writes letters to `topic` through `producer`.
    pub fn new(producer: Arc<dyn Producer>, topic: impl Into<Arc<str>>) -> Self {
        Self { producer, topic: topic.into() }
    }

    /// Writes the rejected ones of `records`, and returns when the log has confirmed all of them. Retries without limit.
    pub(crate) async fn write(
        &self,
        records: &[Record],
        rejected: &[Rejected],
        attempts: u32,
        backoff: Backoff,
    ) {
        // Letters are replayed in the order in which they were written.
        let mut rejected: Vec<&Rejected> = rejected.iter().collect();
        rejected.sort_by_key(|rejected| rejected.index);
        join_all(rejected.into_iter().filter_map(|rejected| {
            let record = records.get(rejected.index)?;
            tracing::warn!(
                topic = %record.topic, partition = record.partition, offset = record.offset,
                attempts, reason = %rejected.reason, "record rejected"
            );
            Some(self.write_one(record, &rejected.reason, attempts, backoff))
        }))
        .await;
    }

    async fn write_one(&self, record: &Record, reason: &str, attempts: u32, backoff: Backoff) {
        let (mut attempt, mut content) = (0, Content::Whole);
        while let Err(error) = self.producer.send(self.letter(record, reason, attempts, content)).await {
            attempt += 1;
            tracing::warn!(topic = %self.topic, %error, attempt, "dead letter not written, trying again");
            // One large record must not stop its partition: leave its payload out, then its key and headers.
            content = match (error, content) {
                (ProduceError::TooLarge, Content::Whole) => Content::WithoutPayload,
                (ProduceError::TooLarge, Content::WithoutPayload) => Content::Origin,
                _ => {
                    tokio::time::sleep(backoff.delay(attempt)).await;
                    content
                }
            };
        }
    }

    fn letter(&self, record: &Record, reason: &str, attempts: u32, content: Content) -> ProducerRecord {
        let Record { key, payload, headers, .. } = record.clone();
        let (key, payload, mut headers, omitted) = match content {
            Content::Whole => (key, payload, headers, None),
            Content::WithoutPayload => (key, Bytes::new(), headers, Some(payload.len())),
            Content::Origin => (Bytes::new(), Bytes::new(), Vec::new(), Some(record.size())),
        };
        let reason = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
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
