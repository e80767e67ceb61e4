//! Answers of operations: their own, and the errors that any operation of their kind can have.

use super::Schemas;
use crate::operation::Documentation;
use abi::error::ErrorCode;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The status of problem documents about another version of WebSocket, which follows from no code.
const WRONG_VERSION: u16 = 426;

/// The status of a request whose head is too large. The server answers before it knows the path, without a body.
const LARGE_HEAD: u16 = 431;

/// All codes that an answer over HTTP may have.
const CODES: [ErrorCode; 14] = [
    ErrorCode::InvalidRequest,
    ErrorCode::Unauthenticated,
    ErrorCode::TokenExpired,
    ErrorCode::Revoked,
    ErrorCode::Forbidden,
    ErrorCode::NotFound,
    ErrorCode::IdleTimeout,
    ErrorCode::AlreadyExists,
    ErrorCode::Conflict,
    ErrorCode::TooLarge,
    ErrorCode::RateLimited,
    ErrorCode::Internal,
    ErrorCode::Unavailable,
    ErrorCode::GoingAway,
];

/// The answers of an operation.
pub(super) fn of(operation: &Documentation, schemas: &mut Schemas) -> Value {
    let mut answers = Map::new();
    for success in &operation.successes {
        let mut answer = json!({ "description": success.description, "headers": request_id() });
        if let Some((media_type, schema)) = &success.body {
            answer["content"] = json!({ *media_type: { "schema": schema(schemas) } });
        }
        answers.insert(success.status.to_string(), answer);
    }
    for status in statuses(operation) {
        answers.insert(
            status.to_string(),
            json!({ "$ref": format!("#/components/responses/{}", name(status)) }),
        );
    }
    answers.into()
}

/// The statuses of the errors of an operation.
fn statuses(operation: &Documentation) -> BTreeSet<u16> {
    let mut codes = operation.errors.clone();
    codes.extend([ErrorCode::Internal, ErrorCode::Unavailable]);
    if operation.is_authenticated {
        codes.extend([ErrorCode::Unauthenticated, ErrorCode::RateLimited]);
    }
    if operation.path.contains('{') || operation.query.is_some() || operation.body.is_some() {
        codes.push(ErrorCode::InvalidRequest);
    }
    if operation.body.is_some() {
        codes.extend([ErrorCode::TooLarge, ErrorCode::IdleTimeout]);
    }
    let mut statuses: BTreeSet<u16> = codes.into_iter().map(ErrorCode::http).collect();
    statuses.insert(LARGE_HEAD);
    if operation.successes.iter().any(|success| success.status == 101) {
        statuses.insert(WRONG_VERSION);
    }
    statuses
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

fn request_id() -> Value {
    json!({ "x-request-id": { "$ref": "#/components/headers/RequestId" } })
}

/// The headers of answers.
pub(super) fn headers() -> Value {
    json!({
        "RequestId": {
            "description": "The id of the request, in the server's log too. That of the request's header `x-request-id` if it has 1 to 64 \
                of `A-Z a-z 0-9 . _ -`, otherwise a new one.",
            "required": true,
            "schema": { "type": "string" },
        },
        "RetryAfter": {
            "description": "Seconds to wait before the request is repeated.",
            "schema": { "type": "integer", "minimum": 0 },
        },
        "WwwAuthenticate": {
            "description": "The scheme of authentication.",
            "required": true,
            "schema": { "type": "string", "const": "Bearer" },
        },
    })
}

/// The schema of a problem document.
fn problem() -> Value {
    let names: Vec<&str> = CODES.iter().map(|code| code.name()).collect();
    json!({
        "type": "object",
        "description": "An error (RFC 9457).",
        "required": ["type", "title", "status", "detail", "code", "request_id"],
        "properties": {
            "type": { "type": "string", "description": "`urn:godwit:error:` and the code." },
            "title": { "type": "string", "description": "The name of the status." },
            "status": { "type": "integer", "description": "The status of the answer." },
            "detail": { "type": "string", "description": "A sentence for people: the problem, its place, and the remedy." },
            "code": { "type": "string", "enum": names, "description": "The kind of error." },
            "retry_after_ms": {
                "type": "integer",
                "minimum": 0,
                "description": "Time to wait before the request is repeated, in milliseconds. Absent: unknown, or repeating does not help.",
            },
            "request_id": { "type": "string", "description": "That of the header `x-request-id`." },
        },
    })
}

/// The problem documents, by status.
pub(super) fn components(schemas: &mut Schemas) -> Value {
    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::from([(WRONG_VERSION, Vec::new())]);
    for code in CODES {
        codes.entry(code.http()).or_default().push(code.name());
    }
    let document = schemas.add("Problem", problem());
    let component = |(status, codes): (u16, Vec<&str>)| {
        let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        let mut description = reason.unwrap_or_default().to_owned();
        if !codes.is_empty() {
            description += &format!(". `code` is `{}`", codes.join("` or `"));
        }
        let mut headers = request_id();
        if matches!(status, 429 | 503) {
            headers["retry-after"] = json!({ "$ref": "#/components/headers/RetryAfter" });
        }
        if status == 401 {
            headers["www-authenticate"] = json!({ "$ref": "#/components/headers/WwwAuthenticate" });
        }
        let content = json!({ "application/problem+json": { "schema": document } });
        (name(status), json!({ "description": description, "headers": headers, "content": content }))
    };
    let mut components: Map<String, Value> = codes.into_iter().map(component).collect();
    let large_head =
        json!({ "description": "The target or the header fields are too large. The answer has no body." });
    components.insert(name(LARGE_HEAD), large_head);
    components.into()
}
