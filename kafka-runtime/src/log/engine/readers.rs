//! Consumers of the log: who is fed, from where, and catching up by SQL.

use super::super::config::LogTopic;
use super::super::inbox::{Attached, Command, Membership};
use super::super::topics::{Feed, Reader, Topic};
use super::{CHUNK, Commit, Engine, PROBE_EVERY};
use crate::error::Error;
use crate::record::{Record, TopicPartition};
use crate::source::{AssignedPartition, InitialOffset, Offsets, Queue, QueueLimits};
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Bytes that wait for the worker of one partition.
const QUEUE_BYTES: usize = 8 << 20;

impl Engine {
    pub(super) fn obey(&mut self) {
        for command in std::mem::take(&mut self.commands) {
            match command {
                Command::Attach { group, topics, initial, reply } => {
                    // The consumer may be gone already; the next one, in this very round perhaps, is not to find it here.
                    if let Err(Ok(gone)) = reply.send(self.attach(&group, &topics, initial)) {
                        self.detach(gone.membership.token);
                    }
                }
                Command::Transact(transfer) => self.transfers.push(transfer),
                Command::AddTopics { topics, reply } => drop(reply.send(self.add_topics(&topics))),
                Command::Detach(token) => self.detach(token),
                Command::Forget { group, reply } => drop(reply.send(self.forget(&group))),
                Command::Commit { group, offsets, reply } => match self.resolve(&offsets) {
                    Ok(offsets) => {
                        self.commits.push(Commit { group, offsets, tied: false, reply: Some(reply) })
                    }
                    Err(error) => drop(reply.send(Err(error))),
                },
            }
        }
    }

    fn add_topics(&mut self, topics: &[LogTopic]) -> Result<(), Error> {
        for topic in topics {
            if let Some(known) = self.topics.iter_mut().find(|known| known.name == topic.name) {
                known.keep(&self.db, topic);
                continue;
            }
            let topic = Topic::open(&self.db, topic)?;
            self.shared.topics.add(&topic.name, topic.partitions.len());
            self.topics.push(topic);
        }
        Ok(())
    }

    /// Where the group begins in each partition of the topics that it has committed no offset of.
    fn beginnings(
        &self,
        group: &str,
        topics: &[usize],
        initial: InitialOffset,
    ) -> Result<Vec<(usize, usize, i64)>, Error> {
        let mut beginnings = Vec::new();
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
                beginnings.push((topic, number, next));
            }
        }
        Ok(beginnings)
    }

    fn attach(
        &mut self,
        group: &Arc<str>,
        topics: &[usize],
        initial: InitialOffset,
    ) -> Result<Attached, Error> {
        if let Some(&topic) =
            topics.iter().find(|&&t| self.topics[t].readers.iter().any(|r| r.group == *group))
        {
            let topic = self.topics[topic].name.to_string();
            return Err(Error::Attached { topic, group: group.to_string() });
        }
        let beginnings = self.beginnings(group, topics, initial)?;
        for &(topic, number, next) in &beginnings {
            self.topics[topic].partitions[number].set_committed(group, next);
        }
        if !beginnings.is_empty() {
            // So that others' commits don't trim what this group has yet to read, also after a restart, before it is back.
            self.commits.push(Commit {
                group: Arc::clone(group),
                offsets: beginnings,
                tied: false,
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
                let from = partition.committed_by(group).unwrap_or(0).max(partition.low);
                let shared = Arc::clone(&self.shared);
                let queue =
                    Arc::new(Queue::new(limits, from, Some(Box::new(move || shared.inbox.progress()))));
                assigned
                    .push(AssignedPartition { partition: partition.name.clone(), queue: Arc::clone(&queue) });
                feeds.push(Feed { queue, fed: from });
            }
            topic.readers.push(Reader { token, group: Arc::clone(group), _gone: Arc::clone(&guard), feeds });
        }
        let membership = Membership { shared: Arc::clone(&self.shared), token };
        Ok(Attached { membership, assigned, gone })
    }

    fn forget(&mut self, group: &str) -> Result<(), Error> {
        let is_read = |topic: &&Topic| topic.readers.iter().any(|reader| *reader.group == *group);
        if let Some(topic) = self.topics.iter().find(is_read) {
            return Err(Error::Attached { topic: topic.name.to_string(), group: group.to_owned() });
        }
        self.db.forget(group)?;
        // Else they would be stored in this round, after that.
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

    /// Reads for consumers that are behind what is written.
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
                            // Trimmed offsets are passed over. Nothing left means that all up to the end are gone.
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

/// Gives written records, the first of which has the offset `first`, to the readers that have read all before them.
pub(super) fn feed(readers: &mut [Reader], number: usize, first: i64, written: &mut Vec<Record>) {
    if written.is_empty() {
        return;
    }
    let mut current = readers
        .iter_mut()
        .map(|reader| &mut reader.feeds[number])
        .filter(|feed| feed.fed == first)
        .peekable();
    while let Some(feed) = current.next() {
        let added = if current.peek().is_some() {
            feed.queue.extend(written.iter().cloned())
        } else {
            feed.queue.extend(written.drain(..))
        };
        feed.fed += i64::try_from(added).unwrap_or(0);
    }
    written.clear();
}
