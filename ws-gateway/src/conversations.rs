//! Conversations over HTTP: send, history, heads, read positions, settings, signals. Each handler calls the same functions as the
//! request of the WebSocket, so both have the same rules.

use crate::{
    backend::Backend,
    operation::{Operation, Tag, operation},
    pages::{decoded, page},
    problem::{Authorized, Counted, Json, Path, Problem, Query},
    query::{PageOfUsers, list, number},
    send,
};
use abi::{
    ApiError,
    envelope::is_change_of_entry,
    error::ErrorCode,
    ids::Conversation,
    v1::{
        Ack, GetHeads, GetHistory, GetReaders, Head, Heads, HistoryPage, MarkRead, ReadPosition, Readers,
        Send, SetSettings, Signal,
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

/// Where a page of entries begins. At most one of `after`, `before` and `newest` may be set.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct HistoryQuery {
    /// Entries after this `conversationSeq`, oldest first.
    #[serde(deserialize_with = "number")]
    after: u64,
    /// Entries before this `conversationSeq`, newest first.
    #[serde(deserialize_with = "number")]
    before: u64,
    /// Begin at the newest entry, newest first.
    newest: bool,
    /// Page size. 0 means 100.
    #[serde(deserialize_with = "number")]
    #[schemars(range(min = 0, max = 500))]
    limit: i32,
}

/// Conversations, by id.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HeadsQuery {
    /// Conversation ids, separated by commas, at most 500.
    #[serde(deserialize_with = "list")]
    #[schemars(length(min = 1, max = 500))]
    ids: Vec<String>,
}

/// The path of an entry.
#[derive(Deserialize)]
struct EntryPath {
    conversation: String,
    seq: u64,
}

const ENTRIES: &str = "/v1/conversations/{conversation}/entries";

/// The operations on conversations.
pub(crate) fn operations() -> Vec<Operation<Arc<Backend>>> {
    use ErrorCode::{Conflict, Forbidden, NotFound, TooLarge};
    vec![
        operation(Method::POST, ENTRIES, "sendEntry", send_entry)
            .about(Tag::Conversations, "Send an entry: a message, an edit, a recall, a reaction, or one of your own kind")
            .describe(
                "The answer means that the entry is durable; an edit, a recall or a reaction is also in force. Repeated with the same \
                 `clientMsgId` by the same device, it is the same entry. To keep an order, wait for each answer.",
            )
            .message_body("Send", &["conversation"], &["clientMsgId"])
            .message(201, "Ack", "The entry is durable.")
            .errors(&[Forbidden, NotFound, Conflict]),
        operation(Method::GET, ENTRIES, "listEntries", history)
            .about(Tag::Conversations, "Read a page of entries")
            .query::<HistoryQuery>()
            .message(200, "HistoryPage", "The entries that the caller can see, with their current state.")
            .errors(&[Forbidden]),
        operation(Method::GET, "/v1/conversations/{conversation}/entries/{seq}/readers", "listReaders", readers)
            .about(Tag::Conversations, "Read who has read an entry, and who has not")
            .query::<PageOfUsers>()
            .message(200, "Readers", "A page of the members who can see the entry.")
            .errors(&[Forbidden, NotFound]),
        operation(Method::GET, "/v1/conversations", "listHeads", heads)
            .about(Tag::Conversations, "Read the heads of named conversations")
            .describe("For the heads of all conversations, read `/v1/changes`.")
            .query::<HeadsQuery>()
            .message(200, "Heads", "The heads, without conversations of which the caller never was a member."),
        operation(Method::GET, "/v1/conversations/{conversation}", "getHead", head)
            .about(Tag::Conversations, "Read the head of a conversation")
            .message(200, "Head", "The head.")
            .errors(&[NotFound]),
        operation(Method::PUT, "/v1/conversations/{conversation}/read", "markRead", mark_read)
            .about(Tag::Conversations, "Mark a conversation as read up to an entry")
            .message_body("MarkRead", &["conversation"], &[])
            .message(200, "ReadPosition", "The read position, which never moves back.")
            .errors(&[Forbidden]),
        operation(Method::PATCH, "/v1/conversations/{conversation}/settings", "changeSettings", change_settings)
            .about(Tag::Conversations, "Change the caller's own settings of a conversation")
            .describe("Members that are absent stay as they are.")
            .message_body("SetSettings", &["conversation"], &[])
            .no_body(204, "The settings are changed.")
            .errors(&[Forbidden]),
        operation(Method::POST, "/v1/conversations/{conversation}/signals", "sendSignal", send_signal)
            .about(Tag::Conversations, "Send a signal to the connected devices of the other members")
            .message_body("Signal", &["conversation", "user", "presence"], &[])
            .no_body(204, "The signal is on its way. It may be lost.")
            .errors(&[Forbidden, TooLarge]),
    ]
}

