//! Records that are written together with the offset of what they were made from.

use super::super::inbox::Transfer;
use super::{Commit, Engine};
use crate::error::Error;
use crate::producer::ProduceError;
use std::time::Instant;

impl Engine {
    /// Moves transfers to what is written in this round, once all their topics have room. A batch of outputs is not taken
    /// apart, so the backlog of a topic can become larger than it may by one of them.
    pub(super) fn admit_transfers(&mut self) {
        for transfer in std::mem::take(&mut self.transfers) {
            // Looked at last, in the round that writes it: another consumer may have begun where this one has left off.
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
                self.commits.push(Commit { group, offsets, tied: true, reply: Some(reply) });
            }
            Err(error) => {
                self.answer(outputs, |_| Err(ProduceError::Closed));
                drop(reply.send(Err(error)));
            }
        }
    }

    fn refuse(&mut self, transfer: Transfer, error: Error, outputs: ProduceError) {
        self.answer(transfer.outputs, |_| Err(outputs.clone()));
        // Whoever asked may have gone.
        drop(transfer.reply.send(Err(error)));
    }

    fn has_room(&self, transfer: &Transfer) -> bool {
        let max_backlog = self.shared.config.max_backlog;
        transfer.outputs.iter().all(|append| self.topics[append.topic].room(max_backlog) > 0)
    }

    fn expires(&self, transfer: &Transfer) -> Instant {
        transfer.since + self.shared.config.produce_timeout
    }

    /// Until when nothing is to be done for transfers that wait, after asking the consumers to tell of progress.
    pub(super) fn transfers_rest_until(&self) -> Option<Instant> {
        for append in self.transfers.iter().flat_map(|transfer| &transfer.outputs) {
            let readers = &self.topics[append.topic].readers;
            readers.iter().flat_map(|reader| &reader.feeds).for_each(|feed| feed.queue.want());
        }
        let waits = |transfer: &Transfer| match self.has_room(transfer) {
            true => Instant::now(),
            false => self.expires(transfer),
        };
        self.transfers.iter().map(waits).min()
    }

    /// After the records of this round could not be written: neither can the offsets that go with them.
    pub(super) fn fail_tied_commits(&mut self, reason: &str) {
        for commit in self.commits.extract_if(.., |commit| commit.tied) {
            commit.answer(Err(Error::NotCommitted { reason: reason.to_owned() }));
        }
    }
}
