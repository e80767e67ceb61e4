//! Read marks, coalesced: a device marks what it shows, often many entries per second, and all members of a group mark the same
//! entry. The marks of all users of this gateway are collected and stored with one statement at most every 200 ms.

use super::{Updates, UserUpdate};
use crate::dependencies::DbClient;
use abi::{
    ApiError,
    v1::{MarkReadRequest, MarkedRead, ReadMark, ReadPosition, Receipt, update::Kind},
};
use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Mutex as TurnMutex, oneshot},
    time::{Instant, sleep_until},
};

/// Shortest time between two batches. The first mark after a pause is stored at once.
const INTERVAL: Duration = Duration::from_millis(200);
/// Most marks in a batch. Further ones are refused: the devices repeat them.
const MAX_MARKS: usize = 10_000;

type Answer = Result<ReadPosition, ApiError>;

/// The collected marks, by user and conversation: the furthest position, and who waits for the answer.
type Collected = HashMap<(String, String), (u64, Vec<oneshot::Sender<Answer>>)>;

/// Stores read marks.
pub(super) struct ReadMarks {
    app: String,
    db: DbClient,
    updates: Arc<Updates>,
    collected: Mutex<Collected>,
    /// When the last batch began. The holder stores the next batch.
    turn: TurnMutex<Option<Instant>>,
}

impl ReadMarks {
    pub(super) fn new(app: &str, db: DbClient, updates: Arc<Updates>) -> Self {
        Self { app: app.into(), db, updates, collected: Mutex::default(), turn: TurnMutex::new(None) }
    }

    fn collected(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mark to the next batch and waits until that is stored.
    pub(super) async fn mark(&self, user: &str, conversation: String, seq: u64) -> Answer {
        let mut answer = self.collect(user, conversation, seq)?;
        // Every waiter takes its turn; most find their mark stored by an earlier one.
        let mut last = self.turn.lock().await;
        if let Ok(answer) = answer.try_recv() {
            return answer;
        }
        if let Some(last) = *last {
            sleep_until(last + INTERVAL).await;
        }
        *last = Some(Instant::now());
        let batch = mem::take(&mut *self.collected());
        self.store(batch).await;
        drop(last);
        answer.await.unwrap_or_else(|_| Err(ApiError::unavailable("the mark was not stored; send it again")))
    }

    fn collect(
        &self,
        user: &str,
        conversation: String,
        seq: u64,
    ) -> Result<oneshot::Receiver<Answer>, ApiError> {
        let mut collected = self.collected();
        if collected.len() >= MAX_MARKS {
            return Err(ApiError::unavailable("the server has too many read marks to store; try again"));
        }
        let (sender, receiver) = oneshot::channel();
        let (furthest, waiting) = collected.entry((user.to_owned(), conversation)).or_default();
        *furthest = (*furthest).max(seq);
        waiting.push(sender);
        Ok(receiver)
    }

    async fn store(&self, batch: Collected) {
        let (keys, marks): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let mark = |((user, conversation), (seq, _)): (&(String, String), &(u64, _))| ReadMark {
            user: user.clone(),
            conversation: conversation.clone(),
            conversation_seq: *seq,
        };
        let request =
            MarkReadRequest { app: self.app.clone(), marks: keys.iter().zip(&marks).map(mark).collect() };
        let answers = match self.db.clone().mark_read(request).await.map_err(ApiError::from) {
            Ok(stored) => self.announce(&keys, stored.into_inner().marked).await,
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        for ((_, waiting), answer) in marks.into_iter().zip(answers) {
            for sender in waiting {
                // The connection may have ended.
                let _ = sender.send(answer.clone());
            }
        }
    }

    /// Counts and pushes the new positions to the readers, and receipts to the authors. Returns the answers.
    async fn announce(&self, keys: &[(String, String)], marked: Vec<MarkedRead>) -> Vec<Answer> {
        let mut updates = Vec::new();
        let mut answers = Vec::with_capacity(keys.len());
        for ((user, conversation), marked) in keys.iter().zip(marked) {
            answers.push(match (marked.position, marked.error) {
                (Some(position), _) => {
                    updates.push(UserUpdate {
                        user: user.clone(),
                        subject: conversation.clone(),
                        kind: Kind::Read(position.clone()),
                    });
                    let receipt = Receipt {
                        conversation: conversation.clone(),
                        user: user.clone(),
                        conversation_seq: position.read_seq,
                    };
                    updates.extend(marked.authors.into_iter().map(|author| UserUpdate {
                        user: author,
                        subject: conversation.clone(),
                        kind: Kind::Receipt(receipt.clone()),
                    }));
                    Ok(position)
                }
                (None, Some(error)) => Err(error.into()),
                (None, None) => Err(ApiError::unavailable("the mark was not stored; send it again")),
            });
        }
        answers.resize(keys.len(), Err(ApiError::unavailable("the mark was not stored; send it again")));
        match self.updates.many(updates).await {
            Ok(()) => answers,
            Err(error) => answers.into_iter().map(|answer| answer.and(Err(error.clone()))).collect(),
        }
    }
}
