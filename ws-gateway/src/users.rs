//! Users over HTTP: what has changed for the caller, blocks, profiles, presence. Each handler calls the same functions as the request
//! of the WebSocket.

use crate::{
    backend::Backend,
    operation::{Operation, Tag, operation},
    pages::{decoded, page},
    problem::{Counted, Json, Path, Problem, Query},
    query::{PageOfUsers, Users, number},
};
use abi::{
    error::ErrorCode,
    v1::{
        Block, Blocks, Changes, GetBlocks, GetChanges, GetProfiles, Presence, Presences, Profile,
        ReceiverSeq, Signal, signal::Kind,
    },
};
use axum::{
    extract::State,
    http::{Method, StatusCode},
    response::Response,
};
use schemars::JsonSchema;
use serde::Deserialize;
use std::sync::Arc;

/// Since when changes are read. Without parameters the answer has everything.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct ChangesQuery {
    /// `receiverSeq.epoch` of the last answer.
    #[serde(deserialize_with = "number")]
    epoch: u32,
    /// `receiverSeq.seq` of the last answer.
    #[serde(deserialize_with = "number")]
    seq: u64,
    /// `next` of the previous page. Empty: the first page.
    cursor: String,
    /// Most heads in a page. 0 means 100.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 0, max = 500))]
    limit: i32,
}

/// The operations on users.
pub(crate) fn operations() -> Vec<Operation<Arc<Backend>>> {
    use ErrorCode::{NotFound, TooLarge};
    vec![
        operation(Method::GET, "/v1/changes", "listChanges", changes)
            .about(Tag::Users, "Read what has changed for the caller")
            .describe(
                "With `epoch` and `seq` the answer has the heads of the conversations that have changed since then; without them, or if \
                 the server can't tell, all heads, most recently changed first (`everything`). While the answer has `next`, read again \
                 with it as `cursor`.",
            )
            .query::<ChangesQuery>()
            .message(200, "Changes", "A page of changes."),
        operation(Method::GET, "/v1/blocks", "listBlocks", blocks)
            .about(Tag::Users, "Read the users whom the caller has blocked")
            .query::<PageOfUsers>()
            .message(200, "Blocks", "A page of blocked users."),
        operation(Method::PUT, "/v1/blocks/{user}", "blockUser", block)
            .about(Tag::Users, "Block a user")
            .no_body(204, "The user is blocked.")
            .errors(&[NotFound]),
        operation(Method::DELETE, "/v1/blocks/{user}", "unblockUser", unblock)
            .about(Tag::Users, "Unblock a user")
            .no_body(204, "The user is not blocked.")
            .errors(&[NotFound]),
        operation(Method::GET, "/v1/profiles", "listProfiles", profiles)
            .about(Tag::Users, "Read profiles")
            .query::<Users>()
            .message(200, "Profiles", "The profiles, without users who don't exist."),
        operation(Method::PUT, "/v1/profile", "replaceProfile", replace_profile)
            .about(Tag::Users, "Replace the caller's profile")
            .message_body("Profile", &["user"], &[])
            .no_body(204, "The profile is replaced."),
        operation(Method::GET, "/v1/presence", "listPresences", presences)
            .about(Tag::Users, "Read the presence of users")
            .query::<Users>()
            .message(200, "Presences", "The presence of the users who let the caller see it.")
            .errors(&[TooLarge]),
        operation(Method::PUT, "/v1/presence", "setPresence", set_presence)
            .about(Tag::Users, "Set the text of the caller's presence")
            .describe("Others see it while a device of the caller is connected. It ends with the last connection.")
            .message_body("Presence", &["user", "online", "lastSeenMs"], &[])
            .no_body(204, "The text is set."),
    ]
}

async fn changes(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Query(query): Query<ChangesQuery>,
) -> Result<Response, Problem> {
    let ChangesQuery { epoch, seq, cursor, limit } = query;
    let request = GetChanges { have: Some(ReceiverSeq { epoch, seq }), cursor, limit };
    page(&backend, async { decoded::<Changes>(&backend.reading().changes(&identity.user, request).await?) })
        .await
}

async fn blocks(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Query(PageOfUsers { after, limit }): Query<PageOfUsers>,
) -> Result<axum::Json<Blocks>, Problem> {
    Ok(axum::Json(backend.reading().blocks(&identity.user, GetBlocks { after, limit }).await?))
}

async fn block(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    change_block(&backend, identity.user, Block { user, blocked: true }).await
}

async fn unblock(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(user): Path<String>,
) -> Result<StatusCode, Problem> {
    change_block(&backend, identity.user, Block { user, blocked: false }).await
}

async fn change_block(backend: &Arc<Backend>, user: String, block: Block) -> Result<StatusCode, Problem> {
    let parts = backend.clone();
    backend
        .request_tasks()
        .complete(async move { parts.user_state().change_block(&user, block).await })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn profiles(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Query(Users { users }): Query<Users>,
) -> Result<Response, Problem> {
    page(&backend, backend.reading().profiles(&identity.user, GetProfiles { users })).await
}

async fn replace_profile(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Json(profile): Json<Profile>,
) -> Result<StatusCode, Problem> {
    let parts = backend.clone();
    let replaced = async move { parts.user_state().replace_profile(&identity.user, profile).await };
    backend.request_tasks().complete(replaced).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn presences(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Query(Users { users }): Query<Users>,
) -> Result<axum::Json<Presences>, Problem> {
    Ok(axum::Json(backend.signals().presences(&identity.user, users).await?))
}

async fn set_presence(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Json(presence): Json<Presence>,
) -> Result<StatusCode, Problem> {
    let signal = Signal { kind: Some(Kind::Presence(presence)), ..Signal::default() };
    backend.send_signal(&identity.user, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}
