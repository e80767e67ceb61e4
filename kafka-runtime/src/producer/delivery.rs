//! Calls each delivery callback exactly once.

use super::{OnDelivery, ProduceError};
use crate::record::Position;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// A callback that is called once: by [`answer`](Self::answer), or with [`ProduceError::Closed`] on drop. The mutex is never
/// contended; it makes the callback `Sync`, which the Kafka client requires.
pub(crate) struct Delivery(Mutex<Option<OnDelivery>>);

impl Delivery {
    pub(crate) fn new(callback: OnDelivery) -> Self {
        Self(Mutex::new(Some(callback)))
    }

    pub(crate) fn answer(mut self, result: Result<Position, ProduceError>) {
        self.call(result);
    }

    /// Drops the callback without a call, for a record that was not accepted.
    #[cfg(any(test, feature = "embedded"))]
    pub(crate) fn forget(mut self) {
        self.take();
    }

    fn take(&mut self) -> Option<OnDelivery> {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn call(&mut self, result: Result<Position, ProduceError>) {
        let Some(callback) = self.take() else { return };
        // The callback runs on a thread that serves all records, which must survive a panic.
        if catch_unwind(AssertUnwindSafe(|| callback(result))).is_err() {
            tracing::error!("a delivery callback panicked");
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.call(Err(ProduceError::Closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    type Answers = Arc<Mutex<Vec<Result<Position, ProduceError>>>>;

    fn counting() -> (Answers, Delivery) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        (seen, Delivery::new(Box::new(move |result| sink.lock().unwrap().push(result))))
    }

    #[test]
    fn a_dropped_delivery_is_answered_closed() {
        let (seen, delivery) = counting();
        drop(delivery);
        assert_eq!(*seen.lock().unwrap(), [Err(ProduceError::Closed)]);
    }

    #[test]
    fn an_answered_delivery_is_not_answered_again() {
        let (seen, delivery) = counting();
        delivery.answer(Err(ProduceError::TimedOut));
        assert_eq!(*seen.lock().unwrap(), [Err(ProduceError::TimedOut)]);
    }

    #[test]
    fn a_forgotten_delivery_is_not_answered() {
        let (seen, delivery) = counting();
        delivery.forget();
        assert!(seen.lock().unwrap().is_empty());
    }

    #[test]
    fn a_panicking_callback_does_not_end_its_thread() {
        Delivery::new(Box::new(|_| panic!("in the callback"))).answer(Err(ProduceError::TimedOut));
    }
}
