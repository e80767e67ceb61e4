//! The state of a raw device, across connections and restarts.

use super::{catch_up::CatchUp, read_positions::ReadPositions, send_queue::SendQueues};
use crate::workload::{
    command::{Command, SendJob, SettingsJob, SignalJob},
    device::{DeviceContext, Snapshots},
};
use client::{Connection, Error, Recovery, tokens::TokenSource as _};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{collections::VecDeque, time::Duration};
use tokio::time::{Instant, timeout};

/// Every third device has several messages of a conversation in flight.
const PIPELINING: u32 = 3;
/// The number of messages in flight on such a device.
const DEPTH: usize = 4;
/// Every sixth device sends all of them again at once after a lost connection, without waiting for answers in between.
const RESEND_TOGETHER: u32 = 2 * PIPELINING;
/// Longest wait for an answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait of a probe device for its connection.
const PROBE_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Time in which the server may still process a `hello` that the device has abandoned.
const LATE_HELLO: Duration = Duration::from_secs(120);

pub(super) struct RawDevice {
    pub(super) context: DeviceContext,
    pub(super) random: StdRng,
    pub(super) queues: SendQueues,
    pub(super) catch_up: CatchUp,
    pub(super) read_positions: ReadPositions,
    /// Acknowledged messages to send again, and when.
    pub(super) resends: VecDeque<(Instant, SendJob)>,
    /// Signals to send.
    pub(super) signals: VecDeque<SignalJob>,
    /// Changes of settings to request.
    pub(super) settings: VecDeque<SettingsJob>,
    pub(super) snapshots: Snapshots,
    /// When the device abandoned a `hello` without an answer.
    pub(super) abandoned_hello: Option<Instant>,
    /// An access token that the server rejected.
    expired: Option<String>,
}

impl RawDevice {
    pub(super) fn new(context: DeviceContext) -> Self {
        let depth = if context.id.is_multiple_of(PIPELINING) && !context.is_probe { DEPTH } else { 1 };
        Self {
            random: StdRng::seed_from_u64(context.seed),
            queues: SendQueues::new(depth, context.id.is_multiple_of(RESEND_TOGETHER)),
            catch_up: CatchUp::default(),
            read_positions: ReadPositions::default(),
            resends: VecDeque::new(),
            signals: VecDeque::new(),
            settings: VecDeque::new(),
            snapshots: Snapshots::new(context.seed),
            abandoned_hello: None,
            expired: None,
            context,
        }
    }

    /// Restarts the program with a saved state.
    pub(super) fn restart(&mut self) {
        let state = self.snapshots.load(self.catch_up.state());
        self.context.recorder.begin_incarnation(self.context.id, &state);
        self.catch_up = CatchUp::new(state);
    }

    /// Applies a command. Returns whether the program must restart.
    pub(super) fn apply(&mut self, command: Command) -> bool {
        match command {
            Command::Send(job) => self.queues.push(job),
            Command::Settings(job) => self.settings.push_back(job),
            Command::Signal(job) => self.signals.push_back(job),
            Command::Restart => return true,
            Command::Sleep(_) => {}
        }
        false
    }

    /// Whether the device's own abandoned `hello` may have replaced its connection.
    pub(super) fn may_have_replaced_itself(&mut self) -> bool {
        self.abandoned_hello.take().is_some_and(|at| at.elapsed() < LATE_HELLO)
    }

    pub(super) async fn open(&mut self) -> Result<Connection, Error> {
        let limit = if self.context.is_probe { PROBE_CONNECT_TIMEOUT } else { ANSWER_TIMEOUT };
        let opening = async {
            let token = self.context.tokens.token(self.expired.as_deref()).await?;
            let opened = Connection::open(&self.context.server, &token, self.catch_up.have()).await;
            self.expired = None;
            if let Err(error) = &opened
                && error.recovery() == Recovery::Refresh
            {
                self.expired = Some(token);
            }
            opened
        };
        timeout(limit, opening).await.unwrap_or(Err(Error::Timeout { what: "connecting" }))
    }
}
