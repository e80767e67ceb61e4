//! The seam: what a store does, in terms that were checked. Two implementations: [`crate::sqlite`], [`crate::postgres`].

use crate::{
    error::Result,
    item::{Item, number},
    rules::{Effect, Group},
    sessions::Rotation,
};
use abi::{
    ApiError,
    error::ErrorCode,
    v1::{HeadsPage, HistoryPage, Members, SaveOutcome, SaveResult, Session, SigningKey},
};
use async_trait::async_trait;

/// A user's view of a conversation.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Application.
    pub(crate) app: String,
    /// Who looks.
    pub(crate) user: String,
    /// At what; in canonical form.
    pub(crate) conversation: String,
}

/// Which entries, in which order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// Greater numbers, rising.
    After(i64),
    /// Smaller numbers, falling.
    Before(i64),
}

/// Most bytes of payloads in one page of history; the first entry comes whatever its size.
pub(crate) const MAX_PAGE_BYTES: usize = 1 << 20;

/// Where a read position is after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marked {
    /// Read up to here.
    pub(crate) read_seq: i64,
    /// Whether it moved.
    pub(crate) moved: bool,
}

/// Numbers of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// `conversation_seq`.
    pub(crate) seq: i64,
    /// `countable_seq`.
    pub(crate) countable: i64,
}

/// What a store makes of a group change before it writes anything.
pub(crate) enum Decision {
    /// It is stored already.
    Known(Position),
    /// The rules don't allow it.
    Refused(ApiError),
    /// This is what it does.
    Allowed(Effect),
}

/// The result of an entry that is stored, now or before; with its group after a change of that.
pub(crate) fn accepted(outcome: SaveOutcome, position: Position, group: Option<Group>) -> SaveResult {
    SaveResult {
        outcome: outcome.into(),
        conversation_seq: number(position.seq),
        countable_seq: number(position.countable),
        error: None,
        members: group.map(Members::from),
    }
}

/// The result of an entry that is not stored.
pub(crate) fn rejected(fault: ApiError) -> SaveResult {
    SaveResult { outcome: SaveOutcome::Rejected.into(), error: Some(fault.into()), ..SaveResult::default() }
}

/// Said of a message to a group that does not exist.
pub(crate) fn no_group() -> ApiError {
    ApiError::not_found("there is no such group")
}

/// Said of a change whose id another one has.
pub(crate) fn other_change() -> ApiError {
    ApiError::new(ErrorCode::Conflict, "this request_id was used for another change: take a new one")
}

/// Said of a group change in a direct conversation.
pub(crate) fn no_change() -> ApiError {
    ApiError::invalid("only groups have members that change")
}

/// A durable store. Every call is one transaction; `None` where a thing is not there.
///
/// Errors: [`crate::Error::ApiError`] is a refusal, and nothing was changed unless said otherwise; after any other error
/// the call may have been done, and may be repeated.
#[async_trait]
pub(crate) trait Store: Send + Sync + 'static {
    /// Numbers and stores entries in their order; one result per entry. They survive a power cut from the next `sync` on.
    async fn save(&self, items: Vec<Item>) -> Result<Vec<SaveResult>>;
    /// Returns when everything saved before survives a power cut.
    async fn sync(&self) -> Result<()>;
    /// Whether `save` would take the group change now, and where it is if it is stored already. `CONFLICT` if another change
    /// is stored under its id.
    async fn check_change(&self, item: Item) -> Result<Option<SaveResult>>;
    /// A page of a conversation. `None`: the user is not a member.
    async fn history(&self, view: View, page: Page, limit: usize) -> Result<Option<HistoryPage>>;
    /// The conversations of a user whose ids come after `after`.
    async fn heads(&self, app: String, user: String, after: String, limit: usize) -> Result<HeadsPage>;
    /// Members of a group.
    async fn members(&self, app: String, conversation: String) -> Result<Option<Members>>;
    /// Moves a read position forward, at most to the last entry. `None`: the user is not a member.
    async fn mark_read(&self, view: View, seq: i64) -> Result<Option<Marked>>;
    /// Creates an account; `false` if the id is taken. Repeating it, with the same hash, changes nothing.
    async fn create_user(&self, app: String, user: String, password_hash: String) -> Result<bool>;
    /// Hash of an account's password.
    async fn password_hash(&self, app: String, user: String) -> Result<Option<String>>;
    /// Opens a session in place of those that the device had, whose ids it returns. Repeating it changes nothing.
    /// `ALREADY_EXISTS` if the id belongs to another session.
    async fn create_session(&self, session: Session, refresh_hash: Vec<u8>) -> Result<Vec<String>>;
    /// Exchanges refresh tokens, or ends the session because the token is an old one. `None`: no such session, or no token of it.
    async fn rotate_session(&self, id: String, rotation: Rotation) -> Result<Option<Session>>;
    /// A session that is not revoked.
    async fn session(&self, id: String) -> Result<Option<Session>>;
    /// Revokes a session.
    async fn revoke_session(&self, id: String) -> Result<()>;
    /// The signing keys, newest first. If there is none, `fresh` becomes the first one.
    async fn signing_keys(&self, fresh: SigningKey) -> Result<Vec<SigningKey>>;
}
