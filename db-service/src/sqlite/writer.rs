//! The one writer: a thread that takes calls from a bounded queue and makes one transaction of all that wait.
//!
//! While a transaction is synced, others queue up and share the next one; at low rate a call is a transaction of its own.
//! A short call that waits for no disk, when the thread has nothing to do, runs where it is made: waking two threads would
//! cost several times what it does.

use super::heads::Heads;
use crate::{
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

/// Calls that may wait.
const QUEUE: usize = 64;
/// Most calls in one transaction.
const SHARED: usize = 16;
/// A call that finds no place in the queue by then fails.
const WAIT: Duration = Duration::from_secs(5);

/// What a call works with.
pub(super) struct Tx<'a> {
    /// In the midst of the transaction.
    pub(super) conn: &'a Connection,
    /// Where the conversations stand; always what the transaction sees.
    pub(super) heads: &'a mut Heads,
}

/// The writer's end for those who call.
pub(super) struct Writer {
    /// `None` only while it is dropped.
    queue: Option<mpsc::Sender<Job>>,
    state: Arc<Mutex<State>>,
    thread: Option<JoinHandle<()>>,
}

struct Job {
    /// Must survive a power cut.
    durable: bool,
    work: Box<dyn Work>,
}

trait Work: Send {
    /// Does it. An error undoes the whole transaction.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<()>;
    /// The transaction is committed, or was undone.
    fn answer(self: Box<Self>, committed: Result<(), ApiError>);
}

/// `work` becomes `output`, which is sent once it is committed.
struct Call<F, T> {
    work: Option<F>,
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

    fn answer(self: Box<Self>, committed: Result<(), ApiError>) {
        let answer = match (committed, self.output) {
            (Ok(()), Some(output)) => output,
            (Err(fault), _) => Err(fault.into()),
            (Ok(()), None) => Err(Error::Stopped),
        };
        // Whoever asked may have gone.
        drop(self.reply.send(answer));
    }
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(conn: Connection) -> Result<Self> {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let state = State { conn, heads: Heads::default(), is_full: true, unsynced: true };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let thread = Builder::new()
            .name("store-writer".into())
            .spawn(move || run(&shared, jobs))
            .map_err(|_| Error::Stopped)?;
        Ok(Self { queue: Some(queue), state, thread: Some(thread) })
    }

    /// Like [`call`](Self::call), not durable, for work of microseconds.
    pub(super) async fn short_call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match self.run_here(work) {
            Ok(output) => output,
            Err(work) => self.call(false, work).await,
        }
    }

    /// Runs `work` on this thread if the writer rests, or gives it back.
    fn run_here<T, F: FnOnce(&mut Tx<'_>) -> Result<T>>(&self, work: F) -> Result<Result<T>, F> {
        let rests = self.queue.as_ref().is_some_and(|queue| queue.capacity() == QUEUE);
        let Some(mut state) = self.state.try_lock().ok().filter(|_| rests) else { return Err(work) };
        let begun = Instant::now();
        let mut output = None;
        let committed = state.transact(false, |tx| match work(tx) {
            Err(error) if !matches!(error, Error::ApiError(_)) => Err(error),
            refused_or_done => {
                output = Some(refused_or_done);
                Ok(())
            }
        });
        metrics::committed(1, begun.elapsed());
        Ok(committed.and_then(|()| output.unwrap_or(Err(Error::Stopped))))
    }

    /// Runs `work` in a transaction; with `durable` it has been synced when this returns, and all before it.
    ///
    /// `work` may refuse with [`Error::ApiError`] only before it writes: other calls share the transaction. Any other
    /// error undoes it for all of them.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        durable: bool,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let work = Box::new(Call { work: Some(work), output: None, reply });
        let queue = self.queue.as_ref().ok_or(Error::Stopped)?;
        queue.send_timeout(Job { durable, work }, WAIT).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => Error::Busy,
            mpsc::error::SendTimeoutError::Closed(_) => Error::Stopped,
        })?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}

impl Drop for Writer {
    /// Lets the thread finish its queue and close the file: whoever opens it next finds everything.
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread panicked");
        }
    }
}

/// What one transaction at a time has.
struct State {
    conn: Connection,
    heads: Heads,
    /// The connection commits with an fsync.
    is_full: bool,
    /// There may be commits without an fsync since the last one with it.
    unsynced: bool,
}

fn run(state: &Mutex<State>, mut queue: mpsc::Receiver<Job>) {
    let mut jobs: Vec<Job> = Vec::with_capacity(SHARED);
    while let Some(job) = queue.blocking_recv() {
        jobs.push(job);
        while jobs.len() < SHARED
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
            job.work.answer(committed.clone());
        }
    }
}

/// A panic in the midst of a transaction leaves it open, and the next one undoes it.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl State {
    /// Runs `work` in a transaction, which is undone if that fails.
    fn transact(&mut self, durable: bool, work: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        if !self.conn.is_autocommit() {
            self.undo();
        }
        let committed = self.try_transact(durable, work);
        if committed.is_err() {
            self.undo();
        }
        committed
    }

    fn try_transact(&mut self, durable: bool, work: impl FnOnce(&mut Tx<'_>) -> Result<()>) -> Result<()> {
        // Can't be changed within a transaction.
        if durable != self.is_full {
            let level = if durable { "FULL" } else { "NORMAL" };
            self.conn.pragma_update(None, "synchronous", level)?;
            self.is_full = durable;
        }
        self.conn.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        work(&mut Tx { conn: &self.conn, heads: &mut self.heads })?;
        if durable && self.unsynced {
            // SQLite syncs nothing if the transaction wrote nothing.
            self.conn.prepare_cached("UPDATE synced SET times = times + 1")?.execute([])?;
        }
        self.conn.prepare_cached("COMMIT")?.execute([])?;
        self.unsynced = !durable;
        Ok(())
    }

    /// After an error, which may have ended the transaction or not.
    fn undo(&mut self) {
        self.heads.clear();
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a transaction can't be undone");
        }
    }
}
