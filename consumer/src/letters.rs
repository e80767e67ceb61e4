//! Dead letters over HTTP, for operators: `docs/dead-letters.md` is the page about it.
//!
//! What the letters say may be people's messages: a body is given only to who asks for it.

mod shown;

use abi::{
    ApiError,
    config::Secret,
    error::{ErrorCode, excerpt},
    ids::Conversation,
    record,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use kafka_runtime::{
    Error, LetterId, Letters,
    dead_letters::{Ends, Selection},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utils::problem::{Path, Problem, Query};

/// Letters on a page, unless another number is asked for.
const PAGE: usize = 50;
/// Most letters on a page.
const MAX_PAGE: usize = 200;
/// Letters that one request replays.
const REPLAYS: usize = 20;

/// The endpoints, behind the operator's token. `app` is the application that is served.
pub fn routes(letters: Letters, app: &str, token: Secret) -> Router {
    let desk = Arc::new(Desk { letters, app: app.to_owned() });
    let routes = Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/replay", post(replay_all))
        .route("/dead-letters/{id}", get(show).delete(discard))
        .route("/dead-letters/{id}/replay", post(replay))
        .with_state(desk);
    utils::admin::require_operator(token, routes)
}

struct Desk {
    letters: Letters,
    app: String,
}

type Answer = Result<Json<Value>, Problem>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    reason: Option<String>,
    conversation: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    conversation: Option<String>,
    after: Option<String>,
    until: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Show {
    #[serde(default)]
    body: bool,
}

impl Desk {
    fn selection(&self, reason: Option<String>, conversation: Option<String>) -> Result<Selection, ApiError> {
        let key = |id: String| Conversation::parse(&id).map(|id| record::key(&self.app, &id.to_string()));
        Ok(Selection { reason, key: conversation.map(key).transpose()? })
    }
}

fn id(text: &str) -> Result<LetterId, ApiError> {
    text.parse::<LetterId>()
        .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, excerpt(error.to_string())))
}

fn fault(error: Error) -> ApiError {
    let code = match &error {
        Error::NoLetter { .. } => ErrorCode::NotFound,
        Error::NotReplayable { .. } => ErrorCode::Conflict,
        _ => ErrorCode::Unavailable,
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    ApiError::new(code, excerpt(format!("{error}{}", cause.unwrap_or_default())))
}

/// `GET /dead-letters?reason=&conversation=&after=&limit=`
async fn list(State(desk): State<Arc<Desk>>, Query(which): Query<Which>) -> Answer {
    let Which { reason, conversation, after, limit } = which;
    let selection = desk.selection(reason, conversation)?;
    let after = after.as_deref().map(id).transpose()?;
    let limit = limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid(format!("limit must be 1 to {MAX_PAGE}")).into());
    }
    let page = desk.letters.list(&selection, after, limit).await.map_err(fault)?;
    let letters: Vec<Value> = page.letters.iter().map(shown::line).collect();
    let next = page.next.map(|id| id.to_string());
    Ok(Json(json!({ "letters": letters, "next": next, "open": page.open })))
}

/// `GET /dead-letters/{id}?body=`
async fn show(
    State(desk): State<Arc<Desk>>,
    Path(letter): Path<String>,
    Query(Show { body }): Query<Show>,
) -> Answer {
    let letter = desk.letters.get(id(&letter)?).await.map_err(fault)?;
    Ok(Json(shown::whole(&letter, body)))
}

/// `POST /dead-letters/{id}/replay`
async fn replay(State(desk): State<Arc<Desk>>, Path(letter): Path<String>) -> Answer {
    let id = id(&letter)?;
    let position = desk.letters.replay(id).await.map_err(fault)?;
    let id = id.to_string();
    Ok(Json(json!({ "id": id, "partition": position.partition, "offset": position.offset })))
}

/// `POST /dead-letters/replay`
async fn replay_all(State(desk): State<Arc<Desk>>, body: Bytes) -> Answer {
    let replay: Replay = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(format!("the body is not what this path takes: {}", excerpt(error)))
    })?;
    let Replay { all, reason, conversation, after, until } = replay;
    if all == (reason.is_some() || conversation.is_some()) {
        return Err(ApiError::invalid(
            "say which letters: either \"all\": true, or \"reason\" or \"conversation\" or both",
        )
        .into());
    }
    let selection = desk.selection(reason, conversation)?;
    let after = after.as_deref().map(id).transpose()?;
    let until = until.map(|until| until.parse::<Ends>()).transpose();
    let until = until.map_err(|_| ApiError::invalid("until must be what an earlier answer gave"))?;
    let done = desk.letters.replay_all(&selection, after, until, REPLAYS).await.map_err(fault)?;
    let replayed: Vec<String> = done.replayed.iter().map(ToString::to_string).collect();
    let skipped: Vec<Value> =
        done.skipped.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why })).collect();
    let (next, until) = (done.next.map(|id| id.to_string()), done.until.to_string());
    Ok(Json(json!({ "replayed": replayed, "skipped": skipped, "next": next, "until": until })))
}

/// `DELETE /dead-letters/{id}`
async fn discard(State(desk): State<Arc<Desk>>, Path(letter): Path<String>) -> Result<StatusCode, Problem> {
    desk.letters.discard(id(&letter)?).await.map_err(fault)?;
    Ok(StatusCode::NO_CONTENT)
}
