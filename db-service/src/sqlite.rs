//! The embedded store: SQLite in a folder, one writer on its own thread, a few readers beside it.
//!
//! What comes from the log is committed without an fsync, because the log repeats it; everything else, and [`Store::sync`],
//! is committed with one, which covers all that was written before.

mod accounts;
mod checkpoints;
mod heads;
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
    sessions::Rotation,
    store::{Marked, Page, Store, View},
};
use abi::v1::{HeadsPage, HistoryPage, Members, SaveResult, Session, SigningKey};
use async_trait::async_trait;
use checkpoints::Checkpoints;
use readers::Readers;
use std::{fs, path::Path};
use writer::{Tx, Writer};

/// Saving so many entries takes less than waking another thread and being woken by it: about 10 us each.
const SHORT: usize = 4;

/// Name of the file in its folder.
pub(crate) const FILE: &str = "store.sqlite";

/// The store. Dropping it waits for the writer to finish what it was given.
pub(crate) struct SqliteStore {
    // Dropped first: the writer, closing last, folds the rest of the write-ahead log into the file.
    _checkpoints: Checkpoints,
    writer: Writer,
    readers: Readers,
    max_members: usize,
}

impl SqliteStore {
    /// Opens or makes the store in a folder, which is made too. `max_members` is the size limit of groups.
    pub(crate) fn open(folder: &Path, max_members: usize) -> Result<Self> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(unusable)?;
        let path = folder.join(FILE);
        let connection = schema::open_writer(&path)?;
        // SQLite syncs its files, and nobody but us the names that they have in the folder.
        fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(unusable)?;
        Ok(Self {
            _checkpoints: Checkpoints::start(&path)?,
            writer: Writer::start(connection)?,
            readers: Readers::new(path),
            max_members,
        })
    }

    /// Runs something on the writer's connection.
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
    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>> {
        let max_members = self.max_members;
        let is_short = items.len() <= SHORT;
        let save = move |tx: &mut Tx<'_>| save::save(tx, &items, max_members);
        if is_short { self.writer.short_call(save).await } else { self.writer.call(false, save).await }
    }

    async fn sync(&self) -> Result<()> {
        self.writer.call(true, |_| Ok(())).await
    }

    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>> {
        let max_members = self.max_members;
        self.readers.call(move |conn| save::check(conn, &item, max_members)).await
    }

    async fn history(&self, view: View, page: Page, limit: usize) -> Result<Option<HistoryPage>> {
        self.readers.call(move |conn| read::history(conn, &view, page, limit)).await
    }

    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage> {
        self.readers.call(move |conn| read::heads(conn, &app, &user, &after, limit)).await
    }

    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>> {
        let group = self.readers.call(move |conn| read::group(conn, &app, &conversation)).await?;
        Ok(group.map(Members::from))
    }

    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<Marked>> {
        self.writer.call(true, move |tx| read::mark(tx.conn, &view, seq)).await
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

    async fn rotate_session(&self, id: String, rotation: Rotation) -> Result<Option<Session>> {
        self.writer.call(true, move |tx| accounts::rotate_session(tx.conn, &id, rotation)).await
    }

    async fn session(&self, id: String) -> Result<Option<Session>> {
        self.readers.call(move |conn| accounts::session(conn, &id)).await
    }

    async fn revoke_session(&self, id: String) -> Result<()> {
        self.writer.call(true, move |tx| accounts::revoke_session(tx.conn, &id)).await
    }

    async fn signing_keys(&self, fresh: SigningKey) -> Result<Vec<SigningKey>> {
        let keys = self.readers.call(accounts::signing_keys).await?;
        if !keys.is_empty() {
            return Ok(keys);
        }
        self.writer.call(true, move |tx| accounts::first_signing_key(tx.conn, &fresh)).await
    }
}
