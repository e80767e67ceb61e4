//! Groups over HTTP: create, add, remove, leave, rename, hand over, dissolve, list members.

use crate::{
    backend::Backend,
    entry_log::Draft,
    hub::Identity,
    openapi,
    operation::{Operation, Tag, operation},
    permissions::not_a_member,
    problem::{Authorized, Counted, Json, Path, Problem, Query},
};
use abi::{
    ApiError, MAX_GROUP_NAME,
    envelope::GROUP,
    error::ErrorCode,
    ids::{self, Conversation},
    names,
    v1::{
        Entry, GroupChange, GroupCreated, GroupDissolved, GroupRenamed, HistoryVisibility, Member,
        MemberLeft, MembersAdded, MembersRemoved, OwnerChanged, group_change::Change,
    },
};
use axum::{
    extract::State,
    http::{Method, StatusCode},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use uuid::Uuid;

/// Which entries a new member can see.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "GroupHistory")]
pub enum History {
    /// From the entry with which the member joined.
    #[default]
    FromJoin,
    /// All entries.
    All,
}

/// The body of a request that creates a group.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "CreateGroup")]
pub struct Create {
    /// Name of the group, 1 to 128 characters.
    name: String,
    /// Ids of the first members besides the caller.
    #[serde(default)]
    members: Vec<String>,
    /// Which older entries a later member can see.
    #[serde(default)]
    history: History,
    /// The id of the request. Repeated with the same id, it is the same request. Absent: a new one.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 64))]
    request_id: Option<String>,
}

/// The body of a request that adds users.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "AddMembers")]
pub struct Add {
    /// Ids of the new members.
    users: Vec<String>,
    /// The id of the request. Repeated with the same id, it is the same request. Absent: a new one.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 64))]
    request_id: Option<String>,
}

/// The body of a request that renames a group.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RenameGroup")]
pub struct Rename {
    /// The new name, 1 to 128 characters.
    name: String,
    /// The id of the request. Repeated with the same id, it is the same request. Absent: a new one.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 64))]
    request_id: Option<String>,
}

/// The body of a request that makes another member the owner.
#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ChangeOwner")]
pub struct HandOver {
    /// Id of the new owner.
    user: String,
    /// The id of the request. Repeated with the same id, it is the same request. Absent: a new one.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 64))]
    request_id: Option<String>,
}

/// The query of a request that removes a member or dissolves a group.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Removal {
    /// The id of the request. Repeated with the same id, it is the same request. Absent: a new one.
    #[serde(default)]
    #[schemars(with = "String", length(min = 1, max = 64))]
    request_id: Option<String>,
}

/// The answer to a change.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "GroupChanged")]
pub struct Changed {
    /// Conversation id of the group.
    conversation: String,
    /// The entry that says so.
    #[schemars(schema_with = "openapi::entry")]
    entry: Entry,
}

/// The members of a group.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "MembersOfGroup")]
pub struct Listed {
    /// The members, with their roles.
    #[schemars(schema_with = "openapi::members")]
    members: Vec<Member>,
}

const GROUP_PATH: &str = "/v1/groups/{conversation}";
const MEMBERS: &str = "/v1/groups/{conversation}/members";

/// The operations on groups.
pub(crate) fn operations() -> Vec<Operation<Arc<Backend>>> {
    use ErrorCode::{Conflict, Forbidden, NotFound, TooLarge};
    const DONE: &str = "The change is stored and in force.";
    vec![
        operation(Method::POST, "/v1/groups", "createGroup", create)
            .about(Tag::Groups, "Create a group that the caller owns")
            .body::<Create>()
            .answer::<Changed>(201, DONE)
            .errors(&[Forbidden, NotFound, Conflict]),
        operation(Method::PATCH, GROUP_PATH, "renameGroup", rename)
            .about(Tag::Groups, "Rename a group")
            .body::<Rename>()
            .answer::<Changed>(200, DONE)
            .errors(&[Forbidden, NotFound, Conflict]),
        operation(Method::DELETE, GROUP_PATH, "dissolveGroup", dissolve)
            .about(Tag::Groups, "Dissolve a group")
            .describe("Its members keep what they could read.")
            .query::<Removal>()
            .answer::<Changed>(200, DONE)
            .errors(&[Forbidden, NotFound, Conflict]),
        operation(Method::PUT, "/v1/groups/{conversation}/owner", "changeOwner", hand_over)
            .about(Tag::Groups, "Make another member the owner")
            .body::<HandOver>()
            .answer::<Changed>(200, DONE)
            .errors(&[Forbidden, NotFound, Conflict]),
        operation(Method::GET, MEMBERS, "listMembers", members)
            .about(Tag::Groups, "Read the members of a group")
            .answer::<Listed>(200, "All members.")
            .errors(&[Forbidden, NotFound]),
        operation(Method::POST, MEMBERS, "addMembers", add)
            .about(Tag::Groups, "Add users to a group")
            .body::<Add>()
            .answer::<Changed>(200, DONE)
            .errors(&[Forbidden, NotFound, Conflict, TooLarge]),
        operation(Method::DELETE, "/v1/groups/{conversation}/members/{user}", "removeMember", remove)
            .about(Tag::Groups, "Remove a member, or leave the group")
            .query::<Removal>()
            .answer::<Changed>(200, DONE)
            .errors(&[Forbidden, NotFound, Conflict]),
    ]
}

async fn create(
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

async fn add(
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

async fn remove(
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

async fn rename(
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

async fn hand_over(
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

async fn dissolve(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Query(removal): Query<Removal>,
) -> Result<axum::Json<Changed>, Problem> {
    check_group(&conversation)?;
    let change = Change::Dissolved(GroupDissolved {});
    Ok(axum::Json(apply(&backend, identity, conversation, request_id(removal.request_id)?, change).await?))
}

async fn members(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
) -> Result<axum::Json<Listed>, Problem> {
    check_group(&conversation)?;
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
