//! Consumers of the log: attaching, detaching, and reading from SQLite for consumers that have fallen behind.

use super::commits::Commit;
use super::{CHUNK, Engine, PROBE_EVERY};
use crate::error::Error;
use crate::log::config::LogTopic;
use crate::log::inbox::{Attached, Command, Membership};
use crate::log::topics::{Feed, Reader, Topic};
use crate::source::{AssignedPartition, InitialOffset, Offsets, PartitionStart, Queue, QueueLimits};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Limit of bytes in the queue of one partition.
const QUEUE_BYTES: usize = 8 << 20;

impl Engine {
    pub(super) fn apply_commands(&mut self) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Bounds { group, topics, reply } => drop(reply.send(self.bounds(&group, &topics))),
                Command::Attach { group, topics, initial, offsets, reply } => {
                    // If the consumer has gone already, detach it now: its successor may attach in this very
                    // round.
                    if let Err(Ok(gone)) = reply.send(self.attach(&group, &topics, initial, &offsets)) {
                        self.detach(gone.membership.token);
                    }
                }
                Command::Transact(transfer) => self.transfers.push(transfer),
                Command::AddTopics { topics, reply } => drop(reply.send(self.add_topics(&topics))),
                Command::Detach(token) => self.detach(token),
                Command::DeleteGroup { group, reply } => drop(reply.send(self.delete_group(&group))),
                Command::Commit { group, offsets, reply } => match self.resolve(&offsets) {
                    Ok(offsets) => {
                        self.commits.push(Commit { group, offsets, with_records: false, reply: Some(reply) })
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
            }
        }
    }

    fn add_topics(&mut self, topics: &[LogTopic]) -> Result<(), Error> {
        for topic in topics {
            if let Some(known) = self.topics.iter_mut().find(|known| known.name == topic.name) {
                known.stop_trimming(&self.db, topic);
                continue;
            }
            let topic = Topic::open(&self.db, topic)?;
            self.shared.topics.add(&topic.name, topic.partitions.len());
            self.topics.push(topic);
        }
        Ok(())
    }

    /// The committed offsets of a group and the bounds of the partitions of the topics.
    fn bounds(&self, group: &str, topics: &[usize]) -> Vec<PartitionStart> {
        let partitions = topics.iter().flat_map(|&topic| &self.topics[topic].partitions);
        let bounds = partitions.map(|partition| PartitionStart {
            partition: partition.name.clone(),
            committed: partition.committed_by(group),
            first: partition.low,
            end: partition.end,
        });
        bounds.collect()
    }

    /// The start offset of the group for each partition of the topics in which it has committed none.
    fn start_offsets(
        &self,
        group: &str,
        topics: &[usize],
        initial: InitialOffset,
    ) -> Result<Vec<(usize, usize, i64)>, Error> {
        let mut start_offsets = Vec::new();
        for &topic in topics {
            for (number, partition) in self.topics[topic].partitions.iter().enumerate() {
                if partition.committed_by(group).is_some() {
                    continue;
                }
                let next = match initial {
                    InitialOffset::Earliest => partition.low,
                    InitialOffset::Latest => partition.end,
                    InitialOffset::Time { ms } => {
                        self.db.first_at(partition.id, ms)?.unwrap_or(partition.end)
                    }
                };
                start_offsets.push((topic, number, next));
            }
        }
        Ok(start_offsets)
    }

    fn attach(
        &mut self,
        group: &Arc<str>,
        topics: &[usize],
        initial: InitialOffset,
        offsets: &Offsets,
    ) -> Result<Attached, Error> {
        if let Some(&topic) =
            topics.iter().find(|&&t| self.topics[t].readers.iter().any(|r| r.group == *group))
        {
            let topic = self.topics[topic].name.to_string();
            return Err(Error::Attached { topic, group: group.to_string() });
        }
        let start_offsets = self.start_offsets(group, topics, initial)?;
        for &(topic, number, next) in &start_offsets {
            self.topics[topic].partitions[number].set_committed(group, next);
        }
        if !start_offsets.is_empty() {
            // Committing the start offset keeps other groups' commits from trimming the records that this group has not
            // read yet, even if the log restarts before the group returns.
            self.commits.push(Commit {
                group: Arc::clone(group),
                offsets: start_offsets,
                with_records: false,
                reply: None,
            });
        }
        self.next_token += 1;
        let token = self.next_token;
        let records = self.shared.config.max_backlog.max(CHUNK);
        let limits = QueueLimits { records, bytes: QUEUE_BYTES };
        let mut assigned = Vec::new();
        let gone = CancellationToken::new();
        let guard = Arc::new(gone.clone().drop_guard());
        for &topic in topics {
            let topic = &mut self.topics[topic];
            let mut feeds = Vec::new();
            for partition in &topic.partitions {
                // The reader keeps the records from an offset before the committed one from being trimmed.
                let chosen = offsets.iter().find(|(name, _)| *name == partition.name);
                let from = chosen.map(|(_, offset)| *offset).or_else(|| partition.committed_by(group));
                let from = from.unwrap_or(0).clamp(partition.low, partition.end);
                let inbox = Arc::clone(&self.shared.inbox);
                let queue = Arc::new(Queue::new(limits, from, Some(Box::new(move || inbox.progress()))));
                assigned
                    .push(AssignedPartition { partition: partition.name.clone(), queue: Arc::clone(&queue) });
                feeds.push(Feed { queue, fed: from });
            }
            topic.readers.push(Reader { token, group: Arc::clone(group), _gone: Arc::clone(&guard), feeds });
        }
        let membership = Membership { inbox: Arc::clone(&self.shared.inbox), token };
        Ok(Attached { membership, assigned, gone })
    }

    fn delete_group(&mut self, group: &str) -> Result<(), Error> {
        let is_read = |topic: &&Topic| topic.readers.iter().any(|reader| *reader.group == *group);
        if let Some(topic) = self.topics.iter().find(is_read) {
            return Err(Error::Attached { topic: topic.name.to_string(), group: group.to_owned() });
        }
        self.db.delete_group(group)?;
        // Pending commits of the group would be stored later in this round.
        for commit in self.commits.extract_if(.., |commit| *commit.group == *group) {
            commit.answer(Ok(()));
        }
        for partition in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.committed.retain(|(name, _)| **name != *group);
        }
        Ok(())
    }

    fn detach(&mut self, token: u64) {
        for topic in &mut self.topics {
            for reader in topic.readers.extract_if(.., |reader| reader.token == token) {
                reader.feeds.iter().for_each(|feed| feed.queue.close());
            }
        }
    }

    /// Reads from SQLite for consumers that have fallen behind.
    pub(super) fn refill(&mut self) {
        if self.read_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.read_at = None;
        for topic in &mut self.topics {
            for reader in &mut topic.readers {
                for (partition, feed) in topic.partitions.iter().zip(&mut reader.feeds) {
                    let room = if feed.fed < partition.end { feed.queue.room().min(CHUNK) } else { 0 };
                    if room == 0 {
                        continue;
                    }
                    match self.db.read((partition.id, &partition.name), feed.fed, room) {
                        Ok(records) => {
                            // Trimmed offsets are skipped. An empty result means that all records up to the end
                            // were removed.
                            let offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
                            let added = feed.queue.extend(records.into_iter());
                            feed.fed = match offsets.get(added.wrapping_sub(1)) {
                                Some(last) => last + 1,
                                None if offsets.is_empty() => partition.end,
                                None => feed.fed,
                            };
                        }
                        Err(error) => {
                            let error = &error as &dyn std::error::Error;
                            tracing::error!(error, partition = %partition.name, "the log cannot read");
                            self.read_at = Some(Instant::now() + PROBE_EVERY);
                        }
                    }
                }
            }
        }
    }
}
