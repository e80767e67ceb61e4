//! Who has blocked whom, as the gateway needs it for each message.
//!
//! The store decides. Its answers are remembered for a short time, so that a message costs no call. If the store does not answer,
//! the last answer is used for longer: messages can be sent while db-service is away.

use crate::{dependencies::DbClient, request_tasks::RequestTasks};
use abi::{ApiError, v1::FindBlockersRequest};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// For this long an answer is used without asking again. A block is in force at other gateways after this time.
const FRESH: Duration = Duration::from_secs(5);
/// For this long an answer is used if the store does not answer.
const USABLE: Duration = Duration::from_secs(600);
/// How long a message waits for the store if an older answer is at hand.
const PATIENCE: Duration = Duration::from_millis(20);
/// Most answers that are remembered. When the map is full it is cleared.
const MAX_ANSWERS: usize = 100_000;

/// An answer of the store.
#[derive(Clone, Copy, Debug)]
struct Answer {
    is_blocked: bool,
    /// When the answer is asked for again.
    fresh_until: Instant,
    usable_until: Instant,
}

/// The remembered answers, by blocked user and user who may have blocked.
#[derive(Debug)]
pub struct Blocks {
    app: String,
    db: DbClient,
    answers: Mutex<HashMap<(String, String), Answer>>,
    tasks: RequestTasks,
}

impl Blocks {
    pub(crate) fn new(app: &str, db: DbClient) -> Self {
        Self { app: app.into(), db, answers: Mutex::default(), tasks: RequestTasks::default() }
    }

    fn answers(&self) -> MutexGuard<'_, HashMap<(String, String), Answer>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that `other` has not blocked `user`.
    ///
    /// # Errors
    /// `FORBIDDEN` if so; those of db-service if it has to be asked.
    pub async fn check(self: &Arc<Self>, user: &str, other: &str) -> Result<(), ApiError> {
        if user != other && self.is_blocked(user, other).await? {
            return Err(ApiError::forbidden(format!("{other} does not accept messages from you")));
        }
        Ok(())
    }

    async fn is_blocked(self: &Arc<Self>, user: &str, other: &str) -> Result<bool, ApiError> {
        let (key, now) = ((user.to_owned(), other.to_owned()), Instant::now());
        let known = self.answers().get(&key).copied();
        let usable = known.filter(|answer| now < answer.usable_until);
        let Some(answer) = usable else {
            return Ok(!self.blockers(user, &[key.1]).await?.is_empty());
        };
        if now < answer.fresh_until {
            return Ok(answer.is_blocked);
        }
        // While the store hangs, only one message per interval asks.
        self.answers().insert(key.clone(), Answer { fresh_until: now + FRESH, ..answer });
        let blocks = self.clone();
        let asked = async move {
            let (user, other) = key;
            blocks.blockers(&user, &[other]).await
        };
        // An answer that comes later than this message can wait counts for the next one.
        match timeout(PATIENCE, self.tasks.complete(asked)).await {
            Ok(Ok(blockers)) => Ok(!blockers.is_empty()),
            _ => Ok(answer.is_blocked),
        }
    }

    /// Those of `others` who have blocked `user`.
    ///
    /// # Errors
    /// Those of db-service.
    pub async fn blockers(&self, user: &str, others: &[String]) -> Result<HashSet<String>, ApiError> {
        if others.is_empty() {
            return Ok(HashSet::new());
        }
        let request =
            FindBlockersRequest { app: self.app.clone(), blocked: user.to_owned(), by: others.to_vec() };
        let found = self.db.clone().find_blockers(request).await?.into_inner().by;
        let blockers: HashSet<String> = found.into_iter().collect();
        for other in others {
            self.remember(user, other, blockers.contains(other));
        }
        Ok(blockers)
    }

    /// Remembers that `other` has blocked or unblocked `user`.
    pub fn remember(&self, user: &str, other: &str, is_blocked: bool) {
        let now = Instant::now();
        let answer = Answer { is_blocked, fresh_until: now + FRESH, usable_until: now + USABLE };
        let mut answers = self.answers();
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert((user.to_owned(), other.to_owned()), answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use abi::{Caller, Channel, error::ErrorCode, v1::FindBlockersResponse};
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, Request, Response, header};
    use http_body_util::{BodyExt as _, Full};
    use prost::Message as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::time::sleep;
    use tonic::body::Body;
    use tower::{service_fn, util::BoxCloneSyncService};

    /// A store that answers after `delay`. While `blocked` is set, bob has blocked everyone.
    fn store(delay: Duration, blocked: Arc<AtomicBool>) -> Channel {
        BoxCloneSyncService::new(service_fn(move |_: Request<Body>| {
            let blocked = blocked.clone();
            async move {
                let by = if blocked.load(Ordering::Relaxed) { vec!["bob".to_owned()] } else { Vec::new() };
                sleep(delay).await;
                let message = FindBlockersResponse { by }.encode_to_vec();
                // The prefix of gRPC: not compressed, and the length.
                let framed = [&[0, 0, 0, 0, message.len() as u8], &*message].concat();
                let status = HeaderMap::from_iter([("grpc-status".parse()?, HeaderValue::from(0))]);
                let body = Full::new(Bytes::from(framed)).with_trailers(std::future::ready(Some(Ok(status))));
                Ok(Response::builder()
                    .header(header::CONTENT_TYPE, "application/grpc")
                    .body(Body::new(body))?)
            }
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn p8_an_answer_that_a_message_did_not_wait_for_counts_for_the_next_one() {
        let blocked = Arc::<AtomicBool>::default();
        let db = DbClient::new(Caller::new(store(PATIENCE * 5, blocked.clone())));
        let blocks = Arc::new(Blocks::new("default", db));
        blocks.check("alice", "bob").await.unwrap();
        blocked.store(true, Ordering::Relaxed);
        blocks.check("alice", "bob").await.expect("the answer is fresh");
        sleep(FRESH).await;
        blocks.check("alice", "bob").await.expect("the message does not wait for a slow store");
        sleep(PATIENCE * 5).await;
        let error = blocks.check("alice", "bob").await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Forbidden);
    }
}
