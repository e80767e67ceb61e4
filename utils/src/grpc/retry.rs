//! Tries a call again, elsewhere, when it was answered with `UNAVAILABLE`.

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

/// Between two tries: long enough for a restarting peer to close its old connections, short against any deadline.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// What was tried for one call. Travels with the request to the balancer, which fills it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tried(Arc<Mutex<Tries>>);

#[derive(Debug, Default)]
struct Tries {
    addresses: Vec<Arc<str>>,
    hopeless: bool,
}

impl Tried {
    pub(super) fn add(&self, address: Arc<str>) {
        self.lock().addresses.push(address);
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        self.lock().addresses.iter().any(|tried| **tried == *address)
    }

    /// Another try would not help.
    pub(super) fn give_up(&self) {
        self.lock().hopeless = true;
    }

    fn is_hopeless(&self) -> bool {
        self.lock().hopeless
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

/// Reads the request's body into memory, once, and sends it as often as needed. All our calls have one message for a
/// request, of bounded size, and are idempotent.
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
        // The one that was polled ready is the one to call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let (service, tries) = (self.service, self.tries);
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let tried = Tried::default();
            parts.extensions.insert(tried.clone());
            let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
            for again in (0..tries).rev() {
                let request = Request::from_parts(parts.clone(), Body::new(Full::new(body.clone())));
                let response = inner.ready().await?.call(request).await?;
                if again == 0 || code_of(&response) != Code::Unavailable || tried.is_hopeless() {
                    return Ok(response);
                }
                metrics::call_retried(service);
                backoff.wait().await;
            }
            unreachable!("the last try returns")
        })
    }
}
