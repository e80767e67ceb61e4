//! Offsets that are stored with the transaction of a round.

use super::Engine;
use crate::error::Error;
use crate::record::TopicPartition;
use crate::source::Offsets;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Offsets of a group, to be stored.
pub(super) struct Commit {
    pub(super) group: Arc<str>,
    /// (topic, partition, next offset)
    pub(super) offsets: Vec<(usize, usize, i64)>,
    /// Part of the transaction that writes this round's records: if it fails, so does the commit.
    pub(super) with_records: bool,
    /// `None` for the start offset of a group, which is retried until it is stored.
    pub(super) reply: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Commit {
    pub(super) fn answer(self, result: Result<(), Error>) {
        if let Some(reply) = self.reply {
            drop(reply.send(result));
        }
    }
}

impl Engine {
    /// Translates the names of partitions to indexes, and checks the offsets.
    pub(super) fn resolve(&self, offsets: &Offsets) -> Result<Vec<(usize, usize, i64)>, Error> {
        let one = |(name, next): &(TopicPartition, i64)| {
            let number = usize::try_from(name.partition).unwrap_or(usize::MAX);
            let topic = self.topics.iter().position(|topic| topic.name == name.topic);
            let partition = topic.and_then(|topic| Some((topic, self.topics[topic].partitions.get(number)?)));
            match partition {
                Some((topic, partition)) if *next <= partition.end => Ok((topic, number, *next)),
                Some(_) => Err(Error::BeyondEnd { partition: name.clone(), offset: *next }),
                None => Err(Error::Topic {
                    topic: name.topic.to_string(),
                    reason: format!("no partition {number}"),
                }),
            }
        };
        offsets.iter().map(one).collect()
    }

    /// Fails the offsets that belong to records of this round which could not be written.
    pub(super) fn fail_commits_with_records(&mut self, reason: &str) {
        for commit in self.commits.extract_if(.., |commit| commit.with_records) {
            commit.answer(Err(Error::NotCommitted { reason: reason.to_owned() }));
        }
    }

    pub(super) fn finish_commits(&mut self, result: Result<(), Error>, trims: &[(usize, usize, i64, i64)]) {
        let commits = std::mem::take(&mut self.commits);
        if let Err(error) = result {
            // Each reply needs its own error. `Error` cannot be cloned; its text can.
            let reason = error.describe();
            for commit in commits {
                match commit.reply {
                    Some(_) => commit.answer(Err(Error::NotCommitted { reason: reason.clone() })),
                    None => self.commits.push(commit),
                }
            }
            return;
        }
        for &(topic, partition, _, to) in trims {
            self.topics[topic].partitions[partition].low = to;
        }
        for commit in commits {
            for &(topic, partition, next) in &commit.offsets {
                self.topics[topic].partitions[partition].set_committed(&commit.group, next);
            }
            commit.answer(Ok(()));
        }
    }
}
