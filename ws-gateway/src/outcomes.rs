//! The outcomes of entries that the store decides: who waits for one, and the arrival of it.
//!
//! The consumer learns the outcome when it saves the entry, and sends it to the gateway named in the record. An outcome can get
//! lost; a waiter therefore also asks the store from time to time.

use abi::v1::{Outcome, SaveResult};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

type Waiting = HashMap<String, (watch::Sender<Option<SaveResult>>, usize)>;

/// The waiters of this gateway, by message id. A clone shares them.
#[derive(Clone, Debug, Default)]
pub struct Outcomes(Arc<Mutex<Waiting>>);

impl Outcomes {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code panics while it holds the lock, so the map is consistent even if the lock is poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for the outcome of an entry. Call it before the entry is logged. Several callers may wait for one entry.
    pub fn expect(&self, message_id: &str) -> Expected {
        let mut waiting = self.waiting();
        let (sender, waiters) =
            waiting.entry(message_id.to_owned()).or_insert_with(|| (watch::Sender::new(None), 0));
        *waiters += 1;
        let receiver = sender.subscribe();
        drop(waiting);
        Expected { outcomes: self.clone(), message_id: message_id.to_owned(), receiver }
    }

    /// Hands an outcome to whoever waits for it.
    pub fn arrived(&self, outcome: Outcome) {
        if let Some((sender, _)) = self.waiting().get(&outcome.message_id) {
            sender.send_replace(outcome.result);
        }
    }
}

/// Waits for one outcome. Dropping it ends the wait.
#[derive(Debug)]
pub struct Expected {
    outcomes: Outcomes,
    message_id: String,
    receiver: watch::Receiver<Option<SaveResult>>,
}

impl Expected {
    /// The outcome, once it has arrived. May be called again if it was cancelled.
    pub async fn arrival(&mut self) -> SaveResult {
        let arrived = self.receiver.wait_for(Option::is_some).await.map(|result| result.clone());
        match arrived {
            Ok(result) => result.unwrap_or_default(),
            // The sender lives as long as someone waits.
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        let mut waiting = self.outcomes.waiting();
        if let Some((_, waiters)) = waiting.get_mut(&self.message_id) {
            *waiters -= 1;
            if *waiters == 0 {
                waiting.remove(&self.message_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    fn outcome(message_id: &str, conversation_seq: u64) -> Outcome {
        let result = SaveResult { conversation_seq, ..SaveResult::default() };
        Outcome { gateway: String::new(), message_id: message_id.into(), result: Some(result) }
    }

    #[tokio::test]
    async fn every_waiter_of_an_entry_gets_its_outcome() {
        let outcomes = Outcomes::default();
        let (mut first, mut second) = (outcomes.expect("a"), outcomes.expect("a"));
        outcomes.arrived(outcome("b", 1));
        outcomes.arrived(outcome("a", 2));
        assert_eq!(first.arrival().await.conversation_seq, 2);
        drop(first);
        assert_eq!(second.arrival().await.conversation_seq, 2);
    }

    #[tokio::test]
    async fn p7_nothing_is_kept_after_the_last_waiter() {
        let outcomes = Outcomes::default();
        let mut waiter = outcomes.expect("a");
        timeout(Duration::from_millis(1), waiter.arrival()).await.unwrap_err();
        drop(waiter);
        assert!(outcomes.waiting().is_empty());
        outcomes.arrived(outcome("a", 1));
        assert!(outcomes.waiting().is_empty());
    }
}
