//! Listing, replaying and dropping dead letters, for operators.

use super::ends::Ends;
use super::header;
use super::id::LetterId;
use super::index::Index;
use super::letter::Letter;
use crate::archive::{Archive, READ_BYTES};
use crate::error::Error;
use crate::metrics;
use crate::producer::Producer;
use crate::record::{Position, ProducerRecord, Record};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Records per read when open letters are looked up.
const READ_RECORDS: usize = 1_000;

/// The dead letters of one topic.
pub struct Letters {
    archive: Arc<dyn Archive>,
    producer: Arc<dyn Producer>,
    /// Locked during a whole request, so requests run one after the other.
    index: Mutex<Index>,
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("topic", self.archive.topic()).finish_non_exhaustive()
    }
}

/// A filter for letters. The default selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Selects letters whose reason contains this text.
    pub reason: Option<String>,
    /// Selects letters with this key.
    pub key: Option<Bytes>,
}

impl Selection {
    fn matches(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|part| letter.reason.contains(part))
            && self.key.as_ref().is_none_or(|key| letter.record.key == key)
    }
}

/// A page of letters.
#[derive(Clone, Debug)]
pub struct Page {
    /// The letters, by ascending id.
    pub letters: Vec<Letter>,
    /// The id after which to continue; `None` if there are no more.
    pub next: Option<LetterId>,
    /// Number of all open letters, selected or not.
    pub open: u64,
}

/// The result of a replay of many letters.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Letters that were written back to their topics, in this order.
    pub replayed: Vec<LetterId>,
    /// Letters that can't be replayed, and why.
    pub skipped: Vec<(LetterId, &'static str)>,
    /// The id after which to continue; `None` if there are no more.
    pub next: Option<LetterId>,
    /// The end of the topic when the replay began.
    pub until: Ends,
}

#[derive(Clone, Copy)]
enum Ending {
    Replayed,
    Dropped,
}

impl Ending {
    fn name(self) -> &'static str {
        match self {
            Self::Replayed => "replayed",
            Self::Dropped => "dropped",
        }
    }
}

impl Letters {
    /// The letters in `archive`. `producer` writes to the dead-letter topic and to the original topics.
    pub fn new(archive: Arc<dyn Archive>, producer: Arc<dyn Producer>) -> Self {
        for ending in [Ending::Replayed, Ending::Dropped] {
            metrics::letters_ended(archive.topic(), ending.name(), 0);
        }
        Self { archive, producer, index: Mutex::default() }
    }

    /// Up to `limit` open letters after `after`, by ascending id; fewer if they are large.
    ///
    /// # Errors
    /// The log does not answer. (The first call reads the whole topic. If it fails, the next call continues where it stopped.)
    pub async fn list(
        &self,
        selection: &Selection,
        after: Option<LetterId>,
        limit: usize,
    ) -> Result<Page, Error> {
        let mut index = self.index.lock().await;
        index.refresh(self.archive.as_ref()).await?;
        let (mut letters, mut bytes, mut next) = (Vec::new(), 0, after);
        while let Some(chunk) = self.open_after(&index, &mut next).await? {
            for letter in chunk.into_iter().filter(|letter| selection.matches(letter)) {
                bytes += letter.record.size();
                next = Some(letter.id);
                letters.push(letter);
                if letters.len() >= limit || bytes >= READ_BYTES {
                    return Ok(Page { letters, next, open: index.open() });
                }
            }
        }
        Ok(Page { letters, next: None, open: index.open() })
    }

    /// An open letter.
    ///
    /// # Errors
    /// There is no such open letter, or the log does not answer.
    pub async fn get(&self, id: LetterId) -> Result<Letter, Error> {
        let mut index = self.index.lock().await;
        self.find(&mut index, id).await
    }

    /// Writes the record of a letter back to its original topic, after all other records of its key there, and ends the letter.
    /// Returns the new position of the record.
    ///
    /// # Errors
    /// There is no such open letter, it can't be replayed, or the log does not answer. The letter then stays open.
    pub async fn replay(&self, id: LetterId) -> Result<Position, Error> {
        let mut index = self.index.lock().await;
        let letter = self.find(&mut index, id).await?;
        let position = self.write_back(&mut index, &letter).await?;
        self.remove_closed(&mut index).await;
        Ok(position)
    }

