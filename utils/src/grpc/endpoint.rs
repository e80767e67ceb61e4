//! An endpoint: an address with its connection, its load and its ejection state.

use super::{
    ejection::{Ejection, Policy, State},
    load::Load,
};
use crate::{Error, discovery::check_address, metrics, tls::MutualTls};
use http::{Request, Response, Uri};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tonic::{Code, Status, TimeoutExpired, body::Body, transport};
use tower::{ServiceExt as _, service_fn};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of HTTP/2 pings, also on idle connections. Without them, a peer that disappears silently is noticed only by
/// calls that time out.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// A connection whose ping is not answered within this time is closed.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 flow control windows. Batches of messages are larger than the default of 64 KiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// The real latency of a cancelled call is unknown, but longer than the time it took. This factor estimates it.
const CANCELLED_FACTOR: u32 = 4;

#[derive(Debug)]
pub(super) struct Endpoint {
    service: &'static str,
    address: Arc<str>,
    channel: transport::Channel,
    state: Mutex<Health>,
}

#[derive(Debug)]
struct Health {
    load: Load,
    ejection: Ejection,
}

impl Endpoint {
    /// Creates an endpoint that connects on its first call. With TLS, the server's certificate must have the name of the
    /// service. Must be called in a runtime.
    pub(super) fn new(
        service: &'static str,
        address: &str,
        policy: Policy,
        tls: Option<MutualTls>,
    ) -> Result<Arc<Self>, Error> {
        check_address(address)?;
        let address: Arc<str> = address.into();
        let endpoint = transport::Endpoint::from_shared(format!("http://{address}"))
            .map_err(|_| Error::Address { address: address.to_string() })?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let channel = match tls {
            None => endpoint.connect_lazy(),
            Some(tls) => {
                let address = address.clone();
                let connect = move |_: Uri| tls.clone().connect(service, address.clone());
                endpoint.connect_with_connector_lazy(service_fn(connect))
            }
        };
        let state = Mutex::new(Health { load: Load::default(), ejection: Ejection::new(policy) });
        Ok(Arc::new(Self { service, address, channel, state }))
    }

    pub(super) fn address(&self) -> &Arc<str> {
        &self.address
    }

    pub(super) fn state(&self, now: Instant) -> State {
        self.lock().ejection.state(now)
    }

    pub(super) fn cost(&self, now: Instant) -> f64 {
        self.lock().load.cost(now)
    }

    /// Makes a call. Transport errors become a response with the status `UNAVAILABLE`.
    ///
    /// The call counts as in flight immediately, not from its first poll, so that the next choice takes it into account.
    pub(super) fn call(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let call = Call::begin(self);
        async move {
            let result = call.endpoint.channel.clone().oneshot(request).await;
            let response =
                result.unwrap_or_else(|error| transport_status(call.endpoint.address(), &error).into_http());
            call.end(&response);
            response
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The status for a transport error.
fn transport_status(address: &str, error: &(dyn std::error::Error + 'static)) -> Status {
    let mut cause = Some(error);
    while let Some(this) = cause {
        // tonic's channel enforces `grpc-timeout` as well, and may be slightly faster than our own deadline.
        if this.is::<TimeoutExpired>() {
            return Status::deadline_exceeded(format!("{address} did not answer in time"));
        }
        cause = this.source();
    }
    Status::unavailable(format!("{address}: {}", crate::error::chain(error)))
}

/// The status code in the head of a response. Errors have it there because they have no message.
pub(super) fn code_of<B>(response: &Response<B>) -> Code {
    response.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// A call in flight. If it is dropped before it has ended, its caller or its deadline has cancelled it.
struct Call {
    endpoint: Arc<Endpoint>,
    began: Instant,
    is_probe: bool,
    has_ended: bool,
}

impl Call {
    fn begin(endpoint: Arc<Endpoint>) -> Self {
        let began = Instant::now();
        let is_probe = {
            let mut health = endpoint.lock();
            health.load.begin();
            health.ejection.begin(began)
        };
        Self { endpoint, began, is_probe, has_ended: false }
    }

    fn end(mut self, response: &Response<Body>) {
        let code = code_of(response);
        if code == Code::DeadlineExceeded {
            // Count it as cancelled.
            return;
        }
        self.has_ended = true;
        let Endpoint { service, address, .. } = &*self.endpoint;
        let now = Instant::now();
        let mut health = self.endpoint.lock();
        health.load.end();
        if code == Code::Unavailable {
            // Don't measure the latency of a failure: it says nothing about the latency of a success.
            if let Some(pause) = health.ejection.failed(now) {
                metrics::endpoint_ejected(service);
                let reason = response.headers().get(Status::GRPC_MESSAGE);
                tracing::warn!(service, %address, ?pause, ?reason, "endpoint ejected");
            }
        } else {
            if health.ejection.succeeded() {
                tracing::info!(service, %address, "endpoint works again");
                health.load.reset();
            }
            health.load.measure(now - self.began, now);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.has_ended {
            let now = Instant::now();
            let mut health = self.endpoint.lock();
            health.load.end();
            health.ejection.cancelled(self.is_probe);
            // Make the balancer avoid a hanging endpoint after a single call.
            health.load.measure((now - self.began) * CANCELLED_FACTOR, now);
        }
    }
}
