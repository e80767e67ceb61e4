//! Parts that both implementations of devices share.

use super::{command::Command, recorder::Recorder};
use crate::ledger::DeviceId;
use client::{
    Error, Server, State,
    tokens::{SessionTokens, TokenSource},
};
use futures_util::future::BoxFuture;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Saved states that a device keeps.
const MAX_SNAPSHOTS: usize = 30;

/// Tokens of a device, shared by its successive clients.
#[derive(Clone, Debug)]
pub(super) struct SharedTokens(pub(super) Arc<SessionTokens>);

impl TokenSource for SharedTokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        self.0.token(rejected)
    }
}

/// Everything that the task of a device needs.
#[derive(Debug)]
pub(super) struct DeviceContext {
    pub(super) id: DeviceId,
    /// Seed of the device's random decisions, derived from the run's seed.
    pub(super) seed: u64,
    pub(super) recorder: Arc<Recorder>,
    /// The device's link to the gateways.
    pub(super) server: Server,
    pub(super) tokens: SharedTokens,
    pub(super) commands: mpsc::Receiver<Command>,
    /// Another raw device of the user, which sends copies of messages.
    pub(super) sibling: Option<(DeviceId, mpsc::Sender<Command>)>,
    /// The device only probes. It retries fast, to measure recovery times.
    pub(super) is_probe: bool,
    /// Cancelled at the end of the run.
    pub(super) stop: CancellationToken,
}

/// Saved states of a device.
#[derive(Debug)]
pub(super) struct Snapshots {
    states: VecDeque<State>,
    random: StdRng,
}

impl Snapshots {
    pub(super) fn new(seed: u64) -> Self {
        Self { states: VecDeque::new(), random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn save(&mut self, state: State) {
        self.states.push_back(state);
        if self.states.len() > MAX_SNAPSHOTS {
            self.states.pop_front();
        }
    }

    /// The state that a restarted program loads: `current` or, with probability 0.5, an older one.
    pub(super) fn load(&mut self, current: State) -> State {
        if self.states.is_empty() || self.random.random_bool(0.5) {
            return current;
        }
        let at = self.random.random_range(0..self.states.len());
        let state = self.states[at].clone();
        self.states.truncate(at + 1);
        state
    }
}
