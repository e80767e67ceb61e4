//! A topic of the embedded log as an [`Archive`].

use super::Log;
use super::db::Db;
use super::inbox::Command;
use super::topics::ARCHIVE_GROUP;
use crate::archive::{Archive, READ_BYTES};
use crate::error::Error;
use crate::record::{Record, TopicPartition};
use async_trait::async_trait;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::oneshot;

/// Records per query. Small, so that a chunk of the largest records still fits in memory.
const CHUNK: usize = 16;

/// A whole topic of a [`Log`], independent of its other readers and writers.
#[derive(Clone, Debug)]
pub struct LogArchive {
    log: Log,
    topic: Arc<str>,
}

impl LogArchive {
    pub(super) fn new(log: Log, topic: Arc<str>) -> Self {
        Self { log, topic }
    }

    /// Runs `read` on a blocking thread. It opens its own connection.
    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Log, &Arc<str>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Self { log, topic } = self.clone();
        let reading = tokio::task::spawn_blocking(move || read(&log, &topic));
        reading.await.map_err(|_| Error::Closed)?
    }
}

#[async_trait]
impl Archive for LogArchive {
    fn topic(&self) -> &Arc<str> {
        &self.topic
    }

    async fn bounds(&self) -> Result<Vec<Range<i64>>, Error> {
        let bounds = |log: &Log, topic: &Arc<str>| {
            let db = Db::open_to_read(&log.0.path)?;
            let of = |id| db.bounds(id).map(|(low, end)| low..end);
            db.partitions(topic)?.into_iter().map(of).collect()
        };
        self.blocking(bounds).await
    }

    async fn read(&self, partition: i32, from: i64, limit: usize) -> Result<Vec<Record>, Error> {
        let read = move |log: &Log, topic: &Arc<str>| {
            let (db, id) = log.look_up(topic, partition)?;
            let name = TopicPartition { topic: Arc::clone(topic), partition };
            let (mut records, mut bytes, mut next) = (Vec::new(), 0, from);
            while records.len() < limit && bytes < READ_BYTES {
                let chunk = db.read((id, &name), next, CHUNK.min(limit - records.len()))?;
                let Some(last) = chunk.last() else { break };
                next = last.offset + 1;
                bytes += chunk.iter().map(Record::size).sum::<usize>();
                records.extend(chunk);
            }
            Ok(records)
        };
        self.blocking(read).await
    }

    async fn remove_before(&self, partition: i32, offset: i64) -> Result<(), Error> {
        let name = TopicPartition { topic: Arc::clone(&self.topic), partition };
        let (reply, committed) = oneshot::channel();
        let command = Command::Commit { group: ARCHIVE_GROUP.into(), offsets: vec![(name, offset)], reply };
        self.log.0.shared.inbox.command(command);
        committed.await.map_err(|_| Error::Closed)?
    }
}
