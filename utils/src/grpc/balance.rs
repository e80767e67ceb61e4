//! Chooses an endpoint: the less loaded of two taken at random, in the caller's own zone while one works there.

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
    Policy { after: 3, first: Duration::from_millis(500), most: Duration::from_secs(10) };
/// A call that finds no instance at all waits so long for one: discovery may not have answered yet.
const FIRST_INSTANCE: Duration = Duration::from_millis(500);

type Endpoints = Arc<[Candidate]>;

#[derive(Clone, Debug)]
struct Candidate {
    endpoint: Arc<Endpoint>,
    /// In the zone of who calls.
    near: bool,
}

/// Sends each call to one of the instances. A clone is the same balancer.
#[derive(Clone, Debug)]
pub(super) struct Balance {
    service: &'static str,
    endpoints: watch::Receiver<Endpoints>,
    /// Follows the set whether or not a call is made; ends with the last clone.
    _follower: Arc<JoinSet<()>>,
}

impl Balance {
    pub(super) fn new(service: &'static str, instances: Instances, tls: Option<MutualTls>) -> Self {
        metrics::calls(service);
        let (sender, endpoints) = watch::channel(Endpoints::default());
        let mut follower = JoinSet::new();
        follower.spawn(follow(service, instances, tls, sender));
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

/// An endpoint that takes calls and was not tried yet, a near one if there is any; or else one that takes calls; or else the
/// one whose ejection ends first, since with everything ejected nothing is lost by trying.
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
        if open.iter().any(|candidate| candidate.near) {
            open.retain(|candidate| candidate.near);
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

/// Keeps the endpoints in step with the instances. Those that stay keep their connection and what is known of them;
/// calls in flight to one that goes are not cut off.
async fn follow(
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
                    .inspect_err(|error| tracing::warn!(service, %error, "instance passed over"))
                    .ok()
            })?;
            Some(Candidate { endpoint, near: instances.is_near(zone) })
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

    fn candidates(near: &[bool]) -> Vec<Candidate> {
        let policy = Policy { after: 1, ..EJECTION };
        let endpoint = |n| Endpoint::new("test", &format!("127.0.0.1:{}", n + 1), policy, None).unwrap();
        near.iter().enumerate().map(|(n, near)| Candidate { endpoint: endpoint(n), near: *near }).collect()
    }

    /// Nobody listens there, so one call ejects.
    async fn eject(candidate: &Candidate) {
        candidate.endpoint.clone().call(Request::new(Body::empty())).await;
        assert!(matches!(candidate.endpoint.state(Instant::now()), State::Ejected(_)));
    }

    /// Who is chosen when nobody is busy, of so many choices.
    fn chosen(set: &[Candidate], tried: &Tried) -> BTreeSet<usize> {
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let choose = |_| choose(set, tried, Instant::now(), &mut random).unwrap();
        let position = |chosen: Arc<Endpoint>| {
            set.iter().position(|candidate| Arc::ptr_eq(&candidate.endpoint, &chosen)).unwrap()
        };
        (0..50).map(choose).map(position).collect()
    }

    #[tokio::test]
    async fn an_endpoint_that_is_ejected_or_was_tried_is_passed_over() {
        let set = candidates(&[false; 3]);
        eject(&set[0]).await;
        let tried = Tried::default();
        tried.add(set[1].endpoint.address().clone());
        assert_eq!(chosen(&set, &tried), [2].into());
        eject(&set[2]).await;
        assert_eq!(chosen(&set, &tried), [1].into(), "tried, but not ejected");
        eject(&set[1]).await;
        assert_eq!(chosen(&set, &tried).len(), 1, "with all ejected, one is tried");
        assert!(choose(&[], &tried, Instant::now(), &mut rand::rng()).is_none());
    }

    #[tokio::test]
    async fn p9_calls_stay_in_their_zone_while_an_endpoint_works_there_and_leave_it_when_none_does() {
        let set = candidates(&[true, true, false, false]);
        let tried = Tried::default();
        assert_eq!(chosen(&set, &tried), [0, 1].into());
        eject(&set[0]).await;
        assert_eq!(chosen(&set, &tried), [1].into());
        tried.add(set[1].endpoint.address().clone());
        assert_eq!(chosen(&set, &tried), [2, 3].into(), "a second try goes where none was made");
        eject(&set[1]).await;
        assert_eq!(chosen(&set, &Tried::default()), [2, 3].into());
        eject(&set[2]).await;
        eject(&set[3]).await;
        assert_eq!(chosen(&set, &Tried::default()).len(), 1);
        assert_eq!(chosen(&candidates(&[false; 2]), &Tried::default()), [0, 1].into(), "nobody is near");
    }

    #[tokio::test]
    async fn calls_in_flight_spread_over_all() {
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
