//! Reading, filling and copying a whole embedded store.

use super::{FILE, accounts, schema};
use crate::{
    error::{Error, Result},
    generation,
    item::{column, number},
    statements as sql,
    transfer::channel::{RecordReceiver, RecordSender, Summary},
};
use abi::v1::{
    ExportConversation, ExportEntry, ExportMember, ExportSession, Session, SigningKey, User,
    export_record::Record,
};
use rusqlite::{Connection, Row, Statement, params};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

const MEMBERS: &str = "SELECT user_id, role, visible_from, read_seq, read_countable, joined
    FROM members WHERE conversation = $1 ORDER BY joined, user_id";
const ENTRIES: &str =
    "SELECT seq, countable, message_id, payload FROM entries WHERE conversation = $1 ORDER BY seq";

/// Sends a snapshot of the store.
pub(crate) fn read(folder: &Path, mut sender: RecordSender) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let mut conn = schema::open_current(&path)?;
    let tx = conn.transaction()?;
    sender.begin(generation::from_column(tx.query_row(sql::GENERATION, [], |row| row.get(0))?));
    read_accounts(&tx, &mut sender)?;
    let mut conversations = tx.prepare(sql::EXPORT_CONVERSATIONS)?;
    let (mut members, mut entries) = (tx.prepare(MEMBERS)?, tx.prepare(ENTRIES)?);
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
        send(&mut sender, Record::Conversation(conversation))?;
        read_rows(&mut members, key, &mut sender, member)?;
        read_rows(&mut entries, key, &mut sender, entry)?;
    }
    sender.end();
    sender.blocking_send()
}

/// Sends the rows of one conversation.
fn read_rows(
    select: &mut Statement<'_>,
    conversation: i64,
    sender: &mut RecordSender,
    record: fn(&Row<'_>) -> rusqlite::Result<Record>,
) -> Result<()> {
    let mut rows = select.query([conversation])?;
    while let Some(row) = rows.next()? {
        send(sender, record(row)?)?;
    }
    Ok(())
}

fn member(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record::Member(ExportMember {
        user: row.get(0)?,
        role: row.get(1)?,
        visible_from: number(row.get(2)?),
        read_seq: number(row.get(3)?),
        read_countable: number(row.get(4)?),
        joined: row.get(5)?,
    }))
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record::Entry(ExportEntry {
        seq: number(row.get(0)?),
        countable: number(row.get(1)?),
        message_id: row.get::<_, Vec<u8>>(2)?.into(),
        payload: row.get::<_, Vec<u8>>(3)?.into(),
    }))
}

fn read_accounts(conn: &Connection, sender: &mut RecordSender) -> Result<()> {
    let mut select = conn.prepare(sql::EXPORT_SIGNING_KEYS)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let key = SigningKey { id: row.get(0)?, secret: row.get::<_, Vec<u8>>(1)?.into() };
        send(sender, Record::SigningKey(key))?;
    }
    let mut select = conn.prepare(sql::EXPORT_USERS)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let user = User { app: row.get(0)?, user: row.get(1)?, password_hash: row.get(2)? };
        send(sender, Record::User(user))?;
    }
    let mut select = conn.prepare(sql::EXPORT_SESSIONS)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let session = ExportSession {
            session: Some(accounts::session_from_row(row)?),
            refresh_hash: row.get::<_, Vec<u8>>(4)?.into(),
            previous_hash: row.get::<_, Vec<u8>>(5)?.into(),
            number: row.get(6)?,
        };
        send(sender, Record::Session(session))?;
    }
    Ok(())
}

fn send(sender: &mut RecordSender, record: Record) -> Result<()> {
    if sender.add(record) { sender.blocking_send() } else { Ok(()) }
}

/// Fills a folder that has no store. The file gets its final name only once all of it is on the disk.
pub(crate) fn write(folder: &Path, mut receiver: RecordReceiver) -> Result<Summary> {
    let draft = Draft::create(folder)?;
    let mut conn = schema::open_draft(&draft.path)?;
    let tx = conn.transaction()?;
    let mut inserter = Inserter { conn: &tx, last_slot: 0, last_conversation: 0 };
    while let Some(batch) = receiver.blocking_next()? {
        for record in batch {
            inserter.insert(record)?;
        }
    }
    tx.commit()?;
    conn.close().map_err(|(_, error)| error)?;
    draft.commit()?;
    Ok(receiver.summary())
}

/// Inserts records and assigns the keys of their rows.
struct Inserter<'a> {
    conn: &'a Connection,
    /// Slot of the last signing key.
    last_slot: i64,
    /// Key of the last conversation, to which the following members and entries belong.
    last_conversation: i64,
}

