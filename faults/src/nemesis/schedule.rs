//! Draws the faults of a run.

use crate::fault::{Breakable, Fault, Kind};
use rand::{Rng, RngExt as _, rngs::StdRng, seq::SliceRandom as _};
use std::collections::VecDeque;

/// Probability of a second fault while the first one lasts.
const OVERLAP: f64 = 0.3;

/// A shuffle bag: every kind is drawn once, in random order, before any is drawn again.
pub(super) struct Schedule {
    all: Vec<Kind>,
    remaining: VecDeque<Kind>,
}

impl Schedule {
    pub(super) fn new(all: Vec<Kind>) -> Self {
        Self { all, remaining: VecDeque::new() }
    }

    /// Draws one fault, or two that overlap.
    pub(super) fn draw(&mut self, system: &impl Breakable, rng: &mut StdRng) -> Vec<Fault> {
        let first = self.next(rng, |_| true);
        let second = rng
            .random_bool(OVERLAP)
            .then(|| self.next(rng, |kind| first.is_some_and(|first| first.may_overlap(kind))));
        let kinds = [first, second.flatten()].into_iter().flatten();
        kinds.map(|kind| Fault::draw(kind, system.instances(kind.part), rng)).collect()
    }

    /// The next kind that is allowed.
    pub(super) fn next(&mut self, rng: &mut impl Rng, allowed: impl Fn(Kind) -> bool) -> Option<Kind> {
        if self.remaining.is_empty() {
            self.all.shuffle(rng);
            self.remaining = self.all.iter().copied().collect();
        }
        let position = self.remaining.iter().position(|&kind| allowed(kind))?;
        self.remaining.remove(position)
    }
}
