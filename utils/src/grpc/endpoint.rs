//! One address: its connection, its load, whether it is ejected.

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

const CONNECT: Duration = Duration::from_secs(2);
/// A connection is asked whether it lives this often, idle ones too, and given up if it doesn't answer: otherwise a
/// peer that vanished without a word is noticed only by the calls that it swallows.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Batches of messages are larger than HTTP/2's window of 64 KiB.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A call that was given up would have taken longer, nobody knows how much: it is taken for so many times as long.
const GIVEN_UP: u32 = 4;

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
    /// Connects when it is first called. With TLS only to who shows a certificate of this service. Must be made in a runtime.
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
            .connect_timeout(CONNECT)
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

    /// Makes a call. Whatever goes wrong on the way is an answer with `UNAVAILABLE`.
    ///
    /// It counts as in flight from now on, not from when it is first polled: the next choice must see it.
    pub(super) fn call(
        self: Arc<Self>,
        request: Request<Body>,
    ) -> impl Future<Output = Response<Body>> + Send + 'static {
        let call = Call::begin(self);
        async move {
            let answer = call.endpoint.channel.clone().oneshot(request).await;
            let response = answer.unwrap_or_else(|error| failed(call.endpoint.address(), &error).into_http());
            call.end(code_of(&response));
            response
        }
    }

    fn lock(&self) -> MutexGuard<'_, Health> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call that got no answer is answered with.
fn failed(address: &str, error: &(dyn std::error::Error + 'static)) -> Status {
    let mut cause = Some(error);
    while let Some(this) = cause {
        // tonic's channel reads `grpc-timeout` as well, and may be a moment faster than our own deadline.
        if this.is::<TimeoutExpired>() {
            return Status::deadline_exceeded(format!("{address} did not answer in time"));
        }
        cause = this.source();
    }
    Status::unavailable(format!("{address}: {}", crate::error::chain(error)))
}

/// The code of an answer, where it has one in its head: errors do, since they have no message.
pub(super) fn code_of<B>(response: &Response<B>) -> Code {
    response.headers().get(Status::GRPC_STATUS).map_or(Code::Ok, |code| Code::from_bytes(code.as_bytes()))
}

/// A call in flight; one that is dropped was given up, by its caller or by its deadline.
struct Call {
    endpoint: Arc<Endpoint>,
    began: Instant,
    probes: bool,
    ended: bool,
}

impl Call {
    fn begin(endpoint: Arc<Endpoint>) -> Self {
        let began = Instant::now();
        let probes = {
            let mut health = endpoint.lock();
            health.load.begin();
            health.ejection.begin(began)
        };
        Self { endpoint, began, probes, ended: false }
    }

    fn end(mut self, code: Code) {
        if code == Code::DeadlineExceeded {
            return;
        }
        self.ended = true;
        let Endpoint { service, address, .. } = &*self.endpoint;
        let now = Instant::now();
        let mut health = self.endpoint.lock();
        health.load.end();
        if code == Code::Unavailable {
            // How fast it fails says nothing about how fast it works.
            if let Some(pause) = health.ejection.failed(now) {
                metrics::endpoint_ejected(service);
                tracing::warn!(service, %address, ?pause, "endpoint ejected");
            }
        } else {
            if health.ejection.succeeded() {
                tracing::info!(service, %address, "endpoint is back");
                health.load.forget();
            }
            health.load.measure(now - self.began, now);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let now = Instant::now();
            let mut health = self.endpoint.lock();
            health.load.end();
            health.ejection.release(self.probes);
            // An endpoint that hangs is to be avoided after its first victim.
            health.load.measure((now - self.began) * GIVEN_UP, now);
        }
    }
}
