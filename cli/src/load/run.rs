//! The clock and the counters that all connections of a run share.

use super::{reconnects::Reconnects, report::Latency, servers::Servers};
use crate::args::LoadOptions;
use std::{
    cell::{Cell, RefCell},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// The shared state of a run. All connections run on one thread.
pub(super) struct Run {
    pub(super) servers: Servers,
    /// Size of a body.
    pub(super) body: usize,
    /// End of sending, in nanoseconds since the start.
    pub(super) until: u64,
    pub(super) start: Instant,
    start_unix_ms: u64,
    random: [u8; 4],
    pub(super) sent: Cell<u64>,
    pub(super) refused: Cell<u64>,
    pub(super) reconnects: RefCell<Reconnects>,
    /// The longest time in nanoseconds that a sender with due messages received no acknowledgement.
    pub(super) longest_pause: Cell<u64>,
    pub(super) acks: RefCell<Latency>,
    pub(super) receives: RefCell<Latency>,
    pub(super) last_received: Cell<u64>,
}

impl Run {
    pub(super) fn new(servers: &Servers, options: &LoadOptions) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            servers: servers.clone(),
            body: options.body as usize,
            until: u64::from(options.seconds) * 1_000_000_000,
            start: Instant::now(),
            start_unix_ms: u64::try_from(now.as_millis()).unwrap_or(0),
            random: rand::random(),
            sent: Cell::default(),
            refused: Cell::default(),
            reconnects: RefCell::default(),
            longest_pause: Cell::default(),
            acks: RefCell::default(),
            receives: RefCell::default(),
            last_received: Cell::default(),
        }
    }

    /// Nanoseconds since the start.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// The id of a message, the same in every attempt: a UUIDv7 with the time at which the message was due.
    pub(super) fn message_uuid(&self, sender: usize, counter: u64, due: u64) -> uuid::Uuid {
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&self.random);
        bytes[4..6].copy_from_slice(&(sender as u16).to_be_bytes());
        bytes[6..].copy_from_slice(&(counter as u32).to_be_bytes());
        uuid::Builder::from_unix_timestamp_millis(self.start_unix_ms + due / 1_000_000, &bytes).into_uuid()
    }

    /// Counts an acknowledgement; returns the current time.
    pub(super) fn acked(&self, due: u64) -> u64 {
        let now = self.now();
        self.acks.borrow_mut().record(now.saturating_sub(due));
        now
    }

    pub(super) fn received(&self, due: u64) {
        let now = self.now();
        self.last_received.set(now);
        self.receives.borrow_mut().record(now.saturating_sub(due));
    }

    pub(super) fn paused(&self, nanos: u64) {
        self.longest_pause.set(self.longest_pause.get().max(nanos));
    }

    pub(super) fn count_reconnect(&self) {
        self.reconnects.borrow_mut().count(Instant::now());
    }
}
