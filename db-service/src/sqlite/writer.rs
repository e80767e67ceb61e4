//! The writer: a thread that takes all calls from a bounded queue and runs them in one transaction (group commit).
//!
//! While a transaction is being synced, further calls queue up and share the next one. At a low rate each call has its own
//! transaction. A short call that needs no sync runs on the caller's thread if the writer is idle: waking two threads would
//! take several times as long as the call.

use super::conversations::ConversationCache;
use crate::{
    disk::Disk,
    error::{Error, Result},
    metrics,
};
use abi::ApiError;
use rusqlite::Connection;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};

const QUEUE_CAPACITY: usize = 64;
const MAX_CALLS_PER_TRANSACTION: usize = 16;
/// A call that waits longer for room in the queue fails.
const ENQUEUE_TIMEOUT: Duration = Duration::from_secs(5);

/// A transaction, as a call uses it.
pub(super) struct Tx<'a> {
    /// The connection, inside the transaction.
    pub(super) conn: &'a Connection,
    /// Conversations as this transaction sees them.
    pub(super) conversations: &'a mut ConversationCache,
}

/// The handle of the writer thread.
pub(super) struct Writer {
    /// `None` only during the drop.
    queue: Option<mpsc::Sender<Job>>,
    state: Arc<Mutex<State>>,
    disk: Arc<Disk>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    /// Whether the commit needs an fsync.
    durable: bool,
    work: Box<dyn Work>,
}

trait Work: Send {
    /// Runs the call. An error rolls the whole transaction back.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
    /// Replies to the caller after the commit or the rollback.
    fn reply(self: Box<Self>, committed: Result<(), ApiError>);
}

/// A call from [`Writer::call`].
struct Call<F, T> {
    /// `None` once it has run.
    work: Option<F>,
    /// The result. It is sent only after the commit.
    output: Option<Result<T>>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Work for Call<F, T>
where
    F: FnOnce(&mut Tx<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()> {
        let work = self.work.take().expect("a call is run once");
        match work(tx) {
            Err(error) if !matches!(error, Error::ApiError(_)) => Err(error),
            output => {
                self.output = Some(output);
                Ok(())
            }
        }
    }

    fn reply(self: Box<Self>, committed: Result<(), ApiError>) {
        let reply = match (committed, self.output) {
            (Ok(()), Some(output)) => output,
            (Err(error), _) => Err(error.into()),
            (Ok(()), None) => Err(Error::Stopped),
        };
        // The caller may be gone.
        drop(self.reply.send(reply));
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(conn: Connection) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE_CAPACITY);
        let conversations = ConversationCache::default();
        let disk = Arc::<Disk>::default();
        let state = State {
            conn,
            conversations,
            commits_with_fsync: true,
            has_unsynced_commits: true,
            disk: Arc::clone(&disk),
        };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let thread = Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&shared, jobs))
            .map_err(|_| Error::Stopped)?;
        Ok(Self { queue: Some(queue), state, disk, thread: Some(thread) })
    }

    /// Whether the disk accepts writes; otherwise the reason, for operators.
    pub(super) fn health(&self) -> Result<(), String> {
        self.disk.health()
    }

    /// Like [`call`](Self::call) without `durable`, but on this thread if the writer is idle. For work of a few microseconds.
    pub(super) async fn call_inline<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.try_inline(work) {
            Ok(output) => output,
            Err(work) => self.call(false, work).await,
        }
    }

    /// Runs `work` on this thread if the writer is idle. Otherwise returns `work`.
    fn try_inline<T, F: FnOnce(&mut Tx<'_>) -> Result<T>>(&self, work: F) -> Result<Result<T>, F> {
        let is_idle = self.queue.as_ref().is_some_and(|queue| queue.capacity() == QUEUE_CAPACITY);
        let Some(mut state) = self.state.try_lock().ok().filter(|_| is_idle) else { return Err(work) };
        let begun = Instant::now();
        let mut output = None;
        let committed = state.transact(false, |tx| match work(tx) {
            Err(error) if !matches!(error, Error::ApiError(_)) => Err(error),
            done_or_refused => {
                output = Some(done_or_refused);
                Ok(())
            }
        });
        metrics::committed(1, begun.elapsed());
        Ok(committed.and_then(|()| output.unwrap_or(Err(Error::Stopped))))
    }

    /// Runs `work` in a transaction. With `durable`, this commit and all earlier ones are synced when it returns.
    ///
    /// `work` may return [`Error::ApiError`] only before its first write, because other calls share the transaction. Any other
    /// error rolls all of them back.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call { work: Some(work), output: None, reply });
        let queue = self.queue.as_ref().ok_or(Error::Stopped)?;
        queue.send_timeout(Job { durable, work }, ENQUEUE_TIMEOUT).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Error::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => Error::Stopped,
        })?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

impl Drop for Writer {
    /// Waits until the thread has finished its queue, so that every accepted call is in the file.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the writer thread of the store panicked");
        }
    }
}

/// The connection and the state that belongs to it. The lock serializes transactions.
struct State {
    conn: Connection,
    conversations: ConversationCache,
    /// Whether the connection is set to commit with an fsync.
    commits_with_fsync: bool,
    /// Whether there may be commits since the last fsync.
    has_unsynced_commits: bool,
    disk: Arc<Disk>,
}

fn run(state: &Mutex<State>, mut queue: mpsc::Receiver<Job>) {
    let mut jobs: Vec<Job> = Vec::with_capacity(MAX_CALLS_PER_TRANSACTION);
    while let Some(job) = queue.blocking_recv() {
        jobs.push(job);
        while jobs.len() < MAX_CALLS_PER_TRANSACTION
            && let Ok(job) = queue.try_recv()
        {
            jobs.push(job);
        }
        let begun = Instant::now();
        let durable = jobs.iter().any(|job| job.durable);
        let committed = lock(state)
            .transact(durable, |tx| jobs.iter_mut().try_for_each(|job| job.work.run(tx)))
            .map_err(ApiError::from);
        metrics::committed(jobs.len(), begun.elapsed());
        for job in jobs.drain(..) {
            job.work.reply(committed.clone());
        }
    }
}

/// Ignores poisoning: after a panic in a transaction, the next one begins with a rollback.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Runs `work` in a transaction. An error rolls it back.
    fn transact(&mut self, durable: bool, work: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        if !self.conn.is_autocommit() {
            self.roll_back();
        }
        let committed = self.try_transact(durable, work);
        self.disk.observe(&committed);
        if committed.is_err() {
            self.roll_back();
        }
        committed
    }

    fn try_transact(&mut self, durable: bool, work: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        // SQLite ignores this pragma inside a transaction.
        if durable != self.commits_with_fsync {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.commits_with_fsync = durable;
        }
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        work(&mut Tx { conn: &self.conn, conversations: &mut self.conversations })?;
        if durable && self.has_unsynced_commits {
            // SQLite syncs only if the transaction has written something.
            self.conn.prepare_cached("UPDATE synced SET times = times + 1")?.execute([])?;
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.has_unsynced_commits = !durable;
        Ok(())
    }

    /// Cleans up after an error. Some errors of SQLite have ended the transaction already.
    fn roll_back(&mut self) {
        self.conversations.clear();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}
