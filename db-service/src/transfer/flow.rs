//! Records on their way from where they are read to where they are written.

use super::Summary;
use crate::error::{Error, Result};
use abi::v1::{ExportBegin, ExportConversation, ExportEnd, ExportRecord, export_record::Record};
use prost::Message as _;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

/// Records in a batch, and bytes after which it is sent with fewer.
const BATCH: usize = 1_000;
const BATCH_BYTES: usize = 1 << 20;
/// Batches that may wait.
const QUEUE: usize = 4;

/// The two ends of a flow.
pub(super) fn channel() -> (Feed, Intake) {
    let (out, batches) = mpsc::channel(QUEUE);
    let feed = Feed { batch: Vec::with_capacity(BATCH), bytes: 0, records: 0, out };
    (feed, Intake { batches, order: Order::default() })
}

/// Takes records, in the order of an export.
pub(crate) struct Feed {
    batch: Vec<Record>,
    bytes: usize,
    records: u64,
    out: mpsc::Sender<Vec<Record>>,
}

impl Feed {
    /// Takes a record; `true` when a batch is full and has to be sent.
    pub(crate) fn add(&mut self, record: Record) -> bool {
        // Only entries are of any size.
        self.bytes += if let Record::Entry(entry) = &record { entry.payload.len() } else { 0 };
        self.records += 1;
        self.batch.push(record);
        self.batch.len() >= BATCH || self.bytes >= BATCH_BYTES
    }

    /// The first record of what a store gives.
    pub(crate) fn begin(&mut self, generation: u32) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let made_at_ms = i64::try_from(now).unwrap_or(i64::MAX);
        let made_by = env!("CARGO_PKG_VERSION").to_owned();
        self.add(Record::Begin(ExportBegin { generation, made_by, made_at_ms }));
    }

    /// The last record: everything was read.
    pub(crate) fn end(&mut self) {
        let end = ExportEnd { records: self.records, sha256: prost::bytes::Bytes::new() };
        self.batch.push(Record::End(end));
    }

    /// Sends what was taken.
    ///
    /// # Errors
    /// [`Error::Stopped`]: nobody takes it any more.
    #[cfg(feature = "postgres")]
    pub(crate) async fn send(&mut self) -> Result<()> {
        let batch = self.full();
        self.out.send(batch).await.map_err(|_| Error::Stopped)
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_send(&mut self) -> Result<()> {
        let batch = self.full();
        self.out.blocking_send(batch).map_err(|_| Error::Stopped)
    }

    fn full(&mut self) -> Vec<Record> {
        self.bytes = 0;
        std::mem::replace(&mut self.batch, Vec::with_capacity(BATCH))
    }
}

/// Gives records whose order and numbers are right.
pub(crate) struct Intake {
    batches: mpsc::Receiver<Vec<Record>>,
    order: Order,
}

impl Intake {
    /// The next batch; `None` after the end.
    ///
    /// # Errors
    /// [`Error::Stopped`]: no end came; [`Error::Damaged`]: the records don't fit together.
    #[cfg(feature = "postgres")]
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<Record>>> {
        if self.order.ended {
            return Ok(None);
        }
        let batch = self.batches.recv().await;
        self.checked(batch)
    }

    /// The same on a thread that may block.
    pub(crate) fn blocking_next(&mut self) -> Result<Option<Vec<Record>>> {
        if self.order.ended {
            return Ok(None);
        }
        let batch = self.batches.blocking_recv();
        self.checked(batch)
    }

    /// What came so far.
    pub(crate) fn summary(&self) -> Summary {
        self.order.summary
    }

    fn checked(&mut self, batch: Option<Vec<Record>>) -> Result<Option<Vec<Record>>> {
        let batch = batch.ok_or(Error::Stopped)?;
        batch.iter().try_for_each(|record| self.order.check(record))?;
        Ok(Some(batch))
    }
}

/// Whether records fit together: whoever they come from, a conversation has all of its numbers.
#[derive(Default)]
struct Order {
    summary: Summary,
    records: u64,
    /// Last number of the conversation and how many of its entries have come.
    conversation: Option<(u64, u64)>,
    ended: bool,
}

impl Order {
    fn check(&mut self, record: &Record) -> Result<()> {
        let is_begin = matches!(record, Record::Begin(_));
        if is_begin != (self.records == 0) || self.ended {
            return Err(Error::Damaged("records are not in the order of an export"));
        }
        if let Record::Conversation(_) | Record::End(_) = record
            && self.conversation.is_some_and(|(head, came)| head != came)
        {
            return Err(Error::Damaged("a conversation has not all of its entries"));
        }
        match record {
            Record::Begin(_) | Record::SigningKey(_) => {}
            Record::User(_) => self.summary.users += 1,
            Record::Session(_) => self.summary.sessions += 1,
            Record::Conversation(ExportConversation { head, .. }) => {
                self.summary.conversations += 1;
                self.conversation = Some((*head, 0));
            }
            Record::Member(_) => self.summary.members += 1,
            Record::Entry(entry) => {
                self.summary.entries += 1;
                match &mut self.conversation {
                    Some((_, came)) if entry.seq == *came + 1 => *came += 1,
                    _ => return Err(Error::Damaged("numbers of entries have gaps")),
                }
            }
            Record::End(end) if end.records != self.records => {
                return Err(Error::Damaged("records are missing"));
            }
            Record::End(_) => self.ended = true,
        }
        self.records += 1;
        Ok(())
    }
}

/// Appends a record to a buffer, with its length in front.
pub(super) fn encode(record: Record, buffer: &mut Vec<u8>) {
    let record = ExportRecord { record: Some(record) };
    record.encode_length_delimited(buffer).expect("a vector grows as needed");
}
