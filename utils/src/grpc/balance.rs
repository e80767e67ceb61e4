//! Chooses an endpoint: the less loaded of two taken at random.

use super::{
    ejection::{Policy, State},
    endpoint::Endpoint,
    retry::Tried,
};
use crate::{discovery::Instances, metrics};
use futures_util::future::BoxFuture;
use http::{Request, Response};
use rand::RngExt as _;
use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tonic::{Status, body::Body};
use tower::{BoxError, Service};

const EJECTION: Policy =
    Policy { after: 3, first: Duration::from_millis(500), most: Duration::from_secs(10) };
/// A call that finds no instance at all waits so long for one: discovery may not have answered yet.
const FIRST_INSTANCE: Duration = Duration::from_millis(500);

type Endpoints = Arc<[Arc<Endpoint>]>;

/// Sends each call to one of the instances. A clone is the same balancer.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    service: &'static str,
    endpoints: watch::Receiver<Endpoints>,
    /// Follows the set whether or not a call is made; ends with the last clone.
    _follower: Arc<JoinSet<()>>,
}

impl Balance {
    pub(super) fn new(service: &'static str, instances: Instances) -> Self {
        metrics::calls(service);
        let (sender, endpoints) = watch::channel(Endpoints::default());
        let mut follower = JoinSet::new();
        follower.spawn(follow(service, instances, sender));
        Self { service, endpoints, _follower: Arc::new(follower) }
    }
}

impl Service<Request<Body>> for Balance {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    /// Always ready: connections are waited for within the call, where its deadline counts.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let tried = request.extensions_mut().remove::<Tried>().unwrap_or_default();
        let (service, mut endpoints) = (self.service, self.endpoints.clone());
        Box::pin(async move {
            let known = tokio::time::timeout(FIRST_INSTANCE, endpoints.wait_for(|set| !set.is_empty()))
                .await
                .map_or_else(|_| Endpoints::default(), |set| set.map(|set| set.clone()).unwrap_or_default());
            let Some(endpoint) = choose(&known, &tried, Instant::now(), &mut rand::rng()) else {
                tried.give_up();
                return Ok(Status::unavailable(format!("no instance of {service} is known")).into_http());
            };
            tried.add(endpoint.address().clone());
            Ok(endpoint.call(request).await)
        })
    }
}

/// An endpoint that takes calls and was not tried yet; or else one that takes calls; or else the one whose
/// ejection ends first, since with everything ejected nothing is lost by trying.
fn choose(
    endpoints: &[Arc<Endpoint>],
    tried: &Tried,
    now: Instant,
    random: &mut impl rand::Rng,
) -> Option<Arc<Endpoint>> {
    let open: Vec<_> =
        endpoints.iter().filter(|endpoint| !matches!(endpoint.state(now), State::Ejected(_))).collect();
    let fresh: Vec<_> = open.iter().copied().filter(|endpoint| !tried.contains(endpoint.address())).collect();
    let among = if fresh.is_empty() { open } else { fresh };
    match among.as_slice() {
        [] => endpoints.iter().min_by_key(|endpoint| match endpoint.state(now) {
            State::Ejected(until) => until,
            State::Open | State::Probe => now,
        }),
        [only] => Some(*only),
        several => {
            let one = random.random_range(0..several.len());
            let other = (one + random.random_range(1..several.len())) % several.len();
            let (one, other) = (several[one], several[other]);
            Some(if one.cost(now) <= other.cost(now) { one } else { other })
        }
    }
    .cloned()
}

/// Keeps the endpoints in step with the instances. Those that stay keep their connection and what is known of them;
/// calls in flight to one that goes are not cut off.
async fn follow(service: &'static str, mut instances: Instances, endpoints: watch::Sender<Endpoints>) {
    loop {
        let addresses = instances.current();
        metrics::instances(service, addresses.len());
        let known = endpoints.borrow().clone();
        let next = addresses.iter().filter_map(|address| {
            known.iter().find(|endpoint| **endpoint.address() == **address).cloned().or_else(|| {
                Endpoint::new(service, address, EJECTION)
                    .inspect_err(|error| tracing::warn!(service, %error, "instance passed over"))
                    .ok()
            })
        });
        endpoints.send_replace(next.collect());
        instances.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn endpoints(count: u16) -> Vec<Arc<Endpoint>> {
        let policy = Policy { after: 1, ..EJECTION };
        (0..count).map(|n| Endpoint::new("test", &format!("127.0.0.1:{}", n + 1), policy).unwrap()).collect()
    }

    /// Nobody listens there, so one call ejects.
    async fn eject(endpoint: &Arc<Endpoint>) {
        endpoint.clone().call(Request::new(Body::empty())).await;
        assert!(matches!(endpoint.state(Instant::now()), State::Ejected(_)));
    }

    #[tokio::test]
    async fn an_endpoint_that_is_ejected_or_was_tried_is_passed_over() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let set = endpoints(3);
        eject(&set[0]).await;
        let tried = Tried::default();
        tried.add(set[1].address().clone());
        for _ in 0..50 {
            let chosen = choose(&set, &tried, Instant::now(), &mut random).unwrap();
            assert_eq!(chosen.address(), set[2].address());
        }
        eject(&set[2]).await;
        let chosen = choose(&set, &tried, Instant::now(), &mut random).unwrap();
        assert_eq!(chosen.address(), set[1].address(), "tried, but not ejected");
        eject(&set[1]).await;
        assert!(
            choose(&set, &tried, Instant::now(), &mut random).is_some(),
            "with all ejected, any is tried"
        );
        assert!(choose(&[], &tried, Instant::now(), &mut random).is_none());
    }

    #[tokio::test]
    async fn calls_in_flight_spread_over_all() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let set = endpoints(3);
        let mut calls = Vec::new();
        for _ in 0..30 {
            let chosen = choose(&set, &Tried::default(), Instant::now(), &mut random).unwrap();
            calls.push(chosen.call(Request::new(Body::empty())));
        }
        let costs: Vec<_> = set.iter().map(|endpoint| endpoint.cost(Instant::now())).collect();
        assert!(costs.iter().all(|cost| (6.0..=14.0).contains(cost)), "{costs:?}");
        drop(calls);
    }
}
