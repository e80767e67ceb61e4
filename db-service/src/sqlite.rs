//! The embedded store: SQLite in a folder, with one writer thread and a small pool of readers.
//!
//! Entries from the log are committed without an fsync, because the log can replay them. All other writes and [`Store::sync`]
//! are committed with an fsync, which also covers every earlier commit.

mod accounts;
mod checkpoints;
mod conversations;
mod read;
mod readers;
mod save;
mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod transfer;
mod writer;

use crate::{
    error::{Error, Result},
    item::Item,
    rules::Limits,
    sessions::{Rotation, SessionKey},
    store::{Page, PageLimit, ReadPosition, Store, View},
};
use abi::v1::{HeadsPage, HistoryPage, Members, SaveResult, Session, SigningKey};
use async_trait::async_trait;
use checkpoints::Checkpoints;
use readers::Readers;
use std::{fs, path::Path};
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
    readers: Readers,
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
            readers: Readers::new(path),
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
impl Store for SqliteStore {
    fn health(&self) -> std::result::Result<(), String> {
        self.writer.health()
    }

    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>> {
        let limits = self.limits;
        let is_short = items.len() <= MAX_INLINE_ENTRIES;
        let save = move |tx: &mut Tx<'_>| save::save(tx, &items, limits);
        if is_short { self.writer.call_inline(save).await } else { self.writer.call(false, save).await }
    }

    async fn sync(&self) -> Result<()> {
        self.writer.call(true, |_| Ok(())).await
    }

    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>> {
        let limits = self.limits;
        self.readers.call(move |conn| save::check(conn, &item, limits)).await
    }

    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<HistoryPage>> {
        self.readers.call(move |conn| read::history(conn, &view, page, limit)).await
    }

    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage> {
        self.readers.call(move |conn| read::heads(conn, &app, &user, &after, limit)).await
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        let group = self.readers.call(move |conn| read::group(conn, &app, &conversation)).await?;
        Ok(group.map(Members::from))
    }

    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<ReadPosition>> {
        self.writer.call(true, move |tx| read::mark_read(tx.conn, &view, seq)).await
    }

    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool> {
        self.writer.call(true, move |tx| accounts::create_user(tx.conn, &app, &user, &password_hash)).await
    }

    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>> {
        self.readers.call(move |conn| accounts::password_hash(conn, &app, &user)).await
    }

    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>> {
        self.writer.call(true, move |tx| accounts::create_session(tx.conn, &session, refresh_hash)).await
    }

    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>> {
        self.writer.call(true, move |tx| accounts::rotate_session(tx.conn, &key, rotation)).await
    }

    async fn session(&self, key: SessionKey) -> Result<Option<Session>> {
        self.readers.call(move |conn| accounts::session(conn, &key)).await
    }

    async fn revoke_session(&self, key: SessionKey) -> Result<()> {
        self.writer.call(true, move |tx| accounts::revoke_session(tx.conn, &key)).await
    }

    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>> {
        let keys = self.readers.call(accounts::signing_keys).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        self.writer.call(true, move |tx| accounts::insert_first_signing_key(tx.conn, &candidate)).await
    }
}
