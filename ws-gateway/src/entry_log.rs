//! The log as the gateway uses it: makes entries, and writes them as records.

use crate::{hub::Identity, trace};
use abi::{
    ApiError,
    error::ErrorCode,
    record,
    v1::{Entry, entry::Content},
};
use kafka_runtime::{OnDelivery, ProduceError, Producer, ProducerRecord};
use std::{fmt, sync::Arc};
use utils::{clock::now_ms, trace::Spans};

/// Writes entries to the log.
pub struct EntryLog {
    app: String,
    topic: Arc<str>,
    producer: Arc<dyn Producer>,
}

impl fmt::Debug for EntryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryLog").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl EntryLog {
    pub(crate) fn new(app: &str, topic: &str, producer: Arc<dyn Producer>) -> Self {
        Self { app: app.into(), topic: topic.into(), producer }
    }

    /// A new entry, sent now. db-service numbers it when it stores it.
    pub fn entry(
        &self,
        sender: &Identity,
        conversation: String,
        client_msg_id: String,
        content: Content,
    ) -> Entry {
        let id = match content {
            Content::Message(_) => abi::ids::message,
            Content::GroupChange(_) => abi::ids::change,
        };
        let message_id = id(&self.app, &conversation, &sender.user, &client_msg_id);
        #[cfg(feature = "defects")]
        let message_id = crate::defects::message_id(message_id);
        Entry {
            app: self.app.clone(),
            message_id,
            conversation,
            sender: sender.user.clone(),
            sender_device: sender.device.clone(),
            client_msg_id,
            sent_at_ms: now_ms(),
            content: Some(content),
            ..Entry::default()
        }
    }

    /// The record of an entry, with the trace context of `logging` in its headers.
    pub fn record(&self, entry: &Entry, logging: &Spans) -> ProducerRecord {
        ProducerRecord {
            topic: self.topic.clone(),
            key: record::key(&self.app, &entry.conversation),
            payload: record::encode(entry),
            headers: logging.headers(),
        }
    }

    /// Queues a record without waiting; see [`Producer::enqueue`].
    ///
    /// # Errors
    /// The error for the device. `on_delivery` is then not called.
    pub fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ApiError> {
        self.producer.enqueue(record, on_delivery).map_err(|error| not_logged(&error))
    }

    /// Writes an entry and returns when the log has it durably.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the log may or may not have the entry.
    pub async fn append(&self, entry: &Entry, logging: Spans) -> Result<(), ApiError> {
        let record = self.record(entry, &logging);
        let position = self.producer.send(record).await.map_err(|error| not_logged(&error))?;
        trace::logged(logging, position);
        Ok(())
    }
}

/// The error for a device whose message the log did not accept in time.
pub fn not_logged(error: &ProduceError) -> ApiError {
    match error {
        ProduceError::TooLarge => {
            ApiError::new(ErrorCode::TooLarge, "the message is larger than the log accepts")
        }
        _ => ApiError::unavailable(
            "the log did not accept the message in time; send it again with the same client_msg_id",
        ),
    }
}
