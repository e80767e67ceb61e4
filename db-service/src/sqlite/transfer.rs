//! The embedded store as a whole: read, filled, copied.

use super::{FILE, accounts, schema};
use crate::{
    error::{Error, Result},
    generation,
    item::{column, number},
    transfer::{Feed, Intake, Summary},
};
use abi::v1::{
    ExportConversation, ExportEntry, ExportMember, ExportSession, Session, SigningKey, User,
    export_record::Record,
};
use rusqlite::{Connection, params};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

/// Reads everything as it is at the beginning.
pub(crate) fn read(folder: &Path, mut feed: Feed) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let mut conn = schema::open_reader(&path)?;
    let tx = conn.transaction()?;
    schema::check_version(&tx)?;
    feed.begin(tx.query_row("SELECT now FROM generation", [], |row| Ok(generation::contract(row.get(0)?)))?);
    read_accounts(&tx, &mut feed)?;
    let mut conversations = tx.prepare(
        "SELECT key, app, id, head, countable, members_version, name, history, last_sent_at_ms
         FROM conversations ORDER BY app, id",
    )?;
    let mut members = tx.prepare(
        "SELECT user, role, visible_from, read_seq, read_countable, joined
         FROM members WHERE conversation = ? ORDER BY joined, user",
    )?;
    let mut entries = tx.prepare(
        "SELECT seq, countable, message_id, payload FROM entries WHERE conversation = ? ORDER BY seq",
    )?;
    let mut rows = conversations.query([])?;
    while let Some(row) = rows.next()? {
        let key: i64 = row.get(0)?;
        let conversation = ExportConversation {
            app: row.get(1)?,
            id: row.get(2)?,
            head: number(row.get(3)?),
            countable: number(row.get(4)?),
            members_version: row.get(5)?,
            name: row.get(6)?,
            history: row.get(7)?,
            last_sent_at_ms: row.get(8)?,
        };
        pass(&mut feed, Record::Conversation(conversation))?;
        let mut rows = members.query([key])?;
        while let Some(row) = rows.next()? {
            let member = ExportMember {
                user: row.get(0)?,
                role: row.get(1)?,
                visible_from: number(row.get(2)?),
                read_seq: number(row.get(3)?),
                read_countable: number(row.get(4)?),
                joined: row.get(5)?,
            };
            pass(&mut feed, Record::Member(member))?;
        }
        let mut rows = entries.query([key])?;
        while let Some(row) = rows.next()? {
            let entry = ExportEntry {
                seq: number(row.get(0)?),
                countable: number(row.get(1)?),
                message_id: row.get::<_, Vec<u8>>(2)?.into(),
                payload: row.get::<_, Vec<u8>>(3)?.into(),
            };
            pass(&mut feed, Record::Entry(entry))?;
        }
    }
    feed.end();
    feed.blocking_send()
}

fn read_accounts(conn: &Connection, feed: &mut Feed) -> Result<()> {
    let mut select = conn.prepare("SELECT id, secret FROM signing_keys ORDER BY slot")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let key = SigningKey { id: row.get(0)?, secret: row.get::<_, Vec<u8>>(1)?.into() };
        pass(feed, Record::SigningKey(key))?;
    }
    let mut select = conn.prepare("SELECT app, user, password_hash FROM users ORDER BY app, user")?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let user = User { app: row.get(0)?, user: row.get(1)?, password_hash: row.get(2)? };
        pass(feed, Record::User(user))?;
    }
    let mut select = conn.prepare(
        "SELECT id, app, user, device, refresh_hash, previous_hash, rotated_at_ms FROM sessions ORDER BY id",
    )?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let session = ExportSession {
            session: Some(accounts::session_of(row)?),
            refresh_hash: row.get::<_, Vec<u8>>(4)?.into(),
            previous_hash: row.get::<_, Vec<u8>>(5)?.into(),
            rotated_at_ms: row.get(6)?,
        };
        pass(feed, Record::Session(session))?;
    }
    Ok(())
}

fn pass(feed: &mut Feed, record: Record) -> Result<()> {
    if feed.add(record) { feed.blocking_send() } else { Ok(()) }
}

/// Fills a folder that has no store: in a file of another name, which gets its own name once all of it is on the disk.
pub(crate) fn write(folder: &Path, mut intake: Intake) -> Result<Summary> {
    let draft = Draft::begin(folder)?;
    let mut conn = schema::open_draft(&draft.path)?;
    let tx = conn.transaction()?;
    let mut keys = (0, 0);
    while let Some(batch) = intake.blocking_next()? {
        for record in batch {
            insert(&tx, record, &mut keys)?;
        }
    }
    tx.commit()?;
    conn.close().map_err(|(_, error)| error)?;
    draft.keep()?;
    Ok(intake.summary())
}

