//! Dead letters, for people: looking at them, replaying them once their cause is mended, dropping them.
//!
//! A letter is a record of the dead-letter topic; its place there is its id. It is open until a record behind it says that it
//! has ended, by a replay or by being dropped. So the topic alone holds the truth, any number of processes may work on it, and
//! what is closed at its beginning is removed, so that it does not grow for ever.
//!
//! A replay writes the original record to the topic that it came from, waits until the log has it, and then writes the ending.
//! A crash in between leaves the letter open: replaying it again is the record twice, which a handler has to expect anyway.
//! Replays are written one after the other in the order of the letters, so those of one key keep their order among each
//! other. They come behind what was written to that key meanwhile: order is kept only as far as that. A replayed record goes
//! through the same handler as every other, and if it is rejected again, it is a new letter.

mod index;
mod letter;

pub use letter::{Letter, LetterId};

use crate::archive::Archive;
use crate::error::Error;
use crate::metrics;
use crate::producer::Producer;
use crate::record::{Position, ProducerRecord, Record};
use bytes::Bytes;
use index::Index;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Names of the headers that this module writes.
pub mod header {
    /// On a record that says that a letter has ended: `replayed` or `dropped`.
    pub const ENDED: &str = "dead-letter-ended";
    /// On a record that says that a letter has ended: the letter's id.
    pub const LETTER: &str = "dead-letter-id";
    /// On a replayed record: the id of the letter that it was.
    pub const REPLAYED_FROM: &str = "replayed-from";
}

/// Records that are read at once in search of letters.
const CHUNK: usize = 1_000;

/// The dead letters of one topic.
pub struct Letters {
    archive: Arc<dyn Archive>,
    producer: Arc<dyn Producer>,
    /// Held over a whole request: people take turns.
    index: Mutex<Index>,
}

impl fmt::Debug for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Letters").field("topic", self.archive.topic()).finish_non_exhaustive()
    }
}

/// Which letters are meant. The default means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Those whose reason contains this text.
    pub reason: Option<String>,
    /// Those with this key.
    pub key: Option<Bytes>,
}

impl Selection {
    fn has(&self, letter: &Letter) -> bool {
        self.reason.as_ref().is_none_or(|part| letter.reason.contains(part))
            && self.key.as_ref().is_none_or(|key| letter.record.key == key)
    }
}

/// A page of letters.
#[derive(Clone, Debug)]
pub struct Page {
    /// By ascending id.
    pub letters: Vec<Letter>,
    /// Whether there may be more behind the last one that was looked at.
    pub next: Option<LetterId>,
    /// Letters that are open, whatever was selected.
    pub open: u64,
}

/// Where the dead-letter topic ended at some time: the next offset of each partition. It keeps a replay of many letters from
/// running after those that come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends(Vec<i64>);

impl Ends {
    fn has(&self, id: LetterId) -> bool {
        let end = usize::try_from(id.0.partition).ok().and_then(|partition| self.0.get(partition));
        end.is_some_and(|end| id.0.offset < *end)
    }
}

impl fmt::Display for Ends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&ends.join(","))
    }
}

impl FromStr for Ends {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// What a replay of many letters has done.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Written back to their topics, in this order.
    pub replayed: Vec<LetterId>,
    /// Can't be replayed, and why.
    pub skipped: Vec<(LetterId, &'static str)>,
    /// Where to go on, if there may be more.
    pub next: Option<LetterId>,
    /// Where the topic ended when this began.
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
    /// The letters in `archive`. `producer` writes to that topic and to those that the letters came from.
    pub fn new(archive: Arc<dyn Archive>, producer: Arc<dyn Producer>) -> Self {
        for ending in [Ending::Replayed, Ending::Dropped] {
            metrics::letters_ended(archive.topic(), ending.name(), 0);
        }
        Self { archive, producer, index: Mutex::default() }
    }

    /// Up to `limit` open letters behind `after`, oldest first; fewer when they are large.
    ///
    /// # Errors
    /// The log does not answer. (The first look reads the whole topic; what was read of it counts for the next.)
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
            for letter in chunk.into_iter().filter(|letter| selection.has(letter)) {
                bytes += letter.record.size();
                next = Some(letter.id);
                letters.push(letter);
                if letters.len() >= limit || bytes >= crate::archive::READ_BYTES {
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

    /// Writes a letter's record back to the topic that it came from, as the last one of its key, and ends the letter. Gives
    /// where the record lies now.
    ///
    /// # Errors
    /// There is no such open letter, it can't be replayed, or the log does not answer; it stays open then.
    pub async fn replay(&self, id: LetterId) -> Result<Position, Error> {
        let mut index = self.index.lock().await;
        let letter = self.find(&mut index, id).await?;
        let position = self.write_back(&mut index, &letter).await?;
        self.remove_closed(&mut index).await;
        Ok(position)
    }

    /// Replays the open letters of a selection behind `after`, in their order, and at most `limit` of them: call it again with
    /// `next` and `until` of what it gives. Letters behind `until` are left alone, so that it ends also when what
    /// was replayed comes back.
    ///
    /// # Errors
    /// The log does not answer; the rest stays open.
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
            for letter in chunk.iter().filter(|letter| selection.has(letter) && done.until.has(letter.id)) {
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
    /// There is no such open letter, or the log does not answer; it stays open then.
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

    /// Some open letters behind a place, which moves behind the last record that was looked at; `None` at the end.
    async fn open_after(
        &self,
        index: &Index,
        place: &mut Option<LetterId>,
    ) -> Result<Option<Vec<Letter>>, Error> {
        let Some(first) = index.open_after(place.map(|id| id.0)) else {
            *place = None;
            return Ok(None);
        };
        let records = self.archive.read(first.partition, first.offset, CHUNK).await?;
        *place = Some(LetterId(records.last().map_or(first, Record::position)));
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

    /// Removes what is closed at the beginning of the topic. Only if it has one partition: an ending must not go before its
    /// letter, and with several it may lie in another one.
    async fn remove_closed(&self, index: &mut Index) {
        let Some(first_open) = index.closed_prefix() else { return };
        match self.archive.remove_before(0, first_open).await {
            Ok(()) => index.forget_before(first_open),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ended dead letters not removed, trying again after the next one");
            }
        }
    }
}
