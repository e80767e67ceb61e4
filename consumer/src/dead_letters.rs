//! Dead letters over HTTP, for operators. See `docs/dead-letters.md`.
//!
//! A dead letter may be a private message. So responses contain its body only on request.

mod json;

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

/// Letters on a page by default.
const DEFAULT_PAGE: usize = 50;
/// Most letters on a page.
const MAX_PAGE: usize = 200;
/// Most letters that one request replays.
const MAX_REPLAYS: usize = 20;

/// The endpoints. They require the operator's token. `app` is the application of the conversations.
pub fn routes(letters: Letters, app: &str, token: Secret) -> Router {
    let state = Arc::new(Endpoints { letters, app: app.to_owned() });
    let routes = Router::new()
        .route("/dead-letters", get(list))
        .route("/dead-letters/replay", post(replay_all))
        .route("/dead-letters/{id}", get(show).delete(discard))
        .route("/dead-letters/{id}/replay", post(replay))
        .with_state(state);
    utils::admin::require_operator(token, routes)
}

struct Endpoints {
    letters: Letters,
    app: String,
}

type JsonResult = Result<Json<Value>, Problem>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    reason: Option<String>,
    conversation: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayRequest {
    #[serde(default)]
    all: bool,
    reason: Option<String>,
    conversation: Option<String>,
    after: Option<String>,
    until: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShowQuery {
    #[serde(default)]
    body: bool,
}

impl Endpoints {
    fn selection(&self, reason: Option<String>, conversation: Option<String>) -> Result<Selection, ApiError> {
        let key = |id: String| Conversation::parse(&id).map(|id| record::key(&self.app, &id.to_string()));
        Ok(Selection { reason, key: conversation.map(key).transpose()? })
    }
}

fn parse_id(text: &str) -> Result<LetterId, ApiError> {
    text.parse::<LetterId>()
        .map_err(|error| ApiError::new(ErrorCode::InvalidRequest, excerpt(error.to_string())))
}

fn api_error(error: Error) -> ApiError {
    let code = match &error {
        Error::NoLetter { .. } => ErrorCode::NotFound,
        Error::NotReplayable { .. } => ErrorCode::Conflict,
        _ => ErrorCode::Unavailable,
    };
    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
    ApiError::new(code, excerpt(format!("{error}{}", cause.unwrap_or_default())))
}

/// `GET /dead-letters?reason=&conversation=&after=&limit=`
async fn list(State(state): State<Arc<Endpoints>>, Query(query): Query<ListQuery>) -> JsonResult {
    let ListQuery { reason, conversation, after, limit } = query;
    let selection = state.selection(reason, conversation)?;
    let after = after.as_deref().map(parse_id).transpose()?;
    let limit = limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::invalid(format!("limit must be 1 to {MAX_PAGE}")).into());
    }
    let page = state.letters.list(&selection, after, limit).await.map_err(api_error)?;
    let letters: Vec<Value> = page.letters.iter().map(json::summary).collect();
    let next = page.next.map(|id| id.to_string());
    Ok(Json(json!({ "letters": letters, "next": next, "open": page.open })))
}

/// `GET /dead-letters/{id}?body=`
async fn show(
    State(state): State<Arc<Endpoints>>,
    Path(letter): Path<String>,
    Query(ShowQuery { body }): Query<ShowQuery>,
) -> JsonResult {
    let letter = state.letters.get(parse_id(&letter)?).await.map_err(api_error)?;
    Ok(Json(json::details(&letter, body)))
}

/// `POST /dead-letters/{id}/replay`
async fn replay(State(state): State<Arc<Endpoints>>, Path(letter): Path<String>) -> JsonResult {
    let id = parse_id(&letter)?;
    let position = state.letters.replay(id).await.map_err(api_error)?;
    let id = id.to_string();
    Ok(Json(json!({ "id": id, "partition": position.partition, "offset": position.offset })))
}

/// `POST /dead-letters/replay`
async fn replay_all(State(state): State<Arc<Endpoints>>, body: Bytes) -> JsonResult {
    let request: ReplayRequest = serde_json::from_slice(&body).map_err(|error| {
        ApiError::invalid(format!("the body is not valid for this path: {}", excerpt(error)))
    })?;
    let ReplayRequest { all, reason, conversation, after, until } = request;
    if all == (reason.is_some() || conversation.is_some()) {
        return Err(ApiError::invalid(
            "select the letters: set either \"all\" to true, or \"reason\" or \"conversation\" or both",
        )
        .into());
    }
    let selection = state.selection(reason, conversation)?;
    let after = after.as_deref().map(parse_id).transpose()?;
    let until = until.map(|until| until.parse::<Ends>()).transpose();
    let until = until.map_err(|_| ApiError::invalid("until must be the value from an earlier response"))?;
    let result = state.letters.replay_all(&selection, after, until, MAX_REPLAYS).await.map_err(api_error)?;
    let replayed: Vec<String> = result.replayed.iter().map(ToString::to_string).collect();
    let skipped: Vec<Value> =
        result.skipped.iter().map(|(id, why)| json!({ "id": id.to_string(), "why": why })).collect();
    let (next, until) = (result.next.map(|id| id.to_string()), result.until.to_string());
    Ok(Json(json!({ "replayed": replayed, "skipped": skipped, "next": next, "until": until })))
}

/// `DELETE /dead-letters/{id}`
async fn discard(
    State(state): State<Arc<Endpoints>>,
    Path(letter): Path<String>,
) -> Result<StatusCode, Problem> {
    state.letters.discard(parse_id(&letter)?).await.map_err(api_error)?;
    Ok(StatusCode::NO_CONTENT)
}
