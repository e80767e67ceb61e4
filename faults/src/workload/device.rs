//! What every device has, whoever runs it.

use super::{Order, book::Book};
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

/// States that are kept to go back to.
const SNAPSHOTS: usize = 30;

/// Tokens that outlive a client.
#[derive(Clone, Debug)]
pub(super) struct Tokens(pub(super) Arc<SessionTokens>);

impl TokenSource for Tokens {
    fn token<'a>(&'a self, rejected: Option<&'a str>) -> BoxFuture<'a, Result<String, Error>> {
        self.0.token(rejected)
    }
}

/// Where a device sits: all that its program needs.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) id: DeviceId,
    /// Decides what is left to chance: of the run, and of this device.
    pub(super) seed: u64,
    pub(super) book: Arc<Book>,
    /// Its line.
    pub(super) server: Server,
    pub(super) tokens: Tokens,
    /// What it is told to do.
    pub(super) orders: mpsc::Receiver<Order>,
    /// For copies of a send, another device of the user that is run by hand.
    pub(super) sibling: Option<mpsc::Sender<Order>>,
    /// It is there to measure: it tries again fast.
    pub(super) probes: bool,
    /// The end of the run.
    pub(super) stop: CancellationToken,
}

/// Old states of a device.
#[derive(Debug)]
pub(super) struct Snapshots {
    kept: VecDeque<State>,
    random: StdRng,
}

impl Snapshots {
    pub(super) fn new(seed: u64) -> Self {
        Self { kept: VecDeque::new(), random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn keep(&mut self, state: State) {
        self.kept.push_back(state);
        if self.kept.len() > SNAPSHOTS {
            self.kept.pop_front();
        }
    }

    /// The state that a restarted program finds: the last one, or one that is a while old.
    pub(super) fn old(&mut self, now: State) -> State {
        if self.kept.is_empty() || self.random.random_bool(0.5) {
            return now;
        }
        let at = self.random.random_range(0..self.kept.len());
        let state = self.kept[at].clone();
        self.kept.truncate(at + 1);
        state
    }
}