/// Puts the conversation of the path into a message.
fn put_conversation(member: &mut String, path: String) -> Result<(), ApiError> {
    if !member.is_empty() {
        return Err(ApiError::invalid("conversation is in the path; leave it out of the body"));
    }
    *member = path;
    Ok(())
}

async fn send_entry(
    State(backend): State<Arc<Backend>>,
    Authorized(identity): Authorized,
    Path(conversation): Path<String>,
    Json(mut send): Json<Send>,
) -> Result<(StatusCode, axum::Json<Ack>), Problem> {
    put_conversation(&mut send.conversation, conversation)?;
    let parts = backend.clone();
    let sent = async move {
        match is_change_of_entry(&send.kind) {
            true => {
                parts.rate_limits().request(&identity.user)?;
                send::change(&parts, &identity, send).await
            }
            false => send::send_and_wait(&parts, &identity, send).await,
        }
    };
    Ok((StatusCode::CREATED, axum::Json(backend.request_tasks().complete(sent).await?)))
}

async fn history(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Response, Problem> {
    let HistoryQuery { after, before, newest, limit } = query;
    let request = GetHistory { conversation, after, before, newest, limit };
    page(&backend, async {
        decoded::<HistoryPage>(&backend.reading().history(&identity.user, request, 0).await?)
    })
    .await
}

async fn readers(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(EntryPath { conversation, seq }): Path<EntryPath>,
    Query(PageOfUsers { after, limit }): Query<PageOfUsers>,
) -> Result<axum::Json<Readers>, Problem> {
    let request = GetReaders { conversation, conversation_seq: seq, after, limit };
    Ok(axum::Json(backend.reading().readers(&identity.user, request).await?))
}

async fn heads(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Query(HeadsQuery { ids }): Query<HeadsQuery>,
) -> Result<Response, Problem> {
    let request = GetHeads { conversations: ids };
    page(&backend, async { decoded::<Heads>(&backend.reading().heads(&identity.user, request).await?) }).await
}

async fn head(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
) -> Result<axum::Json<Head>, Problem> {
    let request = GetHeads { conversations: vec![conversation] };
    let found: Heads = decoded(&backend.reading().heads(&identity.user, request).await?)?;
    let none = || ApiError::not_found("you never were a member of this conversation, or it does not exist");
    Ok(axum::Json(found.heads.into_iter().next().ok_or_else(none)?))
}

async fn mark_read(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
    Json(mut read): Json<MarkRead>,
) -> Result<axum::Json<ReadPosition>, Problem> {
    put_conversation(&mut read.conversation, conversation)?;
    let parts = backend.clone();
    let marked = async move { parts.user_state().mark_read(&identity.user, read).await };
    Ok(axum::Json(backend.request_tasks().complete(marked).await?))
}

async fn change_settings(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
    Json(mut change): Json<SetSettings>,
) -> Result<StatusCode, Problem> {
    put_conversation(&mut change.conversation, conversation)?;
    let parts = backend.clone();
    let changed = async move { parts.user_state().change_settings(&identity.user, change).await };
    backend.request_tasks().complete(changed).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn send_signal(
    State(backend): State<Arc<Backend>>,
    Counted(identity): Counted,
    Path(conversation): Path<String>,
    Json(mut signal): Json<Signal>,
) -> Result<StatusCode, Problem> {
    // A signal of presence has no conversation, so this also refuses one here.
    put_conversation(&mut signal.conversation, Conversation::parse(&conversation)?.to_string())?;
    backend.send_signal(&identity.user, signal).await?;
    Ok(StatusCode::NO_CONTENT)
}
