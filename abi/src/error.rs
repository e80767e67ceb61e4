//! The table of errors: maps an [`ErrorCode`] to gRPC, HTTP and WebSocket, and says whether a retry can help.
//!
//! Between services, the details of a gRPC status hold the complete [`v1::Error`]. A status without details (a transport
//! error, a foreign peer) is mapped by its gRPC code.

use crate::v1;
use bytes::Bytes;
use prost::Message as _;
use std::time::Duration;
use tonic::{Code, Status};

pub use crate::v1::ErrorCode;

/// An error that callers get: a code, a sentence, and the time to wait before a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The kind of error.
    pub code: ErrorCode,
    /// A sentence for people: the problem, its place, and the remedy.
    pub message: String,
    /// Time to wait before a retry.
    pub retry_after: Option<Duration>,
}

/// A row of the table.
struct Row {
    code: ErrorCode,
    name: &'static str,
    grpc: Code,
    http: u16,
    close: u16,
    reconnect: Reconnect,
    retryable: bool,
}

/// The reaction of a device to a close with a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Do not reconnect: something has to change first, such as the token or the program.
    No,
    /// Reconnect at once, then with backoff.
    Now,
    /// Reconnect after about this many milliseconds.
    After(u32),
}

const fn row(
    code: ErrorCode,
    name: &'static str,
    grpc: Code,
    http: u16,
    close: u16,
    reconnect: Reconnect,
    retryable: bool,
) -> Row {
    Row { code, name, grpc, http, close, reconnect, retryable }
}

/// The same request may succeed later.
const RETRY: bool = true;
/// The same request would fail again.
const FINAL: bool = false;

/// The columns are those of [`Row`]. Several codes share a gRPC code; a status without details maps to the first of them.
const TABLE: [Row; 18] = [
    row(ErrorCode::Internal, "internal", Code::Internal, 500, 4010, Reconnect::After(5_000), RETRY),
    row(ErrorCode::Unspecified, "unspecified", Code::Unknown, 500, 4000, Reconnect::After(5_000), RETRY),
    row(ErrorCode::InvalidRequest, "invalid_request", Code::InvalidArgument, 400, 4001, Reconnect::No, FINAL),
    row(
        ErrorCode::Unauthenticated,
        "unauthenticated",
        Code::Unauthenticated,
        401,
        4002,
        Reconnect::No,
        FINAL,
    ),
    row(ErrorCode::TokenExpired, "token_expired", Code::Unauthenticated, 401, 4003, Reconnect::No, FINAL),
    row(ErrorCode::Forbidden, "forbidden", Code::PermissionDenied, 403, 4004, Reconnect::No, FINAL),
    row(ErrorCode::NotFound, "not_found", Code::NotFound, 404, 4005, Reconnect::No, FINAL),
    row(ErrorCode::AlreadyExists, "already_exists", Code::AlreadyExists, 409, 4006, Reconnect::No, FINAL),
    row(ErrorCode::TooLarge, "too_large", Code::OutOfRange, 413, 4007, Reconnect::No, FINAL),
    row(
        ErrorCode::RateLimited,
        "rate_limited",
        Code::ResourceExhausted,
        429,
        4008,
        Reconnect::After(1_000),
        RETRY,
    ),
    row(ErrorCode::Unavailable, "unavailable", Code::Unavailable, 503, 4009, Reconnect::After(1_000), RETRY),
    row(ErrorCode::HelloTimeout, "hello_timeout", Code::DeadlineExceeded, 408, 4011, Reconnect::Now, FINAL),
    row(ErrorCode::TooSlow, "too_slow", Code::ResourceExhausted, 429, 4012, Reconnect::After(1_000), FINAL),
    row(ErrorCode::Replaced, "replaced", Code::Aborted, 409, 4013, Reconnect::No, FINAL),
    row(ErrorCode::IdleTimeout, "idle_timeout", Code::DeadlineExceeded, 408, 4014, Reconnect::Now, FINAL),
    row(ErrorCode::GoingAway, "going_away", Code::Unavailable, 503, 4015, Reconnect::After(500), RETRY),
    row(ErrorCode::Revoked, "revoked", Code::Unauthenticated, 401, 4016, Reconnect::No, FINAL),
    row(ErrorCode::Conflict, "conflict", Code::FailedPrecondition, 409, 4017, Reconnect::No, FINAL),
];

impl ErrorCode {
    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.code == self).expect("the table has a row for every code")
    }

    /// The name in problem documents, logs and close reasons, such as `rate_limited`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The gRPC status code.
    pub fn grpc(self) -> Code {
        self.row().grpc
    }

    /// The HTTP status.
    pub fn http(self) -> u16 {
        self.row().http
    }

    /// The WebSocket close code, in the private range 4000 to 4999.
    pub fn close(self) -> u16 {
        self.row().close
    }

    /// The code for a WebSocket close code. `None` for foreign close codes.
    pub fn from_close(close: u16) -> Option<Self> {
        TABLE.iter().find(|row| row.close == close).map(|row| row.code)
    }

    /// Whether and when to reconnect after a close with this code.
    pub fn reconnect(self) -> Reconnect {
        self.row().reconnect
    }

    /// Whether the same request may succeed later.
    pub fn is_retryable(self) -> bool {
        self.row().retryable
    }
}

