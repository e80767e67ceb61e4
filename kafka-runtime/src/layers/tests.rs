use super::*;
use crate::{Backoff, Batch, HandlerError, Outcome, RetryPolicy};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tower::{ServiceBuilder, ServiceExt};

fn batch() -> Batch {
    Batch { topic: "t".into(), partition: 0, records: Default::default(), follows: None, attempt: 1 }
}

#[tokio::test(start_paused = true)]
async fn a_call_past_its_deadline_is_retryable() {
    let slow = |_: Batch| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Ok::<_, HandlerError>(Outcome::default())
    };
    let service = |seconds| {
        ServiceBuilder::new().layer(DeadlineLayer::new(Duration::from_secs(seconds))).service_fn(slow)
    };
    let error = service(2).oneshot(batch()).await.unwrap_err();
    assert!(error.is_retryable());
    assert_eq!(error.to_string(), "the handler took longer than 2s");
    assert!(service(4).oneshot(batch()).await.is_ok());
}

#[tokio::test]
async fn a_panic_becomes_an_error_in_the_call_and_in_the_future() {
    let in_the_future = |_: Batch| async { panic!("in the future") };
    let in_the_call =
        |_: Batch| -> std::future::Ready<Result<Outcome, HandlerError>> { panic!("in the call") };
    let one = ServiceBuilder::new().layer(CatchPanicLayer).service_fn(in_the_future);
    let one: Result<Outcome, HandlerError> = one.oneshot(batch()).await;
    let two = ServiceBuilder::new().layer(CatchPanicLayer).service_fn(in_the_call).oneshot(batch()).await;
    for (error, place) in [(one.unwrap_err(), "future"), (two.unwrap_err(), "call")] {
        assert!(error.is_retryable());
        assert_eq!(error.to_string(), format!("the handler panicked: in the {place}"));
    }
}

/// Whether a call with three attempts succeeds, and the calls it takes, if the handler fails `failures` times with `make`.
async fn retried(failures: u32, make: fn(&'static str) -> HandlerError) -> (bool, u32) {
    let policy = RetryPolicy { attempts: NonZeroU32::new(3), backoff: Backoff::default() };
    let calls = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&calls);
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service_fn(move |_: Batch| {
        let call = count.fetch_add(1, Ordering::SeqCst);
        async move { if call < failures { Err(make("not now")) } else { Ok(Outcome::default()) } }
    });
    let result = service.oneshot(batch()).await;
    (result.is_ok(), calls.load(Ordering::SeqCst))
}

#[tokio::test(start_paused = true)]
async fn only_retryable_errors_are_retried_up_to_the_limit() {
    assert_eq!(retried(2, HandlerError::retry).await, (true, 3));
    assert_eq!(retried(3, HandlerError::retry).await, (false, 3));
    assert_eq!(retried(1, HandlerError::reject).await, (false, 1));
}

#[tokio::test(start_paused = true)]
async fn all_clones_share_the_concurrency_limit() {
    let (running, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (now, seen) = (Arc::clone(&running), Arc::clone(&most));
    let service = ServiceBuilder::new().layer(ConcurrencyLayer::new(2)).service_fn(move |_: Batch| {
        let (now, seen) = (Arc::clone(&now), Arc::clone(&seen));
        async move {
            seen.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(10)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, HandlerError>(Outcome::default())
        }
    });
    let calls = (0..6).map(|_| service.clone().oneshot(batch()));
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(most.load(Ordering::SeqCst), 2);
}
