//! The bounded queue into the log thread. However many items arrive, the thread is woken at most once.

use super::config::LogTopic;
use crate::error::Error;
use crate::producer::{Delivery, ProduceError};
use crate::record::ProducerRecord;
use crate::source::{AssignedPartition, InitialOffset, Offsets, PartitionStart};
use std::fmt;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A record that waits to be written.
pub(super) struct Append {
    pub(super) record: ProducerRecord,
    pub(super) delivery: Delivery,
    /// Size in bytes, counted against the limit of the queue.
    pub(super) size: usize,
    /// Index of its topic.
    pub(super) topic: usize,
    /// Number of its partition.
    pub(super) partition: usize,
    pub(super) enqueued: Instant,
}

/// The reply to [`Command::Attach`]. If the consumer has gone away in the meantime, dropping the reply detaches
/// it.
pub(super) struct Attached {
    pub(super) membership: Membership,
    pub(super) assigned: Vec<AssignedPartition>,
    /// Cancelled when the consumer gets no more records: it was detached, or the log was closed.
    pub(super) gone: CancellationToken,
}

/// Dropping this detaches the consumer.
pub(super) struct Membership {
    pub(super) inbox: Arc<Inbox>,
    pub(super) token: u64,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Membership").field(&self.token).finish()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.inbox.command(Command::Detach(self.token));
    }
}

/// Output records, written in one transaction with the offset of the input record.
pub(super) struct Transfer {
    pub(super) group: Arc<str>,
    pub(super) from: AssignedPartition,
    pub(super) next: i64,
    pub(super) outputs: Vec<Append>,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<(), Error>>,
}

/// A request to the log thread. Each sender waits for the reply, so only a few are queued.
pub(super) enum Command {
    /// Report the committed offsets of a group and the bounds of the partitions.
    Bounds { group: Arc<str>, topics: Vec<usize>, reply: oneshot::Sender<Vec<PartitionStart>> },
    /// Start to feed a group from these offsets; elsewhere from its committed offsets, or else from its start offsets.
    Attach {
        group: Arc<str>,
        topics: Vec<usize>,
        initial: InitialOffset,
        offsets: Offsets,
        reply: oneshot::Sender<Result<Attached, Error>>,
    },
    /// Open topics, in this order.
    AddTopics { topics: Vec<LogTopic>, reply: SyncSender<Result<(), Error>> },
    /// Stop feeding a consumer.
    Detach(u64),
    /// Delete the committed offsets of a group.
    DeleteGroup { group: Arc<str>, reply: SyncSender<Result<(), Error>> },
    /// Write records and an offset in one transaction. The records count against the limits of the queue.
    Transact(Transfer),
    /// Store offsets.
    Commit { group: Arc<str>, offsets: Offsets, reply: oneshot::Sender<Result<(), Error>> },
}

#[derive(Default)]
struct State {
    appends: Vec<Append>,
    commands: Vec<Command>,
    /// Records and bytes that were enqueued and not answered. This includes records that the thread has taken.
    queued: usize,
    queued_bytes: usize,
    /// A consumer has made the progress that the thread asked to be notified of.
    progress: bool,
    asleep: bool,
    closed: bool,
}

pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    max_queued: usize,
    max_queued_bytes: usize,
}

impl Inbox {
    pub(super) fn new(max_queued: usize, max_queued_bytes: usize) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), max_queued, max_queued_bytes }
    }

    pub(super) fn append(&self, append: Append) -> Result<(), ProduceError> {
        let mut state = self.lock();
        let refusal = if state.closed {
            ProduceError::Closed
        } else if state.queued >= self.max_queued
            || (state.queued > 0 && state.queued_bytes + append.size > self.max_queued_bytes)
        {
            ProduceError::QueueFull
        } else {
            state.queued += 1;
            state.queued_bytes += append.size;
            state.appends.push(append);
            self.notify(state);
            return Ok(());
        };
        drop(state);
        append.delivery.forget();
        Err(refusal)
    }

    /// Takes all outputs of a transfer, or none.
    pub(super) fn transact(&self, transfer: Transfer) -> Result<(), ProduceError> {
        let mut state = self.lock();
        let bytes: usize = transfer.outputs.iter().map(|append| append.size).sum();
        // A transfer that is larger than the limits passes when the queue is empty.
        let is_full = state.queued + transfer.outputs.len() > self.max_queued
            || state.queued_bytes + bytes > self.max_queued_bytes;
        let refusal = if state.closed {
            ProduceError::Closed
        } else if state.queued > 0 && is_full {
            ProduceError::QueueFull
        } else {
            state.queued += transfer.outputs.len();
            state.queued_bytes += bytes;
            state.commands.push(Command::Transact(transfer));
            self.notify(state);
            return Ok(());
        };
        drop(state);
        transfer.outputs.into_iter().for_each(|append| append.delivery.forget());
        Err(refusal)
    }

    /// If the thread has ended, drops the command. The caller then sees that the reply channel is closed.
    pub(super) fn command(&self, command: Command) {
        let mut state = self.lock();
        if !state.closed {
            state.commands.push(command);
            self.notify(state);
        }
    }

    pub(super) fn progress(&self) {
        let mut state = self.lock();
        state.progress = true;
        self.notify(state);
    }

    /// Accepts no more records. The thread writes the queued ones and ends.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.notify(state);
    }

    /// Frees the room of `records` records with `bytes` bytes in total, which are about to be answered.
    pub(super) fn release(&self, records: usize, bytes: usize) {
        let mut state = self.lock();
        state.queued -= records;
        state.queued_bytes -= bytes;
    }

    fn notify(&self, mut state: MutexGuard<'_, State>) {
        if std::mem::take(&mut state.asleep) {
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Waits until something has arrived or the time is `until` (`None`: without limit), then takes everything.
    /// Returns whether the log was closed.
    pub(super) fn take(
        &self,
        appends: &mut Vec<Append>,
        commands: &mut Vec<Command>,
        until: Option<Instant>,
    ) -> bool {
        let mut state = self.lock();
        while state.appends.is_empty() && state.commands.is_empty() && !state.progress && !state.closed {
            state.asleep = true;
            state = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => self.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        state.asleep = false;
        state.progress = false;
        // Swapped, not moved: both sides keep their allocations.
        std::mem::swap(&mut state.appends, appends);
        std::mem::swap(&mut state.commands, commands);
        state.closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
