//! Deadlines of calls.

use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response, header::HeaderName};
use std::{
    task::{Context, Poll},
    time::Duration,
};
use tonic::Status;
use tower::{BoxError, Layer, Service};

const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The layer of [`Deadline`].
#[derive(Clone, Copy, Debug)]
pub struct DeadlineLayer {
    default: Duration,
}

impl DeadlineLayer {
    /// `default` is the deadline of calls without their own (`tonic::Request::set_timeout`).
    pub fn new(default: Duration) -> Self {
        Self { default }
    }
}

impl<S> Layer<S> for DeadlineLayer {
    type Service = Deadline<S>;

    fn layer(&self, inner: S) -> Deadline<S> {
        Deadline { inner, default: self.default }
    }
}

/// Answers `DEADLINE_EXCEEDED` if the service does not respond in time, and sends the deadline to the callee.
///
/// The deadline covers the response head only. All our responses are one message that immediately follows the head. If
/// the connection breaks between the two, HTTP/2 keepalive ends the call.
#[derive(Clone, Debug)]
pub struct Deadline<S> {
    inner: S,
    default: Duration,
}

impl<S, B, R> Service<Request<B>> for Deadline<S>
where
    S: Service<Request<B>, Response = Response<R>, Error: Into<BoxError>, Future: Send + 'static>,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<R>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let limit = match parse_timeout(request.headers()) {
            Some(limit) => limit,
            None => {
                request.headers_mut().insert(GRPC_TIMEOUT, format_timeout(self.default));
                self.default
            }
        };
        let response = self.inner.call(request);
        Box::pin(async move {
            match tokio::time::timeout(limit, response).await {
                Ok(answer) => answer.map_err(Into::into),
                Err(_) => Ok(Status::deadline_exceeded(format!("no response within {limit:?}")).into_http()),
            }
        })
    }
}

/// Parses `grpc-timeout`: at most eight digits and a unit.
fn parse_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Formats `grpc-timeout` in the finest unit that needs at most eight digits.
fn format_timeout(limit: Duration) -> HeaderValue {
    let (count, unit) =
        [(limit.as_micros(), 'u'), (limit.as_millis(), 'm'), (u128::from(limit.as_secs()), 'S')]
            .into_iter()
            .find(|(count, _)| *count <= 99_999_999)
            .unwrap_or((99_999_999, 'S'));
    HeaderValue::from_str(&format!("{count}{unit}")).expect("digits and a letter are a valid header value")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{convert::Infallible, sync::Mutex};
    use tokio::time::Instant;
    use tower::{ServiceExt as _, service_fn};

    #[test]
    fn formatted_timeouts_can_be_parsed_and_malformed_ones_are_ignored() {
        for limit in [Duration::from_millis(5), Duration::from_secs(90), Duration::from_secs(86_400 * 30)] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, format_timeout(limit))]);
            assert_eq!(parse_timeout(&headers), Some(limit));
        }
        for text in ["", "S", "1", "123456789S", "-1S", "1x", "é"] {
            let headers =
                HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_bytes(text.as_bytes()).unwrap())]);
            assert_eq!(parse_timeout(&headers), None, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_with_its_own_deadline_or_the_channels_default() {
        let seen = Mutex::new(Vec::new());
        let hanging = service_fn(|request: Request<()>| {
            seen.lock().unwrap().push(request.headers()[GRPC_TIMEOUT].clone());
            std::future::pending::<Result<Response<()>, Infallible>>()
        });
        let service = DeadlineLayer::new(Duration::from_secs(3)).layer(hanging);
        for (own, expected) in [(None, 3_000), (Some("250m"), 250)] {
            let mut request = Request::new(());
            if let Some(own) = own {
                request.headers_mut().insert(GRPC_TIMEOUT, HeaderValue::from_static(own));
            }
            let start = Instant::now();
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(start.elapsed(), Duration::from_millis(expected));
            let status = Status::from_header_map(response.headers()).unwrap();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        }
        assert_eq!(*seen.lock().unwrap(), ["3000000u", "250m"]);
    }
}
