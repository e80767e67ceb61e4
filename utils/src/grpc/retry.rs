//! Retries calls that fail with `UNAVAILABLE`, on another endpoint.

use super::endpoint::code_of;
use crate::{backoff::Backoff, metrics};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tonic::{Code, body::Body};
use tower::{BoxError, Layer, Service, ServiceExt as _};

/// Pauses between attempts: long enough for a restarting peer to close its old connections, and short compared to any
/// deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// The attempts of one call. It is a request extension that the balancer fills.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried(Arc<Mutex<Tries>>);

#[derive(Debug, Default)]
struct Tries {
    addresses: Vec<Arc<str>>,
    is_final: bool,
}

impl Tried {
    pub(super) fn add(&self, address: Arc<str>) {
        self.lock().addresses.push(address);
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        self.lock().addresses.iter().any(|tried| **tried == *address)
    }

    /// Prevents further attempts, because they would not help.
    pub(super) fn stop_retrying(&self) {
        self.lock().is_final = true;
    }

    fn is_final(&self) -> bool {
        self.lock().is_final
    }

    fn lock(&self) -> MutexGuard<'_, Tries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct RetryLayer {
    service: &'static str,
    tries: u32,
}

impl RetryLayer {
    pub(super) fn new(service: &'static str, tries: u32) -> Self {
        Self { service, tries: tries.max(1) }
    }
}

impl<S> Layer<S> for RetryLayer {
    type Service = Retry<S>;

    fn layer(&self, inner: S) -> Retry<S> {
        Retry { inner, service: self.service, tries: self.tries }
    }
}

/// Buffers the body of a request and sends it with every attempt. All our requests are one message of bounded size, and
/// all calls are idempotent.
#[derive(Clone, Debug)]
pub(super) struct Retry<S> {
    inner: S,
    service: &'static str,
    tries: u32,
}

impl<S> Service<Request<Body>> for Retry<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError, Future: Send>
        + Clone
        + Send
        + 'static,
{
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Call the service that was polled ready, and keep the clone.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let (service, tries) = (self.service, self.tries);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let tried = Tried::default();
            parts.extensions.insert(tried.clone());
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            for retries_left in (0..tries).rev() {
                let request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
                let response = inner.ready().await?.call(request).await?;
                if retries_left == 0 || code_of(&response) != Code::Unavailable || tried.is_final() {
                    return Ok(response);
                }
                metrics::call_retried(service);
                backoff.wait().await;
            }
            unreachable!("the last attempt returns")
        })
    }
}
