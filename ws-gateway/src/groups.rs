//! Groups over HTTP: create, add, remove, leave, list members.
//!
//! A change is an entry of the conversation like a message: it goes through the log, so that it can't be lost between the store
//! and the members' devices. It is stored by this call as well (the second of the two finds it stored), so that whoever gets
//! the answer can rely on it at once.

use crate::{
    backend::Backend,
    hub::Identity,
    problem::{Authorized, Json, Path, Problem, Query},
    trace,
};
use abi::{
    Fault,
    error::ErrorCode,
    ids::{self, Conversation},
    v1::{
        CheckChangeRequest, Entry, GroupChange, GroupCreated, HistoryVisibility, Member, MemberLeft,
        MembersAdded, MembersRemoved, SaveOutcome, SaveRequest, entry::Content, group_change::Change,
    },
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tonic::Request;
use utils::trace::Kind;
use uuid::Uuid;

/// Longest name of a group, in characters.
const MAX_NAME: usize = 128;

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
    if !(1..=MAX_NAME).contains(&create.name.chars().count()) {
        return Err(Fault::invalid(format!("name must have 1 to {MAX_NAME} characters")).into());
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
        return Err(Fault::invalid("users must name at least one user").into());
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
    let members = backend.stored_members(&conversation).await?.members;
    if !members.iter().any(|member| member.user == identity.user) {
        return Err(not_a_member().into());
    }
    Ok(axum::Json(Listed { members }))
}

/// The one answer for a conversation that is not there and for one that is not the user's.
pub fn not_a_member() -> Fault {
    Fault::forbidden("you are not in this conversation")
}

fn check_group(conversation: &str) -> Result<(), Fault> {
    match Conversation::parse(conversation)? {
        Conversation::Group(_) => Ok(()),
        Conversation::Direct(..) => Err(Fault::invalid("a direct conversation has no members to change")),
    }
}

fn check_users(users: &[String]) -> Result<(), Fault> {
    users.iter().try_for_each(|user| ids::check_id("user", user))
}

fn request_id(given: Option<String>) -> Result<String, Fault> {
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
) -> Result<Changed, Fault> {
    backend.limits.send(&identity.user)?;
    let content = Content::GroupChange(GroupChange { change: Some(change) });
    let mut entry = backend.entry(&identity, conversation, request_id, content);
    backend.db().check_change(CheckChangeRequest { entry: Some(entry.clone()) }).await?;
    let spans = trace::begin("change", &entry);
    backend.log(&entry, spans.children("log", Kind::Producer)).await?;
    let saving = spans.children("save", Kind::Client);
    let mut request = Request::new(SaveRequest { entries: vec![entry.clone()], durable: true });
    saving.carry(&mut request);
    let saved = backend.db().save(request).await?.into_inner().results.pop();
    saving.finish();
    let result = saved.ok_or_else(|| Fault::new(ErrorCode::Internal, "the store gave no result"))?;
    if result.outcome() == SaveOutcome::Rejected {
        return Err(result
            .error
            .map_or_else(|| Fault::new(ErrorCode::Conflict, "the group has changed"), Fault::from));
    }
    if let Some(members) = result.members {
        // Whoever was removed may still send as long as the cache has the members of before.
        backend.put_members(&entry.conversation, &members).await.map_err(|error| {
            tracing::warn!(%error, "a group has changed and the cache was not told");
            Fault::unavailable(
                "the change is stored but not yet in force everywhere; repeat it with the same request_id",
            )
        })?;
    }
    entry.conversation_seq = result.conversation_seq;
    entry.countable_seq = result.countable_seq;
    spans.finish();
    Ok(Changed { conversation: entry.conversation.clone(), entry })
}
