//! Fences of removals, and the partitions in which they are complete.

use super::generational_map::{GenerationalMap, Weigh};
use crate::fences::{Doubt, FenceState, Logged, Partitions};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// The fences of an application.
#[derive(Debug)]
pub(super) struct Fences {
    groups: GenerationalMap<Group>,
    partitions: Partitions,
    /// Fences were lost when this process began, which was before any removal of its own, and with each eviction. An eviction begins a
    /// new run.
    lost: Doubt,
}

/// The fences of a group, by user.
#[derive(Debug, Default)]
struct Group(HashMap<Box<str>, Fence>);

#[derive(Debug)]
struct Fence {
    /// The removals that are not decided yet.
    removals: Vec<Box<str>>,
    expires: Instant,
}

impl Weigh for Group {
    fn weight(&self) -> usize {
        self.0.values().map(|fence| fence.removals.len().max(1)).sum::<usize>().max(1)
    }

    fn is_needed(&self) -> bool {
        let now = Instant::now();
        self.0.values().any(|fence| fence.expires > now)
    }
}

impl Fences {
    pub(super) fn new(max: usize) -> Self {
        let lost = Doubt { run: 0, began: None };
        Self { groups: GenerationalMap::new(max), partitions: Partitions::default(), lost }
    }

    pub(super) fn set(&mut self, conversation: &str, users: &[&str], removal: &str, ttl: Duration) {
        let now = Instant::now();
        self.groups.update(conversation, Group::default, |group| {
            group.0.retain(|_, fence| fence.expires > now);
            for user in users {
                let new = || Fence { removals: Vec::new(), expires: now + ttl };
                let fence = group.0.entry((*user).into()).or_insert_with(new);
                fence.expires = fence.expires.max(now + ttl);
                if !fence.removals.iter().any(|known| **known == *removal) {
                    fence.removals.push(removal.into());
                }
            }
        });
        self.note_evictions();
    }

    pub(super) fn release(&mut self, conversation: &str, users: &[&str], removal: &str, ttl: Duration) {
        let now = Instant::now();
        if let Some(group) = self.groups.get_mut(conversation) {
            for user in users {
                let Some(fence) = group.0.get_mut(*user) else { continue };
                let before = fence.removals.len();
                fence.removals.retain(|known| **known != *removal);
                if fence.removals.is_empty() && before > 0 {
                    fence.expires = fence.expires.min(now + ttl);
                }
            }
        }
        self.note_evictions();
    }

    pub(super) fn state(&mut self, conversation: &str, user: &str, message: Logged) -> FenceState {
        let now = Instant::now();
        let fence = self.groups.get_mut(conversation).and_then(|group| group.0.get(user));
        let is_fenced = fence.is_some_and(|fence| fence.expires > now);
        self.note_evictions();
        match (is_fenced, self.partitions.cover(message)) {
            (true, _) => FenceState::Fenced,
            (false, true) => FenceState::Clear,
            (false, false) => FenceState::Unknown(self.lost),
        }
    }

    pub(super) fn saved(&mut self, message: Logged, doubt: Doubt) {
        if doubt == self.lost {
            self.partitions.saved(message);
        }
    }

    /// Begins a new run if a fence was evicted. Any access of the map may evict.
    fn note_evictions(&mut self) {
        let run = self.groups.evictions();
        if run != self.lost.run {
            self.lost = Doubt { run, began: Some(Instant::now()) };
            self.partitions = Partitions::default();
        }
    }
}
