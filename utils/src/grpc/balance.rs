//! Load balancing by power of two choices: picks two random endpoints and uses the less loaded one. Endpoints in the
//! caller's zone are preferred while one of them works.
//!
//! `tower::balance` does not fit: it knows no zones, can't skip endpoints that a retry has already tried, and a call on
//! an empty set waits forever.

use super::{
    ejection::{Policy, State},
    endpoint::Endpoint,
    retry::Tried,
};
use crate::{discovery::Instances, metrics, tls::MutualTls};
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
    Policy { failures: 3, first: Duration::from_millis(500), longest: Duration::from_secs(10) };
/// How long a call waits for the first instance. Discovery may not have answered yet.
const FIRST_INSTANCE_TIMEOUT: Duration = Duration::from_millis(500);

type Endpoints = Arc<[Candidate]>;

#[derive(Clone, Debug)]
struct Candidate {
    endpoint: Arc<Endpoint>,
    /// Whether it is in the zone of this process.
    in_own_zone: bool,
}

/// Sends each call to one of the instances. Clones share the endpoints.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    service: &'static str,
    endpoints: watch::Receiver<Endpoints>,
    /// The task that applies changes of the instances, also while no call is made. It ends with the last clone.
    _updater: Arc<JoinSet<()>>,
}

impl Balance {
    pub(super) fn new(service: &'static str, instances: Instances, tls: Option<MutualTls>) -> Self {
        metrics::calls(service);
        let (sender, endpoints) = watch::channel(Endpoints::default());
        let mut updater = JoinSet::new();
        updater.spawn(update(service, instances, tls, sender));
        Self { service, endpoints, _updater: Arc::new(updater) }
    }
}

impl Service<Request<Body>> for Balance {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Response<Body>, BoxError>>;

    /// Always ready. A call waits for its connection itself, so that its deadline covers the wait.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let tried = request.extensions_mut().remove::<Tried>().unwrap_or_default();
        let (service, mut endpoints) = (self.service, self.endpoints.clone());
        Box::pin(async move {
            let known =
                tokio::time::timeout(FIRST_INSTANCE_TIMEOUT, endpoints.wait_for(|set| !set.is_empty()))
                    .await
                    .map_or_else(
                        |_| Endpoints::default(),
                        |set| set.map(|set| set.clone()).unwrap_or_default(),
                    );
            let Some(endpoint) = choose(&known, &tried, Instant::now(), &mut rand::rng()) else {
                tried.stop_retrying();
                return Ok(Status::unavailable(format!("no instance of {service} is known")).into_http());
            };
            tried.add(endpoint.address().clone());
            Ok(endpoint.call(request).await)
        })
    }
}

/// Chooses an endpoint, in this order of preference:
/// 1. one that is not ejected, was not tried yet, and is in the own zone;
/// 2. one that is not ejected and was not tried yet;
/// 3. one that is not ejected;
/// 4. the one whose ejection ends first, because a call that would fail otherwise may as well try it.
fn choose(
    candidates: &[Candidate],
    tried: &Tried,
    now: Instant,
    random: &mut impl rand::Rng,
) -> Option<Arc<Endpoint>> {
    let state = |candidate: &&Candidate| candidate.endpoint.state(now);
    let mut open: Vec<_> =
        candidates.iter().filter(|candidate| !matches!(state(candidate), State::Ejected(_))).collect();
    let fresh = |candidate: &&Candidate| !tried.contains(candidate.endpoint.address());
    if open.iter().any(fresh) {
        open.retain(fresh);
        if open.iter().any(|candidate| candidate.in_own_zone) {
            open.retain(|candidate| candidate.in_own_zone);
        }
    }
    let chosen = match open.as_slice() {
        [] => candidates.iter().min_by_key(|candidate| match state(candidate) {
            State::Ejected(until) => until,
            State::Open | State::Probe => now,
        }),
        [only] => Some(*only),
        several => {
            let one = random.random_range(0..several.len());
            let other = (one + random.random_range(1..several.len())) % several.len();
            let (one, other) = (several[one], several[other]);
            Some(if one.endpoint.cost(now) <= other.endpoint.cost(now) { one } else { other })
        }
    };
    chosen.map(|candidate| candidate.endpoint.clone())
}

