//! The embedded store: SQLite in a folder, with one writer thread and a small pool of readers.
//!
//! Entries from the log are committed without an fsync, because the log can replay them. All other writes and [`Conversations::sync`]
//! are committed with an fsync, which also covers every earlier commit.

/// The parameters of [`INSERT_ENTRY`](crate::statements::changes::INSERT_ENTRY).
macro_rules! entry_params {
    ($key:expr, $item:expr, $seqs:expr) => {
        rusqlite::params![
            $key,
            $seqs.seq,
            $seqs.countable,
            $item.sent_at_ms,
            ($seqs.target > 0).then_some($seqs.target),
            $item.counts,
            $item.id,
            $item.sender,
            $item.kind,
            &$item.payload[..],
        ]
    };
}

mod accounts;
mod changes;
mod checkpoints;
mod conversations;
mod groups;
mod heads;
mod history;
mod pool;
mod positions;
mod reads;
mod save;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;
mod user_state;
mod users;
mod writer;

use crate::{
    error::{Error, Result},
    item::Item,
    position::{Batch, LogPartition},
    rules::Limits,
    store::{Conversations, EncodedHead, Page, PageLimit, View},
};
use abi::v1::{EntriesPage, MarkedRead, Members, ReadMark, Readers, SaveResult};
use async_trait::async_trait;
use checkpoints::Checkpoints;
use pool::ReadPool;
use std::{collections::HashSet, fs, path::Path};
use writer::{Tx, Writer};

/// A batch of up to this many entries is saved on the caller's thread if the writer is idle. Handing it to the writer's thread
/// and back would take longer than the save, about 10 us per entry.
const MAX_INLINE_ENTRIES: usize = 4;

/// Name of the database file in the folder.
pub(crate) const FILE: &str = "store.sqlite";

/// The store. Dropping it waits until the writer has finished its queue.
pub(crate) struct SqliteStore {
    // Must be dropped before the writer: the writer's connection then folds the rest of the write-ahead log into the file.
    _checkpoints: Checkpoints,
    writer: Writer,
    readers: ReadPool,
    limits: Limits,
}

impl SqliteStore {
    /// Opens the store in a folder. Creates both if they are missing.
    pub(crate) fn open(folder: &Path, limits: Limits) -> Result<Self> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unusable)?;
        let path = folder.join(FILE);
        let connection = schema::open_writer(&path)?;
        // SQLite syncs its files but not every directory entry that it creates.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)?;
        Ok(Self {
            _checkpoints: Checkpoints::start(&path)?,
            writer: Writer::start(connection)?,
            readers: ReadPool::new(path),
            limits,
        })
    }

    /// Runs `work` on the writer's connection.
    #[cfg(test)]
    pub(crate) async fn on_writer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&rusqlite::Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.call(true, move |tx| Ok(work(tx.conn)?)).await
    }
}

#[async_trait]
impl Conversations for SqliteStore {
    fn health(&self) -> std::result::Result<(), String> {
        self.writer.health()
    }

    async fn save(&self, batch: Batch) -> Result<Vec<SaveResult>> {
        let limits = self.limits;
        let is_short = batch.items.len() <= MAX_INLINE_ENTRIES;
        let save = move |tx: &mut Tx<'_>| save::save(tx, &batch, limits);
        if is_short { self.writer.call_inline(save).await } else { self.writer.call(false, save).await }
    }

    async fn position(&self, partition: LogPartition) -> Result<Option<i64>> {
        let decided = self.readers.call(move |conn| positions::decided(conn, &partition)).await?;
        Ok(decided.map(|decided| decided.end))
    }

    async fn forget_position(&self, partition: LogPartition) -> Result<()> {
        self.writer.call(true, move |tx| positions::forget(tx.conn, &partition)).await
    }

    async fn sync(&self) -> Result<()> {
        self.writer.call(true, |_| Ok(())).await
    }

    async fn check_change(&self, item: Item, accounts: HashSet<String>) -> Result<Option<SaveResult>> {
        let limits = self.limits;
        self.readers.call(move |conn| changes::check(conn, &item, &accounts, limits)).await
    }

    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<EntriesPage>> {
        self.readers.call(move |conn| history::history(conn, &view, page, limit)).await
    }

    async fn heads_of(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<Vec<EncodedHead>> {
        let limits = self.limits;
        self.readers.call(move |conn| heads::heads_of(conn, &app, &user, &conversations, limits)).await
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        let group = self.readers.call(move |conn| groups::group(conn, &app, &conversation)).await?;
        Ok(group.map(Members::from))
    }

    async fn readers(&self, view: View, seq: i64, after: String, limit: usize) -> Result<Option<Readers>> {
        self.readers.call(move |conn| reads::readers(conn, &view, seq, &after, limit)).await
    }

    async fn mark_read(&self, app: String, marks: Vec<ReadMark>) -> Result<Vec<MarkedRead>> {
        let limits = self.limits;
        self.writer.call(true, move |tx| reads::mark_read(tx.conn, &app, &marks, limits)).await
    }
}