    /// Replays up to `limit` open letters of a selection after `after`, by ascending id. To continue, call it again with `next`
    /// and `until` of the result. Letters after `until` are skipped, so the replay ends even if replayed records are rejected
    /// again.
    ///
    /// # Errors
    /// The log does not answer. The remaining letters stay open.
    pub async fn replay_all(
        &self,
        selection: &Selection,
        after: Option<LetterId>,
        until: Option<Ends>,
        limit: usize,
    ) -> Result<Replayed, Error> {
        let mut index = self.index.lock().await;
        index.refresh(self.archive.as_ref()).await?;
        let until = until.unwrap_or_else(|| Ends(index.ends()));
        let mut done = Replayed { replayed: Vec::new(), skipped: Vec::new(), next: after, until };
        'all: while let Some(chunk) = self.open_after(&index, &mut done.next).await? {
            for letter in
                chunk.iter().filter(|letter| selection.matches(letter) && done.until.contains(letter.id))
            {
                match self.write_back(&mut index, letter).await {
                    Ok(_) => done.replayed.push(letter.id),
                    Err(Error::NotReplayable { reason, .. }) => done.skipped.push((letter.id, reason)),
                    Err(error) => return Err(error),
                }
                if done.replayed.len() + done.skipped.len() >= limit {
                    done.next = Some(letter.id);
                    break 'all;
                }
            }
        }
        self.remove_closed(&mut index).await;
        Ok(done)
    }

    /// Ends a letter without replaying it.
    ///
    /// # Errors
    /// There is no such open letter, or the log does not answer. The letter then stays open.
    pub async fn discard(&self, id: LetterId) -> Result<(), Error> {
        let mut index = self.index.lock().await;
        let letter = self.find(&mut index, id).await?;
        self.end(&mut index, &letter, Ending::Dropped).await?;
        self.remove_closed(&mut index).await;
        Ok(())
    }

    async fn find(&self, index: &mut Index, id: LetterId) -> Result<Letter, Error> {
        index.refresh(self.archive.as_ref()).await?;
        let Position { partition, offset } = id.0;
        let record =
            if index.is_open(id.0) { self.archive.read(partition, offset, 1).await?.pop() } else { None };
        record.filter(|record| record.offset == offset).map(Letter::read).ok_or(Error::NoLetter { id })
    }

    /// Some open letters after `cursor`, which moves to the last record that was read; `None` at the end.
    async fn open_after(
        &self,
        index: &Index,
        cursor: &mut Option<LetterId>,
    ) -> Result<Option<Vec<Letter>>, Error> {
        let Some(first) = index.open_after(cursor.map(|id| id.0)) else {
            *cursor = None;
            return Ok(None);
        };
        let records = self.archive.read(first.partition, first.offset, READ_RECORDS).await?;
        *cursor = Some(LetterId(records.last().map_or(first, Record::position)));
        let open = records.into_iter().filter(|record| index.is_open(record.position()));
        Ok(Some(open.map(Letter::read).collect()))
    }

    async fn write_back(&self, index: &mut Index, letter: &Letter) -> Result<Position, Error> {
        let id = letter.id;
        let record = letter.original()?;
        let sent = self.producer.send(record).await;
        let position = sent.map_err(|source| Error::NotWritten { id, what: "record", source })?;
        tracing::info!(letter = %id, topic = ?letter.origin, "dead letter replayed");
        self.end(index, letter, Ending::Replayed).await?;
        Ok(position)
    }

    async fn end(&self, index: &mut Index, letter: &Letter, ending: Ending) -> Result<(), Error> {
        let id = letter.id;
        let record = ProducerRecord {
            topic: Arc::clone(self.archive.topic()),
            key: letter.record.key.clone(),
            payload: Bytes::new(),
            headers: vec![
                (header::ENDED.to_owned(), ending.name().into()),
                (header::LETTER.to_owned(), id.to_string().into()),
            ],
        };
        let sent = self.producer.send(record).await;
        sent.map_err(|source| Error::NotWritten { id, what: "ending", source })?;
        index.close(id.0);
        metrics::letters_ended(self.archive.topic(), ending.name(), 1);
        tracing::info!(letter = %id, ending = ending.name(), "dead letter ended");
        Ok(())
    }

    /// Removes the records before the first open letter, if the topic has one partition. With several, the record that ends a
    /// letter may be in another partition, and must not be removed before the letter.
    async fn remove_closed(&self, index: &mut Index) {
        let Some(first_open) = index.closed_prefix() else { return };
        match self.archive.remove_before(0, first_open).await {
            Ok(()) => index.forget_before(first_open),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ended dead letters not removed, trying again with the next one");
            }
        }
    }
}