impl ApiError {
    /// Makes an error without a time to wait.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The request is malformed.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, message)
    }

    /// The user may not do that.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Forbidden, message)
    }

    /// The requested object does not exist.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message)
    }

    /// The server can't handle the request now. The same request may be retried.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unavailable, message)
    }

    /// The client exceeded a rate limit and may continue after `wait`.
    pub fn rate_limited(message: impl Into<String>, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..Self::new(ErrorCode::RateLimited, message) }
    }

    /// The error of a call to a service, with the message as it came: for logs and operators, never for a client.
    pub fn of_call(status: &Status) -> Self {
        details(status).unwrap_or_else(|| Self::new(code_without_details(status.code()), status.message()))
    }

    /// The reason text of a WebSocket close: the code's name and `reconnect=no` or `reconnect=MILLISECONDS`.
    pub fn close_reason(&self) -> String {
        let reconnect = match (self.retry_after, self.code.reconnect()) {
            (_, Reconnect::No) => return format!("{} reconnect=no", self.code.name()),
            (Some(wait), _) => retry_after(Some(wait)),
            (None, Reconnect::Now) => 0,
            (None, Reconnect::After(ms)) => ms,
        };
        format!("{} reconnect={reconnect}", self.code.name())
    }
}

/// Longest [`excerpt`], in bytes.
const MAX_EXCERPT: usize = 300;

/// Prepares a foreign text for use in an error: escapes control characters and truncates long texts.
pub fn excerpt(text: impl std::fmt::Display) -> String {
    let text = text.to_string();
    let mut excerpt = String::with_capacity(text.len().min(MAX_EXCERPT + 8));
    for character in text.chars() {
        if excerpt.len() >= MAX_EXCERPT {
            excerpt.push('…');
            break;
        }
        match character.is_control() {
            true => excerpt.extend(character.escape_default()),
            false => excerpt.push(character),
        }
    }
    excerpt
}

/// Longest [`shortened`] text, in characters.
const MAX_SHORT: usize = 40;

/// The beginning of a caller's text, with an ellipsis if it is longer.
pub(crate) fn shortened(text: &str) -> std::borrow::Cow<'_, str> {
    match text.char_indices().nth(MAX_SHORT) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

/// A caller's text as an error quotes it: shortened, escaped, in quotation marks.
pub fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

/// A time to wait in the contract's form: whole milliseconds, rounded up. 0: unknown.
pub fn retry_after(wait: Option<Duration>) -> u32 {
    wait.map_or(0, |wait| u32::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u32::MAX))
}

impl From<ApiError> for v1::Error {
    fn from(error: ApiError) -> Self {
        Self {
            code: error.code.into(),
            retry_after_ms: retry_after(error.retry_after),
            message: error.message,
        }
    }
}

impl From<v1::Error> for ApiError {
    fn from(error: v1::Error) -> Self {
        let wait = Duration::from_millis(error.retry_after_ms.into());
        Self { code: error.code(), retry_after: (!wait.is_zero()).then_some(wait), message: error.message }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let (code, message) = (error.code.grpc(), error.message.clone());
        Self::with_details(code, message, Bytes::from(v1::Error::from(error).encode_to_vec()))
    }
}

/// The error for a client. The message of a status without details may name addresses and services that clients must not
/// learn, so it goes only to the log; see [`ApiError::of_call`].
impl From<Status> for ApiError {
    fn from(status: Status) -> Self {
        if let Some(error) = details(&status) {
            return error;
        }
        tracing::debug!(status = ?status.code(), reason = status.message(), "a call failed");
        let code = code_without_details(status.code());
        let message = match code {
            ErrorCode::Unavailable => "the server cannot answer this now; try again",
            ErrorCode::Internal => "the server failed; its log has the reason",
            ErrorCode::NotFound => "there is no such object",
            ErrorCode::TooLarge => "the request or its answer is too large",
            _ => "the server refused this request; its log has the reason",
        };
        Self::new(code, message)
    }
}

/// The error in the details of a status, which our services fill.
fn details(status: &Status) -> Option<ApiError> {
    let error = v1::Error::decode(status.details()).ok()?;
    (error.code() != ErrorCode::Unspecified).then(|| error.into())
}

fn code_without_details(code: Code) -> ErrorCode {
    match code {
        // The outcome of an interrupted call is unknown. In all these cases the caller repeats the same call. Only a status
        // with details means that the caller itself exceeded a limit.
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Cancelled
        | Code::Unknown
        | Code::ResourceExhausted => ErrorCode::Unavailable,
        code => TABLE.iter().find(|row| row.grpc == code).map_or(ErrorCode::Internal, |row| row.code),
    }
}

#[cfg(test)]
mod tests;
