//! The bounded channel between the reader and the writer of a copy. The receiving end checks the records.

use super::tables::{self, CONVERSATIONS, ENTRIES, MEMBERS, SESSIONS, USERS};
use crate::{
    error::{Error, Result},
    item::number,
};
use abi::v1::{ExportBegin, ExportEnd, ExportRecord, ExportRow, export_record::Record, export_value::Value};
use prost::Message as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Most records in a batch.
const BATCH_RECORDS: usize = 1_000;
/// A batch with this many bytes of payload is sent even if it has fewer records.
const BATCH_BYTES: usize = 1 << 20;
/// Most batches in flight.
const CAPACITY: usize = 4;

/// The number of records in a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Accounts.
    pub users: u64,
    /// Sessions, which are logged-in devices.
    pub sessions: u64,
    /// Conversations.
    pub conversations: u64,
    /// Members of conversations.
    pub members: u64,
    /// Entries.
    pub entries: u64,
}

/// The two ends of a channel.
pub(super) fn channel() -> (RecordSender, RecordReceiver) {
    let (sender, receiver) = mpsc::channel(CAPACITY);
    let sender = RecordSender { batch: Vec::with_capacity(BATCH_RECORDS), bytes: 0, records: 0, sender };
    (sender, RecordReceiver { receiver, validator: Validator::default() })
}

/// The sending end. Records must be added in the order of an export.
pub(crate) struct RecordSender {
    batch: Vec<Record>,
    bytes: usize,
    records: u64,
    sender: mpsc::Sender<Vec<Record>>,
}

impl RecordSender {
    /// Adds a record. Returns `true` if the batch is full: the caller then has to send it.
    pub(crate) fn add(&mut self, record: Record) -> bool {
        if let Record::Row(row) = &record {
            self.bytes += row.values.iter().filter_map(|value| value.value.as_ref()).map(size).sum::<usize>();
        }
        self.records += 1;
        self.batch.push(record);
        self.batch.len() >= BATCH_RECORDS || self.bytes >= BATCH_BYTES
    }

    /// Adds the first record of an export.
    pub(crate) fn begin(&mut self, generation: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let made_at_ms = i64::try_from(now).unwrap_or(i64::MAX);
        let made_by = env!("CARGO_PKG_VERSION").to_owned();
        self.add(Record::Begin(ExportBegin { generation, made_by, made_at_ms, tables: tables::listed() }));
    }

    /// Adds the last record of an export.
    pub(crate) fn end(&mut self) {
        let end = ExportEnd { records: self.records, sha256: prost::bytes::Bytes::new() };
        self.batch.push(Record::End(end));
    }

    /// Sends the batch.
    ///
    /// # Errors
    /// [`Error::Stopped`]: the receiver was dropped.
    #[cfg(feature = "postgres")]
    pub(crate) async fn send(&mut self) -> Result<()> {
        let batch = self.take_batch();
        self.sender.send(batch).await.map_err(|_| Error::Stopped)
    }

    /// Like `send`, for a thread that may block.
    pub(crate) fn blocking_send(&mut self) -> Result<()> {
        let batch = self.take_batch();
        self.sender.blocking_send(batch).map_err(|_| Error::Stopped)
    }

    fn take_batch(&mut self) -> Vec<Record> {
        self.bytes = 0;
        std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH_RECORDS))
    }
}

/// The receiving end. Returns only records that passed the [`Validator`].
pub(crate) struct RecordReceiver {
    receiver: mpsc::Receiver<Vec<Record>>,
    validator: Validator,
}

