//! Records that are written in one transaction with the offset of their input.

use super::Engine;
use super::commits::Commit;
use crate::error::Error;
use crate::log::inbox::Transfer;
use crate::producer::ProduceError;
use std::time::Instant;

impl Engine {
    /// Moves transfers whose topics all have room to this round's batch. The outputs of a transfer are not
    /// split, so one transfer may exceed the backlog limit of a topic.
    pub(super) fn admit_transfers(&mut self) {
        for transfer in std::mem::take(&mut self.transfers) {
            // Checked in the same round as the write: another consumer may have taken over the partition.
            if transfer.from.queue.is_closed() {
                self.refuse(transfer, Error::Closed, ProduceError::Closed);
            } else if self.has_room(&transfer) {
                self.accept(transfer);
            } else if self.expires(&transfer) <= Instant::now() {
                self.refuse(transfer, Error::TimedOut("room for outputs"), ProduceError::TimedOut);
            } else {
                self.transfers.push(transfer);
            }
        }
    }

    fn accept(&mut self, transfer: Transfer) {
        let Transfer { group, from, next, outputs, reply, .. } = transfer;
        match self.resolve(&vec![(from.partition, next)]) {
            Ok(offsets) => {
                self.batch.extend(outputs);
                self.commits.push(Commit { group, offsets, with_records: true, reply: Some(reply) });
            }
            Err(error) => {
                self.answer(outputs, |_| Err(ProduceError::Closed));
                drop(reply.send(Err(error)));
            }
        }
    }

    fn refuse(&mut self, transfer: Transfer, error: Error, outputs: ProduceError) {
        self.answer(transfer.outputs, |_| Err(outputs.clone()));
        drop(transfer.reply.send(Err(error)));
    }

    fn has_room(&self, transfer: &Transfer) -> bool {
        let max_backlog = self.shared.config.max_backlog;
        transfer.outputs.iter().all(|append| self.topics[append.topic].room(max_backlog) > 0)
    }

    fn expires(&self, transfer: &Transfer) -> Instant {
        transfer.since + self.shared.config.produce_timeout
    }

    /// The time until which waiting transfers need no work. Asks the consumers for a notification of their
    /// progress.
    pub(super) fn transfers_sleep_until(&self) -> Option<Instant> {
        for append in self.transfers.iter().flat_map(|transfer| &transfer.outputs) {
            let readers = &self.topics[append.topic].readers;
            readers.iter().flat_map(|reader| &reader.feeds).for_each(|feed| feed.queue.notify_on_progress());
        }
        let waits = |transfer: &Transfer| match self.has_room(transfer) {
            true => Instant::now(),
            false => self.expires(transfer),
        };
        self.transfers.iter().map(waits).min()
    }
}
