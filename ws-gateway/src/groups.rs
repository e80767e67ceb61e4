//! Groups over HTTP: create, add, remove, leave, rename, hand over, dissolve, list members.

use crate::{
    backend::Backend,
    entry_log::Draft,
    hub::Identity,
    permissions::not_a_member,
    problem::{Authorized, Json, Path, Problem, Query},
};
use abi::{
    ApiError, MAX_GROUP_NAME,
    envelope::GROUP,
    ids::{self, Conversation},
    names,
    v1::{
        Entry, GroupChange, GroupCreated, GroupDissolved, GroupRenamed, HistoryVisibility, Member,
        MemberLeft, MembersAdded, MembersRemoved, OwnerChanged, group_change::Change,
    },
};
use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Which entries a new member can see.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum History {
    /// From the entry with which the member joined.
    #[default]
    FromJoin,
    /// All entries.
    All,
}

/// The body of a request that creates a group.
#[derive(Deserialize)]
pub struct Create {
    name: String,
    #[serde(default)]
    members: Vec<String>,
    #[serde(default)]
    history: History,
    #[serde(default)]
    request_id: Option<String>,
}

/// The body of a request that adds users.
#[derive(Deserialize)]
pub struct Add {
    users: Vec<String>,
    #[serde(default)]
    request_id: Option<String>,
}

/// The body of a request that renames a group.
#[derive(Deserialize)]
pub struct Rename {
    name: String,
    #[serde(default)]
    request_id: Option<String>,
}

/// The body of a request that makes another member the owner.
#[derive(Deserialize)]
pub struct HandOver {
    user: String,
    #[serde(default)]
    request_id: Option<String>,
}

/// The query of a request that removes a member or dissolves a group.
#[derive(Deserialize)]
pub struct Removal {
    #[serde(default)]
    request_id: Option<String>,
}

/// The answer to a change.
#[derive(Serialize)]
pub struct Changed {
    conversation: String,
    entry: Entry,
}

/// The members of a group.
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
    let name = names::check("name", &create.name, MAX_GROUP_NAME)?;
    let request_id = request_id(create.request_id)?;
    let conversation = ids::group(backend.app(), &identity.user, &request_id);
    let history = match create.history {
        History::FromJoin => HistoryVisibility::FromJoin,
        History::All => HistoryVisibility::All,
    };
    check_users(&backend, &identity, &create.members).await?;
    let change = Change::Created(GroupCreated { name, members: create.members, history: history.into() });
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
    check_users(&backend, &identity, &add.users).await?;
    if add.users.is_empty() {
        return Err(ApiError::invalid("users must name at least one user").into());
    }
    let change = Change::Added(MembersAdded { users: add.users });
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(add.request_id)?, change).await?))
}

/// `DELETE /v1/groups/{conversation}/members/{user}`: removes a member, or leaves the group if the user is the caller.
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

/// `PATCH /v1/groups/{conversation}`
pub async fn rename(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Json(rename): Json<Rename>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    let name = names::check("name", &rename.name, MAX_GROUP_NAME)?;
    let change = Change::Renamed(GroupRenamed { name });
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(rename.request_id)?, change).await?))
}

/// `PUT /v1/groups/{conversation}/owner`
pub async fn hand_over(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Json(hand_over): Json<HandOver>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    ids::check_id("user", &hand_over.user)?;
    let change = Change::OwnerChanged(OwnerChanged { user: hand_over.user });
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(hand_over.request_id)?, change).await?))
}

/// `DELETE /v1/groups/{conversation}`
pub async fn dissolve(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    let change = Change::Dissolved(GroupDissolved {});
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(removal.request_id)?, change).await?))
}

/// `GET /v1/groups/{conversation}/members`
pub async fn members(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
) -> Result<axum::Json<Listed>, Problem> {
    check_group(&conversation)?;
    backend.rate_limits().send(&identity.user)?;
    let members = backend.permissions().stored_members(&conversation).await?.members;
    if !members.iter().any(|member| member.user == identity.user) {
        return Err(not_a_member().into());
    }
    Ok(axum::Json(Listed { members }))
}

fn check_group(conversation: &str) -> Result<(), ApiError> {
    match Conversation::parse(conversation)? {
        Conversation::Group(_) => Ok(()),
        Conversation::Direct(..) => {
            Err(ApiError::invalid("a direct conversation has no members that can be changed"))
        }
    }
}

/// Checks the users whom a user wants in a group: valid ids, and nobody who has blocked the user.
async fn check_users(backend: &Backend, identity: &Identity, users: &[String]) -> Result<(), ApiError> {
    users.iter().try_for_each(|user| ids::check_id("user", user))?;
    let blockers = backend.blocks().blockers(&identity.user, users).await?;
    match users.iter().find(|user| blockers.contains(*user)) {
        Some(user) => Err(ApiError::forbidden(format!("{user} does not let you add them to groups"))),
        None => Ok(()),
    }
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
    backend.rate_limits().group_change(&identity.user)?;
    let draft = Draft {
        conversation,
        client_msg_id: request_id,
        kind: GROUP.into(),
        group_change: Some(GroupChange { change: Some(change) }),
        ..Draft::default()
    };
    let entry = backend.entry_changes().apply(&identity, draft).await?;
    Ok(Changed { conversation: entry.conversation.clone(), entry })
}