/// Updates the endpoints whenever the instances change. Remaining endpoints keep their connection and their measured
/// load. Calls in flight to a removed endpoint continue.
async fn update(
    service: &'static str,
    mut instances: Instances,
    tls: Option<MutualTls>,
    endpoints: watch::Sender<Endpoints>,
) {
    loop {
        let addresses = instances.current();
        metrics::instances(service, addresses.len());
        let known = endpoints.borrow().clone();
        let next = addresses.iter().filter_map(|(address, zone)| {
            let known = known.iter().find(|known| **known.endpoint.address() == **address);
            let endpoint = known.map(|known| known.endpoint.clone()).or_else(|| {
                Endpoint::new(service, address, EJECTION, tls.clone())
                    .inspect_err(|error| tracing::warn!(service, %error, "ignoring an instance"))
                    .ok()
            })?;
            Some(Candidate { endpoint, in_own_zone: instances.is_own_zone(zone) })
        });
        endpoints.send_replace(next.collect());
        instances.changed().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;
    use std::collections::BTreeSet;

    fn candidates(in_own_zone: &[bool]) -> Vec<Candidate> {
        let policy = Policy { failures: 1, ..EJECTION };
        let endpoint = |n| Endpoint::new("test", &format!("127.0.0.1:{}", n + 1), policy, None).unwrap();
        in_own_zone
            .iter()
            .enumerate()
            .map(|(n, in_own_zone)| Candidate { endpoint: endpoint(n), in_own_zone: *in_own_zone })
            .collect()
    }

    /// Makes one call. It fails because no server listens at the address, and ejects the endpoint.
    async fn eject(candidate: &Candidate) {
        candidate.endpoint.clone().call(Request::new(Body::empty())).await;
        assert!(matches!(candidate.endpoint.state(Instant::now()), State::Ejected(_)));
    }

    /// The positions of the endpoints that 50 choices select while all are idle.
    fn chosen(set: &[Candidate], tried: &Tried) -> BTreeSet<usize> {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let choose = |_| choose(set, tried, Instant::now(), &mut random).unwrap();
        let position = |chosen: Arc<Endpoint>| {
            set.iter().position(|candidate| Arc::ptr_eq(&candidate.endpoint, &chosen)).unwrap()
        };
        (0..50).map(choose).map(position).collect()
    }

    #[tokio::test]
    async fn ejected_and_tried_endpoints_are_skipped() {
        let set = candidates(&[false; 3]);
        eject(&set[0]).await;
        let tried = Tried::default();
        tried.add(set[1].endpoint.address().clone());
        assert_eq!(chosen(&set, &tried), [2].into());
        eject(&set[2]).await;
        assert_eq!(chosen(&set, &tried), [1].into(), "it was tried, but is not ejected");
        eject(&set[1]).await;
        assert_eq!(chosen(&set, &tried).len(), 1, "with all ejected, one is tried");
        assert!(choose(&[], &tried, Instant::now(), &mut rand::rng()).is_none());
    }

    #[tokio::test]
    async fn p9_calls_leave_their_zone_only_when_no_endpoint_works_there() {
        let set = candidates(&[true, true, false, false]);
        let tried = Tried::default();
        assert_eq!(chosen(&set, &tried), [0, 1].into());
        eject(&set[0]).await;
        assert_eq!(chosen(&set, &tried), [1].into());
        tried.add(set[1].endpoint.address().clone());
        assert_eq!(chosen(&set, &tried), [2, 3].into(), "a retry uses an endpoint that was not tried");
        eject(&set[1]).await;
        assert_eq!(chosen(&set, &Tried::default()), [2, 3].into());
        eject(&set[2]).await;
        eject(&set[3]).await;
        assert_eq!(chosen(&set, &Tried::default()).len(), 1);
        let other_zones = candidates(&[false; 2]);
        assert_eq!(chosen(&other_zones, &Tried::default()), [0, 1].into(), "the own zone has no endpoint");
    }

    #[tokio::test]
    async fn concurrent_calls_spread_over_all_endpoints() {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let set = candidates(&[false; 3]);
        let mut calls = Vec::new();
        for _ in 0..30 {
            let chosen = choose(&set, &Tried::default(), Instant::now(), &mut random).unwrap();
            calls.push(chosen.call(Request::new(Body::empty())));
        }
        let costs: Vec<_> = set.iter().map(|candidate| candidate.endpoint.cost(Instant::now())).collect();
        assert!(costs.iter().all(|cost| (6.0..=14.0).contains(cost)), "{costs:?}");
        drop(calls);
    }
}
