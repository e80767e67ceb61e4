//! The log as the gateway uses it: makes entries, and writes them as records.

use crate::{hub::Identity, trace};
use abi::{
    ApiError,
    envelope::GROUP,
    error::ErrorCode,
    record,
    v1::{Content, Entry, GroupChange},
};
use bytes::Bytes;
use kafka_runtime::{OnDelivery, ProduceError, Producer, ProducerRecord};
use prost::Message as _;
use std::{fmt, sync::Arc};
use utils::{clock::now_ms, trace::Spans};

/// The part of an entry that its sender decides. See [`Entry`] for the fields.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    /// Canonical id of the conversation.
    pub conversation: String,
    /// Idempotency key.
    pub client_msg_id: String,
    /// Kind.
    pub kind: String,
    /// Whether the entry counts as unread.
    pub countable: bool,
    /// Message id of an earlier entry, or empty.
    pub refers_to: String,
    /// Content.
    pub content: Option<Content>,
    /// Reactions.
    pub reactions: Vec<String>,
    /// The change, for a change of a group.
    pub group_change: Option<GroupChange>,
}

/// A new entry. db-service numbers it when it stores it.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// The entry.
    pub entry: Entry,
    /// The encoded entry, as every later service passes it on.
    pub bytes: Bytes,
}

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

    /// A new entry, sent now.
    pub fn entry(&self, sender: &Identity, draft: Draft) -> NewEntry {
        let id = if draft.kind == GROUP { abi::ids::change } else { abi::ids::message };
        let Identity { user, device, .. } = sender;
        let message_id = id(&self.app, &draft.conversation, user, device, &draft.client_msg_id);
        #[cfg(feature = "defects")]
        let message_id = crate::defects::message_id(message_id);
        let entry = Entry {
            conversation: draft.conversation,
            message_id,
            sender: user.clone(),
            sender_device: device.clone(),
            client_msg_id: draft.client_msg_id,
            sent_at_ms: now_ms(),
            kind: draft.kind,
            countable: draft.countable,
            refers_to: draft.refers_to,
            content: draft.content,
            reactions: draft.reactions,
            group_change: draft.group_change,
            ..Entry::default()
        };
        let bytes = entry.encode_to_vec().into();
        NewEntry { entry, bytes }
    }

    /// The record of an entry, with the trace context of `logging` in its headers. `reply_to` is the address of the gateway that
    /// waits for the outcome, if one does.
    pub fn record(&self, entry: &NewEntry, logging: &Spans, reply_to: Option<&str>) -> ProducerRecord {
        let mut headers = logging.headers();
        if let Some(gateway) = reply_to {
            headers.push((record::REPLY_TO.to_owned(), Bytes::copy_from_slice(gateway.as_bytes())));
        }
        ProducerRecord {
            topic: self.topic.clone(),
            key: record::key(&self.app, &entry.entry.conversation),
            payload: entry.bytes.clone(),
            headers,
        }
    }

    /// Queues a record without waiting; see [`Producer::enqueue`].
    ///
    /// # Errors
    /// The error for the device. `on_delivery` is then not called.
    pub fn enqueue(&self, record: ProducerRecord, on_delivery: OnDelivery) -> Result<(), ApiError> {
        self.producer.enqueue(record, on_delivery).map_err(|error| not_logged(&error))
    }

    /// Writes a record and returns when the log has it durably.
    ///
    /// # Errors
    /// `UNAVAILABLE`: the log may or may not have the entry.
    pub async fn append(&self, record: ProducerRecord, logging: Spans) -> Result<(), ApiError> {
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