/// `keys`: of the last signing key and the last conversation.
fn insert(conn: &Connection, record: Record, keys: &mut (i64, i64)) -> Result<()> {
    match record {
        Record::Begin(begin) => {
            let before = i64::from(begin.generation);
            conn.execute("UPDATE generation SET now = ?, before = ?", [generation::next(before), before])?;
        }
        Record::SigningKey(key) => {
            keys.0 += 1;
            conn.prepare_cached("INSERT INTO signing_keys (slot, id, secret) VALUES (?, ?, ?)")?
                .execute(params![keys.0, key.id, key.secret.as_ref()])?;
        }
        Record::User(user) => {
            conn.prepare_cached("INSERT INTO users (app, user, password_hash) VALUES (?, ?, ?)")?
                .execute([user.app, user.user, user.password_hash])?;
        }
        Record::Session(of) => {
            let Session { session, app, user, device, .. } = of.session.unwrap_or_default();
            let (hash, previous) = (of.refresh_hash.as_ref(), of.previous_hash.as_ref());
            conn.prepare_cached(
                "INSERT INTO sessions (id, app, user, device, refresh_hash, previous_hash, rotated_at_ms)
                 VALUES (?, ?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![session, app, user, device, hash, previous, of.rotated_at_ms])?;
        }
        Record::Conversation(c) => {
            keys.1 += 1;
            let (head, countable) = (column(c.head), column(c.countable));
            conn.prepare_cached(
                "INSERT INTO conversations
                   (key, app, id, head, countable, members_version, name, history, last_sent_at_ms, kept)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?4)",
            )?
            .execute(params![
                keys.1,
                c.app,
                c.id,
                head,
                countable,
                c.members_version,
                c.name,
                c.history,
                c.last_sent_at_ms
            ])?;
        }
        Record::Member(member) => {
            let (visible_from, read) = (column(member.visible_from), column(member.read_seq));
            conn.prepare_cached(
                "INSERT INTO members
                   (app, user, id, conversation, role, visible_from, read_seq, read_countable, joined)
                 SELECT app, ?2, id, key, ?3, ?4, ?5, ?6, ?7 FROM conversations WHERE key = ?1",
            )?
            .execute(params![
                keys.1,
                member.user,
                member.role,
                visible_from,
                read,
                column(member.read_countable),
                member.joined
            ])?;
        }
        Record::Entry(entry) => {
            let (seq, countable) = (column(entry.seq), column(entry.countable));
            conn.prepare_cached(
                "INSERT INTO entries (conversation, seq, countable, message_id, payload) VALUES (?, ?, ?, ?, ?)",
            )?
            .execute(params![keys.1, seq, countable, entry.message_id.as_ref(), entry.payload.as_ref()])?;
        }
        Record::End(_) => {}
    }
    Ok(())
}

/// Copies a store that may be in use, as it is at one moment.
pub(crate) fn back_up(folder: &Path, copy: &Path) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let draft = Draft::begin(copy)?;
    let conn = schema::open_reader(&path)?;
    schema::check_version(&conn)?;
    conn.execute("VACUUM INTO ?", [draft.path.to_string_lossy()])?;
    let conn = Connection::open(&draft.path)?;
    conn.execute("UPDATE generation SET is_copy = 1", [])?;
    conn.close().map_err(|(_, error)| error)?;
    draft.keep()
}

/// A store that is being made. Goes away unless it is kept.
struct Draft {
    folder: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn begin(folder: &Path) -> Result<Self> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source };
        if folder.join(FILE).exists() {
            let (place, what) = (folder.display().to_string(), format!("it has a {FILE}"));
            return Err(Error::NotEmpty { place, what });
        }
        fs::create_dir_all(folder).map_err(unusable)?;
        let draft = Self { folder: folder.to_owned(), path: folder.join(FILE).with_extension("draft") };
        // One that a crash has left.
        draft.remove();
        Ok(draft)
    }

    fn keep(self) -> Result<()> {
        let kept = File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.path, self.folder.join(FILE)))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        kept.map_err(|source| Error::Folder { path: self.folder.clone(), source })
    }

    fn remove(&self) {
        // Not there is what is wanted; what can't be removed can't be written over either, and that is said.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}
