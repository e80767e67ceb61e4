//! Fences, and how far they are complete.
//!
//! A run of a cache begins without the fences of the run before it. So the absence of a fence means something only once the run is
//! known to hold the fence of every removal in the partition that is not decided yet: its fences are *complete*.

use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// What a cache knows about the removal of a user from a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FenceState {
    /// No undecided removal of the user can be ahead of the message in the log.
    Clear,
    /// The user is being removed, or was removed recently.
    Fenced,
    /// The cache may have lost a fence of the partition.
    Unknown(Doubt),
}

/// A message that the log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The partition of the log that has the message.
    pub partition: i32,
    /// When the check began that its sender is a member. It came before the message was logged.
    pub checked: Instant,
}

/// Identifies the run of a cache that answered [`FenceState::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub(crate) run: u64,
    /// `None`: no process can have set a fence shortly before the run and log the removal in it.
    pub(crate) began: Option<Instant>,
}

impl Doubt {
    /// Whether a message was logged after every removal whose fence the run lacks.
    ///
    /// `log_time`: the longest time from the fence of a removal to its record in the log.
    pub fn is_before(&self, message: Logged, log_time: Duration) -> bool {
        self.began.is_none_or(|began| message.checked >= began + log_time)
    }
}

/// The partitions of an application whose fences are complete, or soon will be.
#[derive(Debug, Default)]
pub(crate) struct Partitions(HashMap<i32, Progress>);

#[derive(Clone, Copy, Debug)]
enum Progress {
    /// At this time the store had decided every removal whose fence the run lacks. The consumer that saved the removals may not have
    /// cached the members without the removed users yet.
    Decided(Instant),
    /// Since this time the cached members are without the removed users.
    Complete(Instant),
}

impl Partitions {
    /// Whether the fences were complete when the sender of a message was checked. A removed user cannot have passed the check since.
    pub(crate) fn cover(&self, message: Logged) -> bool {
        let progress = self.0.get(&message.partition);
        matches!(progress, Some(Progress::Complete(since)) if *since <= message.checked)
    }

    /// Whether the fences of a partition are complete now.
    #[cfg(feature = "redis")]
    pub(crate) fn are_complete(&self, partition: i32) -> bool {
        matches!(self.0.get(&partition), Some(Progress::Complete(_)))
    }

    /// Records that the fences of a partition are complete.
    pub(crate) fn complete(&mut self, partition: i32) {
        let progress = self.0.entry(partition).or_insert_with(|| Progress::Complete(Instant::now()));
        if let Progress::Decided(_) = progress {
            *progress = Progress::Complete(Instant::now());
        }
    }

    /// Records that the store has saved this copy of a message. Returns whether the fences became complete.
    ///
    /// One such message is not enough: the members are cached after the removal is saved. A consumer saves the records of a partition
    /// only after it has cached the members of all earlier ones. So a second message, sent after the first one was saved, is saved
    /// after the members are cached.
    pub(crate) fn saved(&mut self, message: Logged) -> bool {
        match self.0.get(&message.partition) {
            None => {
                self.0.insert(message.partition, Progress::Decided(Instant::now()));
                false
            }
            Some(Progress::Decided(at)) if message.checked > *at => {
                self.complete(message.partition);
                true
            }
            Some(_) => false,
        }
    }
}
