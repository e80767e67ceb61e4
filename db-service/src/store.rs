//! The store trait. Two types implement it: `crate::sqlite::SqliteStore` and `crate::postgres::PostgresStore`. The
//! [`Service`](crate::Service) has validated all arguments.

use crate::{
    error::Result,
    item::{Item, number},
    rules::{Effect, Group},
    sessions::{Rotation, SessionKey},
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{HeadsPage, HistoryPage, Members, SaveOutcome, SaveResult, Session, SigningKey},
};
use async_trait::async_trait;

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

/// Most bytes of payloads in a page of history.
pub(crate) const MAX_PAGE_BYTES: usize = 1 << 20;

/// The size of a page of history. The first entry is returned even if it is larger than `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageLimit {
    /// Most entries.
    pub(crate) entries: usize,
    /// Most bytes of payloads.
    pub(crate) bytes: usize,
}

/// A read position after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReadPosition {
    /// `conversation_seq` up to which the user has read.
    pub(crate) read_seq: i64,
    /// Whether the call moved it.
    pub(crate) moved: bool,
}

/// The sequence numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntrySeqs {
    /// `conversation_seq`.
    pub(crate) seq: i64,
    /// `countable_seq`.
    pub(crate) countable: i64,
}

/// Whether a group change may be stored.
pub(crate) enum Decision {
    /// It is stored already.
    Duplicate(EntrySeqs),
    /// The rules forbid it.
    Refused(ApiError),
    /// The rules allow it. This is its effect.
    Allowed(Effect),
}

/// The result of an entry that is stored. The result of a group change includes the group.
pub(crate) fn accepted(outcome: SaveOutcome, seqs: EntrySeqs, group: Option<Group>) -> SaveResult {
    SaveResult {
        outcome: outcome.into(),
        conversation_seq: number(seqs.seq),
        countable_seq: number(seqs.countable),
        error: None,
        members: group.map(Members::from),
    }
}

/// The result of an entry that is not stored.
pub(crate) fn rejected(error: ApiError) -> SaveResult {
    SaveResult { outcome: SaveOutcome::Rejected.into(), error: Some(error.into()), ..SaveResult::default() }
}

/// The error of a message to a missing group.
pub(crate) fn group_not_found() -> ApiError {
    ApiError::not_found("there is no such group")
}

/// The error of a group change whose message id belongs to a different change.
pub(crate) fn request_id_conflict() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "this request_id was used for another change: choose a new one")
}

/// The error of a group change in a direct conversation.
pub(crate) fn not_a_group() -> ApiError {
    ApiError::invalid("only a group can be changed; this is a direct conversation")
}

/// A durable store. Each call is one transaction. `None` means that the object does not exist.
///
/// [`crate::Error::ApiError`] is a refusal: unless documented otherwise, it changes nothing. After any other error the call may
/// or may not have been executed, and may be repeated.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Whether the disk accepts writes; otherwise the reason, for operators.
    fn health(&self) -> std::result::Result<(), String>;

    /// Numbers and stores entries in order. Returns one result per entry. The entries survive a power failure only after the
    /// next `sync`.
    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>>;
    /// Returns once everything saved earlier would survive a power failure.
    async fn sync(&self) -> Result<()>;
    /// Whether `save` would accept the group change now. Returns its result if it is stored already. `CONFLICT` if a different
    /// change is stored under its id.
    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>>;
    /// A page of a conversation. `None`: the user is not a member.
    async fn history(&self, view: View, page: Page, limit: PageLimit) -> Result<Option<HistoryPage>>;
    /// The conversations of a user whose ids are greater than `after`.
    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage>;
    /// The members of a group.
    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>>;
    /// Moves a read position forward, at most to the last entry. `None`: the user is not a member.
    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<ReadPosition>>;
    /// Creates an account. `false` if the id is taken. Idempotent for the same hash.
    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool>;
    /// The password hash of an account.
    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>>;
    /// Creates a session. Ends the earlier sessions of the device and returns their ids. Idempotent. `ALREADY_EXISTS` if the id
    /// belongs to a different session of the user.
    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>>;
    /// Replaces the refresh token, or ends the session if the presented token is a very old one. `None`: there is no such
    /// session, or the token is not valid.
    async fn rotate_session(&self, key: SessionKey, rotation: Rotation) -> Result<Option<Session>>;
    /// A session that is not revoked.
    async fn session(&self, key: SessionKey) -> Result<Option<Session>>;
    /// Revokes a session.
    async fn revoke_session(&self, key: SessionKey) -> Result<()>;
    /// The signing keys, newest first. Stores `candidate` if there is none.
    async fn signing_keys(&self, candidate: SigningKey) -> Result<Vec<SigningKey>>;
}
