//! Wakes senders at fixed times.
//!
//! It runs on a thread of its own, because the runtime's timer has a resolution of 1 ms, which is longer than a message
//! takes.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// When messages are due. Message `k` of sender `p` is number `k * senders + p` of the run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    pub(super) rate: u32,
    pub(super) senders: u32,
    pub(super) total: u64,
}

impl Schedule {
    pub(super) fn new(rate: u32, senders: usize, seconds: u32) -> Self {
        let senders = u32::try_from(senders).unwrap_or(u32::MAX);
        Self { rate, senders, total: u64::from(rate) * u64::from(seconds) }
    }

    /// Nanoseconds since the start.
    fn due(&self, message: u64) -> u64 {
        u64::try_from(u128::from(message) * 1_000_000_000 / u128::from(self.rate)).unwrap_or(u64::MAX)
    }

    /// When a message of a sender is due; `None` after the end of the schedule.
    pub(super) fn due_of(&self, sender: usize, counter: u64) -> Option<u64> {
        let message = counter * u64::from(self.senders) + sender as u64;
        (message < self.total).then(|| self.due(message))
    }
}

/// The thread. It ends with the schedule, or when this handle is dropped.
#[derive(Debug)]
pub(super) struct Pacer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Pacer {
    /// Starts the thread that wakes `senders` by `schedule`, counted from `start`.
    pub(super) fn start(schedule: Schedule, start: Instant, senders: Vec<Arc<Notify>>) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::Builder::new().name("pacer".into()).spawn(move || {
            for (message, sender) in (0..schedule.total).zip(senders.iter().cycle()) {
                let due = start + Duration::from_nanos(schedule.due(message));
                while let Some(left) =
                    due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
                {
                    if stopped.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::park_timeout(left);
                }
                sender.notify_one();
            }
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Pacer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn senders_alternate_and_every_message_has_a_due_time() {
        let schedule = Schedule::new(1_000, 3, 2);
        let mut times: Vec<u64> = (0..3)
            .flat_map(|sender| (0..).map_while(move |counter| schedule.due_of(sender, counter)))
            .collect();
        times.sort_unstable();
        let expected: Vec<u64> = (0..2_000).map(|message| message * 1_000_000).collect();
        assert_eq!(times, expected);
    }
}