impl Inserter<'_> {
    fn insert(&mut self, record: Record) -> Result<()> {
        match record {
            Record::Begin(begin) => {
                let previous = i64::from(begin.generation);
                self.conn.execute(sql::UPDATE_GENERATION, [generation::next(previous), previous])?;
            }
            Record::SigningKey(key) => {
                self.last_slot += 1;
                self.conn
                    .prepare_cached("INSERT INTO signing_keys (slot, id, secret) VALUES ($1, $2, $3)")?
                    .execute(params![self.last_slot, key.id, key.secret.as_ref()])?;
            }
            Record::User(user) => {
                self.conn
                    .prepare_cached("INSERT INTO users (app, user_id, password_hash) VALUES ($1, $2, $3)")?
                    .execute([user.app, user.user, user.password_hash])?;
            }
            Record::Session(session) => self.session(session)?,
            Record::Conversation(conversation) => {
                self.last_conversation += 1;
                self.conversation(conversation)?;
            }
            Record::Member(member) => self.member(member)?,
            Record::Entry(entry) => self.entry(&entry)?,
            Record::End(_) => {}
        }
        Ok(())
    }

    fn session(&self, record: ExportSession) -> Result<()> {
        let Session { session, app, user, device, .. } = record.session.unwrap_or_default();
        let (current, previous) = (record.refresh_hash.as_ref(), record.previous_hash.as_ref());
        let mut insert = self.conn.prepare_cached(sql::INSERT_SESSION)?;
        insert.execute(params![session, app, user, device, current, previous, record.number])?;
        Ok(())
    }

    fn conversation(&self, conversation: ExportConversation) -> Result<()> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO conversations
               (key, app, id, head, countable, members_version, name, history, last_sent_at_ms, kept)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $4)",
        )?;
        insert.execute(params![
            self.last_conversation,
            conversation.app,
            conversation.id,
            column(conversation.head),
            column(conversation.countable),
            conversation.members_version,
            conversation.name,
            conversation.history,
            conversation.last_sent_at_ms,
        ])?;
        Ok(())
    }

    fn member(&self, member: ExportMember) -> Result<()> {
        let mut insert = self.conn.prepare_cached(
            "INSERT INTO members
               (app, user_id, id, conversation, role, visible_from, read_seq, read_countable, joined)
             SELECT app, $1, id, key, $2, $3, $4, $5, $6 FROM conversations WHERE key = $7",
        )?;
        insert.execute(params![
            member.user,
            member.role,
            column(member.visible_from),
            column(member.read_seq),
            column(member.read_countable),
            member.joined,
            self.last_conversation,
        ])?;
        Ok(())
    }

    fn entry(&self, entry: &ExportEntry) -> Result<()> {
        let (seq, countable) = (column(entry.seq), column(entry.countable));
        let (id, payload) = (entry.message_id.as_ref(), entry.payload.as_ref());
        let mut insert = self.conn.prepare_cached(sql::INSERT_ENTRY)?;
        insert.execute(params![self.last_conversation, seq, countable, id, payload])?;
        Ok(())
    }
}

/// Copies a snapshot of a store, which may be in use.
pub(crate) fn back_up(folder: &Path, copy: &Path) -> Result<()> {
    let path = folder.join(FILE);
    if !path.exists() {
        return Err(Error::NoData);
    }
    let draft = Draft::create(copy)?;
    let conn = schema::open_current(&path)?;
    conn.execute("VACUUM INTO $1", [draft.path.to_string_lossy()])?;
    let conn = Connection::open(&draft.path)?;
    conn.execute("UPDATE generation SET is_copy = 1", [])?;
    conn.close().map_err(|(_, error)| error)?;
    draft.commit()
}

/// An incomplete store. Dropping it deletes the file unless it was committed.
struct Draft {
    folder: PathBuf,
    path: PathBuf,
}

impl Draft {
    fn create(folder: &Path) -> Result<Self> {
        let unusable = |source| Error::Folder { path: folder.to_owned(), source };
        if folder.join(FILE).exists() {
            let (place, found) = (folder.display().to_string(), format!("it contains {FILE}"));
            return Err(Error::NotEmpty { place, found });
        }
        fs::create_dir_all(folder).map_err(unusable)?;
        let draft = Self { folder: folder.to_owned(), path: folder.join(FILE).with_extension("draft") };
        // A crash may have left a file.
        draft.remove();
        Ok(draft)
    }

    /// Syncs the file and gives it its final name.
    fn commit(self) -> Result<()> {
        let committed = File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.path, self.folder.join(FILE)))
            .and_then(|()| File::open(&self.folder)?.sync_all());
        committed.map_err(|source| Error::Folder { path: self.folder.clone(), source })
    }

    fn remove(&self) {
        // Usually there is no such file. If it exists and can't be deleted, opening it for writing reports the error.
        let _ = fs::remove_file(&self.path);
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        self.remove();
    }
}
