//! The id of an HTTP request: in its answer, in the problem document of an error, and in the log of an error of the server.

use abi::error::ErrorCode;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method},
    response::Response,
};
use utils::problem;
use uuid::Uuid;

/// The header of a request and of its answer.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that a request may bring, in characters.
const MAX_LENGTH: usize = 64;

/// The id of a request: the one that it brings if that is well formed, otherwise a new one.
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let brought = headers.get(&REQUEST_ID).filter(|id| is_well_formed(id.as_bytes()));
        Self(brought.cloned().unwrap_or_else(|| {
            HeaderValue::try_from(Uuid::now_v7().to_string())
                .expect("hexadecimal digits are legal in a header")
        }))
    }

    fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Adds the id to an answer, and logs an error of the server.
    pub(crate) fn complete(self, method: &Method, path: &str, mut response: Response) -> Response {
        if let Some(error) = problem::identify(&mut response, self.as_str())
            && error.code == ErrorCode::Internal
        {
            tracing::error!(request_id = self.as_str(), %method, path, %error, "a request failed");
        }
        response.headers_mut().insert(REQUEST_ID, self.0);
        response
    }
}

fn is_well_formed(id: &[u8]) -> bool {
    (1..=MAX_LENGTH).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p7_a_request_keeps_its_id_if_that_is_well_formed() {
        let id = |value: &str| {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_str(value).unwrap())]);
            RequestId::of(&headers).as_str().to_owned()
        };
        assert_eq!(id("order-7.retry_2"), "order-7.retry_2");
        for value in ["", "two words", "a\u{e9}", "a/b", &"x".repeat(65)] {
            assert!(Uuid::parse_str(&id(value)).is_ok(), "{value}");
        }
        assert_ne!(RequestId::of(&HeaderMap::new()).as_str(), RequestId::of(&HeaderMap::new()).as_str());
    }
}
