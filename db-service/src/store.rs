//! The traits of a store, by the key of the data: [`Conversations`], [`Users`] and [`Directory`]. Two types implement all of them:
//! `crate::sqlite::SqliteStore` and `crate::postgres::PostgresStore`. The [`Service`](crate::Service) has validated all arguments
//! and combines the answers of the traits, so that conversations and users can live in different databases.
//!
//! [`crate::Error::ApiError`] is a refusal: unless documented otherwise, it changes nothing. After any other error the call may or
//! may not have been executed, and may be repeated.

use crate::{
    error::Result,
    item::Item,
    position::{Batch, LogPartition},
    sessions::{Rotation, SessionKey},
};
use abi::v1::{
    Block, ConversationSettings, EntriesPage, MarkedRead, Members, Profile, ReadMark, Readers, SaveResult,
    Session, SetSettings, SigningKey,
};
use async_trait::async_trait;
use prost::bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// A user and a conversation that the user reads.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Application.
    pub(crate) app: String,
    /// User id.
    pub(crate) user: String,
    /// Conversation id in canonical form.
    pub(crate) conversation: String,
}

/// The bound and the direction of a page of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Entries after this `conversation_seq`, ascending.
    After(i64),
    /// Entries before this `conversation_seq`, descending.
    Before(i64),
}

/// The size of a page of history. The first entry is returned even if it is larger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageLimit {
    /// Most entries.
    pub(crate) entries: usize,
    /// Most bytes of encoded entries.
    pub(crate) bytes: usize,
}

/// Most bytes in a page of entries or heads.
pub(crate) const MAX_PAGE_BYTES: usize = 1 << 20;

/// A conversation in the list of a user's conversations. Pages of the list are ordered by the fields: newest first, then by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    /// `last_sent_at_ms` of the conversation.
    pub(crate) last_sent_at_ms: i64,
    /// Conversation id.
    pub(crate) conversation: String,
}

/// A head without the settings of its user.
#[derive(Clone, Debug)]
pub(crate) struct EncodedHead {
    /// Conversation id.
    pub(crate) conversation: String,
    /// The encoded Head.
    pub(crate) head: Bytes,
}

/// Data keyed by conversation. Each call is atomic per conversation. Two conversations may be in different databases: after an error,
/// a part of the conversations of a call may have been changed.
///
/// Everything that changes a conversation (`save`, `mark_read`) first locks its row, so that the counts in `members` are right.
#[async_trait]
pub(crate) trait Conversations: Send + Sync + 'static {
    /// Whether the disk accepts writes; otherwise the reason, for operators.
    fn health(&self) -> std::result::Result<(), String>;

    /// Numbers and stores the entries of a part of the log in order, and raises the position of its partition in the same
    /// transaction. Returns one result per entry. An entry that is decided but not stored was rejected, and is rejected again.
    /// `CONFLICT`: the position is lower than the beginning of the part, so transactions were lost. The
    /// entries survive a power failure only after the next `sync`.
    ///
    /// With several databases, each has a position of its own for the conversations that it holds. A part of the log is saved in all
    /// of them, also where it has no entries.
    async fn save(&self, batch: Batch) -> Result<Vec<SaveResult>>;
    /// The position in a partition of the log: the offset after the last record that is decided. With several databases, the
    /// smallest one. `None`: nothing of the partition was saved in one of them.
    async fn position(&self, partition: LogPartition) -> Result<Option<i64>>;
    /// Forgets the position in a partition, durably, because its log was replaced.
    async fn forget_position(&self, partition: LogPartition) -> Result<()>;
    /// Returns once everything saved earlier would survive a power failure.
    async fn sync(&self) -> Result<()>;
    /// Whether `save` would accept a change of an entry or of a group now. `accounts`: those of the users named in the change who
    /// exist. Returns the result if the change is stored already. `CONFLICT` if a different group change is stored under its id.
    async fn check_change(&self, item: Item, accounts: HashSet<String>) -> Result<Option<SaveResult>>;
    /// A page of a conversation. `None`: the user never was a member.
    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<EntriesPage>>;
    /// The heads of those conversations of which the user is or was a member, in the order of `conversations`.
    async fn heads_of(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<Vec<EncodedHead>>;
    /// The current members of a group. `None`: it does not exist.
    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>>;
    /// A page of the members who can see an entry, after the user `after`. `None`: the caller can't see it, or is not a member any
    /// more: who is in the group then, and what they read, is not for former members.
    async fn readers(&self, view: View, seq: i64, after: String, limit: usize) -> Result<Option<Readers>>;
    /// Moves read positions forward, at most to the last entry that the user can see. Returns one result per mark.
    async fn mark_read(&self, app: String, marks: Vec<ReadMark>) -> Result<Vec<MarkedRead>>;
}

/// Data keyed by user. Each call is one transaction.
#[async_trait]
pub(crate) trait Users: Send + Sync + 'static {
    /// A page of the conversations of which the user is or was a member, after `after`.
    async fn inbox(
        &self,
        app: String,
        user: String,
        after: Option<Listed>,
        limit: usize,
    ) -> Result<Vec<Listed>>;
    /// Creates an account. `false` if the id is taken. Idempotent for the same hash.
    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool>;
    /// The password hash of an account.
    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>>;
    /// Those of the users who have an account.
    async fn existing(&self, app: String, users: Vec<String>) -> Result<HashSet<String>>;
    /// The profiles of those users who have an account. A user without a profile has an empty one.
    async fn profiles(&self, app: String, users: Vec<String>) -> Result<Vec<Profile>>;
    /// Replaces the profile of `profile.user`. `false`: there is no such user.
    async fn replace_profile(&self, app: String, profile: Profile) -> Result<bool>;
    /// The user's settings of those conversations that have any.
    async fn settings(
        &self,
        app: String,
        user: String,
        conversations: Vec<String>,
    ) -> Result<HashMap<String, ConversationSettings>>;
    /// Changes settings and returns all of the conversation.
    async fn change_settings(
        &self,
        app: String,
        user: String,
        change: SetSettings,
    ) -> Result<ConversationSettings>;
    /// Blocks or unblocks a user.
    async fn change_block(&self, app: String, user: String, block: Block) -> Result<()>;
    /// The users whom the user has blocked, ordered by id, after `after`.
    async fn blocks(&self, app: String, user: String, after: String, limit: usize) -> Result<Vec<String>>;
    /// Those of the users `by` who have blocked `blocked`.
    async fn blockers(&self, app: String, blocked: String, by: Vec<String>) -> Result<Vec<String>>;
    /// Creates a session. Ends the earlier sessions of the device and returns their ids. Idempotent. `ALREADY_EXISTS` if the id
    /// belongs to a different session of the user.
    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>>;
    /// Replaces the refresh token, or ends the session if the presented token is a very old one. `None`: there is no such
    /// session, or the token is not valid.
    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>>;
    /// A session that is not revoked, without the generation of the data.
    async fn session(&self, key: SessionKey) -> Result<Option<Session>>;
    /// Revokes a session.
    async fn revoke_session(&self, key: SessionKey) -> Result<()>;
}

/// Data of the whole deployment.
#[async_trait]
pub(crate) trait Directory: Send + Sync + 'static {
    /// The signing keys, newest first. Stores `candidate` if there is none.
    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>>;
    /// The generation of the data and the one that preceded it.
    async fn generation(&self) -> Result<(u32, u32)>;
}