impl RecordReceiver {
    /// The next batch. `None` after the end record.
    ///
    /// # Errors
    /// [`Error::Stopped`]: the sender was dropped before it sent the end record. [`Error::Corrupt`]: the records are
    /// inconsistent.
    #[cfg(feature = "postgres")]
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        if self.validator.ended {
            return Ok(None);
        }
        let batch = self.receiver.recv().await;
        self.validated(batch)
    }

    /// Like `next`, for a thread that may block.
    pub(crate) fn blocking_next(&mut self) -> Result<Option<Vec<Record>>> {
        if self.validator.ended {
            return Ok(None);
        }
        let batch = self.receiver.blocking_recv();
        self.validated(batch)
    }

    /// The number of records received.
    pub(crate) fn summary(&self) -> Summary {
        self.validator.summary
    }

    fn validated(&mut self, batch: Option<Vec<Record>>) -> Result<Option<Vec<Record>>> {
        let batch = batch.ok_or(Error::Stopped)?;
        batch.iter().try_for_each(|record| self.validator.check(record))?;
        Ok(Some(batch))
    }
}

/// Checks that records are in the order of an export, and that each conversation has all of its entries.
#[derive(Default)]
struct Validator {
    summary: Summary,
    records: u64,
    /// The `conversation_seq` of the current conversation's last entry, and the number of its received entries.
    conversation: Option<(u64, u64)>,
    /// Index of the last row's table.
    last_table: usize,
    ended: bool,
}

impl Validator {
    fn check(&mut self, record: &Record) -> Result<()> {
        let is_begin = matches!(record, Record::Begin(_));
        if is_begin != (self.records == 0) || self.ended {
            return Err(OUT_OF_ORDER);
        }
        match record {
            Record::Begin(begin) if begin.tables != tables::listed() => {
                return Err(Error::NotAnExport("its tables are those of another release of godwit"));
            }
            Record::Begin(_) => {}
            Record::Row(row) => self.check_row(row)?,
            Record::End(end) => {
                self.end_conversation()?;
                if end.records != self.records {
                    return Err(Error::Corrupt("records are missing"));
                }
                self.ended = true;
            }
        }
        self.records += 1;
        Ok(())
    }

    fn check_row(&mut self, row: &ExportRow) -> Result<()> {
        let (index, table) = tables::table_of(row)?;
        // The rows of a conversation follow each other table by table.
        let is_next_conversation = index == CONVERSATIONS && self.last_table > CONVERSATIONS;
        if index < self.last_table && !is_next_conversation {
            return Err(OUT_OF_ORDER);
        }
        self.last_table = index;
        let summary = &mut self.summary;
        match index {
            USERS => summary.users += 1,
            SESSIONS => summary.sessions += 1,
            CONVERSATIONS => {
                summary.conversations += 1;
                self.end_conversation()?;
                let head = table.number("head", row)?;
                self.conversation = Some((u64::try_from(head).unwrap_or_default(), 0));
            }
            MEMBERS => summary.members += 1,
            ENTRIES => {
                summary.entries += 1;
                let seq = table.number("seq", row)?;
                match &mut self.conversation {
                    Some((_, received)) if number(seq.max(0)) == *received + 1 => *received += 1,
                    _ => return Err(Error::Corrupt("the sequence of a conversation's entries has a gap")),
                }
            }
            _ => {}
        }
        if index > CONVERSATIONS && self.conversation.is_none() {
            return Err(OUT_OF_ORDER);
        }
        Ok(())
    }

    fn end_conversation(&self) -> Result<()> {
        if self.conversation.is_some_and(|(head, received)| head != received) {
            return Err(Error::Corrupt("a conversation lacks some of its entries"));
        }
        Ok(())
    }
}

const OUT_OF_ORDER: Error = Error::Corrupt("records are not in the order of an export");

/// Bytes of a value of variable size.
fn size(value: &Value) -> usize {
    match value {
        Value::Number(_) => 0,
        Value::Text(text) => text.len(),
        Value::Data(data) => data.len(),
    }
}

/// Appends a record to a buffer, prefixed with its length.
pub(super) fn encode(record: Record, buffer: &mut Vec<u8>) {
    let record = ExportRecord { record: Some(record) };
    record.encode_length_delimited(buffer).expect("a vector grows as needed");
}
