//! The contents of the store at the end of a run, read from its tables. No code of the services is involved.

use super::ledger::{self, Id};
use abi::{
    envelope::{EDIT, GROUP, MESSAGE, REACTION, RECALL},
    v1::{Entry, HistoryVisibility, content::Body, group_change::Change},
};
use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sqlx::{ConnectOptions as _, Row as _, postgres::PgConnectOptions};
use std::{collections::BTreeMap, path::Path, str::FromStr as _};

/// Characters of a text that are kept for messages to people. The checker compares digests of the whole content.
const EXCERPT: usize = 36;

/// All stored conversations.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct StoreView {
    /// By conversation id.
    pub conversations: BTreeMap<String, Conversation>,
}

/// A conversation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Conversation {
    /// The `conversation_seq` of the last entry, from the conversation's row.
    pub head: u64,
    /// Its entries, ordered by `conversation_seq`.
    pub entries: Vec<Stored>,
}

/// A stored entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Its `conversation_seq`.
    pub conversation_seq: u64,
    /// Its message id.
    pub message_id: Id,
    /// User id of the sender.
    pub sender: String,
    /// Device id of the sender.
    pub device: String,
    /// Its `client_msg_id`.
    pub client_msg_id: String,
    /// Digest of everything that the sender determines.
    pub digest: u64,
    /// The part of the digest that later entries do not change.
    pub identity: u64,
    /// The part of the digest that covers the content.
    pub body: u64,
    /// Whether it counts as unread.
    pub countable: bool,
    /// When the gateway accepted it, in milliseconds since 1970.
    pub sent_at_ms: i64,
    /// Message id of the entry that it answers or changes.
    pub refers_to: Option<Id>,
    /// Its content, as far as the checker needs it.
    pub content: Content,
}

/// The content of an entry, as far as the checker needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Content {
    /// A message.
    Message {
        /// The first characters of its text; those of the workload begin with the `client_msg_id`.
        excerpt: String,
    },
    /// An edit of a message.
    Edit,
    /// A recall of a message.
    Recall,
    /// All reactions of the sender to a message.
    Reaction(Vec<String>),
    /// The creation of a group.
    Created {
        /// The members besides the owner.
        members: Vec<String>,
        /// Whether later members may see entries from before they joined.
        sees_all: bool,
    },
    /// Users were added.
    Added(Vec<String>),
    /// Users were removed.
    Removed(Vec<String>),
    /// The sender left.
    Left,
    /// Content that the checker does not know.
    Undecodable,
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
            store.add_conversation(&mut ids, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        }
        let mut rows = sqlx::query(
            "SELECT conversation, seq, message_id, payload FROM entries ORDER BY conversation, seq",
        )
        .fetch(&mut connection);
        while let Some(row) = rows.try_next().await? {
            store.add_entry(&ids, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?)?;
        }
        Ok(store)
    }

    /// Reads the store in the data directory of the one-process program, which must not be running.
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
            store.add_conversation(&mut ids, row.get(0)?, row.get(1)?, row.get(2)?);
        }
        let mut statement = connection.prepare(
            "SELECT conversation, seq, message_id, payload FROM entries ORDER BY conversation, seq",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, payload) = (row.get_ref(2)?.as_blob()?, row.get_ref(3)?.as_blob()?);
            store.add_entry(&ids, row.get(0)?, row.get(1)?, id, payload)?;
        }
        Ok(store)
    }

    fn add_conversation(&mut self, ids: &mut BTreeMap<i64, String>, key: i64, id: String, head: i64) {
        let head = u64::try_from(head).unwrap_or_default();
        self.conversations.insert(id.clone(), Conversation { head, entries: Vec::new() });
        ids.insert(key, id);
    }

    fn add_entry(
        &mut self,
        ids: &BTreeMap<i64, String>,
        key: i64,
        seq: i64,
        message_id: &[u8],
        payload: &[u8],
    ) -> Result<()> {
        let id = ids
            .get(&key)
            .with_context(|| format!("an entry belongs to conversation {key}, which has no row"))?;
        let entry = Entry::decode(payload).with_context(|| format!("entry {seq} of {id}"))?;
        let stored = Stored {
            conversation_seq: u64::try_from(seq)?,
            digest: ledger::digest_of(&entry),
            identity: ledger::identity_of(&entry),
            body: ledger::body_of(entry.content.as_ref()),
            countable: entry.countable,
            sent_at_ms: entry.sent_at_ms,
            refers_to: Id::parse(&entry.refers_to),
            message_id: Id(message_id.try_into().context("a message id has 16 bytes")?),
            content: content(&entry),
            sender: entry.sender,
            device: entry.sender_device,
            client_msg_id: entry.client_msg_id,
        };
        self.conversations
            .get_mut(id)
            .context("every id in the map has a conversation")?
            .entries
            .push(stored);
        Ok(())
    }

    /// Writes it to a file, as JSON compressed with gzip.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        ledger::write(path, self)
    }

    /// Reads a file of [`StoreView::write`].
    ///
    /// # Errors
    /// If the file can't be read or decoded.
    pub fn read(path: &Path) -> Result<Self> {
        ledger::read(path)
    }
}

fn content(entry: &Entry) -> Content {
    let text = entry.content.as_ref().and_then(|content| content.body.as_ref());
    match (entry.kind.as_str(), text) {
        (MESSAGE, Some(Body::Text(text))) => {
            Content::Message { excerpt: text.chars().take(EXCERPT).collect() }
        }
        (EDIT, Some(Body::Text(_))) => Content::Edit,
        (RECALL, None) => Content::Recall,
        (REACTION, None) => Content::Reaction(entry.reactions.clone()),
        (GROUP, None) => match entry.group_change.as_ref().and_then(|change| change.change.as_ref()) {
            Some(Change::Created(created)) => Content::Created {
                sees_all: created.history() == HistoryVisibility::All,
                members: created.members.clone(),
            },
            Some(Change::Added(added)) => Content::Added(added.users.clone()),
            Some(Change::Removed(removed)) => Content::Removed(removed.users.clone()),
            Some(Change::Left(_)) => Content::Left,
            Some(Change::Renamed(_) | Change::OwnerChanged(_) | Change::Dissolved(_)) | None => {
                Content::Undecodable
            }
        },
        _ => Content::Undecodable,
    }
}
