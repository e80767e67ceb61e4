//! Groups over HTTP: create, add, remove, leave, list members.
//!
//! A change is an entry of the conversation like a message, and goes the same way: through the log, behind all that was
//! acknowledged before it. Stored by another way it would overtake that, and who joins would see what was said before. The
//! answer waits until it is stored, so that whoever gets it can rely on it at once.

use crate::{
    backend::Backend,
    hub::Identity,
    problem::{Authorized, Json, Path, Problem, Query},
    trace,
};
use abi::{
    ApiError, MAX_GROUP_NAME,
    ids::{self, Conversation},
    v1::{
        CheckChangeRequest, Entry, GroupChange, GroupCreated, HistoryVisibility, Member, MemberLeft,
        MembersAdded, MembersRemoved, SaveResult, entry::Content, group_change::Change,
    },
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use utils::trace::Kind;
use uuid::Uuid;

/// A change that was logged is looked for after so long, and then less and less often.
const FIRST_LOOK: Duration = Duration::from_millis(4);
const LAST_LOOK: Duration = Duration::from_millis(100);
/// A change that is not stored by then waits for something that is away.
const STORED_WITHIN: Duration = Duration::from_secs(5);
/// A refusal that stays for so long is final, unless the log is behind.
const REFUSED_WITHIN: Duration = Duration::from_millis(500);

/// How much of the past a later member sees.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// From the entry with which the member joined.
    #[default]
    FromJoin,
    /// Everything.
    All,
}

/// A new group.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Create {
    name: String,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    history: History,
    #[serde(default)]
    request_id: Option<String>,
}

/// Users to add.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Add {
    users: Vec<String>,
    #[serde(default)]
    request_id: Option<String>,
}

/// What may follow the `?` of a removal.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    #[serde(default)]
    request_id: Option<String>,
}

/// A change that was made.
#[derive(Serialize)]
pub struct Changed {
    conversation: String,
    entry: Entry,
}

/// Who is in a group.
#[derive(Serialize)]
pub struct Listed {
    members: Vec<Member>,
}

/// `POST /v1/groups`
pub async fn create(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Json(create): Json<Create>,
) -> Result<(StatusCode, axum::Json<Changed>), Problem> {
    if !(1..=MAX_GROUP_NAME).contains(&create.name.chars().count()) {
        return Err(ApiError::invalid(format!("name must have 1 to {MAX_GROUP_NAME} characters")).into());
    }
    let request_id = request_id(create.request_id)?;
    let conversation = ids::group(&backend.app, &identity.user, &request_id);
    let history = match create.history {
        History::FromJoin => HistoryVisibility::FromJoin,
        History::All => HistoryVisibility::All,
    };
    check_users(&create.members)?;
    let change =
        Change::Created(GroupCreated { name: create.name, members: create.members, history: history.into() });
    let changed = apply(&backend, identity, conversation, request_id, change).await?;
    Ok((StatusCode::CREATED, axum::Json(changed)))
}

/// `POST /v1/groups/{conversation}/members`
pub async fn add(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Json(add): Json<Add>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    check_users(&add.users)?;
    if add.users.is_empty() {
        return Err(ApiError::invalid("users must name at least one user").into());
    }
    let change = Change::Added(MembersAdded { users: add.users });
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(add.request_id)?, change).await?))
}

/// `DELETE /v1/groups/{conversation}/members/{user}`: removes somebody, or oneself.
pub async fn remove(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path((conversation, user)): Path<(String, String)>,
    Query(removal): Query<Removal>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    ids::check_id("user", &user)?;
    let change = if user == identity.user {
        Change::Left(MemberLeft {})
    } else {
        Change::Removed(MembersRemoved { users: vec![user] })
    };
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(removal.request_id)?, change).await?))
}

/// `GET /v1/groups/{conversation}/members`
pub async fn members(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
) -> Result<axum::Json<Listed>, Problem> {
    check_group(&conversation)?;
    backend.limits.send(&identity.user)?;
    let members = backend.stored_members(&conversation).await?.members;
    if !members.iter().any(|member| member.user == identity.user) {
        return Err(not_a_member().into());
    }
    Ok(axum::Json(Listed { members }))
}

/// The one answer for a conversation that is not there and for one that is not the user's.
pub fn not_a_member() -> ApiError {
    ApiError::forbidden("you are not in this conversation")
}

fn check_group(conversation: &str) -> Result<(), ApiError> {
    match Conversation::parse(conversation)? {
        Conversation::Group(_) => Ok(()),
        Conversation::Direct(..) => Err(ApiError::invalid("a direct conversation has no members to change")),
    }
}

fn check_users(users: &[String]) -> Result<(), ApiError> {
    users.iter().try_for_each(|user| ids::check_id("user", user))
}

fn request_id(given: Option<String>) -> Result<String, ApiError> {
    match given {
        Some(id) => ids::check_client_msg_id(&id).map(|()| id),
        None => Ok(Uuid::now_v7().to_string()),
    }
}

async fn apply(
    backend: &Backend,
    identity: Identity,
    conversation: String,
    request_id: String,
    change: Change,
) -> Result<Changed, ApiError> {
    backend.limits.send(&identity.user)?;
    let content = Content::GroupChange(GroupChange { change: Some(change) });
    let mut entry = backend.entry(&identity, conversation, request_id, content);
    let spans = trace::begin("change", &entry);
    let stored = match check(backend, &entry).await? {
        Some(stored) => stored,
        None => {
            backend.log(&entry, spans.children("log", Kind::Producer)).await?;
            let waiting = spans.children("wait", Kind::Internal);
            let stored = until_stored(backend, &entry).await?;
            waiting.finish();
            stored
        }
    };
    if let Some(members) = stored.members {
        // Whoever was removed may still send as long as the cache has the members of before.
        backend.put_members(&entry.conversation, &members).await.map_err(|error| {
            tracing::warn!(%error, "a group has changed and the cache was not told");
            ApiError::unavailable(
                "the change is stored but not yet in force everywhere; repeat it with the same request_id",
            )
        })?;
    }
    entry.conversation_seq = stored.conversation_seq;
    entry.countable_seq = stored.countable_seq;
    spans.finish();
    Ok(Changed { conversation: entry.conversation.clone(), entry })
}

/// Where a change is stored; `None` if it is not, and is allowed.
async fn check(backend: &Backend, entry: &Entry) -> Result<Option<SaveResult>, ApiError> {
    let request = CheckChangeRequest { entry: Some(entry.clone()) };
    Ok(backend.db().check_change(request).await?.into_inner().stored)
}

/// Waits until the consumer has stored a change that was logged.
async fn until_stored(backend: &Backend, entry: &Entry) -> Result<SaveResult, ApiError> {
    let began = Instant::now();
    let mut pause = FIRST_LOOK;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_LOOK);
        match check(backend, entry).await {
            Ok(Some(stored)) => return Ok(stored),
            Ok(None) if began.elapsed() < STORED_WITHIN => {}
            Ok(None) => {
                return Err(ApiError::unavailable(
                    "the change is logged and not made yet; repeat it with the same request_id to learn of it",
                ));
            }
            // Another change came first, and maybe one more is on its way that allows this one again.
            Err(_) if began.elapsed() < REFUSED_WITHIN => {}
            Err(refusal) => return Err(refusal),
        }
    }
}
