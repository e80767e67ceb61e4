//! Conversations with missing entries, and the pages of history requested for them.

use std::collections::{BTreeMap, VecDeque};

/// Pages of history in flight at a time.
const MAX_IN_FLIGHT: usize = 4;

#[derive(Clone, Debug, Default)]
#[cfg_attr(test, derive(PartialEq, Hash))]
pub(super) struct Gaps {
    gaps: BTreeMap<String, Gap>,
    /// Conversations in `gaps` without a request in flight.
    queue: VecDeque<String>,
    in_flight: usize,
}

#[derive(Clone, Debug)]
#[cfg_attr(test, derive(PartialEq, Hash))]
struct Gap {
    /// The highest conversation_seq known to exist.
    up_to: u64,
    /// The request in flight.
    requested: Option<Requested>,
}

/// A request for a page of history.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(test, derive(PartialEq, Hash))]
pub(super) struct Requested {
    /// The position at that time.
    pub(super) after: u64,
    /// The highest conversation_seq known at that time.
    up_to: u64,
}

impl Gaps {
    pub(super) fn is_empty(&self) -> bool {
        self.gaps.is_empty()
    }

    pub(super) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// The conversation has entries up to `up_to` that are not handed over yet.
    pub(super) fn add(&mut self, conversation: String, up_to: u64) {
        if let Some(gap) = self.gaps.get_mut(&conversation) {
            gap.up_to = gap.up_to.max(up_to);
        } else {
            self.queue.push_back(conversation.clone());
            self.gaps.insert(conversation, Gap { up_to, requested: None });
        }
    }

    /// The conversation to request a page of, and its position, unless [`MAX_IN_FLIGHT`] pages are in flight.
    pub(super) fn request_next(&mut self, positions: &BTreeMap<String, u64>) -> Option<(String, u64)> {
        if self.in_flight >= MAX_IN_FLIGHT {
            return None;
        }
        let conversation = self.queue.pop_front()?;
        let gap = self.gaps.get_mut(&conversation).expect("a queued conversation has a gap");
        let after = positions.get(&conversation).copied().unwrap_or(0);
        gap.requested = Some(Requested { after, up_to: gap.up_to });
        self.in_flight += 1;
        Some((conversation, after))
    }

    /// The request for a conversation was answered. Returns the request; `None` if there was none in flight.
    pub(super) fn answered(&mut self, conversation: &str) -> Option<Requested> {
        let requested = self.gaps.get_mut(conversation)?.requested.take()?;
        self.in_flight -= 1;
        Some(requested)
    }

    /// After a page: closes the gap, or queues its next page.
    pub(super) fn close_or_requeue(
        &mut self,
        conversation: &str,
        position: u64,
        requested: Requested,
        more: bool,
    ) {
        // A page requested before an entry was known may lack that entry.
        let is_open = |gap: &Gap| position < gap.up_to && (more || requested.up_to < gap.up_to);
        if self.gaps.get(conversation).is_some_and(is_open) {
            self.queue.push_back(conversation.to_owned());
        } else {
            self.gaps.remove(conversation);
        }
    }

    /// The request for a conversation failed.
    pub(super) fn failed(&mut self, conversation: &str, is_retryable: bool) {
        if self.answered(conversation).is_none() {
            return;
        }
        if is_retryable {
            self.queue.push_back(conversation.to_owned());
        } else {
            // The user can no longer read the conversation: no entry is left to fetch.
            self.gaps.remove(conversation);
        }
    }
}
