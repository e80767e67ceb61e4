//! What the store holds at the end, read from its tables: neither the services nor their code come between.

use super::ledger::{self, Id};
use abi::v1::{Entry, HistoryVisibility, Message, entry, group_change::Change, message::Body};
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions as _, Row as _, postgres::PgConnectOptions};
use std::{collections::BTreeMap, path::Path, str::FromStr as _};

/// Characters of a text that are kept for people; the checker compares digests of the whole.
const BEGINS: usize = 36;

/// All conversations as the tables have them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreView {
    /// By conversation id.
    pub conversations: BTreeMap<String, Conversation>,
}

/// A conversation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The number of the last entry, as the conversation's row says.
    pub head: u64,
    /// Its entries, in the order of their numbers.
    pub entries: Vec<Stored>,
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its number.
    pub conversation_seq: u64,
    /// Its id.
    pub message_id: Id,
    /// User id of the sender.
    pub sender: String,
    /// The sender's own id of it.
    pub client_msg_id: String,
    /// All that it says.
    pub digest: u64,
    /// What it says, for people and for the members of groups.
    pub content: Content,
}

/// What an entry says, as far as the checker wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A message; the workload's begin with the `client_msg_id`.
    Message {
        /// The beginning of its text.
        begins: String,
    },
    /// A group begins.
    Created {
        /// The members beside the owner.
        members: Vec<String>,
        /// Whether later members see what was before them.
        sees_all: bool,
    },
    /// Users joined.
    Added(Vec<String>),
    /// Users were removed.
    Removed(Vec<String>),
    /// The sender left.
    Left,
    /// Nothing that can be understood.
    Nothing,
}

impl StoreView {
    /// Reads a schema of PostgreSQL.
    ///
    /// # Errors
    /// If it can't be read, or an entry can't be decoded.
    pub async fn postgres(url: &str, schema: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)?.options([("search_path", schema)]);
        let mut connection = options.connect().await.context("connect to PostgreSQL")?;
        let mut store = Self::default();
        let mut ids = BTreeMap::new();
        let rows = sqlx::query("SELECT key, id, head FROM conversations").fetch_all(&mut connection).await?;
        for row in rows {
            store.conversation(&mut ids, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
        let mut rows = sqlx::query(
            "SELECT conversation, seq, message_id, payload FROM entries ORDER BY conversation, seq",
        )
        .fetch(&mut connection);
        while let Some(row) = rows.try_next().await? {
            store.entry(&ids, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)?;
        }
        Ok(store)
    }

    /// Reads the store in the data directory of the embedded program, which must have ended.
    ///
    /// # Errors
    /// If it can't be read, or an entry can't be decoded.
    pub fn sqlite(data: &Path) -> Result<Self> {
        let path = data.join("store/store.sqlite");
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
        let connection = rusqlite::Connection::open_with_flags(&path, flags)
            .with_context(|| path.display().to_string())?;
        let mut store = Self::default();
        let mut ids = BTreeMap::new();
        let mut statement = connection.prepare("SELECT key, id, head FROM conversations")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            store.conversation(&mut ids, row.get(0)?, row.get(1)?, row.get(2)?);
        }
        let mut statement = connection.prepare(
            "SELECT conversation, seq, message_id, payload FROM entries ORDER BY conversation, seq",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, payload) = (row.get_ref(2)?.as_blob()?, row.get_ref(3)?.as_blob()?);
            store.entry(&ids, row.get(0)?, row.get(1)?, id, payload)?;
        }
        Ok(store)
    }

    fn conversation(&mut self, ids: &mut BTreeMap<i64, String>, key: i64, id: String, head: i64) {
        let head = u64::try_from(head).unwrap_or_default();
        self.conversations.insert(id.clone(), Conversation { head, entries: Vec::new() });
        ids.insert(key, id);
    }

    fn entry(
        &mut self,
        ids: &BTreeMap<i64, String>,
        key: i64,
        seq: i64,
        message_id: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        let id =
            ids.get(&key).with_context(|| format!("an entry of conversation {key}, which has no row"))?;
        let entry = Entry::decode(payload).with_context(|| format!("entry {seq} of {id}"))?;
        let stored = Stored {
            conversation_seq: u64::try_from(seq)?,
            digest: ledger::digest(&entry.sender, &entry.client_msg_id, entry.content.as_ref()),
            message_id: Id(message_id.try_into().context("a message id has 16 bytes")?),
            sender: entry.sender,
            client_msg_id: entry.client_msg_id,
            content: content(entry.content),
        };
        self.conversations.get_mut(id).context("it was made with its id")?.entries.push(stored);
        Ok(())
    }

    /// Writes it to a file, as compressed JSON.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        ledger::write(path, self)
    }

    /// Reads what [`StoreView::write`] wrote.
    ///
    /// # Errors
    /// If it is not such a file.
    pub fn read(path: &Path) -> Result<Self> {
        ledger::read(path)
    }
}

fn content(content: Option<entry::Content>) -> Content {
    match content {
        Some(entry::Content::Message(Message { body: Some(Body::Text(text)), .. })) => {
            Content::Message { begins: text.chars().take(BEGINS).collect() }
        }
        Some(entry::Content::GroupChange(change)) => match change.change {
            Some(Change::Created(created)) => Content::Created {
                sees_all: created.history() == HistoryVisibility::All,
                members: created.members,
            },
            Some(Change::Added(added)) => Content::Added(added.users),
            Some(Change::Removed(removed)) => Content::Removed(removed.users),
            Some(Change::Left(_)) => Content::Left,
            None => Content::Nothing,
        },
        _ => Content::Nothing,
    }
}
